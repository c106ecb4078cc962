//! The way to rest: everything heals, every cycle ends, trading works again, and readers are shown what is on record.

use std::sync::atomic::Ordering;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::trading::agent::{AgentCommand, AgentStatus};
use orchestrator_kernel::trading::strategy::StrategyCommand;
use orchestrator_trading_plane::command::TradingCommand;
use orchestrator_trading_plane::plane::{TradingPlane, TradingStop};
use orchestrator_trading_plane::testkit::{pipeline_name, schedule_name, strategy_name};

use super::steps::announce_session;
use super::{Ended, REST_MAX, Sim};
use crate::world::Weather;

impl Sim {
    /// From here on nothing fails.
    pub(super) fn heal(&mut self) {
        let yields = self.world.weather().yields;
        self.world.set_weather(Weather { yields, ..Weather::default() });
        self.allow_trading();
        self.journal.fill(0);
    }

    fn what_is_missing(&self) -> Option<String> {
        let (sent, now) = (self.outputs.load(Ordering::Relaxed), TsMs(self.clock.ms()));
        let outputs = schedule_name("on-outputs");
        self.world.audit(|audit| {
            if let (AgentStatus::Paused, Some(resume_at)) = audit.agent()
                && resume_at < now
            {
                return Ok(Some(format!("AGT-1: a pause until {resume_at:?} goes on at {now:?}")));
            }
            let unfinished = audit.unfinished();
            let promise = if audit.open_cycles().is_empty() { "CYC-2" } else { "CYC-4" };
            Ok(match audit.outputs_accounted(&outputs, sent) {
                Ok(()) if unfinished.is_empty() => None,
                Ok(()) => Some(format!("{promise}: {unfinished}")),
                Err(lost) if unfinished.is_empty() => Some(lost),
                Err(lost) => Some(format!("{promise}: {unfinished}, {lost}")),
            })
        })
    }

    /// Waits, with the wall clock standing still, until nothing is left to be done.
    async fn wait_drained(&mut self, plane: &mut Option<TradingPlane>, least: u64) -> Option<Ended> {
        let since = tokio::time::Instant::now();
        let mut ms = least;
        loop {
            if let Some(ended) = self.wait(plane, ms).await {
                return Some(ended);
            }
            let missing = self.what_is_missing()?;
            if REST_MAX < since.elapsed() {
                let interrupted = self.world.audit(|audit| {
                    let open = audit.open_cycles();
                    Ok(!open.is_empty() && open.iter().all(|cycle| audit.was_interrupted(cycle)))
                });
                let promise = if interrupted { "CYC-3: a cycle that was interrupted; " } else { "" };
                self.world
                    .violated(format!("{promise}{missing}: not at rest after {REST_MAX:?} without faults"));
                return Some(Ended::Stopped);
            }
            ms = (ms * 2).clamp(50, 1000);
        }
    }

    /// Liveness: everything heals, every cycle ends, the agent runs again and its schedules fire; then a clean stop.
    pub(super) async fn come_to_rest(&mut self, plane: &mut Option<TradingPlane>) -> Ended {
        self.heal();
        self.world.note(format_args!("from here on nothing fails"));
        // What hung when the weather changed still takes its time.
        if let Some(ended) = self.wait_drained(plane, 5000).await {
            return ended;
        }
        self.compare_view(plane);
        if let Some(ended) = self.trade_again(plane).await {
            return ended;
        }
        self.compare_view(plane);
        self.stop_at_rest(plane).await
    }

    fn compare_view(&self, plane: &Option<TradingPlane>) {
        let shown = plane.as_ref().expect("it runs").handle().view.clone();
        self.world.audit(|audit| audit.compare_view(&shown));
    }

    async fn command_now(
        &mut self,
        plane: &mut Option<TradingPlane>,
        command: TradingCommand,
    ) -> Option<Ended> {
        let key = format!("key-{}", self.commands.len());
        self.commands.push((key.clone(), command.clone()));
        self.send_command(plane.as_ref().expect("it runs"), &key, command);
        self.wait_drained(plane, 10).await
    }

    async fn trade_again(&mut self, plane: &mut Option<TradingPlane>) -> Option<Ended> {
        announce_session(plane.as_ref().expect("it runs"), true);
        let (is_latched, agent) = self.world.audit(|audit| Ok((audit.is_latched(), Some(audit.agent()))));
        let mut commands = Vec::new();
        if is_latched {
            commands.push(TradingCommand::ReleaseLatch { reason: "at rest".to_owned() });
        }
        match agent.map(|(status, _)| status) {
            Some(AgentStatus::Running) | None => {}
            Some(AgentStatus::Paused) => commands.push(TradingCommand::Agent(AgentCommand::Resume)),
            Some(AgentStatus::Stopped | AgentStatus::Error) => {
                commands.push(TradingCommand::Agent(AgentCommand::Start { strategies: None, mode: None }));
            }
        }
        for name in ["a", "b"] {
            commands.push(TradingCommand::Strategy(strategy_name(name), StrategyCommand::Activate));
        }
        let strategies = vec![strategy_name("a"), strategy_name("b")];
        commands.push(TradingCommand::RunCycle {
            pipeline: pipeline_name("heartbeat"),
            strategies,
            trigger_event: None,
        });
        for command in commands {
            if let Some(ended) = self.command_now(plane, command).await {
                return Some(ended);
            }
        }
        let timed = schedule_name("timed");
        let fires = |sim: &Self| sim.world.audit(|audit| Ok(audit.last_fire(&timed)));
        let before = fires(self);
        // A clock that jumped back has to come to where it was.
        self.set_clock(self.clock.ms() + 100 * 60 * 60 * 1000);
        for _ in 0..3 {
            if let Some(ended) = self.pass(plane, 2000).await {
                return Some(ended);
            }
        }
        if let Some(ended) = self.wait_drained(plane, 100).await {
            return Some(ended);
        }
        if fires(self) == before {
            self.world.violated("CYC-2: a schedule fires no more although nothing keeps it from it");
        }
        None
    }

    async fn stop_at_rest(&mut self, plane: &mut Option<TradingPlane>) -> Ended {
        let stopped = plane.take().expect("it runs").stop(std::time::Duration::from_secs(20)).await;
        if stopped != TradingStop::Clean {
            self.world.violated(format!("CYC-4: a stop at rest is {stopped:?}"));
        }
        self.journal.look().await;
        let unfinished = self.world.audit(|audit| Ok(audit.unfinished_at_stop()));
        if !unfinished.is_empty() {
            self.world.violated(format!("CYC-4: stopped cleanly, and left {unfinished}"));
        }
        Ended::Done
    }
}
