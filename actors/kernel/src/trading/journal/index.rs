//! What the journal says about now: the state that the trading plane's actors start from.
//!
//! It believes what it reads: that the records are in order is the audit's to say. What it keeps is bounded by what is
//! open, by the strategies and schedules that there are, and by [`COMMANDS_REMEMBERED_MAX`].

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::recent_ids::RecentIds;
use super::{
    CommandEnded, CommandOutcome, CommandReceived, ConfigHash, CycleCause, CycleEnded, CycleStarted,
    FireDisposition, FireTrigger, JournalEntry, JournalFact, ScheduleFired, ScheduleSkipped,
};
use crate::engine::contracts::{self, DecodeError};
use crate::ids::{RunSeq, TsMs};
use crate::trading::agent::{AgentState, AgentStatus};
use crate::trading::cycle::{CycleOutOfOrder, CycleState, CycleStatus};
use crate::trading::ids::{CommandId, CorrelationId, CycleId, JournalSeq, ScheduleName, StrategyName};
use crate::trading::strategy::{StrategyChanged, StrategyDefinition, StrategyStatus};

/// Commands whose answers are remembered, so that one that comes again is answered alike.
pub const COMMANDS_REMEMBERED_MAX: usize = 4096;

/// Begun fires whose times a schedule remembers: a rate limit can know no more of them.
pub const FIRES_BEGUN_MAX: usize = 256;

const VERSION: u8 = 1;

/// A strategy as the journal knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownStrategy {
    /// What it is.
    pub definition: StrategyDefinition,
    /// Its status.
    pub status: StrategyStatus,
    /// When its last cycle began.
    pub last_run: Option<TsMs>,
    /// Whether its last cycle ended degraded.
    pub last_cycle_degraded: bool,
}

/// A schedule as the journal knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleAccount {
    /// Number of the last fire.
    pub last_fire: u64,
    /// Up to when planned fires are decided; nothing before the first.
    pub decided_until: Option<TsMs>,
    /// Fires without a cycle: one that waits, or one that a crash kept from beginning.
    pub open: BTreeMap<u64, ScheduleFired>,
    /// When the last fires began, oldest first, at most [`FIRES_BEGUN_MAX`].
    pub begun: VecDeque<TsMs>,
    /// The last output of the engine plane that fired: the cursor.
    pub last_output: Option<RunSeq>,
}

/// A cycle that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCycle {
    /// How it began.
    pub started: Box<CycleStarted>,
    /// For when it was planned, if it was.
    pub planned_ts_ms: Option<TsMs>,
    /// What happened in it since, in order.
    pub facts: Vec<JournalFact>,
}

impl OpenCycle {
    /// Its state, by its records.
    ///
    /// # Errors
    ///
    /// [`CycleOutOfOrder`]: the records are no cycle's, which the audit would have said before.
    pub fn to_state(&self) -> Result<CycleState, CycleOutOfOrder> {
        let mut state = CycleState::new((*self.started).clone());
        self.facts.iter().try_for_each(|fact| state.apply_fact(fact))?;
        Ok(state)
    }
}

/// A command without a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCommand {
    /// The command.
    pub received: CommandReceived,
    /// What ties it to the changes that it made.
    pub correlation: CorrelationId,
    /// Whether a change or a cycle of it is on record: then it was carried out.
    pub was_done: bool,
}

/// A command with its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedCommand {
    /// The command.
    pub received: CommandReceived,
    /// Its result.
    pub outcome: CommandOutcome,
}

/// The cycle that ended last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCycle {
    /// The cycle.
    pub cycle_id: CycleId,
    /// How it ended.
    pub status: CycleStatus,
    /// When.
    pub finished_at: TsMs,
    /// Milliseconds that it took.
    pub spent_ms: u64,
    /// Decisions that it made.
    pub decisions: u32,
    /// Orders that it intended.
    pub intents: u32,
}

/// Counts since the journal began.
///
/// Source: specification 002, `stats` of the agent's status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TradingTally {
    /// Cycles that ended.
    pub cycles: u64,
    /// Decisions that they made.
    pub decisions: u64,
    /// Orders that were handed on.
    pub orders: u64,
    /// Errors of cycles.
    pub errors: u64,
    /// Cycles in a row that failed, up to the last one.
    pub failed_in_a_row: u64,
}

/// The state that the journal's records add up to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalIndex {
    tail: JournalSeq,
    agent: AgentState,
    audit_debt: Option<CycleId>,
    strategies: BTreeMap<StrategyName, KnownStrategy>,
    schedules: BTreeMap<ScheduleName, ScheduleAccount>,
    cycles: BTreeMap<CycleId, OpenCycle>,
    ended_cycles: RecentIds<CycleId>,
    commands: BTreeMap<CommandId, OpenCommand>,
    ended_commands: VecDeque<EndedCommand>,
    alerts: BTreeMap<String, String>,
    config: Option<(ConfigHash, TsMs)>,
    latched: Option<String>,
    last_cycle: Option<LastCycle>,
    tally: TradingTally,
}

impl Default for JournalIndex {
    fn default() -> Self {
        Self {
            tail: JournalSeq(0),
            agent: AgentState::default(),
            audit_debt: None,
            strategies: BTreeMap::new(),
            schedules: BTreeMap::new(),
            cycles: BTreeMap::new(),
            ended_cycles: RecentIds::new(),
            commands: BTreeMap::new(),
            ended_commands: VecDeque::new(),
            alerts: BTreeMap::new(),
            config: None,
            latched: None,
            last_cycle: None,
            tally: TradingTally::default(),
        }
    }
}

impl JournalIndex {
    /// The last record taken in.
    #[must_use]
    pub const fn tail(&self) -> JournalSeq {
        self.tail
    }

    /// The agent.
    #[must_use]
    pub const fn agent(&self) -> &AgentState {
        &self.agent
    }

    /// The cycle whose audit failed and for which the agent has not gone to `error` yet: nothing may trade meanwhile.
    #[must_use]
    pub const fn audit_debt(&self) -> Option<CycleId> {
        self.audit_debt
    }

    /// The strategies.
    #[must_use]
    pub const fn strategies(&self) -> &BTreeMap<StrategyName, KnownStrategy> {
        &self.strategies
    }

    /// The schedules that have fired or were skipped.
    #[must_use]
    pub const fn schedules(&self) -> &BTreeMap<ScheduleName, ScheduleAccount> {
        &self.schedules
    }

    /// Cycles that have not ended.
    #[must_use]
    pub const fn open_cycles(&self) -> &BTreeMap<CycleId, OpenCycle> {
        &self.cycles
    }

    /// Whether this cycle has begun, as far as it is remembered.
    #[must_use]
    pub fn knows_cycle(&self, cycle: &CycleId) -> bool {
        self.cycles.contains_key(cycle) || self.ended_cycles.contains(cycle)
    }

    /// Remembers a cycle whose records are not taken in here, so that nothing begins it again.
    pub fn remember_cycle(&mut self, cycle: CycleId) {
        self.ended_cycles.push_id(cycle);
    }

    /// Commands without a result.
    #[must_use]
    pub const fn open_commands(&self) -> &BTreeMap<CommandId, OpenCommand> {
        &self.commands
    }

    /// The last commands with their results, oldest first.
    #[must_use]
    pub const fn ended_commands(&self) -> &VecDeque<EndedCommand> {
        &self.ended_commands
    }

    /// Alerts that are raised, with their details.
    #[must_use]
    pub const fn alerts(&self) -> &BTreeMap<String, String> {
        &self.alerts
    }

    /// The configuration in force, and since when.
    #[must_use]
    pub const fn config(&self) -> Option<(ConfigHash, TsMs)> {
        self.config
    }

    /// Why trading is latched as stopped, if it is.
    #[must_use]
    pub fn latched(&self) -> Option<&str> {
        self.latched.as_deref()
    }

    /// The cycle that ended last.
    #[must_use]
    pub const fn last_cycle(&self) -> Option<&LastCycle> {
        self.last_cycle.as_ref()
    }

    /// Counts so far.
    #[must_use]
    pub const fn tally(&self) -> TradingTally {
        self.tally
    }

    /// Appends the stored form, a checkpoint, to `out`.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        contracts::encode_to(VERSION, self, out);
    }

    /// Reads the stored form.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: another version, or bytes that are no checkpoint.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        contracts::decode_versioned(VERSION, bytes)
    }

    /// Takes the record that the log counts as `seq`.
    pub fn take_entry(&mut self, seq: JournalSeq, entry: &JournalEntry) {
        self.tail = seq;
        match &entry.fact {
            JournalFact::CommandReceived(received) => self.open_command(received, entry),
            JournalFact::CommandEnded(ended) => self.end_command(ended),
            JournalFact::AgentChanged(changed) => {
                self.agent = changed.state.clone();
                self.audit_debt = self.audit_debt.filter(|_| self.agent.status != AgentStatus::Error);
                self.note_done(&entry.correlation);
            }
            JournalFact::StrategyChanged(changed) => {
                self.change_strategy(changed);
                self.note_done(&entry.correlation);
            }
            JournalFact::ScheduleFired(fired) => self.take_fired(fired),
            JournalFact::ScheduleSkipped(skipped) => self.take_skipped(skipped),
            JournalFact::CycleStarted(started) => self.start_cycle(started, entry),
            JournalFact::GateDecided(_) | JournalFact::StageEnded(_) | JournalFact::OrderIntended(_) => {
                let cycle = entry.fact.cycle_id().and_then(|id| self.cycles.get_mut(&id));
                cycle.into_iter().for_each(|cycle| cycle.facts.push(entry.fact.clone()));
            }
            JournalFact::CycleEnded(ended) => self.end_cycle(ended),
            JournalFact::AlertRaised(raised) => {
                self.alerts.insert(raised.alert.clone(), raised.detail.clone());
            }
            JournalFact::AlertCleared(cleared) => drop(self.alerts.remove(&cleared.alert)),
            JournalFact::ConfigurationSnapshot(snapshot) => {
                self.config = Some((snapshot.config_hash(), entry.at_ms));
            }
            JournalFact::KillLatched(latch) => {
                self.latched = latch.latched.then(|| latch.reason.clone());
                self.note_done(&entry.correlation);
            }
        }
    }

    fn open_command(&mut self, received: &CommandReceived, entry: &JournalEntry) {
        let open = OpenCommand {
            received: received.clone(),
            correlation: entry.correlation.clone(),
            was_done: false,
        };
        self.commands.insert(received.command_id, open);
    }

    fn end_command(&mut self, ended: &CommandEnded) {
        let Some(open) = self.commands.remove(&ended.command_id) else { return };
        self.ended_commands
            .push_back(EndedCommand { received: open.received, outcome: ended.outcome.clone() });
        if COMMANDS_REMEMBERED_MAX < self.ended_commands.len() {
            self.ended_commands.pop_front();
        }
    }

    /// The command that this correlation belongs to has changed something.
    fn note_done(&mut self, correlation: &CorrelationId) {
        let mut commands = self.commands.values_mut();
        if let Some(command) = commands.find(|command| command.correlation == *correlation) {
            command.was_done = true;
        }
    }

    fn change_strategy(&mut self, changed: &StrategyChanged) {
        match changed {
            StrategyChanged::Defined { definition, status } => {
                let known = self.strategies.remove(&definition.name);
                let (last_run, last_cycle_degraded) =
                    known.map_or((None, false), |known| (known.last_run, known.last_cycle_degraded));
                let definition = definition.clone();
                self.strategies.insert(
                    definition.name.clone(),
                    KnownStrategy { definition, status: *status, last_run, last_cycle_degraded },
                );
            }
            StrategyChanged::Moved { name, to, .. } => {
                if let Some(known) = self.strategies.get_mut(name) {
                    known.status = *to;
                }
            }
            StrategyChanged::Removed { name } => drop(self.strategies.remove(name)),
        }
    }

    fn take_fired(&mut self, fired: &ScheduleFired) {
        let account = self.schedules.entry(fired.schedule.clone()).or_default();
        account.last_fire = fired.fire;
        account.note_decided(fired.planned_ts_ms, &fired.trigger);
        account.open.insert(fired.fire, fired.clone());
    }

    fn take_skipped(&mut self, skipped: &ScheduleSkipped) {
        let account = self.schedules.entry(skipped.schedule.clone()).or_default();
        if skipped.fires == 1 && account.open.remove(&skipped.first_fire).is_some() {
            return;
        }
        account.last_fire = account.last_fire.saturating_add(skipped.fires);
        account.note_decided(skipped.last_planned_ts_ms, &skipped.trigger);
    }

    fn start_cycle(&mut self, started: &CycleStarted, entry: &JournalEntry) {
        match &started.cause {
            CycleCause::Fire { schedule, fire } => {
                let account = self.schedules.entry(schedule.clone()).or_default();
                account.open.remove(fire);
                account.begun.push_back(started.started_at);
                if FIRES_BEGUN_MAX < account.begun.len() {
                    account.begun.pop_front();
                }
            }
            CycleCause::Command(command) => {
                if let Some(command) = self.commands.get_mut(command) {
                    command.was_done = true;
                }
            }
        }
        for name in &started.strategies {
            if let Some(known) = self.strategies.get_mut(name) {
                known.last_run = Some(started.started_at);
            }
        }
        let open = OpenCycle {
            started: Box::new(started.clone()),
            planned_ts_ms: entry.planned_ts_ms,
            facts: Vec::new(),
        };
        self.cycles.insert(started.cycle_id, open);
    }

    fn end_cycle(&mut self, ended: &CycleEnded) {
        let Some(OpenCycle { started, facts, .. }) = self.cycles.remove(&ended.cycle_id) else { return };
        self.ended_cycles.push_id(ended.cycle_id);
        for name in &started.strategies {
            if let Some(known) = self.strategies.get_mut(name) {
                known.last_cycle_degraded = ended.status == CycleStatus::Degraded;
            }
        }
        if ended.audit_failed && self.agent.status != AgentStatus::Error {
            self.audit_debt = Some(ended.cycle_id);
        }
        let handed_on = facts.iter().filter(|fact| is_handed_on(fact)).count();
        let failed = ended.status == CycleStatus::Failed;
        let tally = &mut self.tally;
        tally.cycles = tally.cycles.saturating_add(1);
        tally.decisions = tally.decisions.saturating_add(u64::from(ended.counts.decisions));
        tally.orders = tally.orders.saturating_add(handed_on as u64);
        tally.errors = tally.errors.saturating_add(ended.errors.len() as u64);
        tally.failed_in_a_row = if failed { tally.failed_in_a_row.saturating_add(1) } else { 0 };
        self.last_cycle = Some(LastCycle {
            cycle_id: ended.cycle_id,
            status: ended.status,
            finished_at: ended.finished_at,
            spent_ms: ended.spent_ms,
            decisions: ended.counts.decisions,
            intents: ended.counts.intents,
        });
    }
}

impl ScheduleAccount {
    fn note_decided(&mut self, planned: TsMs, trigger: &FireTrigger) {
        if trigger.is_planned() {
            self.decided_until = self.decided_until.max(Some(planned));
        }
        if let FireTrigger::Output { run_seq } = trigger {
            self.last_output = self.last_output.max(Some(*run_seq));
        }
    }

    /// The fire that waits for a running cycle to end.
    #[must_use]
    pub fn waiting_fire(&self) -> Option<&ScheduleFired> {
        self.open.values().find(|fired| fired.disposition == FireDisposition::Queue)
    }
}

fn is_handed_on(fact: &JournalFact) -> bool {
    matches!(fact, JournalFact::OrderIntended(intent) if intent.end == super::IntentEnd::HandedOn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trading::agent::{AgentCause, AgentCommand};
    use crate::trading::journal::{JournalAuthor, StageOutcome};
    use crate::trading::pipeline::canonical_pipeline;
    use crate::trading::testkit::{
        CycleScript, CycleWalk, WALL, schedule_name, started, strategy, strategy_name,
    };

    fn fired(fire: u64, disposition: FireDisposition, started: &CycleStarted) -> JournalFact {
        JournalFact::ScheduleFired(ScheduleFired {
            schedule: schedule_name("daily"),
            fire,
            planned_ts_ms: TsMs(WALL + fire.cast_signed()),
            trigger: FireTrigger::Cron,
            cycle_id: started.cycle_id,
            disposition,
        })
    }

    fn take_all(index: &mut JournalIndex, facts: &[JournalFact]) {
        for fact in facts {
            let entry = JournalEntry {
                who: JournalAuthor::Actor("t".to_owned()),
                planned_ts_ms: Some(TsMs(WALL)),
                at_ms: TsMs(WALL),
                correlation: CorrelationId::new("c").unwrap(),
                fact: fact.clone(),
            };
            index.take_entry(index.tail().next(), &entry);
        }
    }

    fn whole_cycle() -> Vec<JournalFact> {
        let mut walk = CycleWalk::new(started(canonical_pipeline()), CycleScript::default());
        walk.walk();
        walk.facts
    }

    /// Method: the records of one cycle are cut behind each; the open cycle's state then says what the records say.
    #[test]
    fn an_open_cycle_comes_back_as_its_records_left_it_and_ends_once() {
        let facts = whole_cycle();
        let begun = started(canonical_pipeline());
        let defined = StrategyChanged::Defined { definition: strategy("a"), status: StrategyStatus::Active };
        for cut in 1..=facts.len() {
            let mut index = JournalIndex::default();
            take_all(&mut index, &[JournalFact::StrategyChanged(defined.clone())]);
            take_all(&mut index, &[fired(1, FireDisposition::Start, &begun)]);
            assert_eq!(index.schedules()[&schedule_name("daily")].open.len(), 1);
            take_all(&mut index, &facts[..cut]);

            let account = &index.schedules()[&schedule_name("daily")];
            assert!(account.open.is_empty() && account.begun.len() == 1);
            assert_eq!(account.decided_until, Some(TsMs(WALL + 1)));
            assert_eq!(index.strategies()[&strategy_name("a")].last_run, Some(TsMs(WALL)));
            assert!(index.knows_cycle(&begun.cycle_id));
            let stages = facts[..cut].iter().filter(|fact| {
                matches!(fact, JournalFact::StageEnded(ended) if matches!(ended.outcome, StageOutcome::Done(_)))
            });
            match index.open_cycles().get(&begun.cycle_id) {
                Some(open) => assert_eq!(open.to_state().unwrap().ended_stages().count(), stages.count()),
                None => {
                    assert!(cut == facts.len() && index.tally().cycles == 1 && index.last_cycle().is_some())
                }
            }
            let mut bytes = Vec::new();
            index.encode_to(&mut bytes);
            assert_eq!(JournalIndex::decode(&bytes), Ok(index));
        }
    }

    #[test]
    fn a_failed_audit_is_owed_until_the_agent_is_in_error() {
        let mut facts = whole_cycle();
        if let Some(JournalFact::CycleEnded(ended)) = facts.last_mut() {
            ended.audit_failed = true;
        }
        let mut index = JournalIndex::default();
        take_all(&mut index, &facts);
        let cycle = started(canonical_pipeline()).cycle_id;
        assert_eq!(index.audit_debt(), Some(cycle));

        let changed =
            index.agent().decide_change(AgentCause::AuditFailed(cycle), TsMs(WALL)).unwrap().unwrap();
        take_all(&mut index, &[JournalFact::AgentChanged(changed)]);
        assert_eq!((index.audit_debt(), index.agent().status), (None, AgentStatus::Error));
    }

    #[test]
    fn a_command_whose_change_is_on_record_was_done() {
        let mut index = JournalIndex::default();
        let id = CommandId::derive("key");
        let received = CommandReceived {
            command_id: id,
            name: "agent/start".to_owned(),
            body: "{}".to_owned(),
            from: "test".to_owned(),
        };
        take_all(&mut index, &[JournalFact::CommandReceived(received)]);
        assert!(!index.open_commands()[&id].was_done);

        let cause = AgentCause::Command(AgentCommand::Start { strategies: None, mode: None });
        let changed = index.agent().decide_change(cause, TsMs(WALL)).unwrap().unwrap();
        take_all(&mut index, &[JournalFact::AgentChanged(changed)]);
        assert!(index.open_commands()[&id].was_done);

        let outcome = CommandOutcome::Done { answer: "{}".to_owned() };
        let ended = CommandEnded { command_id: id, outcome };
        take_all(&mut index, &[JournalFact::CommandEnded(ended)]);
        assert!(index.open_commands().is_empty());
        assert_eq!(index.ended_commands().len(), 1);
    }

    #[test]
    fn a_fire_that_waits_is_found_again_and_leaves_when_it_is_skipped() {
        let begun = started(canonical_pipeline());
        let mut index = JournalIndex::default();
        take_all(&mut index, &[fired(1, FireDisposition::Queue, &begun)]);
        let account = |index: &JournalIndex| index.schedules()[&schedule_name("daily")].clone();
        assert_eq!(account(&index).waiting_fire().map(|fired| fired.fire), Some(1));

        let skipped = ScheduleSkipped {
            schedule: schedule_name("daily"),
            first_fire: 1,
            fires: 1,
            first_planned_ts_ms: TsMs(WALL + 1),
            last_planned_ts_ms: TsMs(WALL + 1),
            trigger: FireTrigger::Cron,
            reason: crate::trading::schedule::FireSkipReason::RateLimited,
        };
        take_all(&mut index, &[JournalFact::ScheduleSkipped(skipped)]);
        assert_eq!(account(&index).waiting_fire(), None);
        assert_eq!(account(&index).last_fire, 1, "a fire that waited is counted once");
    }
}
