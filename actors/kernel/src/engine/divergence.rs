//! Where the logs contradict each other, or the engine contradicts the run log: named, counted, never repaired.

use std::fmt;

use crate::engine::contracts::engine_run::RunFacts;
use crate::engine::run_id::RunId;
use crate::ids::{IngestSeq, RunSeq, Symbol};

macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $says:literal),+ $(,)?) => {
        /// Subject of a check. Each divergence belongs to one of them.
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
    /// The trading plane's journal, where there is one.
    Journal = "journal", "the journal's chain is whole and its records follow its rules (JRN-1, CYC-1, CYC-2)",
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Place of a divergence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DivergencePlace {
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

impl DivergencePlace {
    /// A record of the run log.
    #[must_use]
    pub fn of_run(seq: RunSeq, facts: &RunFacts) -> Self {
        Self::Run { seq, run_id: facts.run_id, symbol: facts.symbol.clone() }
    }
}

impl fmt::Display for DivergencePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receipt(seq) => write!(f, "receipt {seq}"),
            Self::Run { seq, run_id, symbol } => write!(f, "run record {seq}, run {run_id} of {symbol}"),
            Self::Other(place) => f.write_str(place),
        }
    }
}

/// The field of a run record that stands out of its order.
pub const ORDER: &str = "order";

/// One fact that was recorded otherwise than it follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// What was checked.
    pub check: Check,
    /// Where.
    pub place: DivergencePlace,
    /// What differs.
    pub field: &'static str,
    /// As recorded.
    pub recorded: String,
    /// As replayed.
    pub replayed: String,
}

impl fmt::Display for Divergence {
    /// One sentence, which names the authority that the check rests on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, place, field, recorded, replayed } = self;
        write!(f, "{place}: ")?;
        match (check, *field) {
            (Check::Storage, _) => write!(f, "not {replayed}: {recorded}"),
            (Check::Runs, ORDER) => write!(f, "stands where {replayed} must: {recorded}"),
            (
                Check::Receipts
                | Check::Order
                | Check::Positions
                | Check::Runs
                | Check::Identity
                | Check::Cuts
                | Check::Numbering
                | Check::Attempts
                | Check::Failures,
                _,
            ) => write!(f, "{field} was recorded as {recorded}, but must be {replayed}"),
            (Check::Answers, _) => {
                write!(f, "{field} was recorded as {recorded}, but the engine now gives {replayed}")
            }
            (Check::Cursor | Check::Checkpoints, _) => {
                write!(f, "{field} was recorded as {recorded}, but the log holds {replayed}")
            }
            (Check::Outputs, _) => write!(f, "{field} is {recorded}, expected {replayed}"),
            (Check::Journal, _) => write!(f, "breaks {field}: {recorded}; the rule: {replayed}"),
        }
    }
}

impl std::error::Error for Divergence {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_reads_as_a_sentence() {
        let cases = [
            (
                Check::Storage,
                "bytes",
                "it fails its checksum",
                "a whole record",
                "not a whole record: it fails its checksum",
            ),
            (Check::Receipts, "ingest_seq", "8", "7", "ingest_seq was recorded as 8, but must be 7"),
            (
                Check::Order,
                "ingest_ts_ms",
                "8",
                "9 or later",
                "ingest_ts_ms was recorded as 8, but must be 9 or later",
            ),
            (
                Check::Positions,
                "position",
                "8",
                "more than 8",
                "position was recorded as 8, but must be more than 8",
            ),
            (Check::Runs, ORDER, "RUN-2", "another record", "stands where another record must: RUN-2"),
            (
                Check::Runs,
                "cut_kind",
                "boundary",
                "timer",
                "cut_kind was recorded as boundary, but must be timer",
            ),
            (Check::Identity, "run_id", "ab", "cd", "run_id was recorded as ab, but must be cd"),
            (Check::Cuts, "snapshot_seq", "none", "5", "snapshot_seq was recorded as none, but must be 5"),
            (Check::Numbering, "symbol_seq", "3", "5", "symbol_seq was recorded as 3, but must be 5"),
            (Check::Attempts, "attempts", "3", "1 or 2", "attempts was recorded as 3, but must be 1 or 2"),
            (Check::Failures, "error_kind", "a", "b", "error_kind was recorded as a, but must be b"),
            (
                Check::Answers,
                "regime_output",
                "{}",
                "{\"a\":1}",
                "regime_output was recorded as {}, but the engine now gives {\"a\":1}",
            ),
            (Check::Cursor, "outputs", "9", "8", "outputs was recorded as 9, but the log holds 8"),
            (
                Check::Checkpoints,
                "last record",
                "9",
                "8",
                "last record was recorded as 9, but the log holds 8",
            ),
            (Check::Outputs, "line", "the end of the file", "x", "line is the end of the file, expected x"),
            (
                Check::Journal,
                "chain",
                "another hash",
                "Each hash covers.",
                "breaks chain: another hash; the rule: Each hash covers.",
            ),
        ];
        let seen: std::collections::BTreeSet<Check> = cases.iter().map(|case| case.0).collect();
        assert_eq!(seen.len(), Check::ALL.len());
        for (check, field, recorded, replayed, sentence) in cases {
            let (recorded, replayed) = (recorded.to_owned(), replayed.to_owned());
            let found = Divergence {
                check,
                place: DivergencePlace::Receipt(IngestSeq(7)),
                field,
                recorded,
                replayed,
            };
            assert_eq!(found.to_string(), format!("receipt 7: {sentence}"));
        }
    }
}
