//! The events that the journal's records give, and the cursor that says up to which record they were taken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::envelope::{EventTrace, TradingEvent};
use super::names::TradingEventKind;
use super::payload;
use crate::engine::contracts::{self, DecodeError};
use crate::trading::cycle::CycleErrorCode;
use crate::trading::gate::{GateDecided, GateKind, GatePlace};
use crate::trading::ids::{
    CycleId, JournalSeq, PipelineName, ScheduleName, StageName, StrategyName, TradingEventId,
};
use crate::trading::journal::{
    ChainBreak, ChainHash, CycleCause, CycleEnded, CycleError, CycleStarted, FireTrigger, JournalEntry,
    JournalFact, JournalIndex, ScheduleFired, ScheduleSkipped, SealedEntry, StageOutcome,
};
use crate::trading::strategy::{StrategyChanged, StrategyStatus};

const VERSION: u8 = 1;

/// Reason for which a cursor cannot go on with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventBreak {
    /// Records between the cursor and this one are gone.
    #[error("record {found} comes, the cursor ends before {expected}")]
    Missing {
        /// The record that comes next.
        expected: JournalSeq,
        /// The record that came.
        found: JournalSeq,
    },
    /// The record does not continue what the cursor has taken in: it is another journal's.
    #[error("record {seq} is another one than the cursor has taken in")]
    OtherJournal {
        /// The record.
        seq: JournalSeq,
        /// What is wrong with it.
        #[source]
        source: ChainBreak,
    },
}

/// A cycle that has not ended, as far as its later events name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamedCycle {
    pub(super) pipeline: PipelineName,
    pub(super) dry_run: bool,
    /// Enabled stages that have not ended, in order.
    pub(super) stages_ahead: VecDeque<(u16, StageName)>,
}

/// Position behind the last record whose events were taken, the hash that names its journal, and what later events need
/// to know of the records before it. Bounded by what is open and by the strategies that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCursor {
    position: JournalSeq,
    /// Nothing before the first record: what stood before it may be trimmed.
    hash: Option<ChainHash>,
    cycles: BTreeMap<CycleId, NamedCycle>,
    /// Fires of events, and of the engine plane's outputs, whose cycle has not begun.
    event_fires: BTreeSet<(ScheduleName, u64)>,
    strategies: BTreeMap<StrategyName, StrategyStatus>,
}

impl EventCursor {
    /// A cursor before `first`, the first record of a journal; at least 1.
    #[must_use]
    pub fn begin_at(first: JournalSeq) -> Self {
        Self { position: JournalSeq(first.0.saturating_sub(1)), ..Self::default() }
    }

    /// A cursor behind everything that these records add up to, of which `head` is the last one's hash. What comes next
    /// is told as if the records before had been taken in.
    #[must_use]
    pub fn behind_index(index: &JournalIndex, head: ChainHash) -> Self {
        let mut cursor = Self { position: index.tail(), ..Self::default() };
        cursor.hash = Some(head).filter(|_| JournalSeq(0) < index.tail());
        for open in index.open_cycles().values() {
            let mut named = NamedCycle::of_start(&open.started);
            for fact in &open.facts {
                if let JournalFact::StageEnded(ended) = fact {
                    named.note_stage_ended(ended.stage);
                }
            }
            cursor.cycles.insert(open.started.cycle_id, named);
        }
        for (name, known) in index.strategies() {
            cursor.name_strategy(name, known.status);
        }
        let waiting = index.schedules().values().flat_map(|account| account.open.values());
        waiting.for_each(|fired| cursor.note_fired(fired));
        cursor
    }

    /// The last record taken in.
    #[must_use]
    pub const fn position(&self) -> JournalSeq {
        self.position
    }

    /// The hash of the last record taken in; nothing before the first.
    #[must_use]
    pub const fn chain_hash(&self) -> Option<ChainHash> {
        self.hash
    }

    /// The first record that has to stay in the journal: the last one taken in, whose hash tells another journal.
    #[must_use]
    pub fn needed_from(&self) -> JournalSeq {
        if self.hash.is_some() { self.position } else { self.position.next() }
    }

    /// Appends the stored form to `out`.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        contracts::encode_to(VERSION, self, out);
    }

    /// Reads the stored form.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: another version, or bytes that are no cursor.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        contracts::decode_versioned(VERSION, bytes)
    }

    /// Remembers a cycle that began before the cursor's first record, so that its events can name it.
    pub fn name_cycle(&mut self, started: &CycleStarted) {
        self.cycles.insert(started.cycle_id, NamedCycle::of_start(started));
    }

    /// Remembers the status that a strategy had before the cursor's first record.
    pub fn name_strategy(&mut self, name: &StrategyName, status: StrategyStatus) {
        self.strategies.insert(name.clone(), status);
    }

    /// Takes the next stored record in and appends its events.
    ///
    /// # Errors
    ///
    /// [`EventBreak`]; the cursor is then unchanged.
    pub fn take_record(
        &mut self,
        seq: JournalSeq,
        bytes: &[u8],
        events: &mut Vec<TradingEvent>,
    ) -> Result<(), EventBreak> {
        let expected = self.position.next();
        if seq != expected {
            return Err(EventBreak::Missing { expected, found: seq });
        }
        let sealed = match self.hash {
            Some(hash) => SealedEntry::decode_after(hash, bytes),
            None => SealedEntry::decode(bytes).map_err(ChainBreak::Undecodable),
        };
        let SealedEntry { entry, hash } =
            sealed.map_err(|source| EventBreak::OtherJournal { seq, source })?;
        self.push_events(&entry, hash, events);
        self.position = seq;
        self.hash = Some(hash);
        Ok(())
    }

    fn push_events(&mut self, entry: &JournalEntry, hash: ChainHash, events: &mut Vec<TradingEvent>) {
        let mut maker = EventMaker { entry, hash, index: 0, events };
        match &entry.fact {
            JournalFact::CycleStarted(started) => self.tell_started(started, &mut maker),
            JournalFact::GateDecided(decided) => self.tell_kill_block(decided, &mut maker),
            JournalFact::StageEnded(ended) => {
                let cycle = self.cycles.get_mut(&ended.cycle_id);
                if let StageOutcome::Failed(error) = &ended.outcome {
                    let told = payload::stage_failed(ended, error, cycle.as_deref());
                    maker.push_stage_event(TradingEventKind::StageFailed, ended.cycle_id, ended.stage, told);
                }
                cycle.into_iter().for_each(|cycle| cycle.note_stage_ended(ended.stage));
            }
            JournalFact::OrderIntended(intent) => {
                let told = payload::order_intent(intent);
                let key = Some(intent.intent_id.to_string());
                let (cycle, part) = (intent.cycle_id, format!("intent|{}", intent.intent_id));
                maker.push_cycle_part(TradingEventKind::OrdersIntent, cycle, &part, key, told);
            }
            JournalFact::CycleEnded(ended) => self.tell_ended(ended, &mut maker),
            JournalFact::AgentChanged(changed) => {
                maker.push_event(TradingEventKind::AgentChanged, "agent", payload::agent_changed(changed));
            }
            JournalFact::StrategyChanged(changed) => self.tell_strategy(changed, &mut maker),
            JournalFact::AlertRaised(raised) => {
                maker.push_event(TradingEventKind::AlertRaised, &raised.alert, payload::alert_raised(raised));
            }
            JournalFact::AlertCleared(cleared) => {
                let told = payload::alert_cleared(cleared);
                maker.push_event(TradingEventKind::AlertCleared, &cleared.alert, told);
            }
            JournalFact::KillLatched(latch) => {
                let kind = match latch.latched {
                    true => TradingEventKind::KillActivated,
                    false => TradingEventKind::KillDeactivated,
                };
                maker.push_event(kind, "kill", payload::kill_latched(latch, &entry.who));
            }
            JournalFact::ScheduleFired(fired) => self.note_fired(fired),
            JournalFact::ScheduleSkipped(skipped) => self.forget_fires(skipped),
            JournalFact::CommandReceived(_)
            | JournalFact::CommandEnded(_)
            | JournalFact::ConfigurationSnapshot(_) => {}
        }
    }

    fn tell_started(&mut self, started: &CycleStarted, maker: &mut EventMaker<'_>) {
        let by_event = match &started.cause {
            CycleCause::Fire { schedule, fire } => self.event_fires.remove(&(schedule.clone(), *fire)),
            CycleCause::Command(_) => false,
        };
        let triggered_by = match &started.cause {
            // A cycle that begins with decisions was begun by whoever made them.
            _ if by_event || !started.decisions.is_empty() => "event",
            CycleCause::Fire { .. } => "schedule",
            CycleCause::Command(_) => "manual",
        };
        self.name_cycle(started);
        let told = payload::cycle_started(started, maker.entry.planned_ts_ms, triggered_by);
        maker.push_cycle_event(TradingEventKind::CycleStarted, started.cycle_id, told);
    }

    fn tell_kill_block(&self, decided: &GateDecided, maker: &mut EventMaker<'_>) {
        let Some((GateKind::KillSwitch, why)) = decided.first_denial() else { return };
        let named = self.cycles.get(&decided.cycle_id);
        let stage = match &decided.place {
            GatePlace::Before(at) | GatePlace::After(at) => named.and_then(|cycle| cycle.find_stage(*at)),
            GatePlace::BeforeIntent(_) => None,
        };
        let told = payload::kill_block(decided, stage, named, why);
        let part = match &decided.place {
            GatePlace::Before(at) => format!("gate|before|{at}"),
            GatePlace::After(at) => format!("gate|after|{at}"),
            GatePlace::BeforeIntent(decision) => format!("gate|intent|{decision}"),
        };
        maker.push_cycle_part(TradingEventKind::KillBlock, decided.cycle_id, &part, None, told);
    }

    /// A cycle out of time tells first which stage was not begun, then its errors, and its end last.
    fn tell_ended(&mut self, ended: &CycleEnded, maker: &mut EventMaker<'_>) {
        let named = self.cycles.remove(&ended.cycle_id);
        let is_out_of_time = |error: &&CycleError| {
            error.stage.is_none() && error.strategy.is_none() && error.code == CycleErrorCode::Timeout
        };
        if let Some(error) = ended.errors.iter().find(is_out_of_time) {
            let ahead = named.as_ref().and_then(|cycle| cycle.stages_ahead.front());
            let told = payload::stage_not_begun(ended, error, ahead.map(|(_, name)| name), named.as_ref());
            let at = ahead.map_or(u16::MAX, |(at, _)| *at);
            maker.push_stage_event(TradingEventKind::StageFailed, ended.cycle_id, at, told);
        }
        for (error, number) in ended.errors.iter().zip(0_u32..) {
            let told = payload::error_occurred(ended, error, named.as_ref());
            let part = format!("error|{number}");
            let kind = TradingEventKind::ErrorOccurred;
            maker.push_cycle_part(kind, ended.cycle_id, &part, None, told);
        }
        let told = payload::cycle_completed(ended, named.as_ref());
        maker.push_cycle_event(TradingEventKind::CycleCompleted, ended.cycle_id, told);
    }

    /// A status that a strategy had before is no news.
    fn tell_strategy(&mut self, changed: &StrategyChanged, maker: &mut EventMaker<'_>) {
        let (name, from, to, why) = match changed {
            StrategyChanged::Defined { definition, status } => {
                let from = self.strategies.insert(definition.name.clone(), *status);
                (&definition.name, from, Some(*status), "configuration")
            }
            StrategyChanged::Moved { name, from, to, .. } => {
                self.strategies.insert(name.clone(), *to);
                (name, Some(*from), Some(*to), "command")
            }
            StrategyChanged::Removed { name } => (name, self.strategies.remove(name), None, "configuration"),
        };
        let kind = match (from.unwrap_or_default(), to.unwrap_or_default()) {
            (from, to) if from == to => return,
            (_, StrategyStatus::Active) => TradingEventKind::StrategyActivated,
            (_, StrategyStatus::Paused) => TradingEventKind::StrategyPaused,
            (_, StrategyStatus::Stopped) => TradingEventKind::StrategyDeactivated,
        };
        maker.push_event(kind, name.as_str(), payload::strategy_changed(name, from, to, why));
    }

    fn note_fired(&mut self, fired: &ScheduleFired) {
        if matches!(fired.trigger, FireTrigger::Event { .. } | FireTrigger::Output { .. }) {
            self.event_fires.insert((fired.schedule.clone(), fired.fire));
        }
    }

    fn forget_fires(&mut self, skipped: &ScheduleSkipped) {
        if skipped.fires == 1 {
            self.event_fires.remove(&(skipped.schedule.clone(), skipped.first_fire));
        }
    }
}

impl NamedCycle {
    fn of_start(started: &CycleStarted) -> Self {
        let stages = (0..).zip(&started.pipeline.stages);
        let ahead = stages.filter(|(at, stage)| started.begin_at <= *at && stage.enabled);
        Self {
            pipeline: started.pipeline.name.clone(),
            dry_run: started.dry_run,
            stages_ahead: ahead.map(|(at, stage)| (at, stage.name.clone())).collect(),
        }
    }

    fn note_stage_ended(&mut self, at: u16) {
        self.stages_ahead.retain(|(ahead, _)| at < *ahead);
    }

    fn find_stage(&self, at: u16) -> Option<&StageName> {
        self.stages_ahead.iter().find(|(ahead, _)| *ahead == at).map(|(_, name)| name)
    }
}

/// Maker of the events of one record: it numbers them, which their identifiers derive from.
struct EventMaker<'a> {
    entry: &'a JournalEntry,
    hash: ChainHash,
    index: u32,
    events: &'a mut Vec<TradingEvent>,
}

impl EventMaker<'_> {
    /// The cycle itself.
    fn push_cycle_event(&mut self, kind: TradingEventKind, cycle: CycleId, told: serde_json::Value) {
        self.push_of_cycle(kind, cycle, EventTrace::of_cycle(cycle), None, told);
    }

    fn push_stage_event(
        &mut self,
        kind: TradingEventKind,
        cycle: CycleId,
        stage: u16,
        told: serde_json::Value,
    ) {
        let trace = EventTrace::of_cycle_part(cycle, &format!("stage|{stage}"));
        self.push_of_cycle(kind, cycle, trace, None, told);
    }

    fn push_cycle_part(
        &mut self,
        kind: TradingEventKind,
        cycle: CycleId,
        part: &str,
        idempotency_key: Option<String>,
        told: serde_json::Value,
    ) {
        let trace = EventTrace::of_cycle_part(cycle, part);
        self.push_of_cycle(kind, cycle, trace, idempotency_key, told);
    }

    fn push_of_cycle(
        &mut self,
        kind: TradingEventKind,
        cycle: CycleId,
        trace: EventTrace,
        idempotency_key: Option<String>,
        payload: serde_json::Value,
    ) {
        let event = TradingEvent {
            event_id: self.next_id(),
            kind,
            at: self.entry.at_ms,
            trace,
            correlation: cycle.correlation_id(),
            partition_key: cycle.to_string(),
            idempotency_key,
            payload,
        };
        self.events.push(event);
    }

    /// What belongs to no cycle.
    fn push_event(&mut self, kind: TradingEventKind, partition_key: &str, payload: serde_json::Value) {
        let event_id = self.next_id();
        let correlation = self.entry.correlation.clone();
        self.events.push(TradingEvent {
            event_id,
            kind,
            at: self.entry.at_ms,
            trace: EventTrace::of_correlation(&correlation, event_id),
            correlation,
            partition_key: partition_key.to_owned(),
            idempotency_key: None,
            payload,
        });
    }

    fn next_id(&mut self) -> TradingEventId {
        let id = TradingEventId::derive(self.hash.as_bytes(), self.index);
        self.index = self.index.saturating_add(1);
        id
    }
}
