//! What telemetry and the board are told of cycles that really run, record by record.

use std::sync::{Arc, Mutex, PoisonError};

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::observer::{Observation, Observer, TradingObservation};
use orchestrator_kernel::trading::agent::AgentCommand;
use orchestrator_runtime::status::Condition;
use orchestrator_trading_plane::command::TradingCommand;
use orchestrator_trading_plane::plane::{TradingPlane, start_trading_plane};
use orchestrator_trading_plane::testkit::{
    PlaneRig, WALL, origin, stage_failure, start_agent, trading_settings,
};

use crate::common::eventually;
use crate::cycles::{ended, run_cycle};

/// Observations as lines, without what every run has another value of.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Told {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|told| *told == line).count()
    }
}

impl Observer for Told {
    fn observe(&self, observation: &Observation<'_>) {
        let Observation::Trading(fact) = observation else { return };
        let line = match fact {
            TradingObservation::CycleEnded { pipeline, status, decisions, intents, .. } => {
                format!("cycle {pipeline} {status} {decisions} {intents}")
            }
            TradingObservation::CycleFailed { code } => format!("error {code}"),
            TradingObservation::StageEnded { stage, error, .. } => {
                format!("stage {stage} {}", error.unwrap_or("ok"))
            }
            TradingObservation::ScheduleFired { lag_seconds } => format!("fired {lag_seconds}"),
            TradingObservation::FiresSkipped { reason, count } => format!("skipped {reason} {count}"),
            TradingObservation::AgentKnown { running_since, strategies_active } => {
                format!("agent {running_since:?} {strategies_active}")
            }
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

async fn start(rig: &PlaneRig) -> (TradingPlane, Arc<Told>) {
    let told = Arc::new(Told::default());
    let mut ports = rig.ports().await;
    ports.observer = told.clone();
    (start_trading_plane(ports, rig.settings.clone()).await.unwrap(), told)
}

fn by_hand() -> PlaneRig {
    let mut settings = trading_settings();
    settings.schedules.clear();
    PlaneRig::new(settings)
}

#[tokio::test]
async fn each_record_of_a_cycle_is_told_once_and_a_restart_tells_none_again() {
    let rig = by_hand();
    let (plane, told) = start(&rig).await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "run", "canonical").await;
    ended(&plane, cycle).await;
    plane.kill().await;

    let since = Some(TsMs(WALL));
    assert_eq!(told.lines().last().unwrap(), "cycle canonical ok 2 2", "{:?}", told.lines());
    assert_eq!(told.count(&format!("agent {since:?} 2")), 1, "{:?}", told.lines());
    for stage in ["ING", "FEAT", "SIG", "RISK", "EXEC", "PORT", "ANA", "GOV"] {
        assert_eq!(told.count(&format!("stage {stage} ok")), 1, "{:?}", told.lines());
    }

    let (plane, told) = start(&rig).await;
    assert_eq!(told.lines(), [format!("agent {since:?} 2")], "only what holds");
    plane.kill().await;
}

/// Method: three cycles whose ING fails, then one that works.
#[tokio::test]
async fn cycles_that_fail_in_a_row_are_said_until_one_does_not_fail() {
    let rig = by_hand();
    rig.stages.always("ING", stage_failure("no prices"));
    let (plane, told) = start(&rig).await;
    start_agent(plane.handle(), "start").await.unwrap();
    for number in 1..=3 {
        assert!(!rig.board.holds_condition(&Condition::CyclesFailing), "after {} cycles", number - 1);
        let cycle = run_cycle(&plane, &format!("run {number}"), "canonical").await;
        ended(&plane, cycle).await;
    }
    eventually("it is said", || rig.board.holds_condition(&Condition::CyclesFailing)).await;
    assert!(told.count("error E_ORCH_STAGE_FAILED") >= 3, "{:?}", told.lines());
    plane.kill().await;

    // A restart knows it from the record.
    let rig = PlaneRig { stages: Arc::default(), ..rig };
    let (plane, _) = start(&rig).await;
    assert!(rig.board.holds_condition(&Condition::CyclesFailing));
    let cycle = run_cycle(&plane, "run 4", "canonical").await;
    ended(&plane, cycle).await;
    eventually("it is over", || !rig.board.holds_condition(&Condition::CyclesFailing)).await;
    plane.kill().await;
}

/// Method: the audit of a cycle fails, which fails closed; an operator starts the agent again.
#[tokio::test]
async fn an_agent_in_error_is_said_until_an_operator_starts_it() {
    let rig = by_hand();
    rig.stages.always("GOV", stage_failure("not complete"));
    let (plane, _) = start(&rig).await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "run", "canonical").await;
    ended(&plane, cycle).await;
    eventually("it is said", || rig.board.holds_condition(&Condition::AgentError)).await;

    let again = TradingCommand::Agent(AgentCommand::Start { strategies: None, mode: None });
    eventually_started(&plane, again).await;
    eventually("it is over", || !rig.board.holds_condition(&Condition::AgentError)).await;
    plane.kill().await;
}

/// The agent hears of the audit after the cycle's end: until it is in error a start conflicts.
async fn eventually_started(plane: &TradingPlane, command: TradingCommand) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    for number in 0.. {
        let answered =
            plane.handle().execute_command(command.clone(), origin(&format!("again {number}"))).await;
        if answered.is_ok() {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{answered:?}");
        tokio::task::yield_now().await;
    }
}
