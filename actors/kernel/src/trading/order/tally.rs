//! Counts and status of a run, from its orders.
//!
//! Source: CONTRACTS §5 ("accepted" = open, ended or dry run) and §6 (status).

use super::records::OrderEnd;
use super::state::OrderPhase;
use super::status::StatusClass;

/// Class in which an order is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderVerdict {
    /// The gateway took it: it is open, has ended, or was logged in dry run.
    Accepted,
    /// It was refused, or could not be placed.
    Rejected,
    /// Nobody knows yet.
    Unsettled,
}

impl OrderPhase {
    /// The class in which an order of this phase is counted. Unknown is never rejected (ORD-1).
    #[must_use]
    pub const fn order_verdict(&self) -> OrderVerdict {
        match self {
            Self::Waiting | Self::InFlight | Self::Unknown | Self::NeedsOperator { .. } => {
                OrderVerdict::Unsettled
            }
            Self::Open => OrderVerdict::Accepted,
            Self::Ended { end, .. } => match end {
                OrderEnd::Status(status) => match status.class() {
                    StatusClass::Rejected | StatusClass::Unknown => OrderVerdict::Rejected,
                    StatusClass::Open | StatusClass::Ended | StatusClass::DryRun => OrderVerdict::Accepted,
                },
                OrderEnd::Vanished | OrderEnd::Resolved { .. } => OrderVerdict::Accepted,
                OrderEnd::Rejected { .. } | OrderEnd::NotPlaced { .. } => OrderVerdict::Rejected,
            },
        }
    }
}

/// Status of an orchestration run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OrchestrationStatus {
    /// An order is not settled yet.
    Running,
    /// No order was refused.
    Completed,
    /// Some were, some were not.
    Partial,
    /// All were, or a dependency failed before the first one.
    Failed,
}

impl OrchestrationStatus {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

/// Counts of a run's orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderTally {
    /// Orders accepted.
    pub accepted: u64,
    /// Orders rejected.
    pub rejected: u64,
    /// Orders not settled yet.
    pub unsettled: u64,
}

impl OrderTally {
    /// Counts orders.
    #[must_use]
    pub fn of_verdicts(verdicts: impl IntoIterator<Item = OrderVerdict>) -> Self {
        let mut tally = Self::default();
        for verdict in verdicts {
            match verdict {
                OrderVerdict::Accepted => tally.accepted += 1,
                OrderVerdict::Rejected => tally.rejected += 1,
                OrderVerdict::Unsettled => tally.unsettled += 1,
            }
        }
        tally
    }

    /// The run's status by its orders alone. Without any order it is completed.
    #[must_use]
    pub const fn run_status(&self) -> OrchestrationStatus {
        match (self.unsettled, self.accepted, self.rejected) {
            (0, _, 0) => OrchestrationStatus::Completed,
            (0, 0, _) => OrchestrationStatus::Failed,
            (0, _, _) => OrchestrationStatus::Partial,
            (_, _, _) => OrchestrationStatus::Running,
        }
    }

    /// Tells whether more than half of the orders were rejected: somebody should know.
    #[must_use]
    pub const fn is_mostly_rejected(&self) -> bool {
        self.accepted.saturating_add(self.unsettled) < self.rejected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TsMs;
    use crate::trading::order::status::OrderStatus;

    fn ended(end: OrderEnd) -> OrderVerdict {
        OrderPhase::Ended { at: TsMs(0), end }.order_verdict()
    }

    #[test]
    fn an_order_counts_as_what_it_came_to_and_unknown_is_never_rejected() {
        let why = || "x".to_owned();
        for phase in [
            OrderPhase::Waiting,
            OrderPhase::InFlight,
            OrderPhase::Unknown,
            OrderPhase::NeedsOperator { why: why() },
        ] {
            assert_eq!(phase.order_verdict(), OrderVerdict::Unsettled);
        }
        assert_eq!(OrderPhase::Open.order_verdict(), OrderVerdict::Accepted);
        for status in [OrderStatus::Filled, OrderStatus::Canceled, OrderStatus::Expired, OrderStatus::DryRun]
        {
            assert_eq!(ended(OrderEnd::Status(status)), OrderVerdict::Accepted);
        }
        assert_eq!(ended(OrderEnd::Vanished), OrderVerdict::Accepted);
        assert_eq!(ended(OrderEnd::Rejected { reason: why() }), OrderVerdict::Rejected);
        assert_eq!(ended(OrderEnd::NotPlaced { why: why() }), OrderVerdict::Rejected);
    }

    #[test]
    fn a_run_is_what_its_orders_are() {
        for (accepted, rejected, unsettled, status, is_mostly_rejected) in [
            (0, 0, 0, "completed", false),
            (2, 0, 0, "completed", false),
            (1, 1, 0, "partial", false),
            (1, 2, 0, "partial", true),
            (0, 1, 0, "failed", true),
            (1, 1, 1, "running", false),
            (0, 0, 1, "running", false),
        ] {
            let tally = OrderTally { accepted, rejected, unsettled };
            assert_eq!(
                (tally.run_status().as_str(), tally.is_mostly_rejected()),
                (status, is_mostly_rejected)
            );
        }
        let verdicts = [OrderVerdict::Accepted, OrderVerdict::Rejected, OrderVerdict::Accepted];
        assert_eq!(OrderTally::of_verdicts(verdicts), OrderTally { accepted: 2, rejected: 1, unsettled: 0 });
    }
}
