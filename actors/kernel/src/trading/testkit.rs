//! Small values for the tests of the trading plane, and a driver that walks a cycle through its steps.

use std::time::Duration;

use rust_decimal::Decimal;

use super::agent::AgentStatus;
use super::cycle::{
    AnswerFate, CycleNow, CycleRun, CycleState, CycleStep, HookReply, StageCall, gates_denied,
};
use super::decision::{Confidence, DecisionAction, TradeDecision};
use super::gate::{AgentReading, GatePlace, GateReadings, KillReading, SessionReading};
use super::ids::{CommandId, CycleId, DecisionId, PipelineName, ScheduleName, StageName, StrategyName};
use super::journal::{
    ConfigHash, CycleCause, CycleEnded, CycleStarted, JournalFact, StageError, StageOutput, TradingMode,
};
use super::pipeline::Pipeline;
use super::risk::{RiskMode, RiskOutcome, RiskVerdict};
use super::stage::{HookMode, HookMoment, HookSpec, StageProvider, StageRole};
use super::strategy::{StrategyDefinition, StrategyStatus};
use crate::ids::{Symbol, TsMs};

/// The wall clock's moment zero in tests.
pub(super) const WALL: i64 = 1_768_002_660_000;

pub(super) fn dec(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

pub(super) fn strategy_name(name: &str) -> StrategyName {
    StrategyName::new(name).unwrap()
}

pub(super) fn stage_name(name: &str) -> StageName {
    StageName::new(name).unwrap()
}

pub(super) fn schedule_name(name: &str) -> ScheduleName {
    ScheduleName::new(name).unwrap()
}

pub(super) fn decision_id(id: &str) -> DecisionId {
    DecisionId::new(id).unwrap()
}

pub(super) fn cycle_id(seed: u8) -> CycleId {
    CycleId::of_command(CommandId::of_random([seed; 16]))
}

/// A BUY with confidence 0.7.
pub(super) fn decision(id: &str, strategy: &str, symbol: &str, quantity: &str) -> TradeDecision {
    TradeDecision {
        decision_id: decision_id(id),
        symbol: Symbol::from(symbol),
        strategy: strategy_name(strategy),
        action: DecisionAction::Buy,
        confidence: Confidence::new(0.7).unwrap(),
        reasoning: "up".to_owned(),
        suggested_quantity: Some(dec(quantity)),
        suggested_price: None,
    }
}

/// RISK allows this many shares at 150.
pub(super) fn allowed(id: &str, quantity: &str) -> RiskVerdict {
    let outcome = RiskOutcome::Allowed { quantity: dec(quantity), price: dec("150"), lowered_by: vec![] };
    RiskVerdict { decision_id: decision_id(id), outcome }
}

pub(super) fn strategy(name: &str) -> StrategyDefinition {
    StrategyDefinition {
        name: strategy_name(name),
        kind: stage_name("momentum"),
        symbols: vec![Symbol::from("AAPL"), Symbol::from("MSFT")],
        risk_mode: RiskMode::Normal,
        pipeline: PipelineName::new("canonical").unwrap(),
        schedules: vec![schedule_name("daily")],
        calendar: "XNYS".to_owned(),
    }
}

pub(super) fn hook(name: &str, stage: &str, moment: HookMoment, mode: HookMode) -> HookSpec {
    HookSpec {
        name: stage_name(name),
        stage: stage_name(stage),
        moment,
        mode,
        provider: StageProvider::Http,
        budget: Duration::from_millis(50),
    }
}

/// Everything allows, for strategies `a` and `b`.
pub(super) fn open_readings() -> GateReadings {
    GateReadings {
        now: TsMs(WALL),
        kill: KillReading::Permit { age_ms: 3, left_ms: 497 },
        newest_input: Some(TsMs(WALL - 10)),
        session: SessionReading { calendar_allows: true, announcement_allows: None },
        agent: AgentReading { status: AgentStatus::Running, catching_up: false },
        strategies: vec![
            (strategy_name("a"), StrategyStatus::Active),
            (strategy_name("b"), StrategyStatus::Active),
        ],
        last_cycle_degraded: false,
    }
}

pub(super) fn started(pipeline: Pipeline) -> CycleStarted {
    CycleStarted {
        cycle_id: cycle_id(1),
        cause: CycleCause::Fire { schedule: schedule_name("daily"), fire: 1 },
        started_at: TsMs(WALL),
        pipeline,
        begin_at: 0,
        strategies: vec![strategy_name("a"), strategy_name("b")],
        symbols: vec![],
        decisions: vec![],
        mode: TradingMode::Live,
        dry_run: true,
        as_of_date: "2026-01-09".to_owned(),
        config: ConfigHash([7; 32]),
        denied_at_start: vec![],
    }
}

/// What an attempt of a stage leads to, and after how many milliseconds.
pub(super) type Scripted = (u64, Result<StageOutput, StageError>);

/// Changes the readings at a place, knowing how many records there are.
pub(super) type ReadingsChange = dyn Fn(&GatePlace, usize, &mut GateReadings);

/// The world around one cycle: what each stage answers, what gates read, what hooks reply.
pub(super) struct CycleScript {
    /// Answers of a stage's attempts; the last one repeats. Without any, [`good_answer`].
    pub(super) answers: Vec<(&'static str, Vec<Scripted>)>,
    /// Changes the readings at a place; gets the number of records so far too.
    pub(super) readings: Box<ReadingsChange>,
    /// Replies of hooks.
    pub(super) replies: Vec<HookReply>,
}

impl Default for CycleScript {
    fn default() -> Self {
        Self { answers: vec![], readings: Box::new(|_, _, _| ()), replies: vec![] }
    }
}

/// Two decisions of SIG (`d-a` of 10 shares by `a`, `d-b` of 5 by `b`), both allowed by RISK.
pub(super) fn good_answer(role: StageRole) -> StageOutput {
    let mut output = StageOutput { data: "{}".to_owned(), ..StageOutput::default() };
    match role {
        StageRole::Signal => {
            output.decisions = vec![decision("d-a", "a", "AAPL", "10"), decision("d-b", "b", "MSFT", "5")];
        }
        StageRole::Risk => output.verdicts = vec![allowed("d-a", "10"), allowed("d-b", "5")],
        _ => {}
    }
    output
}

/// A cycle on its way, with every record that it has made. Its start is the first one.
pub(super) struct CycleWalk {
    pub(super) run: CycleRun,
    pub(super) facts: Vec<JournalFact>,
    pub(super) now_ms: u64,
    pub(super) script: CycleScript,
}

impl CycleWalk {
    pub(super) fn new(mut started: CycleStarted, script: CycleScript) -> Self {
        let mut readings = open_readings();
        (script.readings)(&GatePlace::Before(0), 0, &mut readings);
        started.denied_at_start = gates_denied(&started.pipeline, &readings);
        let facts = vec![JournalFact::CycleStarted(Box::new(started.clone()))];
        Self { run: CycleRun::begin_cycle(started, Duration::ZERO), facts, now_ms: 0, script }
    }

    pub(super) const fn now(&self) -> CycleNow {
        CycleNow { elapsed: Duration::from_millis(self.now_ms), wall: TsMs(WALL + self.now_ms.cast_signed()) }
    }

    pub(super) fn append(&mut self, fact: JournalFact) {
        self.run.apply_fact(&fact, self.now().elapsed).unwrap();
        self.facts.push(fact);
    }

    /// One step; `false` at the end.
    pub(super) fn step(&mut self) -> bool {
        match self.run.next_step(self.now()) {
            CycleStep::Ended => return false,
            CycleStep::Append(fact) => self.append(fact),
            CycleStep::Wait { until } => self.now_ms = u64::try_from(until.as_millis()).unwrap() + 1,
            CycleStep::AskGates(place) => {
                let mut readings = open_readings();
                (self.script.readings)(&place, self.facts.len(), &mut readings);
                let decided = self.run.decide_gates(place, &readings, &self.script.replies);
                self.append(JournalFact::GateDecided(Box::new(decided)));
            }
            CycleStep::CallStage(call) => {
                self.call(call);
            }
        }
        true
    }

    fn call(&mut self, call: StageCall) -> AnswerFate {
        let spec = &self.run.state().started().pipeline.stages[call.stage];
        let scripted = self.script.answers.iter().find(|(stage, _)| *stage == spec.name.as_str());
        let (after_ms, answer) = scripted
            .and_then(|(_, attempts)| attempts.get(call.attempt as usize - 1).or(attempts.last()))
            .cloned()
            .unwrap_or_else(|| (1, Ok(good_answer(spec.role()))));
        self.run.note_called(call, self.now().elapsed);
        self.now_ms += after_ms;
        self.run.take_answer(call, answer, self.now().elapsed)
    }

    pub(super) fn walk(&mut self) -> CycleEnded {
        for _ in 0..100_000 {
            if !self.step() {
                return self.run.state().ended().unwrap().clone();
            }
        }
        panic!("the cycle does not end: {:?}", self.facts.last());
    }

    /// A crash: what is volatile is lost, and the records that were durable come back.
    pub(super) fn crash(&mut self, durable: usize) {
        self.facts.truncate(durable.max(1));
        let JournalFact::CycleStarted(started) = &self.facts[0] else { panic!("a start") };
        let mut state = CycleState::new((**started).clone());
        for fact in &self.facts[1..] {
            state.apply_fact(fact).unwrap();
        }
        self.run = CycleRun::resume_cycle(state, self.now());
    }

    /// The records as one line: `gate:SIG- stage:SIG intent end:ok`; `-` marks a denial or a failure.
    pub(super) fn line(&self) -> String {
        self.facts[1..].iter().map(|fact| self.word(fact)).collect::<Vec<_>>().join(" ")
    }

    fn word(&self, fact: &JournalFact) -> String {
        let stages = &self.run.state().started().pipeline.stages;
        match fact {
            JournalFact::GateDecided(decided) => {
                let place = match &decided.place {
                    GatePlace::Before(stage) => stages[usize::from(*stage)].name.to_string(),
                    GatePlace::After(stage) => format!("after-{}", stages[usize::from(*stage)].name),
                    GatePlace::BeforeIntent(decision) => decision.to_string(),
                };
                format!("?{place}{}", if decided.first_denial().is_some() { "-" } else { "" })
            }
            JournalFact::StageEnded(ended) => {
                let failed = matches!(ended.outcome, super::journal::StageOutcome::Failed(_));
                format!("{}{}", ended.name, if failed { "-" } else { "" })
            }
            JournalFact::OrderIntended(intent) => format!("!{}", intent.decision_id),
            JournalFact::CycleEnded(ended) => format!("={}", ended.status.as_str()),
            other => other.kind_word().to_owned(),
        }
    }
}

/// The cycle's line, without the gates that allowed.
pub(super) fn without_open_gates(line: &str) -> String {
    line.split(' ').filter(|word| !word.starts_with('?') || word.ends_with('-')).collect::<Vec<_>>().join(" ")
}
