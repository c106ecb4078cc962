//! The fold: what each record of the journal makes of the rows.

use std::collections::BTreeMap;

use serde_json::Value;

use super::columns::{
    ARTIFACT_BYTES_MAX, CONTEXT_BYTES_MAX, LEVEL_CHARS_MAX, SCHEDULE_VALUE_CHARS_MAX, WORD_CHARS_MAX,
    fit_count, fit_json, fit_moment, fit_text, fit_word,
};
use super::cycle_row::{CycleFrame, row_of_cycle};
use super::lines::line_of_fact;
use super::rows::{
    AgentStatusRow, ArtifactRow, CycleLogRow, CycleRow, HistoryMark, HistoryResume, HistoryRows, RunRow,
    ScheduleRow,
};
use super::schedules::HistorySchedule;
use crate::ids::TsMs;
use crate::trading::agent::AgentState;
use crate::trading::cycle::{CYCLE_RESULT_SCHEMA_VERSION, CycleState};
use crate::trading::ids::{
    CorrelationId, CycleId, HistoryRowId, JournalSeq, ScheduleName, StrategyName, StrategyUuid,
};
use crate::trading::journal::{
    ChainBreak, ChainHash, ConfigurationSnapshot, CycleCause, CycleEnded, CycleStarted, IntentEnd,
    JournalEntry, JournalFact, SealedEntry, TradingMode,
};
use crate::trading::strategy::StrategyChanged;

/// Kind of the artifact that each ended cycle leaves.
pub const CYCLE_RESULT_KIND: &str = "cycle_result";

/// Reason for which a history cannot go on from its mark. Made anew, it can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryBreak {
    /// Records between the mark and the journal's beginning are gone.
    #[error("the journal goes on with record {found}, the history ends before {expected}")]
    Missing {
        /// The record that comes next.
        expected: JournalSeq,
        /// The record that came.
        found: JournalSeq,
    },
    /// The record does not continue what the history was made from.
    #[error("record {seq} is another one than the history was made from")]
    OtherJournal {
        /// The record.
        seq: JournalSeq,
        /// What is wrong with it.
        #[source]
        source: ChainBreak,
    },
    /// The mark was written by a newer version, or by hand.
    #[error("the history's mark cannot be read: {0}")]
    Mark(String),
}

/// A cycle that has not ended.
#[derive(Clone, Debug)]
struct OpenHistory {
    first_seq: JournalSeq,
    began_at: TsMs,
    planned: Option<TsMs>,
    correlation: CorrelationId,
    state: CycleState,
    intents: u64,
    handed_on: u64,
}

/// The rows so far, as far as later records need them: open cycles, the agent, the schedules.
#[derive(Clone, Debug, Default)]
pub struct HistoryFold {
    tail: JournalSeq,
    /// Nothing before the first record: what stood before it may be trimmed.
    hash: Option<ChainHash>,
    last_at: Option<TsMs>,
    open: BTreeMap<CycleId, OpenHistory>,
    agent: AgentStatusRow,
    code: String,
    schedules: BTreeMap<ScheduleName, HistorySchedule>,
    /// Whether the database has them.
    are_schedules_written: bool,
    schedule_rows: BTreeMap<HistoryRowId, ScheduleRow>,
}

impl HistoryFold {
    /// An empty history of a journal whose first record is `first`, at least 1.
    #[must_use]
    pub fn begin_at(first: JournalSeq) -> Self {
        Self { tail: JournalSeq(first.0.saturating_sub(1)), ..Self::default() }
    }

    /// The history as the database holds it. Its open cycles come with [`reread_record`](Self::reread_record).
    ///
    /// # Errors
    ///
    /// [`HistoryBreak::Mark`].
    pub fn resume(resume: HistoryResume) -> Result<Self, HistoryBreak> {
        let HistoryResume { mark, agent, schedules } = resume;
        let known = mark.schedules.as_deref().map_or(Ok(BTreeMap::new()), serde_json::from_str);
        Ok(Self {
            tail: mark.position,
            hash: Some(mark.chain_hash),
            last_at: None,
            open: BTreeMap::new(),
            agent: agent.unwrap_or_default(),
            code: mark.code,
            schedules: known.map_err(|error| HistoryBreak::Mark(error.to_string()))?,
            are_schedules_written: true,
            schedule_rows: schedules.into_iter().map(|row| (row.id, row)).collect(),
        })
    }

    /// The last record taken in.
    #[must_use]
    pub const fn tail(&self) -> JournalSeq {
        self.tail
    }

    /// When the last record taken in was made: what is old is old by the journal's own time.
    #[must_use]
    pub const fn last_at(&self) -> Option<TsMs> {
        self.last_at
    }

    /// The first record that has to stay in the journal, so that this history can be gone on with.
    #[must_use]
    pub fn needed_from(&self) -> JournalSeq {
        // The last record itself too: its hash tells another journal.
        self.open_from().min(self.tail)
    }

    fn open_from(&self) -> JournalSeq {
        self.open.values().map(|cycle| cycle.first_seq).min().unwrap_or_else(|| self.tail.next())
    }

    /// Where the database's mark stands, once everything taken in is written; nothing before the first record.
    #[must_use]
    pub fn position(&self) -> Option<JournalSeq> {
        self.hash.map(|_| self.tail)
    }

    /// Notes that everything taken in is written, with its mark.
    pub const fn note_written(&mut self) {
        self.are_schedules_written = true;
    }

    /// The mark that stands beside the rows of everything taken in; nothing before the first record.
    #[must_use]
    pub fn mark(&self) -> Option<HistoryMark> {
        // Names and texts only: the writer has no way to fail.
        let schedules = || serde_json::to_string(&self.schedules).unwrap_or_default();
        Some(HistoryMark {
            position: self.tail,
            chain_hash: self.hash?,
            open_from: self.open_from(),
            code: self.code.clone(),
            schedules: (!self.are_schedules_written).then(schedules),
        })
    }

    /// Takes a record again whose rows are in the database, in the journal's order, up to the mark's: what is open
    /// comes back, and the last one tells whether this is still the same journal.
    ///
    /// # Errors
    ///
    /// [`HistoryBreak::OtherJournal`].
    pub fn reread_record(&mut self, seq: JournalSeq, bytes: &[u8]) -> Result<(), HistoryBreak> {
        let broken = |source| HistoryBreak::OtherJournal { seq, source };
        let sealed = SealedEntry::decode(bytes).map_err(|error| broken(error.into()))?;
        match self.hash {
            Some(stored) if seq == self.tail && stored != sealed.hash => {
                return Err(broken(ChainBreak::Hash { stored, computed: sealed.hash }));
            }
            Some(_) | None => {}
        }
        self.last_at = Some(sealed.entry.at_ms);
        self.take_cycle_fact(seq, &sealed.entry);
        if let JournalFact::CycleEnded(ended) = &sealed.entry.fact {
            self.open.remove(&ended.cycle_id);
        }
        Ok(())
    }

    /// Takes the next record and puts the rows that it changes into `rows`.
    ///
    /// # Errors
    ///
    /// [`HistoryBreak`]; nothing is changed then.
    pub fn take_record(
        &mut self,
        seq: JournalSeq,
        bytes: &[u8],
        rows: &mut HistoryRows,
    ) -> Result<(), HistoryBreak> {
        if seq != self.tail.next() {
            return Err(HistoryBreak::Missing { expected: self.tail.next(), found: seq });
        }
        let sealed = match self.hash {
            Some(previous) => SealedEntry::decode_after(previous, bytes),
            None => SealedEntry::decode(bytes).map_err(ChainBreak::from),
        };
        let sealed = sealed.map_err(|source| HistoryBreak::OtherJournal { seq, source })?;
        self.tail = seq;
        self.hash = Some(sealed.hash);
        self.last_at = Some(sealed.entry.at_ms);
        self.take_entry(seq, &sealed.entry, rows);
        Ok(())
    }

    fn take_entry(&mut self, seq: JournalSeq, entry: &JournalEntry, rows: &mut HistoryRows) {
        let at = fit_moment(entry.at_ms);
        match &entry.fact {
            JournalFact::AgentChanged(changed) => {
                self.take_agent(&changed.state, at);
                rows.agent = Some(self.agent.clone());
            }
            JournalFact::StrategyChanged(StrategyChanged::Removed { name }) => {
                let strategy = StrategyUuid::derive(name);
                self.change_schedules(rows, at, |row| {
                    (row.strategy_id == strategy).then(|| switched_off(row))
                });
            }
            JournalFact::ScheduleFired(fired) if fired.trigger.is_planned() => {
                self.plan_next(&fired.schedule, fired.planned_ts_ms, at, rows);
            }
            JournalFact::ScheduleSkipped(skipped) if skipped.trigger.is_planned() => {
                self.plan_next(&skipped.schedule, skipped.last_planned_ts_ms, at, rows);
            }
            JournalFact::ConfigurationSnapshot(snapshot) => self.take_snapshot(snapshot, entry.at_ms, rows),
            JournalFact::CycleStarted(started) => {
                self.take_cycle(seq, entry, started.cycle_id, rows);
                self.note_run(started, at, rows);
            }
            JournalFact::GateDecided(_) | JournalFact::StageEnded(_) | JournalFact::OrderIntended(_) => {
                entry.fact.cycle_id().into_iter().for_each(|id| self.take_cycle(seq, entry, id, rows));
            }
            JournalFact::CycleEnded(ended) => {
                self.take_cycle(seq, entry, ended.cycle_id, rows);
                self.end_cycle(ended, at, rows);
            }
            JournalFact::StrategyChanged(StrategyChanged::Defined { .. } | StrategyChanged::Moved { .. })
            | JournalFact::ScheduleFired(_)
            | JournalFact::ScheduleSkipped(_)
            | JournalFact::CommandReceived(_)
            | JournalFact::CommandEnded(_)
            | JournalFact::AlertRaised(_)
            | JournalFact::AlertCleared(_)
            | JournalFact::KillLatched(_) => {}
        }
    }

    /// Takes a record of a cycle into its state; a cycle that began before the history did is not shown.
    fn take_cycle_fact(&mut self, seq: JournalSeq, entry: &JournalEntry) {
        if let JournalFact::CycleStarted(started) = &entry.fact {
            let open = OpenHistory {
                first_seq: seq,
                began_at: fit_moment(entry.at_ms),
                planned: entry.planned_ts_ms,
                correlation: entry.correlation.clone(),
                state: CycleState::new((**started).clone()),
                intents: 0,
                handed_on: 0,
            };
            self.open.insert(started.cycle_id, open);
            return;
        }
        let cycle = entry.fact.cycle_id().and_then(|id| self.open.get_mut(&id));
        let Some(cycle) = cycle else { return };
        // The journal's writer has audited it: it fits.
        if cycle.state.apply_fact(&entry.fact).is_err() {
            return;
        }
        if let JournalFact::OrderIntended(intent) = &entry.fact {
            cycle.intents += 1;
            cycle.handed_on += u64::from(intent.end == IntentEnd::HandedOn);
        }
    }

    fn take_cycle(&mut self, seq: JournalSeq, entry: &JournalEntry, id: CycleId, rows: &mut HistoryRows) {
        self.take_cycle_fact(seq, entry);
        let Some(cycle) = self.open.get(&id) else { return };
        rows.runs.insert(id, cycle.run_row());
        rows.cycles.insert(id, cycle.cycle_row());
        if let Some(line) = line_of_fact(&entry.fact, &cycle.state) {
            rows.logs.push(CycleLogRow {
                id: seq,
                cycle_id: id,
                level: fit_word(line.level, LEVEL_CHARS_MAX),
                message: fit_text(&line.message),
                context: fit_json(line.context, CONTEXT_BYTES_MAX),
                at: fit_moment(entry.at_ms),
            });
        }
    }

    fn end_cycle(&mut self, ended: &CycleEnded, at: TsMs, rows: &mut HistoryRows) {
        let Some(cycle) = self.open.remove(&ended.cycle_id) else { return };
        if let Some(result) = cycle.state.result() {
            let wire = result.to_wire(&self.code);
            // What a stage answered may be nested deeper than is read again: it is kept as the text that it is.
            let content = serde_json::from_str(&wire).unwrap_or(Value::String(wire));
            rows.artifacts.push(ArtifactRow {
                artifact_id: HistoryRowId::of_artifact(ended.cycle_id, CYCLE_RESULT_KIND),
                run_id: ended.cycle_id,
                kind: CYCLE_RESULT_KIND.to_owned(),
                schema_version: CYCLE_RESULT_SCHEMA_VERSION.to_owned(),
                code: self.code.clone(),
                content: fit_json(content, ARTIFACT_BYTES_MAX),
                created_at: at,
            });
        }
        let agent = &mut self.agent;
        let added = |count: i32, more: u64| count.saturating_add(fit_count(more));
        agent.cycles_completed = added(agent.cycles_completed, 1);
        agent.decisions_generated = added(agent.decisions_generated, u64::from(ended.counts.decisions));
        agent.orders_executed = added(agent.orders_executed, cycle.handed_on);
        agent.errors_count = added(agent.errors_count, ended.errors.len() as u64);
        agent.updated_at = at;
        rows.agent = Some(agent.clone());
    }

    fn take_agent(&mut self, state: &AgentState, at: TsMs) {
        self.agent = AgentStatusRow {
            status: fit_word(state.status.as_str(), WORD_CHARS_MAX),
            started_at: state.started_at.map(fit_moment),
            stopped_at: state.stopped_at.map(fit_moment),
            paused_at: state.paused_at.map(fit_moment),
            resume_at: state.resume_at.map(fit_moment),
            mode: fit_word(state.mode.as_str(), WORD_CHARS_MAX),
            last_error: state.last_error.as_deref().map(fit_text),
            last_error_at: state.last_error_at.map(fit_moment),
            updated_at: at,
            ..self.agent.clone()
        };
    }

    /// The schedules are these from here on; rows of others stay, switched off.
    fn take_snapshot(&mut self, snapshot: &ConfigurationSnapshot, at_ms: TsMs, rows: &mut HistoryRows) {
        self.code = fit_text(&snapshot.code);
        self.schedules = HistorySchedule::of_settings(&snapshot.settings);
        self.are_schedules_written = false;
        let at = fit_moment(at_ms);
        let mut there = BTreeMap::new();
        for (name, schedule) in &self.schedules {
            for strategy in &schedule.strategies {
                let id = HistoryRowId::of_schedule(strategy, name);
                let before = self.schedule_rows.get(&id);
                there.insert(id, schedule_row(id, strategy, schedule, before, at_ms));
            }
        }
        self.change_schedules(rows, at, |row| (!there.contains_key(&row.id)).then(|| switched_off(row)));
        for (id, row) in there {
            rows.schedules.insert(id, row.clone());
            self.schedule_rows.insert(id, row);
        }
    }

    /// A fire planned for `planned` is decided, so the next one comes after it.
    fn plan_next(&mut self, name: &ScheduleName, planned: TsMs, at: TsMs, rows: &mut HistoryRows) {
        let Some(schedule) = self.schedules.get(name) else { return };
        let next_run_at = schedule.next_fire(planned).map(fit_moment);
        let ids: Vec<_> = schedule.strategies.iter().map(|it| HistoryRowId::of_schedule(it, name)).collect();
        self.change_rows(rows, at, &ids, |row| row.next_run_at = next_run_at);
    }

    /// A cycle of a schedule began.
    fn note_run(&mut self, started: &CycleStarted, at: TsMs, rows: &mut HistoryRows) {
        let CycleCause::Fire { schedule, .. } = &started.cause else { return };
        let began_at = fit_moment(started.started_at);
        let strategies = started.strategies.iter();
        let ids: Vec<_> = strategies.map(|it| HistoryRowId::of_schedule(it, schedule)).collect();
        self.change_rows(rows, at, &ids, |row| row.last_run_at = Some(began_at));
    }

    fn change_rows(
        &mut self,
        rows: &mut HistoryRows,
        at: TsMs,
        ids: &[HistoryRowId],
        change: impl Fn(&mut ScheduleRow),
    ) {
        for id in ids {
            let Some(row) = self.schedule_rows.get_mut(id) else { continue };
            change(row);
            row.updated_at = at;
            rows.schedules.insert(*id, row.clone());
        }
    }

    /// Replaces each row for which `changed` gives another one.
    fn change_schedules(
        &mut self,
        rows: &mut HistoryRows,
        at: TsMs,
        changed: impl Fn(&ScheduleRow) -> Option<ScheduleRow>,
    ) {
        for (id, row) in &mut self.schedule_rows {
            let Some(after) = changed(row).filter(|after| after != &*row) else { continue };
            *row = ScheduleRow { updated_at: at, ..after };
            rows.schedules.insert(*id, row.clone());
        }
    }
}

fn switched_off(row: &ScheduleRow) -> ScheduleRow {
    ScheduleRow { enabled: false, next_run_at: None, ..row.clone() }
}

fn schedule_row(
    id: HistoryRowId,
    strategy: &StrategyName,
    schedule: &HistorySchedule,
    before: Option<&ScheduleRow>,
    at_ms: TsMs,
) -> ScheduleRow {
    let at = fit_moment(at_ms);
    ScheduleRow {
        id,
        strategy_id: StrategyUuid::derive(strategy),
        schedule_type: fit_word(schedule.type_word(), WORD_CHARS_MAX),
        schedule_value: fit_word(&schedule.value_text(), SCHEDULE_VALUE_CHARS_MAX),
        enabled: true,
        last_run_at: before.and_then(|row| row.last_run_at),
        next_run_at: schedule.next_fire(at_ms).map(fit_moment),
        created_at: before.map_or(at, |row| row.created_at),
        updated_at: at,
    }
}

impl OpenHistory {
    fn run_row(&self) -> RunRow {
        let ended = self.state.ended();
        RunRow {
            run_id: self.state.started().cycle_id,
            correlation_id: fit_text(self.correlation.as_str()),
            mode: fit_word(mode_word(self.state.started().mode), WORD_CHARS_MAX),
            status: fit_word(ended.map_or("running", |ended| ended.status.as_str()), WORD_CHARS_MAX),
            started_at: fit_moment(self.state.started().started_at),
            finished_at: ended.map(|ended| fit_moment(ended.finished_at)),
        }
    }

    fn cycle_row(&self) -> CycleRow {
        let frame =
            CycleFrame { first_seq: Some(self.first_seq), planned: self.planned, intents: self.intents };
        row_of_cycle(&self.state, frame, self.began_at)
    }
}

const fn mode_word(mode: TradingMode) -> &'static str {
    match mode {
        TradingMode::Live => "live",
        TradingMode::Paper => "paper",
        TradingMode::Backtest => "backtest",
    }
}
