//! Redis: the logs as streams, checkpoints beside them, and what the server must promise for that.
//!
//! ```text
//! orch:{NAMESPACE}:LOG               stream: entry <seq>-0, one field (entry.rs)
//! orch:{NAMESPACE}:LOG:meta          hash: format, log_id, epoch, writer, start, tail, bytes
//! orch:{NAMESPACE}:checkpoint:NAME   hash: epoch, value
//! orch:{NAMESPACE}:writer            who writes, while it lives (writer.rs)
//! STATE_DIR/NAMESPACE.LOG.mark       how far this host knows the log as acknowledged (high_water.rs)
//! ```
//!
//! **Every change is one script**, so it is atomic, checks the writer's epoch and the log's end first, and can be sent
//! again: a lost answer is the normal end of a connection, so each batch goes out with the positions that it must get.
//!
//! **A server that lost something is found out.** Its scripts compare log id, epoch, length of the stream and end with
//! what the writer knows, so that a replica with less, an emptied or an exchanged data set is never appended to; and
//! at the next start the mark on this host says how far the log must reach, and a second mark elsewhere does for a host
//! that starts for the first time (second_mark.rs). With neither a log that has records is not taken over
//! (witnesses.rs): the operator's word is needed.

mod appender;
mod checkpoints;
pub mod connect;
mod entry;
mod fault;
mod high_water;
pub mod kill_switch;
mod log;
#[cfg(feature = "mutants")]
mod mutants;
mod preflight;
mod promise;
mod reader;
mod replay;
mod scripts;
mod second_mark;
mod store;
pub mod stream_source;
#[cfg(any(test, feature = "testkit"))]
#[doc(hidden)]
pub mod testkit;
mod witnesses;
mod writer;

pub use checkpoints::RedisCheckpoints;
pub use connect::{Endpoint, UrlError};
pub use log::{RedisLog, RedisLogOptions};
pub use preflight::Durability;
pub use store::{RedisOpenError, RedisOptions, RedisStore, SecondMarkOptions};
pub use writer::{ClaimError, WriterClaim};

/// Names become parts of keys and files: letters, digits, `_`, `-`, at most 128 of them.
fn is_plain_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=128).contains(&name.len()) && name.bytes().all(is_plain)
}
