//! The exit codes: one meaning each, so that scripts and supervisors can tell what to do.

use std::io;
use std::process::ExitCode;

use orchestrator_kernel::ports::away::may_serve_later;
use orchestrator_runtime::fatal::FatalKind;

/// Exit of the process. Codes from 64 on are those of `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessExit {
    /// Done.
    Ok,
    /// Done, and the answer is no: a comparison found a difference.
    Different,
    /// The command line is not understood, or a comparison cannot tell.
    Usage,
    /// Stored data is corrupt or of an unknown version. Starting again does not help.
    Data,
    /// The service, or something it needs, does not answer.
    Unavailable,
    /// A bug.
    Internal,
    /// Storage failed: nothing was acknowledged that is not durable.
    Io,
    /// Another process holds the logs or took them over. Starting again later may help.
    Held,
    /// The configuration was refused. Nothing was touched.
    Config,
}

impl ProcessExit {
    /// Every exit, by code.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Different,
        Self::Usage,
        Self::Data,
        Self::Unavailable,
        Self::Internal,
        Self::Io,
        Self::Held,
        Self::Config,
    ];

    /// The code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Different => 1,
            Self::Usage => 2,
            Self::Data => 65,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::Io => 74,
            Self::Held => 75,
            Self::Config => 78,
        }
    }

    /// What `--help` says about it.
    #[must_use]
    pub const fn help_text(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Different => "failed, or a comparison found a difference",
            Self::Usage => "the command line is not understood, or a comparison cannot tell",
            Self::Data => "stored data is corrupt or of an unknown version; starting again does not help",
            Self::Unavailable => "the service, or something it needs, does not answer",
            Self::Internal => "a bug; please report it",
            Self::Io => "storage failed; nothing was acknowledged that is not durable",
            Self::Held => "another process holds the logs or took them over; starting again later may help",
            Self::Config => "the configuration was refused; nothing was touched",
        }
    }
}

impl ProcessExit {
    /// What it means that stored data could not be read or written: a server that does not answer may do so later, a
    /// medium that fails does not mend itself.
    #[must_use]
    pub fn of_storage(error: &io::Error) -> Self {
        if may_serve_later(error) { Self::Unavailable } else { Self::Io }
    }
}

/// How the process ends after a fatal failure of this kind.
#[must_use]
pub const fn exit_of(kind: FatalKind) -> ProcessExit {
    match kind {
        FatalKind::Storage => ProcessExit::Io,
        FatalKind::Away => ProcessExit::Unavailable,
        FatalKind::Fenced => ProcessExit::Held,
        FatalKind::Corrupt => ProcessExit::Data,
        FatalKind::Internal => ProcessExit::Internal,
    }
}

impl From<ProcessExit> for ExitCode {
    fn from(exit: ProcessExit) -> Self {
        Self::from(exit.code())
    }
}

/// The list that ends `--help`.
pub(crate) fn exit_codes_help() -> String {
    let lines: Vec<String> =
        ProcessExit::ALL.iter().map(|exit| format!("  {:>2}  {}", exit.code(), exit.help_text())).collect();
    format!("Exit codes:\n{}", lines.join("\n"))
}
