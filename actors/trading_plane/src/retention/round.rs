//! One round of the journal's retention: how far its base may come, and trimming what is in it.

use std::sync::Arc;

use orchestrator_kernel::engine::retention::Policy;
use orchestrator_kernel::ids::{Epoch, Seq, TsMs};
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::log::{Log, ReadLimit};
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_kernel::trading::journal::SealedEntry;
use orchestrator_kernel::trading::journal::retention::{JournalBlocker, JournalLimits, JournalTrimSearch};
use orchestrator_runtime::checkpoint::encode_checkpoint;
use orchestrator_runtime::log_copy::copy_records;

use super::error::JournalRetentionError;
use crate::saved::{JOURNAL_BASE, JournalFold, load_journal_base};

/// The journal as its writer has it, and what its retention works on.
#[derive(Clone)]
pub struct KeptJournal {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The writer's epoch.
    pub epoch: Epoch,
    /// Where records are copied to before they go, and this writer's epoch there.
    pub archive: Option<(Arc<dyn Log>, Epoch)>,
    /// Where the base is.
    pub checkpoints: Arc<dyn CheckpointStore>,
}

/// How much of the journal is to go.
#[derive(Clone, Copy, Debug)]
pub struct JournalRoundRequest {
    /// What is kept.
    pub policy: Policy,
    /// Records before this one are to go, whatever the policy.
    pub below: Option<JournalSeq>,
    /// The time by which records are old; without one none is.
    pub now: Option<TsMs>,
    /// The first record that a reader needs.
    pub needed_from: JournalSeq,
    /// Records by which the base is advanced at a time.
    pub step: u64,
}

/// Decision of a round.
#[derive(Clone, Debug)]
pub struct JournalTrimPlan {
    /// The base from now on; nothing when it stays.
    pub base: Option<JournalFold>,
    /// The first record to stay.
    pub below: Seq,
    /// Work that holds records which the limits would let go, and the first of them.
    pub held: Option<(JournalSeq, JournalBlocker)>,
}

/// The base of the journal: what stood before the records that are there.
///
/// # Errors
///
/// [`JournalRetentionError::BaseUnusable`], [`JournalRetentionError::BaseLost`].
pub async fn load_fitting_base(
    log: &dyn Log,
    checkpoints: &dyn CheckpointStore,
) -> Result<JournalFold, JournalRetentionError> {
    let saved = load_journal_base(checkpoints).await.map_err(JournalRetentionError::BaseUnusable)?;
    let base = saved.unwrap_or_default();
    let start = log.stat().start;
    match Seq::from(base.tail()).next() < start {
        true => Err(JournalRetentionError::BaseLost { start, base: base.tail() }),
        false => Ok(base),
    }
}

/// Decides how far the journal may be trimmed.
///
/// # Errors
///
/// [`JournalRetentionError`].
pub async fn plan_journal_round(
    log: &dyn Log,
    base: &JournalFold,
    asked: JournalRoundRequest,
) -> Result<JournalTrimPlan, JournalRetentionError> {
    let stat = log.stat();
    let by_size = JournalSeq::from(asked.policy.trim_point(stat));
    let limits = JournalLimits {
        older_than: asked.now.and_then(|now| asked.policy.older_than(now)),
        below: asked.below.unwrap_or_default().max(by_size),
        // The last record always stays: who looks at the journal sees where it ends.
        needed_from: asked.needed_from.min(stat.tail.into()),
    };
    let search = search_base(log, base.tail(), limits, asked.step).await?;
    let to = search.base_at();
    let base = match base.tail() < to {
        true => Some(advance_base(log, base.clone(), to).await?),
        false => None,
    };
    Ok(JournalTrimPlan { below: Seq::from(to).next(), base, held: search.first_open() })
}

/// Looks through the records behind the base until one has to stay; a step of them is enough when it brings the base
/// on.
async fn search_base(
    log: &dyn Log,
    from: JournalSeq,
    limits: JournalLimits,
    step: u64,
) -> Result<JournalTrimSearch, JournalRetentionError> {
    let mut search = JournalTrimSearch::new(from, limits);
    loop {
        let page = log.read(Seq::from(search.tail()).next(), ReadLimit::default()).await?;
        for (seq, bytes) in page.iter() {
            let seq = JournalSeq::from(seq);
            let sealed = SealedEntry::decode(bytes);
            let sealed = sealed.map_err(|source| JournalRetentionError::Record { seq, source })?;
            if !search.take_entry(seq, &sealed.entry) {
                return Ok(search);
            }
        }
        let is_enough = from < search.base_at() && step <= search.tail().0.saturating_sub(from.0);
        if page.is_empty() || is_enough {
            return Ok(search);
        }
    }
}

/// Folds the records up to `to` into the base: what leaves the journal is audited once more.
async fn advance_base(
    log: &dyn Log,
    mut base: JournalFold,
    to: JournalSeq,
) -> Result<JournalFold, JournalRetentionError> {
    while base.tail() < to {
        let next = Seq::from(base.tail()).next();
        let page = log.read(next, ReadLimit::default()).await?;
        if page.is_empty() {
            return Err(JournalRetentionError::Read(std::io::Error::other("it ends before its tail").into()));
        }
        for (seq, bytes) in page.iter().take_while(|(seq, _)| JournalSeq::from(*seq) <= to) {
            base.take_record(seq, bytes)?;
        }
    }
    Ok(base)
}

/// Copies what is before `below` to the archive, if there is one, and trims it. The base that is saved must reach it.
/// Returns how many records went.
///
/// # Errors
///
/// [`JournalRetentionError`].
pub async fn trim_below(kept: &KeptJournal, below: Seq) -> Result<u64, JournalRetentionError> {
    let before = kept.log.stat().start;
    if below <= before {
        return Ok(0);
    }
    if let Some((archive, epoch)) = &kept.archive {
        copy_records(kept.log.as_ref(), archive.as_ref(), *epoch, below).await?;
    }
    let start = kept.log.trim(kept.epoch, below).await?;
    Ok(start.0.saturating_sub(before.0))
}

/// Saves the base, before anything that is in it is trimmed.
///
/// # Errors
///
/// [`JournalRetentionError::BaseUnsaved`].
pub async fn save_base(kept: &KeptJournal, base: &JournalFold) -> Result<(), JournalRetentionError> {
    let value = encode_checkpoint(&base.to_saved());
    kept.checkpoints.save(JOURNAL_BASE, kept.epoch, value).await.map_err(JournalRetentionError::BaseUnsaved)
}
