//! A registry in a folder, and the states in it.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use unskew_core::digest::Digest;
use unskew_core::project::Project;

use crate::durable;
use crate::error::RegistryError;

/// The version of a state's form.
const FORMAT: u32 = 1;

/// What was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The version of this form.
    format: u32,
    /// Counts from 1; each `apply` that changes something adds one.
    pub number: u64,
    /// The version of Unskew that wrote it.
    pub written_by: String,
    /// All definitions, resolved.
    pub project: Project,
}

/// A registry in a folder. Its methods block, for as long as small files take.
#[derive(Clone, Debug)]
pub struct Registry {
    states: PathBuf,
    components: PathBuf,
}

impl Registry {
    /// The registry in `folder`, which need not be there before something is committed.
    ///
    /// # Errors
    /// The current folder, to which a relative path belongs, is not there.
    pub fn open(folder: &Path) -> Result<Self, RegistryError> {
        let folder = std::path::absolute(folder).map_err(|source| RegistryError::Folder {
            place: folder.display().to_string(),
            source,
        })?;
        Ok(Self {
            states: folder.join("states"),
            components: folder.join("components"),
        })
    }

    /// The current state, or `None` if nothing was applied yet.
    ///
    /// # Errors
    /// It cannot be read, or was written in a newer form.
    pub fn current(&self) -> Result<Option<State>, RegistryError> {
        self.latest(u64::MAX)
    }

    /// The state that was current before the one with this number.
    ///
    /// # Errors
    /// As [`Self::current`].
    pub fn before(&self, number: u64) -> Result<Option<State>, RegistryError> {
        number
            .checked_sub(1)
            .map_or(Ok(None), |greatest| self.latest(greatest))
    }

    /// The state with the greatest number that is not above `greatest`.
    fn latest(&self, greatest: u64) -> Result<Option<State>, RegistryError> {
        let number = self
            .latest_number(greatest)
            .map_err(failed("read", &self.states))?;
        let Some(number) = number else {
            return Ok(None);
        };
        let file = self.states.join(state_name(number));
        let bytes = std::fs::read(&file).map_err(failed("read", &file))?;
        let damaged = |message: String| damaged(&file, message);
        let value: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => {
                return Err(damaged(format!(
                    "it is of form {format}, and this version reads form {FORMAT}; take the \
                     version of unskew that wrote it"
                )));
            }
            None => return Err(damaged("it has no `format`".to_owned())),
        }
        let state: State =
            serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        if state.number != number {
            return Err(damaged(format!("it is state {}", state.number)));
        }
        Ok(Some(state))
    }

    /// Replaces the state `base` (`None`: nothing was applied yet) by one of `project` that names
    /// `components`.
    ///
    /// # Errors
    /// [`RegistryError::Conflict`] if `base` is not the current state any more; nothing has changed
    /// then.
    pub fn commit(
        &self,
        base: Option<&State>,
        project: &Project,
        components: &[Bytes],
    ) -> Result<State, RegistryError> {
        self.restore(components)?;
        let state = State {
            format: FORMAT,
            // After the greatest number comes itself, which is taken.
            number: base.map_or(0, |state| state.number).saturating_add(1),
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            project: project.clone(),
        };
        let name = state_name(state.number);
        let file = self.states.join(&name);
        let json = serde_json::to_vec_pretty(&state)
            .map_err(|error| failed("write", &file)(error.into()))?;
        let create = || {
            if self.components.is_dir() {
                // A component may have been written by another who is still about to do that.
                durable::synchronize(&self.components)?;
            }
            durable::make_folder(&self.states)?;
            durable::create(&self.states, &name, &json)
        };
        match create() {
            Ok(()) => Ok(state),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(RegistryError::Conflict {
                    number: state.number,
                })
            }
            Err(error) => Err(failed("write", &file)(error)),
        }
    }

    /// Writes those of `components` that are missing or damaged.
    ///
    /// # Errors
    /// A component's file cannot be read or written.
    pub fn restore(&self, components: &[Bytes]) -> Result<(), RegistryError> {
        for component in components {
            let digest = Digest::of(component);
            let name = component_name(&digest);
            let file = self.components.join(&name);
            match std::fs::read(&file) {
                Ok(held) if Digest::of(&held) == digest => continue,
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(failed("read", &file)(error));
                }
                _ => {}
            }
            durable::make_folder(&self.components)
                .and_then(|()| durable::replace(&self.components, &name, component))
                .map_err(failed("write", &file))?;
        }
        Ok(())
    }

    /// The component with this digest.
    ///
    /// # Errors
    /// It is not there, or not what its name says.
    pub fn component(&self, digest: &Digest) -> Result<Bytes, RegistryError> {
        let file = self.components.join(component_name(digest));
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(damaged(&file, "it is missing; apply again".to_owned()));
            }
            Err(error) => return Err(failed("read", &file)(error)),
        };
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(damaged(
                &file,
                format!("its digest is {found}; apply again"),
            ));
        }
        Ok(bytes.into())
    }

    /// The greatest number of a state that is not above `greatest`.
    fn latest_number(&self, greatest: u64) -> io::Result<Option<u64>> {
        let entries = match std::fs::read_dir(&self.states) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        let mut latest = None;
        for entry in entries {
            let number = state_number(&entry?.file_name());
            latest = latest.max(number.filter(|number| *number <= greatest));
        }
        Ok(latest)
    }
}

/// The name of a state's file: numbers have as many digits as the greatest, so that a listing is in
/// their order.
fn state_name(number: u64) -> String {
    format!("{number:020}.json")
}

/// The number of the state in a file of this name; `None` if it holds none.
fn state_number(name: &OsStr) -> Option<u64> {
    let name = name.to_str()?;
    let number = name.strip_suffix(".json")?.parse().ok()?;
    (state_name(number) == name).then_some(number)
}

fn component_name(digest: &Digest) -> String {
    format!("{}.wasm", digest.hex())
}

fn failed(action: &'static str, file: &Path) -> impl Fn(io::Error) -> RegistryError {
    move |source| RegistryError::File {
        action,
        file: file.display().to_string(),
        source,
    }
}

fn damaged(file: &Path, message: String) -> RegistryError {
    RegistryError::Damaged {
        file: file.display().to_string(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(name: &str) -> Project {
        Project {
            name: name.to_owned(),
            ..Project::default()
        }
    }

    const COMPONENT: Bytes = Bytes::from_static(b"component");

    /// The folder of a registry with one state, which names [`COMPONENT`].
    fn applied() -> (tempfile::TempDir, Registry, State) {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path()).unwrap();
        let state = registry.commit(None, &project("a"), &[COMPONENT]).unwrap();
        (folder, registry, state)
    }

    #[test]
    fn a_state_is_read_back_and_the_next_replaces_it() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(&folder.path().join("new/registry")).unwrap();
        assert_eq!(registry.current().unwrap(), None);
        let first = registry.commit(None, &project("a"), &[COMPONENT]).unwrap();
        assert_eq!(registry.current().unwrap().as_ref(), Some(&first));
        let second = registry.commit(Some(&first), &project("b"), &[]).unwrap();
        assert_eq!(
            registry.before(second.number).unwrap().as_ref(),
            Some(&first)
        );
        assert_eq!(registry.before(first.number).unwrap(), None);
        assert_eq!(registry.current().unwrap(), Some(second));
        let digest = Digest::of(&COMPONENT);
        assert_eq!(registry.component(&digest).unwrap(), COMPONENT);
    }

    #[test]
    fn of_commits_on_one_base_all_but_one_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry");
        let commit = |i| {
            let registry = Registry::open(&path)?;
            registry.commit(None, &project(&format!("p{i}")), &[COMPONENT])
        };
        let mut done = Vec::new();
        std::thread::scope(|scope| {
            let commits: Vec<_> = (0..8).map(|i| scope.spawn(move || commit(i))).collect();
            for commit in commits {
                match commit.join().unwrap() {
                    Ok(state) => done.push(state),
                    Err(error) => assert!(
                        matches!(error, RegistryError::Conflict { number: 1 }),
                        "{error}"
                    ),
                }
            }
        });
        assert_eq!(done.len(), 1);
        let registry = Registry::open(&path).unwrap();
        assert_eq!(registry.current().unwrap(), done.pop());
        // Nothing is left beside them.
        assert_eq!(registry.states.read_dir().unwrap().count(), 1);
        assert_eq!(registry.components.read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_no_state_does_not_count() {
        let (_folder, registry, state) = applied();
        // What a crash leaves, what a person keeps, and what is no number.
        for name in [
            ".tmpAb12Cd".to_owned(),
            format!("{}.bak", state_name(2)),
            format!("{:019}.json", 2),
            format!("{:021}.json", 2),
            format!("+{:019}.json", 2),
            format!("{}.json", "9".repeat(20)),
            format!("{}.JSON", "0".repeat(20)),
        ] {
            std::fs::write(registry.states.join(name), b"{").unwrap();
        }
        assert_eq!(registry.current().unwrap().as_ref(), Some(&state));
        let next = registry.commit(Some(&state), &project("b"), &[]).unwrap();
        assert_eq!(next.number, 2);
    }

    #[test]
    fn damage_is_named() {
        let (_folder, registry, _) = applied();
        let file = registry.states.join(state_name(1));
        let two = std::fs::read_to_string(&file)
            .unwrap()
            .replace("\"number\": 1", "\"number\": 2");
        for (text, part) in [
            (r#"{"format": 9}"#, "form 9"),
            ("{}", "no `format`"),
            ("", "damaged"),
            (two.as_str(), "it is state 2"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = registry.current().unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains("0001.json"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_component_that_is_damaged_or_missing_is_restored() {
        let (_folder, registry, _) = applied();
        let digest = Digest::of(&COMPONENT);
        let file = registry.components.join(component_name(&digest));
        let damage: [&dyn Fn(); 4] = [
            &|| std::fs::write(&file, b"other").unwrap(),
            &|| std::fs::write(&file, b"").unwrap(),
            &|| std::fs::remove_file(&file).unwrap(),
            &|| std::fs::remove_dir_all(&registry.components).unwrap(),
        ];
        for damage in damage {
            damage();
            let error = registry.component(&digest).unwrap_err().to_string();
            assert!(
                error.contains(&digest.hex()) && error.contains("apply again"),
                "{error}"
            );
            registry.restore(&[COMPONENT]).unwrap();
            assert_eq!(registry.component(&digest).unwrap(), COMPONENT);
        }
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_the_umask_lets_them() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, registry, _) = applied();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        std::fs::write(folder.path().join("ordinary"), b"").unwrap();
        assert_eq!(
            mode(&registry.states.join(state_name(1))),
            mode(&folder.path().join("ordinary"))
        );
    }
}
