//! A small trading plane: agent, strategies, one schedule, cycles beside each other. What it does goes on record.

use proptest::prelude::*;

use crate::ids::{RunSeq, TsMs};
use crate::trading::agent::{AgentCause, AgentCommand, AgentState};
use crate::trading::cycle::HookReply;
use crate::trading::gate::{HookAnswer, HookVote, KillReading, Narrowing};
use crate::trading::ids::{CommandId, CycleId, ScheduleName, StrategyName};
use crate::trading::journal::audit::BrokenRule;
use crate::trading::journal::{
    AlertCleared, AlertRaised, CommandEnded, CommandOutcome, CommandReceived, ConfigurationSnapshot,
    CycleCause, FireDisposition, FireTrigger, JournalFact, KillLatched, ScheduleFired, ScheduleSkipped,
    StageError, StageErrorKind,
};
use crate::trading::pipeline::{Pipeline, analysis_pipeline, canonical_pipeline, heartbeat_pipeline};
use crate::trading::schedule::FireSkipReason;
use crate::trading::stage::{HookMode, HookMoment};
use crate::trading::strategy::{StrategyChanged, StrategyCommand, StrategyStatus, move_strategy};
use crate::trading::testkit::{
    CycleScript, CycleWalk, WALL, dec, decision_id, hook, schedule_name, stage_name, started, strategy,
    strategy_name,
};

use super::JournalAudit;

/// One thing that happens, with a number that chooses among its variants.
type Event = (u8, u8);

pub(super) fn any_script() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec((0..12u8, any::<u8>()), 0..60)
}

pub(super) struct World {
    pub(super) facts: Vec<JournalFact>,
    agent: AgentState,
    strategies: Vec<(StrategyName, StrategyStatus)>,
    config: ConfigurationSnapshot,
    fires: u64,
    /// Fires of the schedule of outputs.
    outputs: u64,
    /// Cycles that run, each with how many of its records are in `facts`.
    running: Vec<(CycleWalk, usize)>,
    waiting: Option<(u64, CycleId)>,
    alert_is_raised: bool,
    commands: u8,
    clock: i64,
}

impl World {
    fn new() -> Self {
        let config = ConfigurationSnapshot {
            settings: [
                ("a", "1"),
                ("trading.risk.capital", "2300"),
                ("trading.risk.confidence_min", "0.5"),
                ("trading.risk.max_position_size", "1500"),
            ]
            .map(|(path, value)| (path.to_owned(), value.to_owned()))
            .into(),
            tz_database: "2025b".to_owned(),
            code: "1".to_owned(),
        };
        let mut world = Self {
            facts: vec![JournalFact::ConfigurationSnapshot(config.clone())],
            agent: AgentState::default(),
            strategies: vec![],
            config,
            fires: 0,
            outputs: 0,
            running: vec![],
            waiting: None,
            alert_is_raised: false,
            commands: 0,
            clock: WALL,
        };
        for name in ["a", "b"] {
            let definition = strategy(name);
            let status = StrategyStatus::Stopped;
            world.facts.push(JournalFact::StrategyChanged(StrategyChanged::Defined { definition, status }));
            world.strategies.push((strategy_name(name), status));
        }
        world
    }

    /// Fire 1 is a cycle, 2 is skipped, 3 is a cycle; then one by command, and an alert.
    pub(super) fn two_fires_and_a_command() -> Self {
        let mut world = Self::new();
        world.agent(AgentCommand::Start { strategies: None, mode: None });
        world.strategy(0, StrategyCommand::Activate);
        world.fire(0);
        world.finish();
        world.skip(1, FireSkipReason::Misfire);
        world.fire(0);
        world.finish();
        world.cycle_by_command();
        world.finish();
        world.alert();
        world.alert();
        world
    }

    pub(super) fn play(script: &[Event]) -> Self {
        let mut world = Self::new();
        for (what, which) in script {
            world.clock += i64::from(*which) + 1;
            world.event(*what, *which);
        }
        world.finish();
        world
    }

    fn event(&mut self, what: u8, which: u8) {
        match what {
            0 => self.agent(match which % 4 {
                0 => AgentCommand::Start { strategies: None, mode: None },
                1 => AgentCommand::Stop { reason: None, cancel_open_orders: false },
                2 => AgentCommand::Pause { minutes: Some(1) },
                _ => AgentCommand::Resume,
            }),
            1 => self.strategy(
                usize::from(which % 2),
                [
                    StrategyCommand::Activate,
                    StrategyCommand::Pause,
                    StrategyCommand::Deactivate { close_positions: false },
                ][usize::from(which / 2 % 3)],
            ),
            2 | 3 => self.fire(which),
            4 => self.skip(u64::from(which % 3) + 1, FireSkipReason::Misfire),
            5..8 => self.step(which),
            8 => self.crash(which),
            9 => self.alert(),
            10 => self.cycle_by_command(),
            _ => {
                self.config.settings.insert("a".to_owned(), which.to_string());
                self.facts.push(JournalFact::ConfigurationSnapshot(self.config.clone()));
                self.output(which);
            }
        }
    }

    fn command(&mut self) -> CommandId {
        self.commands += 1;
        let command_id = CommandId::of_random([self.commands; 16]);
        self.facts.push(JournalFact::CommandReceived(CommandReceived {
            command_id,
            name: "any".to_owned(),
            body: "{}".to_owned(),
            from: "test".to_owned(),
        }));
        command_id
    }

    fn answer(&mut self, command_id: CommandId, done: bool) {
        let outcome = if done {
            CommandOutcome::Done { answer: "{}".to_owned() }
        } else {
            CommandOutcome::Refused { status: 409, detail: "no".to_owned() }
        };
        self.facts.push(JournalFact::CommandEnded(CommandEnded { command_id, outcome }));
    }

    fn agent(&mut self, command: AgentCommand) {
        let id = self.command();
        let decided = self.agent.decide_change(AgentCause::Command(command), TsMs(self.clock));
        let changed = decided.ok().flatten();
        let done = changed.is_some();
        self.agent_changed(changed.map(|changed| (changed.from, changed.cause, changed.state)));
        self.answer(id, done);
    }

    fn agent_changed(
        &mut self,
        changed: Option<(crate::trading::agent::AgentStatus, AgentCause, AgentState)>,
    ) {
        if let Some((from, cause, state)) = changed {
            self.agent = state.clone();
            let changed = crate::trading::agent::AgentChanged { from, cause, state };
            self.facts.push(JournalFact::AgentChanged(changed));
        }
    }

    fn strategy(&mut self, at: usize, command: StrategyCommand) {
        let (name, from) = self.strategies[at].clone();
        if let Ok(to) = move_strategy(from, command) {
            self.strategies[at].1 = to;
            self.facts.push(JournalFact::StrategyChanged(StrategyChanged::Moved { name, from, to, command }));
        }
    }

    fn schedule() -> ScheduleName {
        schedule_name("daily")
    }

    /// A fire: begins a cycle, waits for the one that runs, or is skipped because one already waits.
    fn fire(&mut self, which: u8) {
        if self.waiting.is_some() {
            self.skip(1, FireSkipReason::QueueFull);
            return;
        }
        self.clock += 1;
        let planned = TsMs(self.clock);
        self.fires += 1;
        let cycle_id = CycleId::derive(None, &Self::schedule(), planned, "interval");
        let queues = !self.running.is_empty() && which.is_multiple_of(2);
        self.facts.push(JournalFact::ScheduleFired(ScheduleFired {
            schedule: Self::schedule(),
            fire: self.fires,
            planned_ts_ms: planned,
            trigger: FireTrigger::Interval,
            cycle_id,
            disposition: if queues { FireDisposition::Queue } else { FireDisposition::Start },
        }));
        if queues {
            self.waiting = Some((self.fires, cycle_id));
        } else {
            self.begin(CycleCause::Fire { schedule: Self::schedule(), fire: self.fires }, cycle_id, which);
        }
    }

    /// An output of the engine plane, on a schedule of its own.
    fn output(&mut self, which: u8) {
        self.outputs += 1;
        let fire = self.outputs;
        let trigger = FireTrigger::Output { run_seq: RunSeq(fire * 2) };
        let schedule = schedule_name("outputs");
        let cycle_id = CycleId::derive(Some(&strategy_name("a")), &schedule, TsMs(WALL), &trigger.to_text());
        self.facts.push(JournalFact::ScheduleFired(ScheduleFired {
            schedule: schedule.clone(),
            fire,
            // Events come for any time.
            planned_ts_ms: TsMs(WALL),
            trigger,
            cycle_id,
            disposition: FireDisposition::Start,
        }));
        self.begin(CycleCause::Fire { schedule, fire }, cycle_id, which);
    }

    fn skip(&mut self, fires: u64, reason: FireSkipReason) {
        let first = TsMs(self.clock + 1);
        self.clock += fires.cast_signed();
        self.facts.push(JournalFact::ScheduleSkipped(ScheduleSkipped {
            schedule: Self::schedule(),
            first_fire: self.fires + 1,
            fires,
            first_planned_ts_ms: first,
            last_planned_ts_ms: TsMs(self.clock),
            trigger: FireTrigger::Interval,
            reason,
        }));
        self.fires += fires;
    }

    fn cycle_by_command(&mut self) {
        let command = self.command();
        self.begin(CycleCause::Command(command), CycleId::of_command(command), 0);
        self.answer(command, true);
    }

    /// Begins a cycle in a world that depends on `which`.
    fn begin(&mut self, cause: CycleCause, cycle_id: CycleId, which: u8) {
        let mut pipeline =
            [canonical_pipeline(), analysis_pipeline(), heartbeat_pipeline(), canonical_pipeline()]
                [usize::from(which / 2 % 4)]
            .clone();
        if which % 7 == 6 {
            pipeline.stages[2].enabled = false;
        }
        let mut script = CycleScript::default();
        if which % 5 == 4 {
            let stage =
                ["ING", "SIG", "RISK", "PORT", "ANA", "GOV", "update_status"][usize::from(which / 5 % 7)];
            let error = StageError::new(StageErrorKind::Provider, "no");
            let after_ms = if which.is_multiple_of(3) { 4000 } else { 1 };
            script.answers = vec![(stage, vec![(after_ms, Err(error))])];
        }
        if which % 11 == 10 {
            let from = usize::from(which / 11);
            script.readings = Box::new(move |_, records, readings| {
                if from <= records {
                    readings.kill = KillReading::Refused("halted".to_owned());
                }
            });
        }
        self.begin_in(cause, cycle_id, pipeline, script);
    }

    fn begin_in(&mut self, cause: CycleCause, cycle_id: CycleId, pipeline: Pipeline, script: CycleScript) {
        let mut cycle = started(pipeline);
        cycle.cycle_id = cycle_id;
        cycle.cause = cause;
        cycle.config = self.config.config_hash();
        self.running.push((CycleWalk::new(cycle, script), 0));
        self.note();
    }

    /// One cycle whose hook behind SIG limits `d-a` to 4 shares and drops `d-b`.
    pub(super) fn hooked_cycle() -> Self {
        let mut world = Self::new();
        let mut pipeline = canonical_pipeline();
        pipeline.hooks = vec![hook("gov", "SIG", HookMoment::After, HookMode::Hard)];
        let patch = vec![
            Narrowing::Limit { decision_id: decision_id("d-a"), quantity: dec("4") },
            Narrowing::Drop(decision_id("d-b")),
        ];
        let answer = Ok(HookAnswer { vote: HookVote::Modify, reasons: vec![], patch });
        let replies = vec![HookReply { hook: stage_name("gov"), answer }];
        let command = world.command();
        let cycle_id = CycleId::of_command(command);
        let script = CycleScript { replies, ..CycleScript::default() };
        world.begin_in(CycleCause::Command(command), cycle_id, pipeline, script);
        world.answer(command, true);
        world.finish();
        world
    }

    /// Puts the cycles' new records on record, and begins what waited for them.
    fn note(&mut self) {
        let mut failed_audit = None;
        for (walk, noted) in &mut self.running {
            self.facts.extend(walk.facts[*noted..].iter().cloned());
            *noted = walk.facts.len();
            let ended = walk.run.state().ended();
            failed_audit =
                failed_audit.or(ended.filter(|ended| ended.audit_failed).map(|ended| ended.cycle_id));
        }
        self.running.retain(|(walk, _)| walk.run.state().ended().is_none());
        if let Some(cycle) = failed_audit {
            let changed = self.agent.decide_change(AgentCause::AuditFailed(cycle), TsMs(self.clock)).unwrap();
            self.agent_changed(changed.map(|changed| (changed.from, changed.cause, changed.state)));
        }
        if let (true, Some((fire, cycle_id))) = (self.running.is_empty(), self.waiting) {
            self.waiting = None;
            self.begin(CycleCause::Fire { schedule: Self::schedule(), fire }, cycle_id, 0);
        }
    }

    fn step(&mut self, which: u8) {
        let count = self.running.len().max(1);
        if let Some((walk, _)) = self.running.get_mut(usize::from(which) % count) {
            walk.step();
            if which == 77 {
                walk.run.cancel_cycle("overlap");
            }
        }
        self.note();
    }

    /// A crash that loses nothing that was on record.
    fn crash(&mut self, which: u8) {
        let count = self.running.len().max(1);
        if let Some((walk, _)) = self.running.get_mut(usize::from(which) % count) {
            walk.crash(walk.facts.len());
        }
        // What waited is skipped by half of the restarts.
        if let Some((fire, _)) = self.waiting.take_if(|_| which.is_multiple_of(2)) {
            self.facts.push(JournalFact::ScheduleSkipped(ScheduleSkipped {
                schedule: Self::schedule(),
                first_fire: fire,
                fires: 1,
                first_planned_ts_ms: TsMs(self.clock),
                last_planned_ts_ms: TsMs(self.clock),
                trigger: FireTrigger::Interval,
                reason: FireSkipReason::Shutdown,
            }));
        }
    }

    fn alert(&mut self) {
        let alert = "journal_append_failing".to_owned();
        self.alert_is_raised = !self.alert_is_raised;
        self.facts.push(if self.alert_is_raised {
            JournalFact::AlertRaised(AlertRaised { alert, detail: "disk full".to_owned() })
        } else {
            JournalFact::AlertCleared(AlertCleared { alert })
        });
    }

    fn finish(&mut self) {
        while let Some((walk, _)) = self.running.first_mut() {
            walk.walk();
            self.note();
        }
    }

    pub(super) fn latch(&mut self, latched: bool) {
        self.facts.push(JournalFact::KillLatched(KillLatched { latched, reason: "by event".to_owned() }));
    }

    pub(super) fn begin_cycle(&mut self) {
        self.fire(0);
        self.finish();
    }

    /// The records up to the broken one, for a message.
    pub(super) fn tail_of(&self, audit: &Result<JournalAudit, BrokenRule>) -> String {
        let Err(broken) = audit else { return String::new() };
        let until = usize::try_from(broken.seq.0).unwrap_or(usize::MAX).min(self.facts.len());
        let from = until.saturating_sub(12);
        self.facts[from..until].iter().map(|fact| format!("{fact:?}\n")).collect()
    }
}
