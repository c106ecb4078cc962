//! Over HTTP: receipts that are posted to the service, and an engine that is asked.

pub mod engine;
pub mod source;
