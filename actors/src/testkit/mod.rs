//! Ports for tests: in memory, scripted, and able to fail in every way that their contracts name.
//!
//! A [`TestTree`] holds them across restarts of the tree, as disks and brokers would; a [`CrashPoint`] ends a process
//! between any two effects.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test support: a broken test must stop loudly")]

mod engine;
mod fan_out;
#[cfg(feature = "mutants")]
mod planted;
mod receipts;
mod source;
mod tree;
mod verify;

pub use engine::{Act, TestEngine};
pub use fan_out::{Outputs, Publish, RecordingFanOut};
pub use orchestrator_engine_plane::testkit::{book_again, run_index_again};
pub use orchestrator_runtime::testkit::*;
#[cfg(feature = "mutants")]
pub use planted::plant_in_ports;
pub use receipts::{item, snapshot, trade};
pub use source::{SourceAct, TestSource};
pub use tree::{TestClock, TestTree, eventually, settings};
pub use verify::{check_logs, message_bodies, replayed_bodies, replayed_bodies_after, without_publish_time};
