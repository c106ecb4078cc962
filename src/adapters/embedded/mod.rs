//! The embedded default: logs in segment files, checkpoints and outputs in plain files.

pub mod checkpoint;
pub mod data_dir;
#[cfg(test)]
mod fault_fs;
pub mod fs;
#[cfg(test)]
mod golden;
pub mod high_water;
pub mod log;
pub mod ndjson;
mod read_only;
mod reserve;

use std::io;

pub use checkpoint::FileCheckpoints;
pub use data_dir::{DataDir, DataDirError};
pub use high_water::{FoundMarks, HighWaterMarks, LogMark, MarkedLog};
pub use log::{EmbeddedLog, LogOptions};
pub use ndjson::{NdjsonFile, NdjsonOptions, OutputsFileError};

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
