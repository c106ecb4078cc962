//! The demo: a seeded feed and a small engine in process.

pub mod engine;
pub mod feed;
