//! The sagas that there are: steps in order, each with what undoes it.

use std::time::Duration;

use crate::retry::RetrySchedule;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant:meta])* $variant_name:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant])* $variant_name),+
        }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant_name),+];

            /// The word in records and events.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant_name => $word),+
                }
            }

            /// Reads the word; nothing for one that this binary does not know.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
            }
        }
    };
}

words! {
    /// Kind of a saga.
    SagaKind {
        /// One order that opens, adds to, or turns a position.
        TradeExecution = "trade_execution",
        /// One order that closes a position, after the open orders of its symbol are gone.
        PositionClose = "position_close",
        /// The orders of a rebalance: those that reduce first, so that they free what the others need.
        Rebalance = "rebalance",
    }
}

words! {
    /// Action of a step. Doing it twice is doing it once: its effect is found by its id.
    SagaAction {
        /// Reserves in the ledger what the order opens.
        ReserveBuyingPower = "reserve_buying_power",
        /// Asks for the cancel of the symbol's open orders, and reads them until they are terminal.
        CancelOpenOrders = "cancel_open_orders",
        /// Brings the order to the gateway, until its outcome is known.
        SubmitOrder = "submit_order",
        /// Reads the order until it is filled.
        WaitForFill = "wait_for_fill",
        /// Books the fills: ledger and position.
        UpdatePosition = "update_position",
        /// Records the trade.
        RecordTrade = "record_trade",
        /// Runs the legs that reduce positions, each a saga of its own.
        ReducePositions = "reduce_positions",
        /// Runs the legs that open positions, each a saga of its own.
        OpenPositions = "open_positions",
        /// Records the rebalance.
        RecordRebalance = "record_rebalance",
    }
}

words! {
    /// Compensation of a step: undoes it. Doing it twice is doing it once.
    SagaCompensation {
        /// Releases what the order still reserves.
        ReleaseBuyingPower = "release_buying_power",
        /// Nothing to undo: a canceled order stays canceled.
        KeepCanceled = "keep_canceled",
        /// Asks for the cancel and reads the order until it is terminal.
        CancelOrder = "cancel_order",
        /// Books what is filled: it stays.
        HandlePartialFill = "handle_partial_fill",
        /// Brings the position back to what the fills made.
        RollbackPosition = "rollback_position",
        /// Marks the trade's record as void.
        VoidTrade = "void_trade",
        /// Cancels the legs that have not ended; those that have stay.
        StopLegs = "stop_legs",
        /// Marks the rebalance's record as void.
        VoidRebalance = "void_rebalance",
    }
}

/// One step as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SagaStepDefinition {
    /// Its action.
    pub action: SagaAction,
    /// Its compensation.
    pub compensation: SagaCompensation,
}

const fn define_step(action: SagaAction, compensation: SagaCompensation) -> SagaStepDefinition {
    SagaStepDefinition { action, compensation }
}

impl SagaKind {
    /// Its steps, in order.
    ///
    /// Source: specification 002, "Saga Patterns".
    #[must_use]
    pub const fn steps(self) -> &'static [SagaStepDefinition] {
        use SagaAction as Do;
        use SagaCompensation as Undo;
        match self {
            Self::TradeExecution => {
                &const {
                    [
                        define_step(Do::ReserveBuyingPower, Undo::ReleaseBuyingPower),
                        define_step(Do::SubmitOrder, Undo::CancelOrder),
                        define_step(Do::WaitForFill, Undo::HandlePartialFill),
                        define_step(Do::UpdatePosition, Undo::RollbackPosition),
                        define_step(Do::RecordTrade, Undo::VoidTrade),
                    ]
                }
            }
            // It reserves as well: a closing order reserves no amount, but the shares that it closes.
            Self::PositionClose => {
                &const {
                    [
                        define_step(Do::CancelOpenOrders, Undo::KeepCanceled),
                        define_step(Do::ReserveBuyingPower, Undo::ReleaseBuyingPower),
                        define_step(Do::SubmitOrder, Undo::CancelOrder),
                        define_step(Do::WaitForFill, Undo::HandlePartialFill),
                        define_step(Do::UpdatePosition, Undo::RollbackPosition),
                        define_step(Do::RecordTrade, Undo::VoidTrade),
                    ]
                }
            }
            Self::Rebalance => {
                &const {
                    [
                        define_step(Do::ReducePositions, Undo::StopLegs),
                        define_step(Do::OpenPositions, Undo::StopLegs),
                        define_step(Do::RecordRebalance, Undo::VoidRebalance),
                    ]
                }
            }
        }
    }
}

/// Times and limits of a saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SagaPolicy {
    /// Time from its creation, or from an operator's adoption, within which it has to complete.
    pub timeout: Duration,
    /// Time for one wait for the fill.
    pub fill_timeout: Duration,
    /// Retries of a step after its first attempt.
    pub retries: u16,
    /// Delay before each of them.
    pub retry_delay: Duration,
    /// Attempts of a compensation before a human is asked.
    pub compensation: RetrySchedule,
}

impl Default for SagaPolicy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            fill_timeout: Duration::from_secs(30),
            retries: 3,
            retry_delay: Duration::from_secs(1),
            compensation: RetrySchedule {
                min: Duration::from_secs(1),
                max: Duration::from_secs(60),
                max_attempts: 10,
                max_elapsed: Duration::from_secs(600),
            },
        }
    }
}
