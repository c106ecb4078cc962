//! Copying the old part of a log into its archive.

use std::sync::Arc;

use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::Log;
use orchestrator_runtime::log_copy::{CopyError, copy_records};

use super::error::RetentionError;
use super::reading::Readable;

/// Takes an archive over.
pub(super) async fn acquire_archive(log: &Arc<dyn Log>) -> Result<Epoch, RetentionError> {
    Ok(log.acquire().await.map_err(RetentionError::Archive)?.epoch)
}

/// As [`copy_records`].
///
/// # Errors
///
/// [`RetentionError::Hole`], [`RetentionError::Read`], [`RetentionError::Copy`]. What was copied stays there.
pub async fn copy_to_archive(
    from: Readable<'_>,
    archive: &dyn Log,
    epoch: Epoch,
    below: Seq,
) -> Result<u64, RetentionError> {
    let log = from.name;
    copy_records(from.log, archive, epoch, below).await.map_err(|error| match error {
        CopyError::Read(source) => RetentionError::Read { log, source },
        CopyError::Append(source) => RetentionError::Copy { log, source },
        CopyError::Hole { archived, start } => RetentionError::Hole { log, archived, start },
    })
}
