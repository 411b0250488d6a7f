//! By what a stored row is found.

use unskew_core::digest::Digest;
use unskew_core::view::View;

/// A view's rows under one meaning: a project, a view and its view digest.
///
/// Rows of another digest are other rows, so that a row is only ever served under the meaning with
/// which it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewKey {
    /// The project.
    pub project: String,
    /// The view's own name, never an alias.
    pub view: String,
    /// The view digest.
    pub digest: Digest,
}

impl ViewKey {
    /// The key of `view` in `project`.
    pub fn of(project: &str, view: &View) -> Self {
        Self {
            project: project.to_owned(),
            view: view.name.clone(),
            digest: view.digest(),
        }
    }
}
