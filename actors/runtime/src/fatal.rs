//! Failures that end the process, and what they mean to whoever starts it again.

use std::sync::{Arc, Mutex, PoisonError};

use orchestrator_kernel::ports::away::may_serve_later;
use orchestrator_kernel::ports::log::{AcquireError, AppendError, LogName, ReadError};

/// Category of a fatal failure, which the process tells by its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FatalKind {
    /// The storage of a log failed.
    Storage,
    /// A server that holds a log is away, or refuses: it may serve later.
    Away,
    /// Another writer took over, or holds the log.
    Fenced,
    /// A log cannot be trusted: corrupt, regressed, or written by somebody else.
    Corrupt,
    /// Something failed more often than its supervisor allows, or a defect.
    Internal,
}

impl FatalKind {
    /// What it means that stored data could not be read or written.
    fn of_storage(error: &std::io::Error) -> Self {
        if may_serve_later(error) { Self::Away } else { Self::Storage }
    }
}

/// A failure that no restart in the process can mend.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Fatal {
    /// For the exit code.
    pub kind: FatalKind,
    /// What happened and where.
    pub what: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Fatal {
    /// A fatal failure without a deeper cause.
    #[must_use]
    pub fn new(kind: FatalKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    /// An append to `log` failed in a way that may not be tried again.
    #[must_use]
    pub fn on_append(log: LogName, error: AppendError) -> Self {
        let kind = match &error {
            AppendError::Fenced { .. } => FatalKind::Fenced,
            AppendError::Conflict { .. } | AppendError::Gap { .. } => FatalKind::Corrupt,
            AppendError::Unknown { source } => FatalKind::of_storage(source),
            AppendError::Full { .. } | AppendError::Poisoned { .. } => FatalKind::Storage,
        };
        Self { kind, what: format!("cannot append to the log of {log}"), source: Some(Box::new(error)) }
    }

    /// A read of `log` failed.
    #[must_use]
    pub fn on_read(log: LogName, error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Corrupt { .. } | ReadError::Trimmed { .. } => FatalKind::Corrupt,
            ReadError::Io(source) => FatalKind::of_storage(source),
        };
        Self { kind, what: format!("cannot read the log of {log}"), source: Some(Box::new(error)) }
    }

    /// `log` could not be taken over.
    #[must_use]
    pub fn on_acquire(log: LogName, error: AcquireError) -> Self {
        let kind = match &error {
            AcquireError::Held { .. } => FatalKind::Fenced,
            AcquireError::Corrupt { .. } | AcquireError::UnknownVersion { .. } => FatalKind::Corrupt,
            AcquireError::Io { source, .. } => FatalKind::of_storage(source),
        };
        Self { kind, what: format!("cannot take over the log of {log}"), source: Some(Box::new(error)) }
    }

    /// Stored bytes of `log` are no record.
    #[must_use]
    pub fn undecodable_record(
        log: LogName,
        seq: u64,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind: FatalKind::Corrupt,
            what: format!("record {seq} of the log of {log} cannot be used"),
            source: Some(Box::new(error)),
        }
    }
}

/// The first failure that ends the process, for its exit code.
///
/// An actor that cannot go on puts its reason here before it goes down. Others fail because of it, at times before its
/// supervisor has heard of it; what ended the tree is the first reason.
#[derive(Clone, Debug, Default)]
pub struct FatalSlot(Arc<Mutex<Option<(FatalKind, String)>>>);

impl FatalSlot {
    /// Notes why the process has to end; the first reason stays.
    pub fn put_first(&self, kind: FatalKind, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((kind, what));
    }

    /// What happened first.
    #[must_use]
    pub fn get(&self) -> Option<(FatalKind, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why a tree did not start: what happened first, or else `error`, which nobody is started again after.
    pub fn first_or(&self, error: &(dyn std::error::Error + 'static)) -> Fatal {
        match (self.get(), cause_in::<NoAnswer>(error)) {
            (Some((kind, what)), _) => Fatal::new(kind, what),
            (None, Some(away)) => away.to_fatal(),
            (None, None) => Fatal::new(FatalKind::Internal, Chain(error).to_string()),
        }
    }
}

/// The failure of this kind in the error's chain of causes: what fails at its start comes wrapped.
pub fn cause_in<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.find_map(|error| error.downcast_ref::<E>())
}

/// A failure that its supervisor answers by halting the actor at once: trying again cannot help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotRestartable(pub String);

/// A storage did not answer. An actor that meets it is started again; only at the start of the tree nobody is.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct NoAnswer {
    /// What was to be read.
    pub what: &'static str,
    #[source]
    /// What the storage said.
    pub source: std::io::Error,
}

impl NoAnswer {
    /// The same for a start that cannot go on without it.
    pub fn to_fatal(&self) -> Fatal {
        Fatal::new(FatalKind::of_storage(&self.source), Chain(self).to_string())
    }
}

/// A failed read, for an actor that may simply start again: a storage that did not answer is no reason to end the
/// process, a log that cannot be trusted is.
pub fn fatal_unless_io(log: LogName, error: ReadError) -> ractor::ActorProcessingErr {
    match error {
        ReadError::Io(_) => Box::new(error),
        ReadError::Corrupt { .. } | ReadError::Trimmed { .. } => Box::new(Fatal::on_read(log, error)),
    }
}

/// An error with its causes on one line.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
