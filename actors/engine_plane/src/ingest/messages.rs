//! What ingest can be told.

/// Messages that ingest sends to itself.
pub enum IngestMsg {
    /// Take the next step. Sent by the actor to itself.
    Step,
}
