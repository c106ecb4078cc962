//! The gateway's statuses of an order, and what each is worth.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! statuses {
    ($($name:ident = $word:literal => $class:ident),+ $(,)?) => {
        /// A status as the gateway reports it.
        ///
        /// The numbers are part of the stored form: never reorder, only add at the end.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "each is the word of the wire; `class` says what it is worth")]
        pub enum OrderStatus {
            $($name),+
        }

        impl OrderStatus {
            /// Every status.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word),+
                }
            }

            /// Its worth in an answer that is no repeat, about an order that was sent once.
            #[must_use]
            pub const fn class(self) -> StatusClass {
                match self {
                    $(Self::$name => StatusClass::$class),+
                }
            }
        }
    };
}

statuses! {
    PendingNew = "pending_new" => Open,
    New = "new" => Open,
    Accepted = "accepted" => Open,
    PartiallyFilled = "partially_filled" => Open,
    Filled = "filled" => Ended,
    Canceled = "canceled" => Ended,
    Rejected = "rejected" => Rejected,
    Expired = "expired" => Ended,
    Replaced = "replaced" => Ended,
    DoneForDay = "done_for_day" => Ended,
    Stopped = "stopped" => Open,
    Suspended = "suspended" => Open,
    PendingCancel = "pending_cancel" => Open,
    PendingReplace = "pending_replace" => Open,
    Calculated = "calculated" => Open,
    Submitted = "submitted" => Open,
    SubmittedUnconfirmed = "submitted_unconfirmed" => Unknown,
    DryRun = "dry_run" => DryRun,
    Failed = "failed" => Unknown,
    BlockedKillSwitch = "blocked_kill_switch" => Rejected,
    BlockedCircuitBreaker = "blocked_circuit_breaker" => Rejected,
}

/// Worth of a status.
///
/// Source: CONTRACTS §5, "Statuses".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// May still be filled.
    Open,
    /// Will not be filled further, by its status; its fills are told elsewhere and may come later.
    Ended,
    /// The broker or the gateway refused it.
    Rejected,
    /// The gateway does not know itself.
    Unknown,
    /// Logged by a gateway in dry run: ends at once, is never filled.
    DryRun,
}

impl OrderStatus {
    /// Reads a word of the wire.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|status| status.as_str() == word)
    }

    /// Tells whether a repeat that answers with it speaks of an earlier attempt, whose end is not ours to believe.
    #[must_use]
    pub const fn is_doubtful_in_a_repeat(self) -> bool {
        matches!(self, Self::Failed | Self::Rejected | Self::Canceled)
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_worth_what_the_contract_says() {
        let words = |class: StatusClass| -> Vec<&str> {
            let of = OrderStatus::ALL.iter().filter(|status| status.class() == class);
            let mut words: Vec<&str> = of.map(|status| status.as_str()).collect();
            words.sort_unstable();
            words
        };

        assert_eq!(
            words(StatusClass::Open),
            [
                "accepted",
                "calculated",
                "new",
                "partially_filled",
                "pending_cancel",
                "pending_new",
                "pending_replace",
                "stopped",
                "submitted",
                "suspended"
            ]
        );
        assert_eq!(words(StatusClass::Ended), ["canceled", "done_for_day", "expired", "filled", "replaced"]);
        assert_eq!(
            words(StatusClass::Rejected),
            ["blocked_circuit_breaker", "blocked_kill_switch", "rejected"]
        );
        assert_eq!(words(StatusClass::Unknown), ["failed", "submitted_unconfirmed"]);
        assert_eq!(words(StatusClass::DryRun), ["dry_run"]);
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for status in OrderStatus::ALL {
            assert_eq!(OrderStatus::from_word(status.as_str()), Some(*status));
        }
        assert_eq!(OrderStatus::from_word("Filled"), None);
        assert_eq!(OrderStatus::from_word("cancelled"), None);
    }
}
