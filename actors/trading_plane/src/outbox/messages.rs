//! What the outbox can be told, and how far it has come.

use orchestrator_kernel::trading::ids::JournalSeq;
use ractor::RpcReplyPort;

/// Messages to the outbox.
pub enum OutboxMsg {
    /// Records became durable. Sent by what watches the journal.
    Wake,
    /// Try again what failed. Sent by itself, a while after it failed.
    Retry,
    /// Save how far it has come. Sent by itself, a while after it came further.
    SaveCursor,
    /// Publish what is durable, unless the bus is away, save how far it came, and report: the next start goes on.
    Drain(RpcReplyPort<()>),
}

/// Progress of the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxProgress {
    /// The last record whose events are all confirmed.
    pub published: JournalSeq,
    /// The first record that the journal has to keep for it. Nothing: it is not known, so all of them.
    pub needed_from: Option<JournalSeq>,
}
