//! What the publisher can be told, and how far it says to have come.

use orchestrator_kernel::engine::contracts::manifest::OutputsAct;
use ractor::RpcReplyPort;

pub use super::acts::{HeldError, HeldRequest};
pub use super::progress::PublishedUpTo;
pub(crate) use super::progress::{CURSOR, decode_progress, load_released};

/// Requests to the publisher, and messages that it sends to itself.
pub enum PublisherMsg {
    /// There may be something to publish. Sent by its watcher of the run log, and by itself after each batch.
    Wake,
    /// Look whether a fan-out is held back, also when there is nothing to publish. Sent by itself.
    Look,
    /// The back-off is over. Sent by itself, once for each failure: a commit meanwhile does not cut it short.
    Retry,
    /// Carry out what an operator decided about a held symbol. Sent by the HTTP interface; the reply comes when the
    /// record of it is durable, and says what it came to.
    Decide(HeldRequest, RpcReplyPort<Result<Vec<OutputsAct>, HeldError>>),
    /// Publish what is committed, save the cursor, report. The reply comes when nothing waits any more.
    Drain(RpcReplyPort<()>),
}
