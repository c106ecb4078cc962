//! Over HTTP: receipts that are posted to the service; an engine, stages and hooks that are asked.

pub mod engine;
mod post;
pub mod source;
pub mod stage;
