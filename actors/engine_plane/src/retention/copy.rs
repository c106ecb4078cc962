//! Copying the old part of a log into its archive.

use std::sync::Arc;

use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::Log;

use super::error::RetentionError;
use super::reading::Readable;

/// Takes an archive over.
pub(super) async fn acquire_archive(log: &Arc<dyn Log>) -> Result<Epoch, RetentionError> {
    Ok(log.acquire().await.map_err(RetentionError::Archive)?.epoch)
}

/// Makes what is before `below` durable in the archive, which was acquired with `epoch`. What it holds already is not
/// copied again. Returns how many records were copied.
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
    let mut copied = 0;
    loop {
        let (archived, start) = (archive.stat().tail, from.log.stat().start);
        if below <= archived.next() {
            return Ok(copied);
        }
        if archived.next() < start {
            return Err(RetentionError::Hole { log: from.name, archived, start });
        }
        let page = from.page_below(archived.next(), below).await?;
        if page.is_empty() {
            return Ok(copied);
        }
        let appended = archive.append(epoch, &page).await;
        appended.map_err(|source| RetentionError::Copy { log: from.name, source })?;
        copied += page.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ports::log::{LogName, RecordBatch};
    use orchestrator_kernel::ports::log_memory::MemoryLog;

    use super::*;

    /// A log of these records, each its own number.
    async fn log(count: u64) -> (MemoryLog, Epoch) {
        let log = MemoryLog::default();
        let epoch = log.acquire().await.unwrap().epoch;
        let mut batch = RecordBatch::starting_at(Seq(1));
        (1..=count).for_each(|seq| batch.push_with(|bytes| bytes.extend(seq.to_le_bytes())));
        log.append(epoch, &batch).await.unwrap();
        (log, epoch)
    }

    #[tokio::test]
    async fn exactly_what_is_asked_is_copied_once_and_a_hole_is_named() {
        let ((hot, epoch), (archive, to)) = (log(9000).await, log(0).await);
        let from = Readable { name: LogName::Receipts, log: &hot };

        assert_eq!(copy_to_archive(from, &archive, to, Seq(5001)).await.unwrap(), 5000);
        assert_eq!(archive.stat().tail, Seq(5000));
        assert_eq!(copy_to_archive(from, &archive, to, Seq(4000)).await.unwrap(), 0);
        hot.trim(epoch, Seq(5001)).await.unwrap();
        assert_eq!(
            copy_to_archive(from, &archive, to, Seq(u64::MAX)).await.unwrap(),
            4000,
            "as far as the log goes"
        );
        assert_eq!(archive.stat().tail, Seq(9000));

        let (short, to) = log(0).await;
        let hole = copy_to_archive(from, &short, to, Seq(9001)).await.unwrap_err();
        assert!(
            matches!(
                hole,
                RetentionError::Hole { log: LogName::Receipts, archived: Seq(0), start: Seq(5001) }
            ),
            "{hole}"
        );
    }
}
