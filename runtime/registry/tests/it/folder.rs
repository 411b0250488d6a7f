//! A registry in a folder.

use crate::lab::Lab;

#[cfg(unix)]
#[tokio::test]
async fn others_may_read_what_the_umask_lets_them() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::folder();
    lab.applied().await;
    let mode = |path: std::path::PathBuf| path.metadata().unwrap().permissions().mode();
    std::fs::write(lab.root.join("ordinary"), b"").unwrap();
    assert_eq!(
        mode(lab.path(&crate::lab::state_file(1))),
        mode(lab.root.join("ordinary"))
    );
}

#[tokio::test]
async fn a_folder_of_components_that_is_gone_is_made_anew() {
    let lab = Lab::folder();
    let (registry, state) = lab.applied().await;
    std::fs::remove_dir_all(lab.path("components")).unwrap();
    let project = crate::lab::project("b");
    let next = registry.commit(Some(&state), &project, &[]).await.unwrap();
    let component = [crate::lab::COMPONENT];
    registry
        .commit(Some(&next), &project, &component)
        .await
        .unwrap();
    assert_eq!(lab.files("components").await.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_a_folder_is_named() {
    let lab = Lab::folder();
    std::fs::write(lab.root.join("new"), b"a file").unwrap();
    let registry = lab.registry();
    let error = registry.commit(None, &crate::lab::project("a"), &[]).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("cannot write") && error.contains("new/registry/states"),
        "{error}"
    );
    assert!(registry.current().await.is_err());
}
