//! The agent: what it answers is durable, a key is answered once, and a crash starts and stops nothing.

use orchestrator_kernel::trading::agent::AgentCommand;
use orchestrator_kernel::trading::journal::{COMMANDS_REMEMBERED_MAX, JournalFact};
use orchestrator_kernel::trading::strategy::{StrategyCommand, StrategyStatus};
use orchestrator_runtime::testkit::OnAppend;
use orchestrator_trading_plane::command::{CommandAnswer, TradingCommand};
use orchestrator_trading_plane::testkit::{
    PlaneRig, WALL, origin, start_agent, strategy_name, trading_settings,
};

use crate::common::eventually;

fn agent(command: AgentCommand) -> TradingCommand {
    TradingCommand::Agent(command)
}

const STOP: AgentCommand = AgentCommand::Stop { reason: None, cancel_open_orders: false };

/// T10: stopped, paused and running over a crash and an hour of absence.
#[tokio::test]
async fn a_crash_starts_nothing_and_a_pause_that_ended_meanwhile_is_over() {
    for (commands, before, after) in [
        (vec![], "stopped", "stopped"),
        (vec![AgentCommand::Pause { minutes: Some(5) }], "paused", "running"),
        (vec![AgentCommand::Pause { minutes: None }], "paused", "paused"),
        (vec![STOP], "stopped", "stopped"),
    ] {
        let rig = PlaneRig::new(trading_settings());
        let plane = rig.start().await;
        if !commands.is_empty() {
            start_agent(plane.handle(), "start").await.unwrap();
        }
        for command in commands {
            plane.handle().execute_command(agent(command), origin("second")).await.unwrap();
        }
        assert_eq!(plane.handle().view.agent().state.status.as_str(), before);
        plane.kill().await;

        rig.clock.set(WALL + 60 * 60 * 1000);
        let plane = rig.start().await;
        assert_eq!(plane.handle().view.agent().state.status.as_str(), after);
        assert!(!plane.handle().view.is_catching_up());
        rig.audited().await;
    }
}

#[tokio::test]
async fn a_pause_ends_by_the_wall_clock() {
    let rig = PlaneRig::new(trading_settings());
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let pause = agent(AgentCommand::Pause { minutes: Some(5) });
    let answer = plane.handle().execute_command(pause, origin("pause")).await.unwrap();
    assert!(matches!(answer, CommandAnswer::AgentPaused { resume_at: Some(at) } if at.0 == WALL + 300_000));

    rig.clock.set(WALL + 300_000);

    let view = plane.handle().view.clone();
    eventually("it goes on", || view.agent().state.status.as_str() == "running").await;
}

#[tokio::test]
async fn the_same_key_is_answered_alike_also_behind_a_crash_and_another_body_is_refused() {
    let rig = PlaneRig::new(trading_settings());
    let plane = rig.start().await;
    let first = start_agent(plane.handle(), "key").await.unwrap();
    rig.clock.set(WALL + 1000);
    assert_eq!(start_agent(plane.handle(), "key").await.unwrap(), first);
    plane.kill().await;

    let plane = rig.start().await;
    assert_eq!(start_agent(plane.handle(), "key").await.unwrap(), first);
    let other = plane.handle().execute_command(agent(STOP), origin("key")).await.unwrap_err();
    assert_eq!(other.http_status(), 409);
    assert_eq!(rig.facts(|fact| matches!(fact, JournalFact::AgentChanged(_))).await.len(), 1);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_its_status_and_changes_nothing() {
    let rig = PlaneRig::new(trading_settings());
    let plane = rig.start().await;
    let unknown = TradingCommand::Strategy(strategy_name("nobody"), StrategyCommand::Activate);
    let start_nobody =
        agent(AgentCommand::Start { strategies: Some(vec![strategy_name("nobody")]), mode: None });
    for (key, command, status) in [
        ("1", agent(STOP), 409),
        ("2", agent(AgentCommand::Resume), 409),
        ("3", unknown, 404),
        ("4", start_nobody, 400),
        ("5", TradingCommand::Strategy(strategy_name("a"), StrategyCommand::Activate), 409),
        ("6", TradingCommand::AnalyzeStrategy { strategy: strategy_name("a"), symbols: vec![] }, 409),
        ("7", TradingCommand::ReleaseLatch { reason: String::new() }, 409),
    ] {
        let refused = plane.handle().execute_command(command, origin(key)).await.unwrap_err();
        assert_eq!(refused.http_status(), status, "{key}: {refused}");
    }
    let changed = rig.facts(|fact| matches!(fact, JournalFact::AgentChanged(_)));
    assert_eq!(changed.await.len(), 0);
}

#[tokio::test]
async fn a_strategy_that_is_deactivated_stays_so_over_a_restart_and_one_that_is_no_more_is_removed() {
    let mut rig = PlaneRig::new(trading_settings());
    let plane = rig.start().await;
    let stop = StrategyCommand::Deactivate { close_positions: false };
    let command = TradingCommand::Strategy(strategy_name("a"), stop);
    plane.handle().execute_command(command, origin("stop a")).await.unwrap();
    plane.kill().await;

    rig.settings.strategies.pop();
    let plane = rig.start().await;
    let known = plane.handle().view.list_strategies();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].definition.name.as_str(), known[0].status), ("a", StrategyStatus::Stopped));
    rig.audited().await;
}

/// Method: the journal has no room when a command comes; it is refused, and nothing of it is known later.
#[tokio::test]
async fn a_command_that_is_not_durable_is_not_answered_and_did_nothing() {
    let rig = PlaneRig::new(trading_settings());
    let plane = rig.start().await;
    rig.log.always(OnAppend::Full);
    let refused = start_agent(plane.handle(), "start").await.unwrap_err();
    assert_eq!(refused.http_status(), 503);
    let refused = start_agent(plane.handle(), "start").await.unwrap_err();
    assert_eq!(refused.http_status(), 503, "while it is failing");

    rig.log.always(OnAppend::Work);
    eventually("the journal has room", || rig.board.current_status().conditions.is_empty()).await;
    assert_eq!(plane.handle().view.agent().state.status.as_str(), "stopped");
    let mut tries = 0;
    // The agent begins again from the journal meanwhile.
    while start_agent(plane.handle(), &format!("again {tries}")).await.is_err() {
        tries += 1;
        assert!(tries < 10_000, "the agent does not come back");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    rig.audited().await;
}

/// Commands that all make sense one after the other.
fn day_of_commands() -> Vec<(&'static str, TradingCommand)> {
    let deactivate = StrategyCommand::Deactivate { close_positions: false };
    vec![
        ("start", agent(AgentCommand::Start { strategies: None, mode: None })),
        ("pause", agent(AgentCommand::Pause { minutes: Some(5) })),
        ("resume", agent(AgentCommand::Resume)),
        ("deactivate", TradingCommand::Strategy(strategy_name("a"), deactivate)),
        ("analyze", TradingCommand::AnalyzeStrategy { strategy: strategy_name("b"), symbols: vec![] }),
        ("latch", TradingCommand::LatchKill { reason: "news".to_owned() }),
        ("release", TradingCommand::ReleaseLatch { reason: "old news".to_owned() }),
        ("stop", agent(STOP)),
    ]
}

/// Method: a day of commands, cut behind every record of it; then all of them once more, with their keys.
#[tokio::test]
async fn a_command_that_a_crash_interrupted_is_done_once_and_its_repeat_is_answered() {
    let is_change = |fact: &JournalFact| {
        matches!(
            fact,
            JournalFact::AgentChanged(_)
                | JournalFact::StrategyChanged(_)
                | JournalFact::KillLatched(_)
                | JournalFact::CycleStarted(_)
        )
    };
    let whole = PlaneRig::new(trading_settings());
    let plane = whole.start().await;
    for (key, command) in day_of_commands() {
        plane.handle().execute_command(command, origin(key)).await.unwrap();
    }
    plane.stop(std::time::Duration::from_secs(30)).await;
    let records = whole.log.records().await;
    let changes = whole.facts(is_change).await.len();

    for cut in 1..records.len() {
        let rig = PlaneRig::new(trading_settings());
        rig.take_journal(&records[..cut]).await;
        let plane = rig.start().await;
        for (key, command) in day_of_commands() {
            let answer = plane.handle().execute_command(command, origin(key)).await;
            assert!(answer.is_ok(), "cut behind {cut}, {key}: {answer:?}");
        }
        plane.stop(std::time::Duration::from_secs(30)).await;
        assert_eq!(rig.facts(is_change).await.len(), changes, "cut behind {cut}");
    }
}

/// Method: more commands than answers are remembered, then the first keys again. Neither key begins anything, and the
/// plane lives: to the audit an id that comes twice would be a broken journal.
#[tokio::test]
async fn a_key_whose_answer_is_forgotten_stops_nothing() {
    let mut settings = trading_settings();
    settings.schedules.clear();
    let rig = PlaneRig::new(settings);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let beat = || TradingCommand::RunCycle {
        pipeline: orchestrator_trading_plane::testkit::pipeline_name("heartbeat"),
        strategies: vec![],
        trigger_event: None,
    };
    plane.handle().execute_command(beat(), origin("beat")).await.unwrap();
    for at in 0..COMMANDS_REMEMBERED_MAX {
        let release = TradingCommand::ReleaseLatch { reason: String::new() };
        plane.handle().execute_command(release, origin(&format!("release {at}"))).await.unwrap_err();
    }

    let again = plane.handle().execute_command(beat(), origin("beat")).await.unwrap_err();
    assert_eq!(again.http_status(), 409, "{again}");
    assert_eq!(start_agent(plane.handle(), "start").await.unwrap_err().http_status(), 409, "it runs");
    assert!(plane.handle().execute_command(agent(STOP), origin("stop")).await.is_ok(), "the plane lives");
    rig.audited().await;
}
