//! The read model: what people and programs look at while actors change it. Fed from durable journal records only.
//!
//! Its maps have no order: no decision iterates them, so that a replay decides the same. What is kept is bounded: the
//! last cycles, and whatever strategies there are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use dashmap::DashMap;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::mutant;
use orchestrator_kernel::trading::agent::{AgentState, AgentStatus};
use orchestrator_kernel::trading::cycle::CycleState;
use orchestrator_kernel::trading::event::{ForeignHeartbeat, ForeignServices, ServiceHealth};
use orchestrator_kernel::trading::gate::AgentReading;
use orchestrator_kernel::trading::history::{CyclePage, CyclePageFact};
use orchestrator_kernel::trading::ids::{CycleId, JournalSeq, PipelineName, StrategyName};
use orchestrator_kernel::trading::journal::{
    JournalEntry, JournalFact, JournalIndex, KnownStrategy, LastCycle, TradingTally,
};
use tokio::time::Instant;

use crate::command::SessionAnnouncement;

/// Markets whose announcements are remembered.
pub const ANNOUNCED_MARKETS_MAX: usize = 64;

/// Ended cycles that are shown; older ones are in the history.
pub const CYCLES_SHOWN_MAX: usize = 1000;

/// A cycle as it is shown.
#[derive(Clone, Debug)]
pub struct CycleView {
    /// Position of its first record; nothing of one that was open before this process.
    pub first_seq: Option<JournalSeq>,
    /// For when it was planned, if it was.
    pub planned: Option<TsMs>,
    /// What happened in it so far.
    pub state: CycleState,
    /// Its records since the start, in order.
    pub facts: Vec<ShownFact>,
}

impl CycleView {
    /// The cycle as pages have it.
    #[must_use]
    pub fn to_page(&self) -> CyclePage<'_> {
        let facts = self.facts.iter().map(|shown| CyclePageFact { made: shown.made, fact: &shown.fact });
        CyclePage {
            first_seq: self.first_seq,
            planned: self.planned,
            state: &self.state,
            facts: facts.collect(),
        }
    }
}

/// A record of a cycle as it is shown.
#[derive(Clone, Debug)]
pub struct ShownFact {
    /// Its position and its time; nothing of one that was made before this process.
    pub made: Option<(JournalSeq, TsMs)>,
    /// What it says.
    pub fact: Arc<JournalFact>,
}

/// The agent and the counts, as they are shown.
#[derive(Clone, Debug, Default)]
pub struct AgentView {
    /// The agent.
    pub state: AgentState,
    /// The cycle whose audit failed, until the agent is in error because of it.
    pub audit_debt: Option<CycleId>,
    /// Why trading is latched as stopped, if it is.
    pub latched: Option<String>,
    /// Counts.
    pub tally: TradingTally,
    /// The cycle that ended last.
    pub last_cycle: Option<LastCycle>,
}

#[derive(Debug, Default)]
struct Shown {
    agent: RwLock<AgentView>,
    strategies: DashMap<StrategyName, KnownStrategy>,
    cycles: DashMap<CycleId, CycleView>,
    /// Cycles that are shown, oldest first.
    order: Mutex<VecDeque<CycleId>>,
    is_catching_up: AtomicBool,
    /// By market: when it was announced, and whether it is open by that.
    announced: RwLock<BTreeMap<String, (TsMs, bool)>>,
    /// Other services, and the moment that their times count from; nothing while nobody listens to them.
    services: Mutex<Option<(Instant, ForeignServices)>>,
}

/// The read model. Cheap to clone; it outlives the actors.
#[derive(Clone, Debug, Default)]
pub struct TradingView(Arc<Shown>);

impl TradingView {
    /// The agent and the counts.
    #[must_use]
    pub fn agent(&self) -> AgentView {
        self.0.agent.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A strategy.
    #[must_use]
    pub fn strategy(&self, name: &StrategyName) -> Option<KnownStrategy> {
        self.0.strategies.get(name).map(|known| known.clone())
    }

    /// Every strategy, by name. For faces, never for decisions.
    #[must_use]
    pub fn list_strategies(&self) -> Vec<KnownStrategy> {
        let mut all: Vec<_> = self.0.strategies.iter().map(|known| known.value().clone()).collect();
        all.sort_by(|one, other| one.definition.name.cmp(&other.definition.name));
        all
    }

    /// A cycle that runs, or is among the last [`CYCLES_SHOWN_MAX`].
    #[must_use]
    pub fn cycle(&self, cycle: &CycleId) -> Option<CycleView> {
        self.0.cycles.get(cycle).map(|shown| shown.clone())
    }

    /// The pipeline of a cycle that is shown.
    #[must_use]
    pub fn pipeline_of(&self, cycle: &CycleId) -> Option<PipelineName> {
        self.0.cycles.get(cycle).map(|shown| shown.state.started().pipeline.name.clone())
    }

    /// The last cycles that `is_wanted`, newest first, at most `limit`.
    #[must_use]
    pub fn last_cycles(&self, limit: usize, is_wanted: impl Fn(&CycleView) -> bool) -> Vec<CycleView> {
        let order = self.0.order.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Looked at before it is copied: what is wanted is often few of many.
        let newest_first = order.iter().rev().filter_map(|id| {
            let shown = self.0.cycles.get(id)?;
            is_wanted(&shown).then(|| shown.clone())
        });
        newest_first.take(limit).collect()
    }

    /// Whether what was open before the start is not known yet.
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        self.0.is_catching_up.load(Ordering::Acquire)
    }

    /// Says whether what was open before the start is known.
    pub fn set_catching_up(&self, is_catching_up: bool) {
        self.0.is_catching_up.store(is_catching_up, Ordering::Release);
    }

    /// Whether trading is possible by the last `market.session.changed` of each market, if there was one. Names of
    /// markets are others': one that is closed closes them all.
    #[must_use]
    pub fn announced_session(&self) -> Option<bool> {
        let announced = self.0.announced.read().unwrap_or_else(PoisonError::into_inner);
        (!announced.is_empty()).then(|| announced.values().all(|(_, is_open)| *is_open))
    }

    /// Takes what was announced of a market's session. It can only make the calendar stricter; an older announcement
    /// than the one that is known changes nothing.
    pub fn announce_session(&self, announced: &SessionAnnouncement) {
        let SessionAnnouncement { market, is_open, at } = announced;
        let mut known = self.0.announced.write().unwrap_or_else(PoisonError::into_inner);
        let has_room = known.contains_key(market) || known.len() < ANNOUNCED_MARKETS_MAX;
        if has_room && known.get(market).is_none_or(|(known_at, _)| known_at <= at) {
            known.insert(market.clone(), (*at, *is_open));
        }
    }

    /// Begins to listen to other services, which send a heartbeat every `interval`.
    pub fn expect_heartbeats(&self, interval: Duration) {
        let fresh = (Instant::now(), ForeignServices::new(interval));
        *self.0.services.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
    }

    /// Takes a heartbeat of another service.
    pub fn take_heartbeat(&self, beat: &ForeignHeartbeat) {
        let mut services = self.0.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, services)) = services.as_mut()
            && !services.take_heartbeat(beat, since.elapsed())
        {
            tracing::debug!(service = beat.service, "too many services are known to remember one more");
        }
    }

    /// How other services are, by name: the `services` of `/health`.
    #[must_use]
    pub fn list_services(&self) -> Vec<(String, ServiceHealth)> {
        let services = self.0.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.as_ref().map(|(since, services)| services.list_health(since.elapsed())).unwrap_or_default()
    }

    /// The agent as gates read it. A failed audit counts from its record on, not from the agent's.
    #[must_use]
    pub fn agent_reading(&self) -> AgentReading {
        let agent = self.0.agent.read().unwrap_or_else(PoisonError::into_inner);
        let owes = agent.audit_debt.is_some();
        let status = if owes { AgentStatus::Error } else { agent.state.status };
        AgentReading { status, catching_up: self.is_catching_up() }
    }

    /// Shows what a checkpoint says: the state, and the cycles that are open.
    pub fn show_index(&self, index: &JournalIndex) {
        self.0.strategies.clear();
        self.0.cycles.clear();
        self.0.order.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for (name, known) in index.strategies() {
            self.0.strategies.insert(name.clone(), known.clone());
        }
        for (id, open) in index.open_cycles() {
            if let Ok(state) = open.to_state() {
                let facts = open.facts.iter();
                let facts =
                    facts.map(|fact| ShownFact { made: None, fact: Arc::new(fact.clone()) }).collect();
                let planned = open.planned_ts_ms;
                self.show_cycle(*id, CycleView { first_seq: None, planned, state, facts });
            }
        }
        self.show_agent(index);
    }

    /// Shows a record that became durable; `index` has it already.
    pub fn take_entry(&self, seq: JournalSeq, entry: &JournalEntry, index: &JournalIndex) {
        match &entry.fact {
            JournalFact::CycleStarted(started) => {
                let state = CycleState::new((**started).clone());
                let planned = entry.planned_ts_ms;
                let shown = CycleView { first_seq: Some(seq), planned, state, facts: Vec::new() };
                self.show_cycle(started.cycle_id, shown);
                started.strategies.iter().for_each(|name| self.show_strategy(name, index));
            }
            JournalFact::GateDecided(_) | JournalFact::StageEnded(_) | JournalFact::OrderIntended(_) => {
                self.show_cycle_fact(seq, entry);
            }
            JournalFact::CycleEnded(ended) => {
                self.show_cycle_fact(seq, entry);
                if let Some(cycle) = self.cycle(&ended.cycle_id) {
                    cycle.state.started().strategies.iter().for_each(|name| self.show_strategy(name, index));
                }
                self.show_agent(index);
            }
            JournalFact::StrategyChanged(_) => {
                index.strategies().keys().for_each(|name| self.show_strategy(name, index));
                self.0.strategies.retain(|name, _| index.strategies().contains_key(name));
            }
            JournalFact::AgentChanged(_) if mutant!(ViewForgetsTheAgent) => {}
            JournalFact::AgentChanged(_) | JournalFact::KillLatched(_) => self.show_agent(index),
            JournalFact::CommandReceived(_)
            | JournalFact::CommandEnded(_)
            | JournalFact::ScheduleFired(_)
            | JournalFact::ScheduleSkipped(_)
            | JournalFact::AlertRaised(_)
            | JournalFact::AlertCleared(_)
            | JournalFact::ConfigurationSnapshot(_) => {}
        }
    }

    fn show_agent(&self, index: &JournalIndex) {
        *self.0.agent.write().unwrap_or_else(PoisonError::into_inner) = AgentView {
            state: index.agent().clone(),
            audit_debt: index.audit_debt(),
            latched: index.latched().map(str::to_owned),
            tally: index.tally(),
            last_cycle: index.last_cycle().copied(),
        };
    }

    fn show_strategy(&self, name: &StrategyName, index: &JournalIndex) {
        if let Some(known) = index.strategies().get(name) {
            self.0.strategies.insert(name.clone(), known.clone());
        }
    }

    fn show_cycle_fact(&self, seq: JournalSeq, entry: &JournalEntry) {
        let Some(id) = entry.fact.cycle_id() else { return };
        if let Some(mut shown) = self.0.cycles.get_mut(&id) {
            // The audit has seen it: it fits.
            if shown.state.apply_fact(&entry.fact).is_ok() {
                let made = Some((seq, entry.at_ms));
                shown.facts.push(ShownFact { made, fact: Arc::new(entry.fact.clone()) });
            }
        }
    }

    fn show_cycle(&self, id: CycleId, cycle: CycleView) {
        self.0.cycles.insert(id, cycle);
        let mut order = self.0.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.push_back(id);
        // Only ended ones leave, so that what runs is always shown.
        while CYCLES_SHOWN_MAX < order.len() {
            let is_ended = |id: &CycleId| self.0.cycles.get(id).is_none_or(|it| it.state.ended().is_some());
            let Some(at) = order.iter().position(is_ended) else { return };
            if let Some(oldest) = order.remove(at) {
                self.0.cycles.remove(&oldest);
            }
        }
    }
}
