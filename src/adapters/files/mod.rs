//! In files of this machine: the embedded default (logs in segments, checkpoints, outputs), recorded captures as a
//! source, the kill switch, and the second mark of logs on a server.

mod bytes;
pub mod capture_source;
pub mod checkpoints;
pub mod data_dir;
pub mod fs;
pub mod high_water;
pub mod kill_switch;
pub mod log;
pub mod ndjson_fan_out;
mod read_only;
mod reserve;
pub mod second_mark;
#[cfg(test)]
mod tests;

use std::io;

pub use checkpoints::FileCheckpoints;
pub use data_dir::{DataDir, DataDirError};
pub use high_water::{EmbeddedLogMark, FoundMarks, HighWaterMarks, MarkedLog};
pub use log::{EmbeddedLog, EmbeddedLogOptions};
pub use ndjson_fan_out::{NdjsonFile, NdjsonOptions, OutputsFileError};

/// Runs `work` where it may block: on the runtime's blocking threads, or right here when there is no runtime.
///
/// # Errors
///
/// The runtime shuts down, or `work` panicked.
async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await.map_err(io::Error::other),
        Err(_) => Ok(work()),
    }
}
