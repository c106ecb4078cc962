//! What the retention can be told.

/// Messages that the retention sends to itself.
pub enum RetentionMsg {
    /// Trim what may be trimmed. Sent by itself.
    Check,
}
