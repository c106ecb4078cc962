//! Events of the trading plane: what the journal tells the outside, and what the outside tells us, typed.
//!
//! ```text
//! journal record ─▶ EventCursor ─▶ events ─▶ envelope (JSON) ─▶ event bus      at least once, in the journal's order
//! event bus ─▶ IncomingEvent ─▶ typed payload │ the reason why it does not fit
//! ```
//!
//! An event is a function of its record and of what the cursor remembers of those before it, so that it can be
//! published again at any time and stays the same event: its identifier derives from the record's chain hash.

mod envelope;
mod incoming;
mod incoming_payload;
mod names;
mod outgoing;
mod payload;
mod request;
mod services;
mod topic;

pub use envelope::{EVENT_SCHEMA_VERSION, EventStyle, EventTags, EventTrace, TradingEvent};
pub use incoming::{INCOMING_EVENT_BYTES_MAX, IncomingEvent, IncomingMisfit};
pub use incoming_payload::{
    DecisionJudged, ForeignError, ForeignHeartbeat, INCOMING_TOPICS, IncomingPayload, KillAsked, OrderNews,
    OrderNewsKind, SessionNews, SessionWord,
};
pub use names::{EventFamily, EventNaming, TradingEventKind};
pub use outgoing::{EventBreak, EventCursor};
pub use request::AnalysisRequest;
pub use services::{FOREIGN_SERVICES_MAX, ForeignServices, SILENT_INTERVALS_MAX, ServiceHealth};
pub use topic::{matches_topic, patterns_meet};

#[cfg(test)]
mod tests;
