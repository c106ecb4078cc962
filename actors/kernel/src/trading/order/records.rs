//! The records of an order's life, in the form that the journal keeps.

use serde::{Deserialize, Serialize};

use super::OrderContent;
use super::fills::FillTotal;
use super::id::ClientOrderId;
use super::outcome::OrderOutcome;
use super::read_back::{CancelAnswer, OrderReading};
use super::status::OrderStatus;
use crate::ids::TsMs;

/// An order that somebody decided on. Durable before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderIntent {
    /// The id that the gateway will derive on the date of the intent.
    pub id: ClientOrderId,
    /// The content of the order.
    pub content: OrderContent,
    /// The gateway's strategy id, part of the order's id.
    pub gateway_strategy: String,
    /// The run that decided it.
    pub run_id: String,
    /// Moment of the decision.
    pub intended_at: TsMs,
    /// Last moment at which its signals are fresh: it is not sent later.
    pub fresh_until: TsMs,
}

/// One record of an order's life. Versioned: the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderRecord {
    /// The first version.
    V1 {
        /// The id of the intent: no two intents of one date have one id.
        order: ClientOrderId,
        /// The event.
        event: OrderEvent,
    },
}

/// An event in the life of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderEvent {
    /// It was decided on.
    Intended(OrderIntent),
    /// No byte left: no connection, no permit, or one that ran out.
    NotSent {
        /// Moment of it.
        at: TsMs,
        /// The reason, in words.
        why: String,
    },
    /// A permit was given and its bytes leave now. Durable before the first of them does.
    Sending {
        /// Moment of it.
        at: TsMs,
        /// Age of the reading that the permit rests on, in milliseconds.
        permit_age_ms: u64,
    },
    /// The attempt has an outcome.
    Answered {
        /// Moment of it.
        at: TsMs,
        /// The outcome.
        outcome: OrderOutcome,
    },
    /// It was read back, or read again.
    Read {
        /// Moment of it.
        at: TsMs,
        /// The result.
        reading: OrderReading,
        /// The word of its symbol's position then.
        position: PositionCheck,
    },
    /// An event on the bus told of it: it exists, whatever was answered.
    Reported {
        /// Moment of it.
        at: TsMs,
        /// The id that was told.
        id: ClientOrderId,
        /// The shares that it says are filled in all.
        total: Option<FillTotal>,
    },
    /// It stayed absent for the whole quarantine and no position moved: no attempt arrived.
    SettledAbsent {
        /// Moment of it.
        at: TsMs,
    },
    /// Somebody wants it canceled.
    CancelWanted {
        /// Moment of it.
        at: TsMs,
        /// The reason, in words.
        why: String,
    },
    /// A cancel was answered. It ends nothing.
    CancelAnswered {
        /// Moment of it.
        at: TsMs,
        /// The answer.
        answer: CancelAnswer,
    },
    /// It ended.
    Ended {
        /// Moment of it.
        at: TsMs,
        /// The way it ended.
        end: OrderEnd,
    },
    /// It cannot be settled without a human.
    NeedsOperator {
        /// Moment of it.
        at: TsMs,
        /// The reason, in words.
        why: String,
    },
    /// An operator wants it read again from the beginning.
    OperatorRetried {
        /// Moment of it.
        at: TsMs,
        /// The operator.
        by: String,
    },
    /// An operator settled it.
    OperatorResolved {
        /// Moment of it.
        at: TsMs,
        /// The operator.
        by: String,
        /// The operator's finding.
        reason: String,
    },
}

/// Word of a symbol's position on an order that nobody finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PositionCheck {
    /// It is what the known fills make of it.
    Unmoved,
    /// It is another: the order may have been filled.
    Moved,
    /// It was not read.
    Unread,
}

/// End of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderEnd {
    /// In a terminal status of the gateway: filled, canceled, expired, replaced, done for the day, or dry run.
    Status(OrderStatus),
    /// Refused for good.
    Rejected {
        /// The reason, in words.
        reason: String,
    },
    /// It was never at the gateway and will not be sent again.
    NotPlaced {
        /// The reason, in words.
        why: String,
    },
    /// It was known, then absent for the whole quarantine, and no position moved: canceled, with its known part filled.
    Vanished,
    /// An operator settled it.
    Resolved {
        /// The operator.
        by: String,
        /// The operator's finding.
        reason: String,
    },
}

/// A record that an order's life must not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderViolation {
    /// Sent while an attempt is in flight, or when the order is known or has ended.
    #[error("an order is sent that may not be sent")]
    SentAgain,
    /// ORD-2: sent on another UTC date before it was known to be absent.
    #[error("an unknown order is sent on another date")]
    SentOnAnotherDate,
    /// An outcome without an attempt.
    #[error("an outcome without an attempt")]
    NothingInFlight,
    /// Ended twice, or anything but readings and reports after the end.
    #[error("an order that has ended goes on")]
    HasEnded,
    /// A step that needs an unknown order.
    #[error("the order is not unknown")]
    NotUnknown,
    /// Ended, or left to a human, while an attempt is in flight.
    #[error("an order ends before its attempt has")]
    StillInFlight,
    /// An operator's word on an order that no human was asked about.
    #[error("no operator was asked about the order")]
    NobodyAsked,
    /// The intent again.
    #[error("an order is intended twice")]
    IntendedTwice,
}
