//! The rules that the journal keeps, by name.

use std::fmt;

use crate::trading::ids::JournalSeq;

macro_rules! journal_rules {
    ($($(#[doc = $doc:literal])* $name:ident = $word:literal),+ $(,)?) => {
        /// A rule of the journal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum JournalRule {
            $($(#[doc = $doc])* $name),+
        }

        impl JournalRule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The stable word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word),+
                }
            }

            /// What it promises, in a sentence.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),*)),+
                }
            }
        }
    };
}

journal_rules! {
    /// Records are numbered without gap.
    Numbering = "numbering",
    /// Each record's hash covers its bytes and the record before (JRN-1).
    Chain = "chain",
    /// Each record can be read.
    Decodable = "decodable",
    /// A command is received once and has one result.
    CommandOrder = "command_order",
    /// The agent changes from the status that it has, by a cause that leads there.
    AgentOrder = "agent_order",
    /// A strategy changes from the status that it has, by a command that leads there.
    StrategyOrder = "strategy_order",
    /// Fires of a schedule are numbered without gap (CYC-2).
    FireLost = "fire_lost",
    /// No fire comes twice.
    FiredTwice = "fired_twice",
    /// Every fire is a cycle or a skip before the next one (CYC-2).
    FireUnaccounted = "fire_unaccounted",
    /// A cycle begins for one open fire or command.
    CycleWithoutCause = "cycle_without_cause",
    /// A cycle starts once.
    CycleTwice = "cycle_twice",
    /// A cycle works with the configuration on record.
    Configuration = "configuration",
    /// Nothing is recorded of a cycle that has not started.
    CycleUnknown = "cycle_unknown",
    /// A cycle ends once (CYC-1).
    CycleEndsTwice = "cycle_ends_twice",
    /// Nothing is recorded of a cycle that has ended.
    RecordAfterEnd = "record_after_end",
    /// Stages end in the order of their pipeline, and none is passed over but after a failure.
    StageOrder = "stage_order",
    /// A stage is preceded by gates that allow it.
    GateSkipped = "gate_skipped",
    /// Nothing but its end follows in a cycle that a gate denied.
    GateIgnored = "gate_ignored",
    /// What gates say follows from what they looked at.
    GateContradicts = "gate_contradicts",
    /// No order is intended without a RISK verdict that allows it (CYC-1).
    IntentWithoutRisk = "intent_without_risk",
    /// No RISK, the service's own or another, allows more than the limits of the configuration on record.
    RiskLimit = "risk_limit",
    /// No order is intended without a permit of its own before it (CYC-1).
    IntentWithoutPermit = "intent_without_permit",
    /// A decision becomes one intent at most.
    IntentTwice = "intent_twice",
    /// No order is larger than RISK and the hooks allow.
    IntentRaised = "intent_raised",
    /// A cycle's status and numbers follow from its records.
    StatusContradicts = "status_contradicts",
    /// An alert is raised, then cleared.
    AlertOrder = "alert_order",
}

impl fmt::Display for JournalRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first record that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {seq} breaks {rule}: {detail}")]
pub struct BrokenRule {
    /// The record.
    pub seq: JournalSeq,
    /// The rule.
    pub rule: JournalRule,
    /// What exactly.
    pub detail: String,
}
