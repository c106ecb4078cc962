//! Projector: takes records from the journal to the database, a transaction at a time. The service's actor and the
//! command that rebuilds use this one.
//!
//! ```text
//! no fold ──load mark, read open cycles again──▶ fold ──records──▶ rows + mark ──one transaction──▶ fold
//!    ▲                                             └── whatever fails: the fold is forgotten ──┐
//!    └──────────────────────── the database's mark alone says what was written ◀───────────────┘
//! ```

use std::sync::Arc;

use orchestrator_kernel::ids::{Seq, TsMs};
use orchestrator_kernel::ports::history::{HistoryBatch, HistoryError, HistoryStore};
use orchestrator_kernel::ports::log::{Log, ReadError, ReadLimit, RecordBatch};
use orchestrator_kernel::trading::history::{HistoryBreak, HistoryFold, HistoryRows};
use orchestrator_kernel::trading::ids::JournalSeq;

use super::messages::HistoryProgress;

/// Reason for which the history does not go on now.
#[derive(Debug, thiserror::Error)]
pub enum HistoryTrouble {
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] HistoryError),
    /// The journal is not the one that the history was made from, or lacks what comes next.
    #[error("the history does not continue the journal: run `orchestrator history rebuild`")]
    Broken(#[source] HistoryBreak),
    /// The journal is shorter than the history: it was restored from an older copy.
    #[error(
        "the history is at record {projected}, but the journal ends at {tail}: restore the journal, or run \
         `orchestrator history rebuild`"
    )]
    Ahead {
        /// The history's last record.
        projected: JournalSeq,
        /// The journal's last record.
        tail: JournalSeq,
    },
    /// The journal could not be read.
    #[error("the history cannot read the journal")]
    Journal(#[from] ReadError),
    /// The journal has no record where there has to be one.
    #[error("the journal ends before record {0}, which is durable")]
    NoRecord(JournalSeq),
}

impl From<HistoryBreak> for HistoryTrouble {
    fn from(broken: HistoryBreak) -> Self {
        Self::Broken(broken)
    }
}

/// Result of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryStep {
    /// Rows were written; there is more to do.
    Written,
    /// Everything durable is in the database.
    UpToDate,
    /// The database cannot hold the rows of this record, and went on without them.
    Skipped {
        /// The record.
        seq: JournalSeq,
        /// What it said.
        detail: String,
    },
}

/// A projection on its way. All that it keeps is in the database and in the journal.
pub struct HistoryProjector {
    store: Arc<dyn HistoryStore>,
    journal: Arc<dyn Log>,
    records_max: usize,
    /// Nothing before the first step, and after whatever failed.
    fold: Option<HistoryFold>,
    /// Up to here records are written one by one, because the database could not hold one of them.
    careful_until: JournalSeq,
}

impl HistoryProjector {
    /// Of this journal into this database, at most `records_max` records a transaction, at least one.
    #[must_use]
    pub fn new(store: Arc<dyn HistoryStore>, journal: Arc<dyn Log>, records_max: usize) -> Self {
        Self { store, journal, records_max: records_max.max(1), fold: None, careful_until: JournalSeq(0) }
    }

    /// How far it has come; nothing while that is not known.
    #[must_use]
    pub fn progress(&self) -> Option<HistoryProgress> {
        let fold = self.fold.as_ref()?;
        Some(HistoryProgress { projected: fold.tail(), needed_from: Some(fold.needed_from()) })
    }

    /// When the last record taken in was made.
    #[must_use]
    pub fn last_at(&self) -> Option<TsMs> {
        self.fold.as_ref().and_then(HistoryFold::last_at)
    }

    /// Takes the next records in, up to the durable `tail`.
    ///
    /// # Errors
    ///
    /// [`HistoryTrouble`]; the next step begins with what the database says.
    pub async fn project_next(&mut self, tail: JournalSeq) -> Result<HistoryStep, HistoryTrouble> {
        let fold = match self.fold.take() {
            Some(fold) => fold,
            None => self.open_fold(tail).await?,
        };
        if tail <= fold.tail() {
            self.fold = Some(fold);
            return Ok(HistoryStep::UpToDate);
        }
        let (expected, found) = (fold.tail().next(), JournalSeq::from(self.journal.stat().start));
        if expected < found {
            return Err(HistoryBreak::Missing { expected, found }.into());
        }
        let is_careful = fold.tail() < self.careful_until;
        let records_max = if is_careful { 1 } else { self.records_max };
        let batch = self.read_journal(fold.tail().next(), tail, records_max).await?;
        self.write_records(fold, &batch).await
    }

    /// As [`project_next`](Self::project_next), of records that are at hand; nothing when they are not the next ones.
    ///
    /// # Errors
    ///
    /// [`HistoryTrouble`].
    pub async fn project_batch(
        &mut self,
        batch: &RecordBatch,
    ) -> Result<Option<HistoryStep>, HistoryTrouble> {
        let (fits, careful_until) =
            (!batch.is_empty() && batch.len() <= self.records_max, self.careful_until);
        let is_next = |fold: &HistoryFold| {
            Seq::from(fold.tail().next()) == batch.first_seq() && careful_until <= fold.tail()
        };
        match self.fold.take_if(|fold| fits && is_next(fold)) {
            Some(fold) => self.write_records(fold, batch).await.map(Some),
            None => Ok(None),
        }
    }

    async fn write_records(
        &mut self,
        mut fold: HistoryFold,
        records: &RecordBatch,
    ) -> Result<HistoryStep, HistoryTrouble> {
        let after = fold.position();
        let mut rows = HistoryRows::default();
        for (seq, bytes) in records.iter() {
            fold.take_record(seq.into(), bytes, &mut rows)?;
        }
        let Some(mark) = fold.mark() else { return Err(HistoryTrouble::NoRecord(fold.tail().next())) };
        let batch = HistoryBatch { after, mark, rows };
        let applied = self.store.apply_batch(&batch).await;
        match applied {
            Ok(()) => {
                fold.note_written();
                self.fold = Some(fold);
                Ok(HistoryStep::Written)
            }
            Err(HistoryError::Unfit(detail)) if records.len() == 1 => {
                let seq = fold.tail();
                self.store.apply_batch(&HistoryBatch { rows: HistoryRows::default(), ..batch }).await?;
                fold.note_written();
                self.fold = Some(fold);
                Ok(HistoryStep::Skipped { seq, detail })
            }
            Err(HistoryError::Unfit(_)) => {
                self.careful_until = fold.tail();
                Ok(HistoryStep::Written)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The fold as the database's mark and the journal have it.
    async fn open_fold(&self, tail: JournalSeq) -> Result<HistoryFold, HistoryTrouble> {
        let start = self.journal.stat().start.max(Seq(1));
        let Some(resume) = self.store.load_resume().await? else {
            return Ok(HistoryFold::begin_at(start.into()));
        };
        let (open_from, projected) = (resume.mark.open_from, resume.mark.position);
        if tail < projected {
            return Err(HistoryTrouble::Ahead { projected, tail });
        }
        let mut fold = HistoryFold::resume(resume)?;
        let mut at = JournalSeq::from(Seq::from(open_from.min(projected)).max(start));
        while at <= projected {
            let batch = self.read_journal(at, projected, ReadLimit::default().records).await?;
            for (seq, bytes) in batch.iter() {
                fold.reread_record(seq.into(), bytes)?;
            }
            at = JournalSeq::from(batch.last_seq()).next();
        }
        Ok(fold)
    }

    /// Records from `first` on, at least one, at most `records_max`, none behind `last`.
    async fn read_journal(
        &self,
        first: JournalSeq,
        last: JournalSeq,
        records_max: usize,
    ) -> Result<RecordBatch, HistoryTrouble> {
        let count = usize::try_from(last.0.saturating_sub(first.0).saturating_add(1)).unwrap_or(usize::MAX);
        let limit = ReadLimit { records: records_max.min(count), ..ReadLimit::default() };
        let batch = self.journal.read(first.into(), limit).await?;
        if batch.is_empty() { Err(HistoryTrouble::NoRecord(first)) } else { Ok(batch) }
    }
}
