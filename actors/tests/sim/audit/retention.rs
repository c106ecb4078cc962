//! What must hold of retention: nothing goes that is needed, or that the base and the archives do not hold.

use std::collections::BTreeSet;

use orchestrator_actors::testkit::{TestEngine, without_publish_time};
use orchestrator_kernel::engine::audit::{self, AuditStep, StateFrom};
use orchestrator_kernel::engine::contracts::engine_run::{RunFacts, RunRecord};
use orchestrator_kernel::engine::contracts::orchestrator_event::{events, outputs_of};
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::replay::RunLogOutline;
use orchestrator_kernel::engine::retention::RetentionBase;
use orchestrator_kernel::engine::run::RunIndex;
use orchestrator_kernel::ids::{RunSeq, Seq, Symbol};

use super::{Audit, Checked, Role};

/// How far a round of retention has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No round is in progress, as far as it can be seen.
    #[default]
    Idle,
    /// A base is saved, and what it stands for is still in the logs.
    BaseSaved,
    /// Records are copied, and still in their log.
    Copied,
}

/// What was let go, and what stands for it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Who is run.
    scheduled: BTreeSet<Symbol>,
    /// How many records went, by [`Role`].
    gone: [u64; 3],
    /// Records in the archives, where there are archives.
    archived: Option<[u64; 3]>,
    /// The base that a start finds.
    base: RetentionBase,
    /// Whether nobody may start from that base: it ends before the logs begin.
    is_base_short: bool,
    /// What the run log says up to the base that was saved last.
    index: RunIndex,
    /// Outputs in the base that this life loaded last.
    pub(super) base_outputs: u64,
    pub(super) stage: Stage,
}

impl Kept {
    /// The first record that is not in the base.
    fn base_from(&self, role: Role) -> u64 {
        match role {
            Role::Receipts => self.base.receipts_from().0,
            Role::Quarantine => self.base.quarantine_from().0,
            Role::Runs => self.base.runs_from().0,
        }
    }

    /// A cut that begins in what the base holds could not be taken again.
    pub(super) fn check_start(&self, facts: &RunFacts) -> Checked {
        let from = self.base.receipts_from();
        must!(
            from <= facts.cut.start,
            "CUT-1: the cut of run {} starts at {}, retention keeps receipts from {from} on",
            facts.run_id,
            facts.cut.start
        );
        Ok(())
    }
}

impl Audit {
    /// Who is run, and whether what goes is to be in an archive.
    pub(crate) fn expect(&mut self, scheduled: BTreeSet<Symbol>, is_archived: bool) {
        self.kept.scheduled = scheduled;
        self.kept.archived = is_archived.then_some([0; 3]);
    }

    /// A process begins, and finds this base.
    pub(crate) fn base_found(&mut self, value: Option<&[u8]>) -> Checked {
        self.kept.base = decode(value)?;
        let short = |role| self.kept.base_from(role) <= self.kept.gone[role as usize];
        self.kept.is_base_short = [Role::Receipts, Role::Quarantine, Role::Runs].into_iter().any(short);
        Ok(())
    }

    /// Whether a start must be refused: what is left does not follow from the base that there is.
    pub(crate) fn must_refuse(&self) -> bool {
        self.kept.is_base_short
    }

    /// How far a round of retention has come.
    pub(crate) fn stage(&self) -> Stage {
        self.kept.stage
    }

    /// Whether a start needs a base.
    pub(crate) fn is_trimmed(&self) -> bool {
        self.kept.gone != [0; 3]
    }

    /// A process has read the base.
    pub(crate) fn base_loaded(&mut self, value: Option<&[u8]>) -> Checked {
        self.kept.base_outputs = decode(value)?.run_index().output_count();
        Ok(())
    }

    /// OUT-1, REP-1: a base stands for what is published and needed by nobody, and says of it what the logs said.
    pub(crate) fn base_saved(&mut self, value: &[u8]) -> Checked {
        let base = decode(Some(value))?;
        let (receipts, items) = (base.receipts_from().0 as usize, base.quarantine_from().0 as usize);
        must!(
            receipts <= self.receipts.len().max(1),
            "LOG-5: a base up to receipt {}, of {}, leaves no time to go on from",
            receipts - 1,
            self.receipts.len()
        );
        must!(items <= self.quarantine.len() + 1, "a base counts {items} items, fewer are there");
        self.check_runs_of(&base)?;
        self.check_needs(&base)?;
        self.kept.base = base;
        self.kept.stage = Stage::BaseSaved;
        Ok(())
    }

    fn check_runs_of(&mut self, base: &RetentionBase) -> Checked {
        let tail = base.run_index().tail();
        if tail < self.kept.index.tail() {
            // Begun again from an older base.
            self.kept.index = RunIndex::default();
        }
        let let_go = self.let_go();
        while self.kept.index.tail() < tail {
            let seq = self.kept.index.tail().next();
            let record = self.records.get(seq.0 as usize - 1);
            let record =
                record.ok_or_else(|| format!("a base holds run record {seq}, which is not there"))?;
            for index in 0..outputs_of(record) {
                let output = (record.facts.symbol.clone(), record.facts.symbol_seq + index);
                let there = self.confirmed.contains(&(seq, index as u32)) || let_go.contains(&output);
                must!(
                    there,
                    "OUT-1: a base holds run record {seq}, of which output {index} is not published"
                );
            }
            self.kept.index.admit_record(record).map_err(|error| error.to_string())?;
        }
        must!(
            *base.run_index() == self.kept.index,
            "REP-1: a base says {:?} of the runs up to {tail}, their records say {:?}",
            base.run_index(),
            self.kept.index
        );
        Ok(())
    }

    /// CUT-1: the cuts of the runs that are left, the next cut of each symbol that is run, and its first one.
    fn check_needs(&self, base: &RetentionBase) -> Checked {
        let from = base.receipts_from();
        let left = &self.records[base.run_index().tail().0 as usize..];
        let first = left.iter().map(|record| (record.facts.cut.start, &record.facts.symbol));
        let next = self.runs.iter().filter_map(|(symbol, runs)| {
            let open = runs.open.as_ref().map(|(facts, _)| facts.cut.start);
            Some((open.or(runs.last.as_ref().map(|last| last.cut.end.next()))?, symbol))
        });
        let is_run = |symbol: &Symbol| self.runs.get(symbol).is_some_and(|runs| runs.last.is_some());
        let never_run = self.firsts.iter().filter(|(symbol, _)| !is_run(symbol));
        let needed = next.chain(never_run.map(|(symbol, first)| (*first, symbol)));
        let needed = first.chain(needed.filter(|(_, symbol)| self.kept.scheduled.contains(*symbol)));
        if let Some((start, symbol)) = needed.min().filter(|(start, _)| *start < from) {
            return Err(format!(
                "CUT-1: a base holds the receipts before {from}, {symbol} needs those from {start} on"
            ));
        }
        Ok(())
    }

    /// The log begins here now. Says how many records went since it was looked last.
    pub(crate) fn trimmed(&mut self, role: Role, start: Seq) -> Result<u64, String> {
        let (gone, before) = (start.0 - 1, self.kept.gone[role as usize]);
        if gone <= before {
            return Ok(0);
        }
        let from = self.kept.base_from(role);
        must!(
            gone < from,
            "REP-1: {role:?} begin at {start} before a base up to there is saved, only {from}"
        );
        must!(
            role != Role::Receipts || gone < self.receipts.len() as u64,
            "LOG-5: the last receipt was let go"
        );
        let archived = self.kept.archived.map_or(gone, |archived| archived[role as usize]);
        must!(gone <= archived, "{role:?} up to {gone} are gone, the archive ends at {archived}");
        self.kept.gone[role as usize] = gone;
        self.kept.stage = Stage::Idle;
        Ok(gone - before)
    }

    /// Records in an archive that were looked at.
    pub(crate) fn archived(&self, role: Role) -> u64 {
        self.kept.archived.map_or(0, |archived| archived[role as usize])
    }

    /// The next record of an archive is the log's, byte for byte.
    pub(crate) fn copied(&mut self, role: Role, payload: &[u8]) -> Checked {
        let Some(archived) = &mut self.kept.archived else { return Err("there is no archive".to_owned()) };
        let count = &mut archived[role as usize];
        *count += 1;
        let at = *count;
        must!(self.bytes_of(role, at) == payload, "record {at} in the archive of {role:?} is not the log's");
        self.kept.stage = Stage::Copied;
        Ok(())
    }

    /// Every record that was ever in the log.
    fn bytes_of(&self, role: Role, seq: u64) -> Vec<u8> {
        let at = seq as usize - 1;
        match role {
            Role::Receipts => self.receipts[at].clone(),
            Role::Quarantine => self.quarantine[at].clone(),
            Role::Runs => {
                let mut bytes = Vec::new();
                self.records[at].encode_to(&mut bytes);
                bytes
            }
        }
    }

    /// LOG-4, REP-1: what the archive and its log hold, from this record on, is all that there ever was.
    pub(crate) fn is_whole(&self, role: Role, from: u64, records: &[Vec<u8>]) -> Checked {
        let count = self.seen(role) as u64;
        let found = records.len() as u64;
        must!(from + found == count + 1, "{role:?} from {from} on: {found} are left of {count}");
        let differs = (from..).zip(records).find(|(seq, bytes)| self.bytes_of(role, *seq) != **bytes);
        must!(differs.is_none(), "{role:?} {:?} is not what was acknowledged", differs.map(|(seq, _)| seq));
        Ok(())
    }

    /// REP-1: what is left, replayed from the base, gives what was published of it.
    pub(super) fn oracle_from_the_base(&self) -> Checked {
        let base = &self.kept.base;
        let left =
            || (base.runs_from().0..).map(RunSeq).zip(&self.records[base.run_index().tail().0 as usize..]);
        let mut outline = RunLogOutline::default();
        left().for_each(|(_, record)| outline.note_record(record));
        let mut audit = audit::Audit::new(outline, StateFrom::Replay, base.into());
        let mut found = Vec::new();
        for payload in &self.receipts[base.receipts_from().0 as usize - 1..] {
            let record = ReceiptRecord::decode(payload).map_err(|error| error.to_string())?;
            audit.take_receipt(record.ingest_seq.into(), &record, &mut found);
        }
        audit.receipts_ended();
        for (at, record) in left() {
            let again = match audit.take_run_record(at, record, &mut found) {
                AuditStep::Nothing => continue,
                AuditStep::Settled(again) => *again,
                AuditStep::Call(call) => {
                    audit.compare_answer(at, record, Ok(TestEngine::answer(&call)), &mut found)
                }
            };
            self.was_published(at, &again)?;
        }
        must!(found.is_empty(), "REP-1: replayed from the base: {:.2000}", format!("{found:?}"));
        Ok(())
    }

    fn was_published(&self, at: RunSeq, record: &RunRecord) -> Checked {
        for output in events(at, record, None).map_err(|error| error.to_string())? {
            let runs = self.runs.get(&output.symbol).ok_or("a run of nobody")?;
            let published = runs.bodies.get(&output.symbol_seq);
            let is_let_go = || self.let_go().contains(&(output.symbol.clone(), output.symbol_seq));
            must!(
                published.map_or_else(is_let_go, |body| *body == without_publish_time(&output.body)),
                "REP-1: output {} of {} is another one when replayed from the base",
                output.symbol_seq,
                output.symbol
            );
        }
        Ok(())
    }

    /// The first receipt that has to stay when those before `wanted` are to go, and run records before `runs_below`.
    pub(crate) fn first_to_stay(&self, wanted: u64, runs_below: u64) -> u64 {
        let goes = |(at, record): &(u64, &RunRecord)| *at < runs_below || record.facts.cut.start.0 < wanted;
        let left = (1..).zip(&self.records).skip_while(goes).map(|(_, record)| record.facts.cut.start.0);
        let next = self.runs.values().filter_map(|runs| Some(runs.last.as_ref()?.cut.end.next().0));
        left.chain(next).min().map_or(1, |start| start.min(wanted))
    }
}

fn decode(value: Option<&[u8]>) -> Result<RetentionBase, String> {
    value.map_or_else(
        || Ok(RetentionBase::default()),
        |value| RetentionBase::decode(value).map_err(|error| error.to_string()),
    )
}
