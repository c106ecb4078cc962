//! The audit of the trading plane's journal, where there is one: its chain, its rules, and what was saved of it.
//!
//! ```text
//! whole          record 1 ──────────── every rule ───────────────────────▶ tail
//! trimmed        start ── chain only ──▶ base ──── every rule ───────────▶ tail
//! ```
//!
//! Between the start of a trimmed journal and its base only the chain can be followed: a base stands where records were
//! to go, and a log lets only whole segments go.

use std::sync::Arc;

use orchestrator_kernel::engine::divergence::{Check, Divergence, DivergencePlace};
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError};
use orchestrator_kernel::ports::log::{Log, LogName};
use orchestrator_kernel::trading::journal::audit::{BrokenRule, JournalRule, JournalUnfinished};
use orchestrator_kernel::trading::journal::{ChainBreak, ChainHash, SealedEntry};
use orchestrator_trading_plane::saved::{
    JOURNAL_BASE, JOURNAL_CHECKPOINT, JournalFold, load_journal_base, load_journal_checkpoint,
};

use super::report::VerifyReport;
use super::{note_stopped, note_unopened};
use crate::offline::replay::{Pages, ReplayError};
use crate::service::wiring::reading::Recorded;

/// Saved values of the journal.
pub struct SavedJournal {
    checkpoint: Result<Option<JournalFold>, LoadError>,
    base: Result<Option<JournalFold>, LoadError>,
}

impl SavedJournal {
    pub(super) async fn read_beside(checkpoints: &dyn CheckpointStore) -> Self {
        Self {
            checkpoint: load_journal_checkpoint(checkpoints).await,
            base: load_journal_base(checkpoints).await,
        }
    }

    fn known_folds(&self) -> impl Iterator<Item = (&'static str, &JournalFold)> {
        let folds = [(JOURNAL_CHECKPOINT, &self.checkpoint), (JOURNAL_BASE, &self.base)];
        folds.into_iter().filter_map(|(name, saved)| Some((name, saved.as_ref().ok()?.as_ref()?)))
    }

    /// What was saved and cannot be used.
    pub(super) fn unusable(&self) -> [(&'static str, Option<&LoadError>); 2] {
        [
            ("the checkpoint of the journal", self.checkpoint.as_ref().err()),
            ("the base of the journal", self.base.as_ref().err()),
        ]
    }
}

/// A journal that was audited to its end.
#[derive(Debug)]
pub(super) struct AuditedJournal {
    /// The first record that is there.
    pub(super) first: Seq,
    /// The last one.
    pub(super) last: Seq,
    /// The hash that the next record continues.
    pub(super) head: ChainHash,
    /// What has begun and not ended.
    pub(super) unfinished: JournalUnfinished,
}

/// Audits the journal and tells the report.
pub(super) async fn audit_journal(recorded: &Recorded, saved: &SavedJournal, report: &mut VerifyReport) {
    let log = match recorded.journal() {
        Ok(log) => log,
        Err(error) => {
            note_unopened(report, error);
            return;
        }
    };
    let tail = log.map_or(Seq(0), |log| log.stat().tail);
    for (name, fold) in saved.known_folds().filter(|(_, fold)| tail < Seq::from(fold.tail())) {
        report.note_divergence(Divergence {
            check: Check::Checkpoints,
            place: DivergencePlace::Other(format!("checkpoint {name}")),
            field: "last record",
            recorded: fold.tail().to_string(),
            replayed: format!("{tail}: LOG_REGRESSED, the log of {} has lost records", LogName::Journal),
        });
    }
    let Some(log) = log else { return };
    report.has_journal = true;
    let start = log.stat().start.max(Seq(1));
    let base = saved.base.as_ref().ok().and_then(Option::as_ref);
    let fold = match base {
        _ if start == Seq(1) => JournalFold::default(),
        Some(base) if start <= Seq::from(base.tail()).next() => base.clone(),
        Some(_) | None => {
            report.cannot_tell(format!(
                "the journal starts at record {start}, and nothing says what stood before: restore the checkpoint \
                 {JOURNAL_BASE}, or verify it with its archive"
            ));
            return;
        }
    };
    if Seq(1) < start {
        report.add_note(format!("the journal begins at record {start}: what was before was trimmed"));
        if !follow_chain(log, start, &fold, report).await {
            return;
        }
    }
    audit_records(log, fold, saved, report).await;
}

/// Follows the chain from the first record that is there to the base; says whether it leads there.
async fn follow_chain(log: &Arc<dyn Log>, start: Seq, base: &JournalFold, report: &mut VerifyReport) -> bool {
    let end = Seq::from(base.tail());
    if end < start {
        return true;
    }
    let mut pages = Pages::read_ahead(Arc::clone(log), start, Some(end));
    let mut head: Option<ChainHash> = None;
    loop {
        let page = match pages.next_page().await {
            Ok(Some(page)) => page,
            Ok(None) => break,
            Err(source) => {
                note_stopped(report, &ReplayError::Read { log: LogName::Journal, source });
                return false;
            }
        };
        for (seq, bytes) in page.iter().take_while(|(seq, _)| *seq <= end) {
            let sealed = match head {
                // What the first one continues is not there any more.
                None => SealedEntry::decode(bytes).map_err(ChainBreak::from),
                Some(head) => SealedEntry::decode_after(head, bytes),
            };
            match sealed {
                Ok(sealed) => head = Some(sealed.hash),
                Err(error) => {
                    note_chain_break(seq, &error, report);
                    return false;
                }
            }
        }
    }
    let leads_there = head == Some(base.audit.head_hash());
    if !leads_there {
        let detail = format!("the base {JOURNAL_BASE} knows another hash of it");
        note_broken(&BrokenRule { seq: base.tail(), rule: JournalRule::Chain, detail }, report);
    }
    leads_there
}

/// Audits every record behind `fold`, and compares what was saved on the way.
async fn audit_records(
    log: &Arc<dyn Log>,
    mut fold: JournalFold,
    saved: &SavedJournal,
    report: &mut VerifyReport,
) {
    compare_saved(&fold, saved, report);
    let mut pages = Pages::read_ahead(Arc::clone(log), Seq::from(fold.tail()).next(), None);
    loop {
        let page = match pages.next_page().await {
            Ok(Some(page)) => page,
            Ok(None) => break,
            Err(source) => {
                note_stopped(report, &ReplayError::Read { log: LogName::Journal, source });
                return;
            }
        };
        for (seq, bytes) in page.iter() {
            if let Err(broken) = fold.take_record(seq, bytes) {
                // What the audit says of later records means nothing.
                note_broken(&broken, report);
                return;
            }
            compare_saved(&fold, saved, report);
        }
    }
    let stat = log.stat();
    report.journal = Some(AuditedJournal {
        first: stat.start.max(Seq(1)),
        last: fold.tail().into(),
        head: fold.audit.head_hash(),
        unfinished: fold.audit.unfinished_work(),
    });
}

/// What was saved at this place is what the records up to it add up to.
fn compare_saved(fold: &JournalFold, saved: &SavedJournal, report: &mut VerifyReport) {
    let here = saved.known_folds().filter(|(_, known)| known.tail() == fold.tail());
    for (name, _) in here.filter(|(_, known)| *known != fold) {
        report.note_divergence(Divergence {
            check: Check::Checkpoints,
            place: DivergencePlace::Other(format!("checkpoint {name}")),
            field: "state",
            recorded: format!("another one at record {}", fold.tail()),
            replayed: "what its records add up to".to_owned(),
        });
    }
}

fn note_broken(broken: &BrokenRule, report: &mut VerifyReport) {
    report.note_divergence(Divergence {
        check: Check::Journal,
        place: DivergencePlace::Other(format!("log {} record {}", LogName::Journal, broken.seq)),
        field: broken.rule.as_str(),
        recorded: broken.detail.clone(),
        replayed: broken.rule.sentence().trim().to_owned(),
    });
}

fn note_chain_break(seq: Seq, error: &ChainBreak, report: &mut VerifyReport) {
    let rule = match error {
        ChainBreak::Hash { .. } => JournalRule::Chain,
        ChainBreak::Undecodable(_) => JournalRule::Decodable,
    };
    note_broken(&BrokenRule { seq: seq.into(), rule, detail: error.to_string() }, report);
}
