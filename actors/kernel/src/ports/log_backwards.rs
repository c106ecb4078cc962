//! A log read from its end to its beginning: what was stored last is found first.

use super::log::{Log, ReadError, ReadLimit, RecordBatch};
use crate::ids::Seq;

/// Records of one stretch. A stretch is held as a whole, and a record may have hundreds of KiB.
const STRETCH: u64 = 256;

/// Goes through a log backwards, one stretch of records after the other.
///
/// ```text
///  start │ ··· third │ second │ first stretch │ tail when it was made      the records of a stretch come in order
/// ```
pub struct Backwards<'a> {
    log: &'a dyn Log,
    /// The first record of the last stretch.
    above: Seq,
}

impl<'a> Backwards<'a> {
    /// Begins at the tail that `log` has now.
    #[must_use]
    pub fn from_tail(log: &'a dyn Log) -> Self {
        Self { log, above: log.stat().tail.next() }
    }

    /// The stretch before the last one; `None` at the beginning of what is still there.
    ///
    /// # Errors
    ///
    /// As [`Log::read`], but for records that were trimmed meanwhile: those are the beginning.
    pub async fn next_stretch(&mut self) -> Result<Option<Vec<RecordBatch>>, ReadError> {
        let start = self.log.stat().start.max(Seq(1));
        if self.above <= start {
            return Ok(None);
        }
        let from = Seq(self.above.0.saturating_sub(STRETCH)).max(start);
        let mut stretch = Vec::new();
        let mut next = from;
        while next < self.above {
            let records = usize::try_from(self.above.0 - next.0).unwrap_or(usize::MAX);
            let batch = match self.log.read(next, ReadLimit { records, ..ReadLimit::default() }).await {
                Err(ReadError::Trimmed { .. }) => return Ok(None),
                read => read?,
            };
            if batch.is_empty() {
                break;
            }
            next = batch.last_seq().next();
            stretch.push(batch);
        }
        self.above = from;
        Ok(Some(stretch))
    }
}

#[cfg(test)]
mod tests {
    use super::super::log_memory::MemoryLog;
    use super::*;

    #[test]
    fn every_record_that_is_still_there_comes_once_and_the_last_first() {
        pollster::block_on(async {
            for (records, trimmed) in [(0, 0), (1, 0), (256, 0), (700, 0), (700, 300), (700, 700)] {
                let log = MemoryLog::default();
                let epoch = log.acquire().await.unwrap().epoch;
                let mut batch = RecordBatch::starting_at(Seq(1));
                (1..=records).for_each(|n: u64| batch.push(&n.to_le_bytes()));
                log.append(epoch, &batch).await.unwrap();
                log.trim(epoch, Seq(trimmed + 1)).await.unwrap();

                let mut backwards = Backwards::from_tail(&log);
                let mut stretches = Vec::new();
                while let Some(stretch) = backwards.next_stretch().await.unwrap() {
                    stretches.push(stretch);
                }

                let seqs: Vec<u64> = stretches
                    .iter()
                    .rev()
                    .flatten()
                    .flat_map(|batch| batch.iter().map(|(seq, _)| seq.0).collect::<Vec<_>>())
                    .collect();
                assert_eq!(seqs, (trimmed + 1..=records).collect::<Vec<_>>(), "{records} less {trimmed}");
                assert!(stretches.iter().flatten().all(|batch| batch.len() as u64 <= STRETCH));
            }
        });
    }
}
