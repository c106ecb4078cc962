//! Copying the old part of a log into its archive, before it is trimmed.

use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{AppendError, Log, ReadError, ReadLimit};

/// Reason for which records were not copied, or not all. What was copied stays there.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The log cannot be read.
    #[error("cannot read the log")]
    Read(#[source] ReadError),
    /// The archive does not take the records.
    #[error("cannot write the archive")]
    Append(#[source] AppendError),
    /// Between the archive and the log records are missing: they were trimmed while nothing was archived.
    #[error(
        "the archive ends at {archived}, the log starts at {start}: records between them are missing; move that archive \
         away to begin a new one"
    )]
    Hole {
        /// The last archived record.
        archived: Seq,
        /// The first record in the log.
        start: Seq,
    },
}

/// Makes what is before `below` durable in the archive, which was acquired with `epoch`. What it holds already is not
/// copied again. Returns how many records were copied.
///
/// # Errors
///
/// [`CopyError`].
pub async fn copy_records(
    from: &dyn Log,
    archive: &dyn Log,
    epoch: Epoch,
    below: Seq,
) -> Result<u64, CopyError> {
    let mut copied = 0;
    loop {
        let (archived, start) = (archive.stat().tail, from.stat().start);
        let next = archived.next();
        if below <= next {
            return Ok(copied);
        }
        if next < start {
            return Err(CopyError::Hole { archived, start });
        }
        let limit = ReadLimit::default();
        let records = usize::try_from(below.0.saturating_sub(next.0)).unwrap_or(usize::MAX);
        let limit = ReadLimit { records: limit.records.min(records), ..limit };
        let page = from.read(next, limit).await.map_err(CopyError::Read)?;
        if page.is_empty() {
            return Ok(copied);
        }
        archive.append(epoch, &page).await.map_err(CopyError::Append)?;
        copied += page.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ports::log::RecordBatch;
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

        assert_eq!(copy_records(&hot, &archive, to, Seq(5001)).await.unwrap(), 5000);
        assert_eq!(archive.stat().tail, Seq(5000));
        assert_eq!(copy_records(&hot, &archive, to, Seq(4000)).await.unwrap(), 0);
        hot.trim(epoch, Seq(5001)).await.unwrap();
        let all = copy_records(&hot, &archive, to, Seq(u64::MAX)).await.unwrap();
        assert_eq!((all, archive.stat().tail), (4000, Seq(9000)), "as far as the log goes");

        let (short, to) = log(0).await;
        let hole = copy_records(&hot, &short, to, Seq(9001)).await.unwrap_err();
        assert!(matches!(hole, CopyError::Hole { archived: Seq(0), start: Seq(5001) }), "{hole}");
    }
}
