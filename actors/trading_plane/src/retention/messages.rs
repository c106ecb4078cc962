//! What the journal's retention can be told.

/// Messages that the journal's retention sends to itself.
pub enum JournalRetentionMsg {
    /// Trim what may be trimmed. Sent by itself.
    Check,
}
