//! What can go wrong, each with what was found, where, and what would be valid.

use std::fmt;
use std::io;
use std::path::PathBuf;

use unskew_core::component::{Description, Kind};
use unskew_core::digest::Digest;
use unskew_core::text;
use unskew_core::types::DataType;
use unskew_core::values::ValueError;

/// Why no engine could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A setting has a value that it cannot have.
    #[error("the engine's setting `{name}` is {found}; it must be {valid}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// Its value.
        found: String,
        /// What would be valid.
        valid: &'static str,
    },
    /// The folder of compiled code cannot be used.
    #[error("the folder of compiled components {} cannot be used: {source}", path.display())]
    Cache {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can write to the folder of compiled code.
    #[error(
        "the folder of compiled components {} belongs to another user, who could put code into it; \
         choose one that is yours",
        path.display()
    )]
    CacheOfAnother {
        /// The folder.
        path: PathBuf,
    },
    /// The thread that interrupts components cannot be started.
    #[error("the thread that interrupts components could not be started: {0}")]
    Thread(#[source] io::Error),
    /// wasmtime refuses its configuration.
    #[error("wasmtime could not be started: {0}")]
    Wasmtime(String),
}

/// Why a component was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes are no WebAssembly at all.
    #[error(
        "this is no WebAssembly component: it begins with {found}, not with `\\0asm`; \
         `unskew transform build` makes one"
    )]
    NotWasm {
        /// The first bytes, for a person.
        found: String,
    },
    /// A core module.
    #[error(
        "this is a WebAssembly module and no component; `unskew transform build` makes a component"
    )]
    Module,
    /// It does not compile.
    #[error("the component {digest} does not compile: {message}")]
    Compile {
        /// Which.
        digest: Digest,
        /// What the compiler says.
        message: String,
    },
    /// It imports something.
    #[error(
        "the component {digest} imports {}; a transformation may import nothing: no clock, no \
         random numbers, no environment, no network",
        text::list(imports.iter().map(|name| format!("`{name}`")))
    )]
    Imports {
        /// Which.
        digest: Digest,
        /// The imports.
        imports: Vec<String>,
    },
    /// It exports no transformation.
    #[error(
        "the component {digest} does not export `{}`; it exports {}",
        crate::engine::INTERFACE,
        text::list(exports.iter().map(|name| format!("`{name}`")))
    )]
    NoTransformation {
        /// Which.
        digest: Digest,
        /// What it exports.
        exports: Vec<String>,
    },
    /// Its export has another shape than the contract.
    #[error(
        "the component {digest} exports `{}`, but not as the contract has it: {message}",
        crate::engine::INTERFACE
    )]
    Contract {
        /// Which.
        digest: Digest,
        /// The difference.
        message: String,
    },
    /// It needs more than an instance has.
    #[error("the component {digest} needs {needs}; at most {limit}")]
    Resources {
        /// Which.
        digest: Digest,
        /// What it needs.
        needs: String,
        /// What there is.
        limit: String,
    },
    /// It could not be instantiated, or its `describe` failed.
    #[error("the component {digest} cannot describe itself: {error}")]
    Describe {
        /// Which.
        digest: Digest,
        /// What happened.
        error: CallError,
    },
    /// What it says about itself is not valid.
    #[error("the component {digest} describes itself wrongly: {message}")]
    Description {
        /// Which.
        digest: Digest,
        /// What is wrong, and what would be valid.
        message: String,
    },
}

/// What kind of thing went wrong in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallErrorKind {
    /// The author's function returned a failure.
    Failed,
    /// It panicked, and left a message.
    Panicked,
    /// It ended in a trap without a message.
    Trapped,
    /// It used up the memory.
    Memory,
    /// It used up the time.
    Time,
    /// It used up a moment, and was to take no longer; see
    /// [`Evaluator::evaluate_briefly`](crate::Evaluator::evaluate_briefly) and
    /// [`Evaluator::evaluate_together`](crate::Evaluator::evaluate_together).
    Moment,
    /// It returned more than may be returned.
    ResultSpace,
    /// It returned what the contract does not allow.
    Contract,
    /// The host gave it rows that it does not take; not the component's fault.
    Input,
}

impl CallErrorKind {
    /// Whether a call of fewer rows might have had enough of what this one ran out of.
    pub const fn is_exhaustion(self) -> bool {
        matches!(self, Self::Memory | Self::Time | Self::ResultSpace)
    }
}

/// Why a call of a component gave no rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// What kind of thing went wrong.
    pub kind: CallErrorKind,
    /// The row of the call that the component, or what it left in its memory, says is at fault. A
    /// component may be wrong about it.
    pub row: Option<usize>,
    /// The guest's own message, or what happened in plain words.
    pub message: String,
}

impl CallError {
    pub(crate) fn new(kind: CallErrorKind, row: Option<usize>, message: impl Into<String>) -> Self {
        Self {
            kind,
            row,
            message: message.into(),
        }
    }

    pub(crate) fn contract(row: Option<usize>, message: impl Into<String>) -> Self {
        Self::new(CallErrorKind::Contract, row, message)
    }

    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::new(CallErrorKind::Input, None, message)
    }
}

/// A component's failure, with where it came from.
///
/// ```text
/// transformation `route` (route 0.1.0, function `route`) failed on row 17: no such airport
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The name of the transformation's definition, where it runs under one.
    pub transformation: Option<String>,
    /// The component: its author's package.
    pub component: String,
    /// The component's version.
    pub version: String,
    /// The function that it runs.
    pub function: String,
    /// The row, counted from 0 in the rows that were given; `None` if no single row is at fault.
    pub row: Option<usize>,
    /// What kind of thing went wrong.
    pub kind: CallErrorKind,
    /// The guest's own message, or what happened in plain words.
    pub message: String,
}

impl Failure {
    pub(crate) fn new(description: &Description, row: Option<usize>, error: &CallError) -> Self {
        Self {
            transformation: None,
            component: description.component.clone(),
            version: description.version.clone(),
            function: description.function.clone(),
            row,
            kind: error.kind,
            message: error.message.clone(),
        }
    }

    /// The same failure, of the transformation called `name`.
    #[must_use]
    pub fn of_transformation(mut self, name: &str) -> Self {
        self.transformation = Some(name.to_owned());
        self
    }

    /// The same failure, its row counted from `offset` rows before.
    #[must_use]
    pub fn shifted(mut self, offset: usize) -> Self {
        self.row = self.row.map(|row| row + offset);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.transformation {
            write!(f, "transformation `{name}` ")?;
        } else {
            f.write_str("component ")?;
        }
        write!(
            f,
            "({} {}, function `{}`) failed",
            self.component, self.version, self.function
        )?;
        if let Some(row) = self.row {
            write!(f, " on row {row}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Failure {}

/// Why a component may not be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A row's result depends on the rows around it.
    #[error(transparent)]
    Dependent(Box<Dependence>),
    /// Too many of the generated rows take too long.
    #[error(
        "component {provenance}: more than {limit} different rows of those generated from its input \
         types {message} each, so it could not be verified; one of them: {inputs}"
    )]
    TooSlow {
        /// Component, version, function.
        provenance: String,
        /// How many were waited for.
        limit: usize,
        /// The last one's inputs.
        inputs: String,
        /// How long it took.
        message: String,
    },
    /// The generated rows could not be made or compared.
    #[error("component {provenance} could not be verified: {message}")]
    Impossible {
        /// Component, version, function.
        provenance: String,
        /// Why.
        message: String,
    },
}

/// A row whose result depends on the rows around it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "component {provenance}: {property} rows changes a row's result, so training and serving would \
     disagree; the row: {inputs}; its result alone: {alone}; its result {circumstance}: {together}"
)]
pub struct Dependence {
    /// Component, version, function.
    pub provenance: String,
    /// `splitting`, `reordering` or `repeating`.
    pub property: &'static str,
    /// The row's inputs.
    pub inputs: String,
    /// Its result when it is the only row.
    pub alone: String,
    /// Among which rows it was then.
    pub circumstance: String,
    /// Its result among them.
    pub together: String,
}

/// Why no evaluator could be made of a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluatorError {
    /// The plan is of another version.
    #[error(
        "the plan {} has semantics {found}, this version evaluates {wanted}; \
         apply the feature repository again",
        service(name.as_deref())
    )]
    Semantics {
        /// The service.
        name: Option<String>,
        /// The plan's.
        found: u32,
        /// This version's.
        wanted: u32,
    },
    /// A component of the plan was not given.
    #[error("transformation `{transformation}`: its component {digest} is not loaded")]
    NoComponent {
        /// The step.
        transformation: String,
        /// The component's digest.
        digest: Digest,
    },
    /// A component is not what the plan says.
    #[error(
        "transformation `{transformation}`: the component {digest} describes itself otherwise \
         than the plan does; apply the feature repository again"
    )]
    Description {
        /// The step.
        transformation: String,
        /// The component's digest.
        digest: Digest,
    },
    /// A batch component in a place for an on-demand one.
    #[error(
        "transformation `{transformation}`: its component is of kind {found}; it must be {wanted}"
    )]
    Kind {
        /// The step.
        transformation: String,
        /// The component's kind.
        found: Kind,
        /// What its place wants.
        wanted: Kind,
    },
    /// An input is bound to something of a type that does not widen to its own.
    #[error(
        "transformation `{transformation}`: its input `{input}` is {wanted} and is bound to {found}"
    )]
    InputType {
        /// The step.
        transformation: String,
        /// The input.
        input: String,
        /// The type of what it is bound to.
        found: DataType,
        /// Its own type.
        wanted: DataType,
    },
    /// A constant or a default is no value of the input's type.
    #[error("transformation `{transformation}`: the {what} of its input `{input}`: {error}")]
    Literal {
        /// The step.
        transformation: String,
        /// The input.
        input: String,
        /// `value` or `default`.
        what: &'static str,
        /// Why.
        error: Box<ValueError>,
    },
    /// Indices of the plan that lead nowhere.
    #[error("the plan {} is damaged: {what}", service(name.as_deref()))]
    Damaged {
        /// The service.
        name: Option<String>,
        /// What does not fit.
        what: String,
    },
}

fn service(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("of feature service `{name}`"),
        None => "without a service".to_owned(),
    }
}

/// Why a joined batch could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// A component failed, under `on_error: fail`.
    #[error(transparent)]
    Failure(Box<Failure>),
    /// The batch is no joined batch of the plan.
    #[error("the joined batch does not fit the plan: {0}")]
    Joined(String),
    /// A value does not fit the input to which it is bound.
    #[error("transformation `{transformation}`: its input `{input}`: {error}")]
    Value {
        /// The step.
        transformation: String,
        /// The input.
        input: String,
        /// Which row and value.
        error: Box<ValueError>,
    },
    /// A column grew beyond what one batch holds.
    #[error("the batch is too large to evaluate at once: {0}; evaluate fewer rows at a time")]
    TooLarge(String),
}

impl EvaluateError {
    /// The row of the joined batch at fault, if one is.
    pub fn row(&self) -> Option<usize> {
        match self {
            Self::Failure(failure) => failure.row,
            Self::Value { error, .. } => Some(error.row),
            Self::Joined(_) | Self::TooLarge(_) => None,
        }
    }

    /// The same error, its row counted from `offset` rows before.
    #[must_use]
    pub fn shifted(self, offset: usize) -> Self {
        match self {
            Self::Failure(failure) => Self::Failure(Box::new(failure.shifted(offset))),
            Self::Value {
                transformation,
                input,
                mut error,
            } => {
                error.row += offset;
                Self::Value {
                    transformation,
                    input,
                    error,
                }
            }
            other => other,
        }
    }
}

impl From<Failure> for EvaluateError {
    fn from(failure: Failure) -> Self {
        Self::Failure(Box::new(failure))
    }
}

/// Why the rows of a view cannot be made at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewRunnerError {
    /// The view has a batch transformation, and its component was not given.
    #[error(
        "feature view `{view}`: the component {digest} of its batch transformation is not loaded"
    )]
    NoComponent {
        /// The view.
        view: String,
        /// The component's digest.
        digest: Digest,
    },
    /// The component is not what the view says, or does not give what the view needs.
    #[error("feature view `{view}`: {message}")]
    Component {
        /// The view.
        view: String,
        /// What does not fit.
        message: String,
    },
}

/// Why rows of a source gave no rows of a view.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewRowsError {
    /// A column that the view needs is not in the batch.
    #[error(
        "feature view `{view}` needs the column `{column}`; there are {}",
        text::list(columns)
    )]
    NoColumn {
        /// The view.
        view: String,
        /// The column.
        column: String,
        /// The columns that there are.
        columns: Vec<String>,
    },
    /// A value is none of the type that the view, or its transformation, has for the column.
    #[error("feature view `{view}`, column `{column}`: {error}")]
    Value {
        /// The view.
        view: String,
        /// The column of the source, or the output of the transformation.
        column: String,
        /// Which row and value. The row is the source's.
        error: Box<ValueError>,
    },
    /// The component failed, under `on_error: fail`.
    #[error("feature view `{view}`: {failure}")]
    Failure {
        /// The view.
        view: String,
        /// What happened. The row is the source's.
        failure: Box<Failure>,
    },
    /// The component gave an event timestamp before that of the row from which it comes.
    #[error(
        "feature view `{view}`: transformation `{transformation}` turned row {row} of {source_event} \
         into a row of {given}; what it gives may not be before that from which it comes"
    )]
    EventBeforeSource {
        /// The view.
        view: String,
        /// The transformation.
        transformation: String,
        /// The source row.
        row: usize,
        /// The source row's event timestamp.
        source_event: String,
        /// The event timestamp that was given.
        given: String,
    },
    /// The component gave a created timestamp before that of the row from which it comes, or none.
    #[error(
        "feature view `{view}`: transformation `{transformation}` turned row {row}, created \
         {source_created}, into a row {}; what it gives may not be created before that from which \
         it comes",
        created(given.as_deref())
    )]
    CreatedBeforeSource {
        /// The view.
        view: String,
        /// The transformation.
        transformation: String,
        /// The source row.
        row: usize,
        /// The source row's created timestamp.
        source_created: String,
        /// The created timestamp that was given; `None`: null.
        given: Option<String>,
    },
    /// A column grew beyond what one batch holds.
    #[error("feature view `{view}`: too many values for one batch: {message}")]
    TooLarge {
        /// The view.
        view: String,
        /// Which limit.
        message: String,
    },
}

impl ViewRowsError {
    /// The same error, its source row counted from `offset` rows before.
    #[must_use]
    pub fn shifted(mut self, offset: usize) -> Self {
        match &mut self {
            Self::Value { error, .. } => error.row += offset,
            Self::Failure { failure, .. } => {
                failure.row = failure.row.map(|row| row + offset);
            }
            Self::EventBeforeSource { row, .. } | Self::CreatedBeforeSource { row, .. } => {
                *row += offset;
            }
            Self::NoColumn { .. } | Self::TooLarge { .. } => {}
        }
        self
    }
}

fn created(given: Option<&str>) -> String {
    given.map_or_else(
        || "without a created timestamp".to_owned(),
        |given| format!("created {given}"),
    )
}
