//! What ingest can be told.

/// What ingest can be told.
pub enum IngestMsg {
    /// Take the next step. Sent by the actor to itself.
    Step,
}
