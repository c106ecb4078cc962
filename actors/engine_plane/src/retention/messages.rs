//! What the retention can be told.

/// What the retention can be told.
pub enum RetentionMsg {
    /// Let go what may go. Sent by itself.
    Check,
}
