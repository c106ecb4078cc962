//! What the history can be told, and how far it has come.

use orchestrator_kernel::trading::ids::JournalSeq;
use ractor::RpcReplyPort;

/// Messages to the history.
pub enum HistoryMsg {
    /// Records became durable. Sent by what watches the journal.
    Wake,
    /// Try again what failed. Sent by itself, a while after it failed.
    Retry,
    /// Look for cycles that are older than the retention. Sent by itself.
    DropOld,
    /// Take in what is durable, unless the database is away, and report: the next start catches up.
    Drain(RpcReplyPort<()>),
}

/// Progress of the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryProgress {
    /// The last record whose rows are in the database.
    pub projected: JournalSeq,
    /// The first record that the journal has to keep for it. Nothing: it is not known, so all of them.
    pub needed_from: Option<JournalSeq>,
}
