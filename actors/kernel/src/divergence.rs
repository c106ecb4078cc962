//! Where the logs contradict each other, or the engine contradicts the run log: named, counted, never repaired.

use std::fmt;

use crate::contracts::engine_run::RunFacts;
use crate::ids::{IngestSeq, RunSeq, Symbol};
use crate::run_id::RunId;

macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $says:literal),+ $(,)?) => {
        /// What is checked. Each divergence belongs to one of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Check {
            $($(#[$doc])* $name),+
        }

        impl Check {
            /// Every check, in the order of the data's way through the system.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The name in reports.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word),+
                }
            }

            /// What holds when it passes.
            #[must_use]
            pub const fn says(self) -> &'static str {
                match self {
                    $(Self::$name => $says),+
                }
            }
        }
    };
}

checks! {
    /// The stored bytes can be read.
    Storage = "storage", "every stored record passes its checksum and has its form",
    /// LOG-1.
    Receipts = "receipts", "receipts are numbered 1, 2, 3 … as the log counts them (LOG-1)",
    /// LOG-5.
    Order = "order", "ingest_ts_ms never decreases (LOG-5)",
    /// No item twice.
    Positions = "positions", "the positions of an origin increase: no item was stored twice",
    /// RUN-2, RUN-3, RUN-4, CUT-1.
    Runs = "runs", "each run starts, ends once, one after the other per symbol (RUN-2, RUN-3, RUN-4, CUT-1)",
    /// The run's name.
    Identity = "run_id", "each run_id follows from the run",
    /// CUT-1, CUT-2 and what is in the cut.
    Cuts = "cuts", "each cut follows from the receipts and its planned time (CUT-1, CUT-2)",
    /// `symbol_seq`.
    Numbering = "symbol_seq", "the outputs of a symbol are numbered 1, 2, 3 …",
    /// `attempts` and `answered`.
    Attempts = "attempts", "attempts and answered fit the started records before",
    /// What failed without the engine.
    Failures = "failures", "a failure that follows from the receipts is the recorded one",
    /// REP-1.
    Answers = "answers", "the engine gives the recorded answer, byte for byte (REP-1)",
    /// The publish cursor.
    Cursor = "cursor", "the publish cursor stands on a record of the run log, and counts its outputs (OUT-2)",
    /// Checkpoints.
    Checkpoints = "checkpoints", "no checkpoint knows more than the logs hold",
    /// The outputs file.
    Outputs = "outputs", "the outputs file holds what was published, in order, byte for byte (OUT-1)",
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a divergence stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A record of the receipt log.
    Receipt(IngestSeq),
    /// A record of the run log.
    Run {
        /// Its position.
        seq: RunSeq,
        /// The run, as recorded.
        run_id: RunId,
        /// Its symbol, as recorded.
        symbol: Symbol,
    },
    /// Elsewhere, for example `outputs/orchestrator_events.jsonl line 7`.
    Other(String),
}

impl Place {
    /// A record of the run log.
    #[must_use]
    pub fn run(seq: RunSeq, facts: &RunFacts) -> Self {
        Self::Run { seq, run_id: facts.run_id, symbol: facts.symbol.clone() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receipt(seq) => write!(f, "receipt {seq}"),
            Self::Run { seq, run_id, symbol } => write!(f, "run record {seq}, run {run_id} of {symbol}"),
            Self::Other(place) => f.write_str(place),
        }
    }
}

/// One fact that was recorded otherwise than it follows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {field} was recorded as {recorded}, replay gives {replayed}")]
pub struct Divergence {
    /// What was checked.
    pub check: Check,
    /// Where.
    pub place: Place,
    /// What differs.
    pub field: &'static str,
    /// As recorded.
    pub recorded: String,
    /// As replayed.
    pub replayed: String,
}
