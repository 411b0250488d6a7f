//! What holds wherever a registry lies.

use std::collections::BTreeMap;

use bytes::Bytes;
use unskew_core::digest::Digest;
use unskew_registry::RegistryError;

use crate::lab::{COMPONENT, Lab, everywhere, grow, project, state_file};

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_read_back_and_the_next_replaces_it() {
    everywhere(async |lab: Lab| {
        let registry = lab.registry();
        assert_eq!(registry.current().await.unwrap(), None);
        assert_eq!(registry.newest().await.unwrap(), None);
        assert_eq!(registry.newest_after(0).await.unwrap(), 0);
        let (_, first) = lab.applied().await;
        assert_eq!(registry.current().await.unwrap().as_ref(), Some(&first));
        let second = registry.commit(Some(&first), &project("b"), &[]).await;
        let second = second.unwrap();
        assert_eq!((first.number, second.number), (1, 2));
        // Whoever else opens it.
        let registry = lab.registry();
        let before = registry.before(second.number).await.unwrap();
        assert_eq!(before.as_ref(), Some(&first));
        assert_eq!(registry.before(first.number).await.unwrap(), None);
        assert_eq!(registry.before(0).await.unwrap(), None);
        assert_eq!(registry.current().await.unwrap(), Some(second));
        assert_eq!(registry.newest().await.unwrap(), Some(2));
        let digest = Digest::of(&COMPONENT);
        assert_eq!(registry.component(&digest).await.unwrap(), COMPONENT);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_commits_on_one_base_all_but_one_are_refused() {
    everywhere(async |lab: Lab| {
        // Some of them are equal: even then one of them alone is the one that was done.
        let commits: Vec<_> = (0..8)
            .map(|i| {
                let registry = lab.registry();
                tokio::spawn(async move {
                    let project = project(&format!("p{}", i / 2));
                    registry.commit(None, &project, &[COMPONENT]).await
                })
            })
            .collect();
        let mut done = Vec::new();
        for commit in commits {
            match commit.await.unwrap() {
                Ok(state) => done.push(state),
                Err(error) => assert!(
                    matches!(error, RegistryError::Conflict { number: 1 }),
                    "{error}"
                ),
            }
        }
        assert_eq!(done.len(), 1, "{}", lab.place);
        assert_eq!(lab.registry().current().await.unwrap(), done.pop());
        // Nothing is left beside them.
        assert_eq!(lab.files("states").await.len(), 1);
        assert_eq!(lab.files("components").await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_that_start_over_none_loses_a_state() {
    const WRITERS: usize = 8;
    const EACH: usize = 3;
    everywhere(async |lab: Lab| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let registry = lab.registry();
                tokio::spawn(async move {
                    let mut written = Vec::new();
                    while written.len() < EACH {
                        let base = registry.current().await.unwrap();
                        let name = format!("w{writer}_{}", written.len());
                        let component = Bytes::from(name.clone());
                        let project = project(&name);
                        match registry.commit(base.as_ref(), &project, &[component]).await {
                            Ok(state) => written.push((state.number, name)),
                            Err(RegistryError::Conflict { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    written
                })
            })
            .collect();
        let mut written = BTreeMap::new();
        for writer in writers {
            written.extend(writer.await.unwrap());
        }
        let numbers: Vec<u64> = written.keys().copied().collect();
        let all: Vec<u64> = (1..=(WRITERS * EACH) as u64).collect();
        assert_eq!(numbers, all, "{}", lab.place);
        // Each state is that of the writer who was told so, and its component is there.
        let registry = lab.registry();
        for (number, name) in written {
            let state = registry.before(number + 1).await.unwrap().unwrap();
            assert_eq!((state.number, &state.project.name), (number, &name));
            let digest = Digest::of(name.as_bytes());
            assert_eq!(registry.component(&digest).await.unwrap(), name.as_bytes());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_newer_is_found_however_much_it_is_and_whatever_was_removed() {
    everywhere(async |lab: Lab| {
        let registry = lab.registry();
        let last = grow(&registry, 21).await.unwrap();
        for known in [0, 1, 12, 20, 21] {
            assert_eq!(registry.newest_after(known).await.unwrap(), 21, "{known}");
        }
        // What is known is not taken back.
        assert_eq!(registry.newest_after(30).await.unwrap(), 30);
        assert_eq!(registry.newest_after(u64::MAX).await.unwrap(), u64::MAX);
        for number in 1..20 {
            lab.remove(&state_file(number)).await;
        }
        assert_eq!(registry.newest().await.unwrap(), Some(21));
        assert_eq!(registry.newest_after(0).await.unwrap(), 21);
        assert_eq!(registry.current().await.unwrap(), Some(last));
        let before = registry.before(21).await.unwrap();
        assert_eq!(before.unwrap().number, 20);
        lab.remove(&state_file(20)).await;
        assert_eq!(registry.before(21).await.unwrap(), None);
        // Who was away while much was applied and removed finds the newest all the same.
        for known in [1, 12, 19, 20, 21] {
            assert_eq!(registry.newest_after(known).await.unwrap(), 21, "{known}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_state_does_not_count() {
    everywhere(async |lab: Lab| {
        let (registry, state) = lab.applied().await;
        // What a crash leaves, what a person keeps, and what is no number.
        for name in [
            ".tmpAb12Cd".to_owned(),
            format!("{:020}.json.bak", 2),
            format!("{:019}.json", 2),
            format!("{:021}.json", 2),
            format!("+{:019}.json", 2),
            format!("{}.json", "9".repeat(20)),
            format!("{}.JSON", "0".repeat(20)),
            format!("old/{:020}.json", 2),
        ] {
            lab.put(&format!("states/{name}"), "{").await;
        }
        assert_eq!(registry.current().await.unwrap().as_ref(), Some(&state));
        let next = registry.commit(Some(&state), &project("b"), &[]).await;
        assert_eq!(next.unwrap().number, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named() {
    everywhere(async |lab: Lab| {
        let (registry, _) = lab.applied().await;
        let file = state_file(1);
        let text = String::from_utf8(lab.get(&file).await.to_vec()).unwrap();
        let two = text.replace("\"number\": 1", "\"number\": 2");
        assert_ne!(two, text);
        for (text, part) in [
            (r#"{"format": 9}"#, "form 9"),
            ("{}", "no `format`"),
            ("", "damaged"),
            (two.as_str(), "it is state 2"),
        ] {
            lab.put(&file, text.to_owned()).await;
            for error in [registry.current().await, registry.before(2).await] {
                let error = error.unwrap_err().to_string();
                let named = error.contains(&lab.place) && error.contains(&file);
                assert!(error.contains(part) && named, "{error}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_is_damaged_or_missing_is_restored() {
    everywhere(async |lab: Lab| {
        let (registry, state) = lab.applied().await;
        let digest = Digest::of(&COMPONENT);
        let file = format!("components/{}.wasm", digest.hex());
        for damage in [Some("other"), Some("different"), Some(""), None] {
            match damage {
                Some(text) => lab.put(&file, text).await,
                None => lab.remove(&file).await,
            }
            let error = registry.component(&digest).await.unwrap_err().to_string();
            assert!(
                error.contains(&file) && error.contains("apply again"),
                "{error}"
            );
            registry.restore(&[COMPONENT]).await.unwrap();
            assert_eq!(registry.component(&digest).await.unwrap(), COMPONENT);
        }
        lab.put(&file, "other").await;
        let (project, components) = (project("b"), [COMPONENT]);
        let next = registry.commit(Some(&state), &project, &components);
        next.await.unwrap();
        assert_eq!(registry.component(&digest).await.unwrap(), COMPONENT);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn components_come_in_the_order_in_which_they_are_asked_for() {
    everywhere(async |lab: Lab| {
        let registry = lab.registry();
        let components: Vec<Bytes> = (0..20).map(|i| Bytes::from(vec![i; 1_000])).collect();
        registry.restore(&components).await.unwrap();
        let digests: Vec<Digest> = components.iter().map(|it| Digest::of(it)).collect();
        let found = registry.components(digests.clone()).await.unwrap();
        let expected: Vec<_> = digests.iter().copied().zip(components).collect();
        assert_eq!(found, expected);
        lab.remove(&format!("components/{}.wasm", digests[7].hex()))
            .await;
        let error = registry.components(digests.clone()).await.unwrap_err();
        assert!(error.to_string().contains(&digests[7].hex()), "{error}");
    })
    .await;
}
