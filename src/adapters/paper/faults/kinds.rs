//! The faults by name, and the part of a request's way that each changes.

use serde::{Deserialize, Serialize};

use super::{FaultRefused, PaperRoute, RequestPlan};
use crate::adapters::paper::broker::{BrokerPlan, CancelPlan, FillPlan, FillTelling, PARTS_MAX};

/// Longest wait of a fault.
const WAIT_MS_MAX: u64 = 600_000;
/// Largest answer that is sent.
const ANSWER_BYTES_MAX: u64 = 32 << 20;

/// A fault by its name in JSON. Times are in milliseconds.
///
/// Variants without fields have braces: only then an unknown field is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum PaperFault {
    /// Waits before the request is looked at, and before it is answered.
    Latency {
        #[serde(default)]
        before_ms: u64,
        #[serde(default)]
        after_ms: u64,
    },
    /// The request is swallowed: nothing is done, no answer comes for `hold_ms`, then the connection is closed.
    TimeoutBeforeAcceptance {
        #[serde(default = "hold_ms_default")]
        hold_ms: u64,
    },
    /// The request is done; its answer comes after `hold_ms`.
    TimeoutAfterAcceptance {
        #[serde(default = "hold_ms_default")]
        hold_ms: u64,
    },
    /// The connection is reset and nothing was done.
    ResetBeforeAcceptance {},
    /// The request is done and the connection is reset.
    ResetAfterAcceptance {},
    /// A 5xx, and nothing was done.
    ErrorBeforeAcceptance {
        status: u16,
        #[serde(default)]
        body: ErrorBody,
    },
    /// The request is done, and the answer is a 5xx. After a 503 the record says `failed` for ever.
    ErrorAfterAcceptance {
        status: u16,
        #[serde(default)]
        body: ErrorBody,
    },
    /// The request is done; the connection ends within the answer.
    CutAnswer {},
    /// The request is done; the answer is 200 and no JSON.
    GarbageAnswer {},
    /// The request is done; the answer is right and has so many bytes.
    LargeAnswer {
        #[serde(default = "large_bytes_default")]
        bytes: u64,
    },
    /// The request is done; the answer sends the client elsewhere. Who follows is counted.
    Redirect {
        #[serde(default = "redirect_status_default")]
        status: u16,
    },
    /// The request is done; the answer is about another order.
    WrongAnswer { field: WrongField },
    /// 429.
    RateLimited {
        #[serde(default = "retry_after_default")]
        retry_after_s: u64,
        #[serde(default)]
        header: RetryAfterForm,
    },
    /// 503 of a safety gate.
    SafetyGate { gate: SafetyGateName },
    /// 401, 403, 404 or 405.
    Refused { status: u16 },
    /// Rejected for good.
    Rejected { by: RejectedAs },
    /// The broker has accepted, the gateway is told that its id must be unique, and says `rejected` for ever.
    MustBeUnique {},
    /// Filled in parts.
    FillsInParts {
        parts: u64,
        #[serde(default = "every_ms_default")]
        every_ms: u64,
    },
    /// So many shares are filled, then nothing.
    FillsOnly { qty: u64 },
    /// Nothing is filled.
    FillsNever {},
    /// The first fill comes after so much time.
    FillsLater { after_ms: u64 },
    /// A fill overtakes the cancel.
    LateFillAfterCancel {
        #[serde(default = "every_ms_default")]
        after_ms: u64,
        #[serde(default)]
        qty: Option<u64>,
    },
    /// The broker does the cancel so much later.
    CancelLate { after_ms: u64 },
    /// The cancel is answered and never done.
    CancelLost {},
    /// Each fill is told twice.
    FillsTwice {},
    /// Fills are told newest first.
    FillsReversed {},
    /// Reads do not find the order for so much time.
    OrderHidden { for_ms: u64 },
    /// The order is gone after so much time, with the fills that it has.
    OrderVanishes { after_ms: u64 },
    /// The signals of the answer are wrong.
    WrongSignals { how: SignalsFault },
    /// Health and readiness say no.
    NotReady {},
}

/// The form of an error's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorBody {
    /// A detail, as the gateway writes it.
    #[default]
    Json,
    /// Plain text, as a server or proxy in front writes it.
    Plain,
}

/// The field of an answer that is of another order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongField {
    /// `client_order_id`.
    ClientOrderId,
    /// `qty`.
    Qty,
    /// `side`.
    Side,
    /// `symbol`.
    Symbol,
}

/// The header of a 429.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfterForm {
    /// In seconds.
    #[default]
    Seconds,
    /// No header.
    Absent,
}

/// Safety gates, in the order in which the gateway asks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SafetyGateName {
    KillSwitchUnavailable,
    CircuitBreakerUnavailable,
    ReservationUnavailable,
    KillSwitchEngaged,
    CircuitBreakerTripped,
    QuarantineUnavailable,
    SymbolQuarantined,
    ReconciliationInProgress,
    BrokerUnavailableDuringReconciliation,
    PositionLookupUnavailable,
    DatabaseUnavailable,
    ClientNotInitialized,
}

/// The words of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectedAs {
    /// 400 "Order validation failed: …"; on record as rejected.
    Validation,
    /// 400 "Order rejected by fat-finger checks: …"; not on record.
    FatFinger,
    /// 422 with a list; not on record.
    Schema,
    /// 422 "Position limit exceeded"; not on record.
    PositionLimit,
    /// 422 "Order rejected by broker: …"; on record as rejected.
    Broker,
}

/// Signals that no reader may trade on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalsFault {
    /// The first weight is a bare `NaN`: the body is no JSON.
    BareNan,
    /// The first weight is the text `Infinity`.
    TextInfinity,
    /// The first weight is null.
    NullWeight,
    /// The first weight is not there.
    MissingWeight,
    /// The first signal is there twice.
    Doubled,
    /// Every weight is zero.
    ZeroWeights,
    /// No signals.
    Empty,
}

/// A request that gets no further than the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrivalFault {
    /// No answer for so long, then none.
    Swallowed(u64),
    /// Reset.
    Reset,
    /// An error.
    Error(u16, ErrorBody),
}

/// A refusal instead of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalFault {
    /// 429.
    RateLimited(u64, RetryAfterForm),
    /// 503 of a gate.
    Gate(SafetyGateName),
    /// 401, 403, 404, 405.
    Setting(u16),
    /// A rejection.
    Rejected(RejectedAs),
    /// The broker has it and the gateway says rejected.
    MustBeUnique,
}

/// An answer to work that was done, other than it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFault {
    /// Held for so long.
    Held(u64),
    /// Reset.
    Reset,
    /// An error.
    Error(u16, ErrorBody),
    /// Ends within its body.
    Cut,
    /// No JSON.
    Garbage,
    /// So many bytes.
    Large(u64),
    /// Elsewhere.
    Redirect(u16),
    /// Of another order.
    Wrong(WrongField),
}

const fn hold_ms_default() -> u64 {
    60_000
}
const fn every_ms_default() -> u64 {
    50
}
const fn large_bytes_default() -> u64 {
    4 << 20
}
const fn redirect_status_default() -> u16 {
    307
}
const fn retry_after_default() -> u64 {
    60
}

impl PaperFault {
    /// Tells whether it can happen on `route`.
    pub(super) const fn exists_on(&self, route: PaperRoute) -> bool {
        match self {
            Self::Latency { .. }
            | Self::TimeoutBeforeAcceptance { .. }
            | Self::TimeoutAfterAcceptance { .. }
            | Self::ResetBeforeAcceptance {}
            | Self::ResetAfterAcceptance {}
            | Self::ErrorBeforeAcceptance { .. }
            | Self::ErrorAfterAcceptance { .. }
            | Self::CutAnswer {}
            | Self::GarbageAnswer {}
            | Self::LargeAnswer { .. }
            | Self::Redirect { .. }
            | Self::RateLimited { .. }
            | Self::Refused { .. } => true,
            Self::WrongAnswer { .. } => matches!(route, PaperRoute::Submit | PaperRoute::Read),
            Self::WrongSignals { .. } => matches!(route, PaperRoute::Signals),
            Self::NotReady {} => matches!(route, PaperRoute::Health),
            Self::SafetyGate { .. }
            | Self::Rejected { .. }
            | Self::MustBeUnique {}
            | Self::FillsInParts { .. }
            | Self::FillsOnly { .. }
            | Self::FillsNever {}
            | Self::FillsLater { .. }
            | Self::LateFillAfterCancel { .. }
            | Self::CancelLate { .. }
            | Self::CancelLost {}
            | Self::FillsTwice {}
            | Self::FillsReversed {}
            | Self::OrderHidden { .. }
            | Self::OrderVanishes { .. } => matches!(route, PaperRoute::Submit),
        }
    }

    /// Refuses values that cannot be.
    pub(super) fn check_values(&self) -> Result<(), FaultRefused> {
        let check = |is_right: bool, field, problem| {
            if is_right { Ok(()) } else { Err(FaultRefused::Value { field, problem }) }
        };
        let wait = |field, ms: u64| check(ms <= WAIT_MS_MAX, field, "is at most 600000");
        match self {
            Self::Latency { before_ms, after_ms } => {
                wait("before_ms", *before_ms)?;
                wait("after_ms", *after_ms)
            }
            Self::TimeoutBeforeAcceptance { hold_ms } | Self::TimeoutAfterAcceptance { hold_ms } => {
                wait("hold_ms", *hold_ms)
            }
            Self::ErrorBeforeAcceptance { status, .. } | Self::ErrorAfterAcceptance { status, .. } => {
                check((500..=599).contains(status), "status", "is from 500 to 599")
            }
            Self::Redirect { status } => check((300..=399).contains(status), "status", "is from 300 to 399"),
            Self::Refused { status } => {
                check(matches!(status, 401 | 403 | 404 | 405), "status", "is 401, 403, 404 or 405")
            }
            Self::LargeAnswer { bytes } => check(*bytes <= ANSWER_BYTES_MAX, "bytes", "is at most 33554432"),
            Self::RateLimited { retry_after_s, .. } => {
                check(*retry_after_s <= 86_400, "retry_after_s", "is at most 86400")
            }
            Self::FillsInParts { parts, every_ms } => {
                check((1..=PARTS_MAX).contains(parts), "parts", "is from 1 to 100")?;
                wait("every_ms", *every_ms)
            }
            Self::FillsOnly { qty } => check(0 < *qty, "qty", "is at least 1; fills_never fills nothing"),
            Self::LateFillAfterCancel { after_ms, qty } => {
                check(*qty != Some(0), "qty", "is at least 1")?;
                wait("after_ms", *after_ms)
            }
            Self::FillsLater { after_ms }
            | Self::CancelLate { after_ms }
            | Self::OrderVanishes { after_ms } => wait("after_ms", *after_ms),
            Self::OrderHidden { for_ms } => wait("for_ms", *for_ms),
            Self::ResetBeforeAcceptance {}
            | Self::ResetAfterAcceptance {}
            | Self::CutAnswer {}
            | Self::GarbageAnswer {}
            | Self::WrongAnswer { .. }
            | Self::SafetyGate { .. }
            | Self::Rejected { .. }
            | Self::MustBeUnique {}
            | Self::FillsNever {}
            | Self::CancelLost {}
            | Self::FillsTwice {}
            | Self::FillsReversed {}
            | Self::WrongSignals { .. }
            | Self::NotReady {} => Ok(()),
        }
    }

    /// Adds what it changes to `plan`; tells whether anything was left for it to change.
    pub(super) fn add_to(&self, plan: &mut RequestPlan, undisturbed: BrokerPlan) -> bool {
        let arrival = |plan: &mut RequestPlan, fault| set_once(&mut plan.arrival, fault);
        let answer = |plan: &mut RequestPlan, fault| set_once(&mut plan.answer, fault);
        let refusal = |plan: &mut RequestPlan, fault| set_once(&mut plan.refusal, fault);
        match self {
            Self::Latency { before_ms, after_ms } => {
                plan.before_ms = plan.before_ms.saturating_add(*before_ms).min(WAIT_MS_MAX);
                plan.after_ms = plan.after_ms.saturating_add(*after_ms).min(WAIT_MS_MAX);
                true
            }
            Self::TimeoutBeforeAcceptance { hold_ms } => arrival(plan, ArrivalFault::Swallowed(*hold_ms)),
            Self::ResetBeforeAcceptance {} => arrival(plan, ArrivalFault::Reset),
            Self::ErrorBeforeAcceptance { status, body } => {
                arrival(plan, ArrivalFault::Error(*status, *body))
            }
            Self::TimeoutAfterAcceptance { hold_ms } => answer(plan, AnswerFault::Held(*hold_ms)),
            Self::ResetAfterAcceptance {} => answer(plan, AnswerFault::Reset),
            Self::ErrorAfterAcceptance { status, body } => answer(plan, AnswerFault::Error(*status, *body)),
            Self::CutAnswer {} => answer(plan, AnswerFault::Cut),
            Self::GarbageAnswer {} => answer(plan, AnswerFault::Garbage),
            Self::LargeAnswer { bytes } => answer(plan, AnswerFault::Large(*bytes)),
            Self::Redirect { status } => answer(plan, AnswerFault::Redirect(*status)),
            Self::WrongAnswer { field } => answer(plan, AnswerFault::Wrong(*field)),
            Self::RateLimited { retry_after_s, header } => {
                refusal(plan, RefusalFault::RateLimited(*retry_after_s, *header))
            }
            Self::SafetyGate { gate } => refusal(plan, RefusalFault::Gate(*gate)),
            Self::Refused { status } => refusal(plan, RefusalFault::Setting(*status)),
            Self::Rejected { by } => refusal(plan, RefusalFault::Rejected(*by)),
            Self::MustBeUnique {} => refusal(plan, RefusalFault::MustBeUnique),
            Self::WrongSignals { how } => set_once(&mut plan.signals, *how),
            Self::NotReady {} => !std::mem::replace(&mut plan.is_not_ready, true),
            Self::FillsInParts { .. }
            | Self::FillsOnly { .. }
            | Self::FillsNever {}
            | Self::FillsLater { .. }
            | Self::LateFillAfterCancel { .. }
            | Self::CancelLate { .. }
            | Self::CancelLost {}
            | Self::FillsTwice {}
            | Self::FillsReversed {}
            | Self::OrderHidden { .. }
            | Self::OrderVanishes { .. } => self.change_broker(&mut plan.broker, undisturbed),
        }
    }

    /// The faults of an order's life at the broker.
    fn change_broker(&self, broker: &mut BrokerPlan, undisturbed: BrokerPlan) -> bool {
        let ms = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        match self {
            Self::FillsInParts { parts, every_ms } => {
                let fills = FillPlan::Parts { parts: *parts, every_ms: ms(*every_ms) };
                replace_once(&mut broker.fills, undisturbed.fills, fills)
            }
            Self::FillsOnly { qty } => {
                replace_once(&mut broker.fills, undisturbed.fills, FillPlan::Only { qty: *qty })
            }
            Self::FillsNever {} => replace_once(&mut broker.fills, undisturbed.fills, FillPlan::Never),
            Self::FillsLater { after_ms } => {
                replace_once(&mut broker.fill_after_ms, undisturbed.fill_after_ms, ms(*after_ms))
            }
            Self::LateFillAfterCancel { after_ms, qty } => {
                let cancel = CancelPlan::Overtaken { after_ms: ms(*after_ms), qty: *qty };
                replace_once(&mut broker.cancel, undisturbed.cancel, cancel)
            }
            Self::CancelLate { after_ms } => {
                let cancel = CancelPlan::Late { after_ms: ms(*after_ms) };
                replace_once(&mut broker.cancel, undisturbed.cancel, cancel)
            }
            Self::CancelLost {} => replace_once(&mut broker.cancel, undisturbed.cancel, CancelPlan::Lost),
            Self::FillsTwice {} => replace_once(&mut broker.telling, undisturbed.telling, FillTelling::Twice),
            Self::FillsReversed {} => {
                replace_once(&mut broker.telling, undisturbed.telling, FillTelling::Reversed)
            }
            Self::OrderHidden { for_ms } => {
                replace_once(&mut broker.hidden_ms, undisturbed.hidden_ms, ms(*for_ms))
            }
            Self::OrderVanishes { after_ms } => replace_once(
                &mut broker.vanishes_after_ms,
                undisturbed.vanishes_after_ms,
                Some(ms(*after_ms)),
            ),
            Self::Latency { .. }
            | Self::TimeoutBeforeAcceptance { .. }
            | Self::TimeoutAfterAcceptance { .. }
            | Self::ResetBeforeAcceptance {}
            | Self::ResetAfterAcceptance {}
            | Self::ErrorBeforeAcceptance { .. }
            | Self::ErrorAfterAcceptance { .. }
            | Self::CutAnswer {}
            | Self::GarbageAnswer {}
            | Self::LargeAnswer { .. }
            | Self::Redirect { .. }
            | Self::WrongAnswer { .. }
            | Self::RateLimited { .. }
            | Self::SafetyGate { .. }
            | Self::Refused { .. }
            | Self::Rejected { .. }
            | Self::MustBeUnique {}
            | Self::WrongSignals { .. }
            | Self::NotReady {} => false,
        }
    }
}

fn set_once<T>(place: &mut Option<T>, value: T) -> bool {
    let is_free = place.is_none();
    if is_free {
        *place = Some(value);
    }
    is_free
}

fn replace_once<T: PartialEq>(place: &mut T, undisturbed: T, value: T) -> bool {
    let is_free = *place == undisturbed;
    if is_free {
        *place = value;
    }
    is_free
}
