//! What the simulation knows by itself: each durable record is checked as it comes, and so is every answer.
//!
//! The kernel's audit of the journal names the rule that a record breaks; what it cannot know of (answers, events that
//! were acknowledged, what stages and hooks really said, policies of schedules) is checked here.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::trading::agent::AgentStatus;
use orchestrator_kernel::trading::gate::{GateDecided, GateKind, GatePlace, GateVerdict};
use orchestrator_kernel::trading::ids::{CommandId, CycleId, JournalSeq, ScheduleName, StrategyName};
use orchestrator_kernel::trading::journal::audit::{JournalAudit, JournalRule, JournalUnfinished};
use orchestrator_kernel::trading::journal::{
    CommandOutcome, CycleCause, CycleEnded, CycleStarted, FireTrigger, JournalEntry, JournalFact,
    JournalIndex, OrderIntended, ScheduleAccount, ScheduleFired, StageEnded, StageOutcome,
};
use orchestrator_kernel::trading::schedule::{CycleSchedule, MisfirePolicy, OverlapPolicy};
use orchestrator_kernel::trading::stage::StageRole;
use orchestrator_kernel::trading::strategy::{StrategyChanged, StrategyStatus};
use orchestrator_trading_plane::command::{CommandAnswer, CommandRefused, TradingCommand};
use orchestrator_trading_plane::settings::ScheduleSettings;
use orchestrator_trading_plane::view::TradingView;
use tokio::time::Instant;

pub(crate) type Checked<T = ()> = Result<T, String>;

macro_rules! must {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

/// Runs a check without the planted defect: a checker must not be broken together with what it checks.
pub(crate) fn as_it_should_be<T>(check: impl FnOnce() -> T) -> T {
    #[cfg(feature = "mutants")]
    return orchestrator_kernel::mutants::suspended(check);
    #[cfg(not(feature = "mutants"))]
    check()
}

/// An answer of a stage on its way.
#[derive(Clone, Debug)]
struct GivenAnswer {
    cycle: CycleId,
    stage: String,
    is_late: bool,
}

/// What a cycle is known by, as long as it is open.
#[derive(Clone, Debug)]
struct OpenCycle {
    started: CycleStarted,
    /// Whether its GOV failed and fails closed.
    audit_failed: bool,
}

/// What a fold of the durable records and the ports' own memory add up to.
#[derive(Default)]
pub(crate) struct Audit {
    rules: JournalAudit,
    index: JournalIndex,
    records: Vec<Vec<u8>>,
    agent: AgentStatus,
    /// A cycle whose audit failed and for which the agent has not gone to `error`.
    owed: Option<CycleId>,
    strategies: BTreeMap<StrategyName, StrategyStatus>,
    cycles: BTreeMap<CycleId, OpenCycle>,
    ended: BTreeSet<CycleId>,
    schedules: BTreeMap<ScheduleName, CycleSchedule>,
    outputs: BTreeMap<ScheduleName, BTreeSet<u64>>,
    events: BTreeSet<(ScheduleName, String)>,
    commands: BTreeMap<CommandId, (String, Option<CommandOutcome>)>,
    answers: BTreeMap<u64, GivenAnswer>,
    next_answer: u64,
    /// Calls of stages that may be called once.
    called: BTreeSet<(CycleId, String, Option<StrategyName>)>,
    /// What hooks were told to say: whether it is an objection.
    hooks: BTreeMap<(CycleId, GatePlace, String), bool>,
    began: BTreeMap<CycleId, Instant>,
    interrupted: BTreeSet<CycleId>,
}

/// The promise that a rule of the journal belongs to.
pub(crate) fn promise_of(rule: JournalRule) -> &'static str {
    match rule {
        JournalRule::Numbering | JournalRule::Chain | JournalRule::Decodable | JournalRule::AlertOrder => {
            "JRN-1"
        }
        JournalRule::CommandOrder => "CMD-1",
        JournalRule::AgentOrder | JournalRule::StrategyOrder => "AGT-1",
        JournalRule::FireLost
        | JournalRule::FiredTwice
        | JournalRule::FireUnaccounted
        | JournalRule::CycleWithoutCause => "CYC-2",
        JournalRule::CycleTwice
        | JournalRule::Configuration
        | JournalRule::CycleUnknown
        | JournalRule::CycleEndsTwice
        | JournalRule::RecordAfterEnd
        | JournalRule::StageOrder
        | JournalRule::GateSkipped
        | JournalRule::GateIgnored
        | JournalRule::GateContradicts
        | JournalRule::IntentWithoutRisk
        | JournalRule::IntentWithoutPermit
        | JournalRule::IntentTwice
        | JournalRule::IntentRaised
        | JournalRule::RiskLimit
        | JournalRule::StatusContradicts => "CYC-1",
    }
}

impl Audit {
    pub(crate) fn expect(&mut self, schedules: &[ScheduleSettings]) {
        self.schedules = schedules.iter().map(|it| (it.name.clone(), it.schedule.clone())).collect();
    }

    pub(crate) fn begin_life(&mut self) {
        self.began.clear();
        self.interrupted = self.cycles.keys().copied().collect();
    }

    /// Records seen so far.
    pub(crate) fn seen(&self) -> u64 {
        self.records.len() as u64
    }

    /// A record is durable.
    pub(crate) fn landed(&mut self, payload: &[u8], lowest_wall: Option<i64>) -> Checked<JournalEntry> {
        let seq = JournalSeq(self.seen() + 1);
        let entry = self.rules.take_record(seq, payload);
        let entry = entry.map_err(|broken| format!("{}: {broken}", promise_of(broken.rule)))?;
        self.records.push(payload.to_vec());
        self.check_entry(&entry, lowest_wall)?;
        self.index.take_entry(seq, &entry);
        Ok(entry)
    }

    fn check_entry(&mut self, entry: &JournalEntry, lowest_wall: Option<i64>) -> Checked {
        match &entry.fact {
            JournalFact::CommandReceived(received) => {
                let known = self.commands.insert(received.command_id, (received.body.clone(), None));
                must!(known.is_none(), "CMD-1: command {} is received twice", received.command_id);
            }
            JournalFact::CommandEnded(ended) => {
                let known = self.commands.get_mut(&ended.command_id).map(|known| &mut known.1);
                let Some(known) = known else { return Err("CMD-1: a command ends that never came".into()) };
                must!(known.is_none(), "CMD-1: command {} has two results", ended.command_id);
                *known = Some(ended.outcome.clone());
            }
            JournalFact::AgentChanged(changed) => {
                must!(changed.from == self.agent, "AGT-1: the agent was {:?}", self.agent);
                self.agent = changed.state.status;
                self.owed = self.owed.filter(|_| self.agent != AgentStatus::Error);
            }
            JournalFact::StrategyChanged(changed) => self.change_strategy(changed),
            JournalFact::ScheduleFired(fired) => self.check_fired(fired, lowest_wall)?,
            JournalFact::ScheduleSkipped(skipped) => self.note_trigger(&skipped.schedule, &skipped.trigger),
            JournalFact::CycleStarted(started) => self.check_started(started)?,
            JournalFact::GateDecided(decided) => self.check_gates(decided)?,
            JournalFact::StageEnded(ended) => self.check_stage(ended)?,
            JournalFact::OrderIntended(intent) => self.check_intent(intent)?,
            JournalFact::CycleEnded(ended) => self.check_ended(ended)?,
            JournalFact::AlertRaised(_)
            | JournalFact::AlertCleared(_)
            | JournalFact::ConfigurationSnapshot(_)
            | JournalFact::KillLatched(_) => {}
        }
        Ok(())
    }

    fn change_strategy(&mut self, changed: &StrategyChanged) {
        match changed {
            StrategyChanged::Defined { definition, status } => {
                self.strategies.insert(definition.name.clone(), *status);
            }
            StrategyChanged::Moved { name, to, .. } => drop(self.strategies.insert(name.clone(), *to)),
            StrategyChanged::Removed { name } => drop(self.strategies.remove(name)),
        }
    }

    fn note_trigger(&mut self, schedule: &ScheduleName, trigger: &FireTrigger) {
        match trigger {
            FireTrigger::Event { event_id, .. } => {
                self.events.insert((schedule.clone(), event_id.clone()));
            }
            FireTrigger::Output { run_seq } => {
                self.outputs.entry(schedule.clone()).or_default().insert(run_seq.0);
            }
            FireTrigger::Interval | FireTrigger::Cron | FireTrigger::Calendar => {}
        }
    }

    /// CYC-2: what the misfire policy lets go never fires. `lowest_wall` is the least that the wall clock showed when
    /// it was decided, if that is known.
    fn check_fired(&mut self, fired: &ScheduleFired, lowest_wall: Option<i64>) -> Checked {
        self.note_trigger(&fired.schedule, &fired.trigger);
        let Some(schedule) = self.schedules.get(&fired.schedule) else {
            return Err(format!("CYC-2: nobody knows schedule {}", fired.schedule));
        };
        let late = lowest_wall.map_or(0, |wall| wall - fired.planned_ts_ms.0);
        let is_let_go = schedule.misfire == MisfirePolicy::Skip && schedule.misfire_after_ms < late;
        must!(
            !(is_let_go && fired.trigger.is_planned()),
            "CYC-2: fire {} of {} is {late} ms late, and its policy is to skip what is missed",
            fired.fire,
            fired.schedule
        );
        Ok(())
    }

    fn check_started(&mut self, started: &CycleStarted) -> Checked {
        let id = started.cycle_id;
        must!(!self.ended.contains(&id), "CYC-1: cycle {id} starts after its end");
        if let CycleCause::Fire { schedule, .. } = &started.cause {
            let running = self.cycles.values().filter(
                |cycle| matches!(&cycle.started.cause, CycleCause::Fire { schedule: of, .. } if of == schedule),
            );
            let (running, settings) = (running.count(), self.schedules.get(schedule));
            let bound = settings
                .filter(|it| it.overlap != OverlapPolicy::Cancel)
                .map_or(usize::MAX, |it| it.concurrent_max as usize);
            must!(running < bound, "CYC-2: {running} cycles of {schedule} run, and {id} begins beside them");
        }
        self.cycles.insert(id, OpenCycle { started: started.clone(), audit_failed: false });
        Ok(())
    }

    /// AGT-1: gates that allow come in front of the record that stops the agent, or do not come.
    fn check_gates(&mut self, decided: &GateDecided) -> Checked {
        let Some(cycle) = self.cycles.get(&decided.cycle_id) else { return Ok(()) };
        for check in &decided.checks {
            let GateKind::Hook(name) = &check.gate else { continue };
            let told = (decided.cycle_id, decided.place.clone(), name.to_string());
            let objects = self.hooks.get(&told).copied().unwrap_or(true);
            let denies = matches!(check.verdict, GateVerdict::Deny(_) | GateVerdict::Noted(_));
            must!(objects == denies, "CYC-1: hook {name} at {:?} is taken as {:?}", told.1, check.verdict);
        }
        let first = cycle.started.pipeline.first_gated();
        let leads_to_effect = match &decided.place {
            GatePlace::Before(stage) => first.is_some_and(|first| first <= usize::from(*stage)),
            GatePlace::After(_) => false,
            GatePlace::BeforeIntent(_) => true,
        };
        if leads_to_effect && decided.first_denial().is_none() {
            must!(
                self.agent == AgentStatus::Running,
                "AGT-1: gates of {} allow {:?} behind the record that makes the agent {:?}",
                decided.cycle_id,
                decided.place,
                self.agent
            );
            must!(
                self.owed.is_none(),
                "AGT-1: gates of {} allow {:?} although an audit has failed",
                decided.cycle_id,
                decided.place
            );
        }
        Ok(())
    }

    /// CYC-4: nothing of an answer that came too late counts. Each answer carries its number.
    fn check_stage(&mut self, ended: &StageEnded) -> Checked {
        let Some(cycle) = self.cycles.get_mut(&ended.cycle_id) else { return Ok(()) };
        let spec = cycle.started.pipeline.stages.get(usize::from(ended.stage));
        let Some(spec) = spec else { return Ok(()) };
        let fails_closed = cycle.started.pipeline.fail_closed_on_audit;
        match &ended.outcome {
            StageOutcome::Failed(_) => {
                cycle.audit_failed |= spec.role() == StageRole::Audit && fails_closed;
                Ok(())
            }
            StageOutcome::Done(output) => {
                for token in tokens_in(&output.data) {
                    let Some(given) = self.answers.get(&token) else {
                        return Err(format!("CYC-4: {} has an answer that nobody gave", ended.name));
                    };
                    let is_its_own = given.cycle == ended.cycle_id && given.stage == ended.name.as_str();
                    must!(is_its_own, "CYC-4: {} of {} has another's answer", ended.name, ended.cycle_id);
                    must!(!given.is_late, "CYC-4: {} counts an answer that came too late", ended.name);
                }
                Ok(())
            }
        }
    }

    /// AGT-1: a strategy that does not run on record intends nothing.
    fn check_intent(&self, intent: &OrderIntended) -> Checked {
        let status = self.strategies.get(&intent.strategy).copied().unwrap_or_default();
        must!(
            status == StrategyStatus::Active,
            "AGT-1: an order of {} behind the record that makes it {}",
            intent.strategy,
            status.as_str()
        );
        must!(self.agent == AgentStatus::Running, "AGT-1: an order while the agent is {:?}", self.agent);
        Ok(())
    }

    fn check_ended(&mut self, ended: &CycleEnded) -> Checked {
        let id = ended.cycle_id;
        must!(self.ended.insert(id), "CYC-1: cycle {id} ends twice");
        self.interrupted.remove(&id);
        let Some(cycle) = self.cycles.remove(&id) else { return Err(format!("CYC-1: {id} never began")) };
        if cycle.audit_failed && self.agent != AgentStatus::Error {
            self.owed = Some(id);
        }
        Ok(())
    }
}

/// What the ports tell.
impl Audit {
    /// A stage is called.
    pub(crate) fn called_once(&mut self, cycle: CycleId, stage: &str, of: Option<&StrategyName>) -> Checked {
        let is_first = self.called.insert((cycle, stage.to_owned(), of.cloned()));
        must!(is_first, "CYC-3: {stage} of {cycle} is called again, and it is not idempotent");
        Ok(())
    }

    /// Moment at which a cycle was first seen in this life.
    pub(crate) fn cycle_began(&mut self, cycle: CycleId) -> Instant {
        *self.began.entry(cycle).or_insert_with(Instant::now)
    }

    /// Whether a crash interrupted this cycle.
    pub(crate) fn was_interrupted(&self, cycle: &CycleId) -> bool {
        self.interrupted.contains(cycle)
    }

    /// A stage is about to answer: the number that its answer carries.
    pub(crate) fn give_answer(&mut self, cycle: CycleId, stage: &str, is_late: bool) -> u64 {
        self.next_answer += 1;
        self.answers.insert(self.next_answer, GivenAnswer { cycle, stage: stage.to_owned(), is_late });
        self.next_answer
    }

    /// A hook is asked and will object, or will not.
    pub(crate) fn hook_asked(&mut self, cycle: CycleId, place: &GatePlace, hook: &str, objects: bool) {
        self.hooks.insert((cycle, place.clone(), hook.to_owned()), objects);
    }

    /// What the plane did not take is tried anew by whoever sends it again, under an id of its own.
    fn last_attempt(&self, mut id: CommandId) -> CommandId {
        while let Some((_, Some(CommandOutcome::Refused { status: 503, .. }))) = self.commands.get(&id) {
            id = id.next_attempt();
        }
        id
    }

    /// JRN-2, CMD-1: what a command is answered is on record, and the same each time.
    pub(crate) fn answered(
        &self,
        id: CommandId,
        command: &TradingCommand,
        answer: &Result<CommandAnswer, CommandRefused>,
    ) -> Checked {
        if let Err(CommandRefused::Unavailable(_)) = answer {
            return Ok(());
        }
        if self.commands.get(&id).is_some_and(|(body, _)| *body != command.to_body()) {
            let is_refused = matches!(answer, Err(CommandRefused::Conflict(_)));
            must!(is_refused, "CMD-1: one key, two bodies: {answer:?}");
            return Ok(());
        }
        let id = self.last_attempt(id);
        let Some((_, Some(outcome))) = self.commands.get(&id) else {
            return Err(format!("JRN-2: command {id} is answered {answer:?} before that is durable"));
        };
        let is_same = match (outcome, answer) {
            (CommandOutcome::Done { answer: on_record }, Ok(answer)) => {
                serde_json::from_str::<CommandAnswer>(on_record).ok().as_ref() == Some(answer)
            }
            (CommandOutcome::Refused { status, .. }, Err(refused)) => *status == refused.http_status(),
            (CommandOutcome::Done { .. }, Err(_)) | (CommandOutcome::Refused { .. }, Ok(_)) => false,
        };
        must!(is_same, "CMD-1: command {id} is answered {answer:?}, on record is {outcome:?}");
        Ok(())
    }

    /// JRN-2: an event that is acknowledged is on record, a crash does not lose it.
    pub(crate) fn event_taken(&self, schedules: &[ScheduleName], event_id: &str) -> Checked {
        for schedule in schedules {
            let is_known = self.events.contains(&(schedule.clone(), event_id.to_owned()));
            must!(is_known, "JRN-2: event {event_id} is acknowledged before {schedule} has it on record");
        }
        Ok(())
    }

    /// The cursor that a reader of outputs goes on from.
    pub(crate) fn output_cursor(&self, schedule: &ScheduleName) -> u64 {
        let known = self.index.schedules().get(schedule);
        known.and_then(|account| account.last_output).map_or(0, |run_seq| run_seq.0)
    }

    /// CYC-2: every output up to `sent` is accounted for.
    pub(crate) fn outputs_accounted(&self, schedule: &ScheduleName, sent: u64) -> Checked {
        let none = BTreeSet::new();
        let known = self.outputs.get(schedule).unwrap_or(&none);
        let lost: Vec<u64> = (1..=sent).filter(|run_seq| !known.contains(run_seq)).collect();
        must!(lost.is_empty(), "CYC-2: outputs {lost:?} of {sent} fired nothing and were not skipped");
        Ok(())
    }

    /// Cycles that have not ended.
    pub(crate) fn open_cycles(&self) -> Vec<CycleId> {
        self.cycles.keys().copied().collect()
    }

    /// The agent on record, and when its pause ends.
    pub(crate) fn agent(&self) -> (AgentStatus, Option<TsMs>) {
        (self.agent, self.index.agent().resume_at)
    }

    pub(crate) fn is_latched(&self) -> bool {
        self.index.latched().is_some()
    }

    /// Fires of a schedule so far.
    pub(crate) fn last_fire(&self, schedule: &ScheduleName) -> u64 {
        self.index.schedules().get(schedule).map_or(0, |account| account.last_fire)
    }

    /// What began and has not ended; empty when there is nothing.
    pub(crate) fn unfinished(&self) -> String {
        Self::describe_unfinished(&self.rules.unfinished_work())
    }

    /// What a clean stop must not leave. A fire that waited behind a cycle when the schedules stopped may stay: it is
    /// on record, and the next start begins it or says why not.
    pub(crate) fn unfinished_at_stop(&self) -> String {
        let mut unfinished = self.rules.unfinished_work();
        unfinished.fires.retain(|(schedule, fire)| {
            let account = self.index.schedules().get(schedule);
            account.and_then(ScheduleAccount::waiting_fire).is_none_or(|waits| waits.fire != *fire)
        });
        Self::describe_unfinished(&unfinished)
    }

    fn describe_unfinished(unfinished: &JournalUnfinished) -> String {
        let waits = unfinished.fires.is_empty() && unfinished.commands.is_empty();
        if waits && unfinished.cycles.is_empty() { String::new() } else { format!("{unfinished:?}") }
    }

    /// JRN-3: the read model shows what a fold of the journal shows.
    pub(crate) fn compare_view(&self, shown: &TradingView) -> Checked {
        let mut index = JournalIndex::default();
        let fresh = TradingView::default();
        let mut audit = JournalAudit::default();
        for (bytes, seq) in self.records.iter().zip(1..) {
            let entry = audit.take_record(JournalSeq(seq), bytes);
            let entry = entry.map_err(|broken| format!("{}: {broken}", promise_of(broken.rule)))?;
            index.take_entry(JournalSeq(seq), &entry);
            fresh.take_entry(JournalSeq(seq), &entry, &index);
        }
        let differs = |what: &str, one: String, other: String| match one == other {
            true => Ok(()),
            false => Err(format!("JRN-3: {what} is shown as {other:.600}, the journal says {one:.600}")),
        };
        differs("the agent", format!("{:?}", fresh.agent()), format!("{:?}", shown.agent()))?;
        let of = |view: &TradingView| format!("{:?}", view.list_strategies());
        differs("the strategies", of(&fresh), of(shown))?;
        for cycle in shown.last_cycles(50, |_| true) {
            let id = cycle.state.started().cycle_id;
            let known = fresh.cycle(&id).map(|cycle| format!("{:?}", cycle.state));
            differs("a cycle", known.unwrap_or_default(), format!("{:?}", cycle.state))?;
        }
        Ok(())
    }
}

/// The numbers of the answers that a stage's data is made of.
fn tokens_in(data: &str) -> Vec<u64> {
    let parts = data.split("\"answer\":").skip(1);
    parts
        .filter_map(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
        .collect()
}
