//! What happens to a running plane: commands, events, outputs, flips, jumps of the clock, faults, second writers,
//! stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use orchestrator_kernel::ids::{RunSeq, TsMs};
use orchestrator_kernel::trading::agent::AgentCommand;
use orchestrator_kernel::trading::ids::CommandId;
use orchestrator_kernel::trading::strategy::StrategyCommand;
use orchestrator_runtime::fatal::FatalKind;
use orchestrator_runtime::testkit::ReadMood;
use orchestrator_trading_plane::cadence::messages::ScheduleEvent;
use orchestrator_trading_plane::command::{SessionAnnouncement, TradingCommand};
use orchestrator_trading_plane::plane::{TradingPlane, TradingStop};
use orchestrator_trading_plane::testkit::{WALL, origin, pipeline_name, schedule_name, strategy_name};
use tokio::time::sleep;

use super::{Ended, MS, Sim};
use crate::plan;

impl Sim {
    pub(super) async fn step(&mut self, plane: &mut Option<TradingPlane>) -> Option<Ended> {
        let running = plane.as_ref().expect("stopped last");
        match self.below(40) {
            0..=7 => {
                let command = self.next_command();
                let key = format!("key-{}", self.commands.len());
                self.commands.push((key.clone(), command.clone()));
                self.send_command(running, &key, command);
            }
            8..=9 => self.repeat_command(running),
            10..=11 => self.send_event(running),
            12 => self.repeat_event(running),
            13..=14 => {
                let more = 1 + self.below(3);
                self.outputs.fetch_add(more, Ordering::Relaxed);
            }
            15..=16 => self.flip_the_switch(),
            17..=18 => self.allow_trading(),
            19..=20 => self.jump_the_clock(),
            21..=22 => {
                let weather = plan::weather(&mut self.dice);
                self.world.set_weather(weather);
            }
            23 => {
                let appends = 1 + self.below(6);
                self.journal.fill(i64::try_from(appends).unwrap());
            }
            24 if self.one_in(3) => return self.be_superseded(plane).await,
            25 if self.one_in(2) => return Some(self.stop(plane).await),
            26 => {
                self.world.saw("the market is announced closed");
                announce_session(running, false);
            }
            27..=28 => announce_session(running, true),
            _ => {}
        }
        let ms = match self.below(4) {
            0 => 1 + self.below(20),
            1 => 1 + self.below(300),
            2 => 1 + self.below(1200),
            _ => 2000,
        };
        self.pass(plane, ms).await
    }

    fn next_command(&mut self) -> TradingCommand {
        let strategy = strategy_name(["a", "b", "nobody"][[0, 0, 1, 1, 2][self.dice.next_index(5)]]);
        match self.below(24) {
            0..=8 => TradingCommand::Agent(AgentCommand::Start { strategies: None, mode: None }),
            9 => TradingCommand::Agent(AgentCommand::Stop { reason: None, cancel_open_orders: false }),
            10 => TradingCommand::Agent(AgentCommand::Pause { minutes: Some(1) }),
            11 => TradingCommand::Agent(AgentCommand::Pause { minutes: None }),
            12..=13 => TradingCommand::Agent(AgentCommand::Resume),
            14 => TradingCommand::Strategy(strategy, StrategyCommand::Pause),
            15..=16 => TradingCommand::Strategy(strategy, StrategyCommand::Activate),
            17 => TradingCommand::AnalyzeStrategy { strategy, symbols: Vec::new() },
            18 => {
                self.world.saw("latched");
                TradingCommand::LatchKill { reason: "as told".to_owned() }
            }
            19..=20 => TradingCommand::ReleaseLatch { reason: "as told".to_owned() },
            _ => TradingCommand::RunCycle {
                pipeline: pipeline_name(["canonical", "analysis", "heartbeat"][self.dice.next_index(3)]),
                strategies: vec![strategy_name("a"), strategy_name("b")],
                trigger_event: None,
            },
        }
    }

    /// Sends a command; its answer is looked at when it comes, if it comes.
    pub(super) fn send_command(&self, plane: &TradingPlane, key: &str, command: TradingCommand) {
        let (handle, world) = (plane.handle().clone(), Arc::clone(&self.world));
        let (key, id) = (key.to_owned(), CommandId::derive(key));
        world.note(format_args!("command {key} {command:?}"));
        tokio::spawn(async move {
            let answer = handle.execute_command(command.clone(), origin(&key)).await;
            world.note(format_args!("command {key} is answered {answer:?}"));
            world.audit(|audit| audit.answered(id, &command, &answer));
        });
    }

    fn repeat_command(&mut self, plane: &TradingPlane) {
        if self.commands.is_empty() {
            return;
        }
        let known = self.dice.next_index(self.commands.len());
        let (key, command) = self.commands[known].clone();
        if self.one_in(4) {
            self.world.saw("a command with another body");
            let other = self.next_command();
            self.send_command(plane, &key, other);
        } else {
            self.world.saw("a command is repeated");
            self.send_command(plane, &key, command);
        }
    }

    fn send_event(&mut self, plane: &TradingPlane) {
        let late = if self.one_in(3) { 1000 * self.below(600) } else { 0 };
        let event = ScheduleEvent {
            topic: "news.earnings".to_owned(),
            event_id: format!("event-{}", self.events.len()),
            at: TsMs(self.clock.ms() - i64::try_from(late).unwrap()),
        };
        self.events.push(event.clone());
        self.bring_event(plane, event);
    }

    fn repeat_event(&mut self, plane: &TradingPlane) {
        if !self.events.is_empty() {
            self.world.saw("an event comes twice");
            let known = self.dice.next_index(self.events.len());
            let event = self.events[known].clone();
            self.bring_event(plane, event);
        }
    }

    /// Brings an event until it is acknowledged.
    fn bring_event(&self, plane: &TradingPlane, event: ScheduleEvent) {
        let (handle, world) = (plane.handle().clone(), Arc::clone(&self.world));
        tokio::spawn(async move {
            for _ in 0..40 {
                if handle.take_event(event.clone()).await.is_ok() {
                    world.note(format_args!("{} is acknowledged", event.event_id));
                    world.audit(|audit| audit.event_taken(&[schedule_name("on-events")], &event.event_id));
                    return;
                }
                sleep(MS * 100).await;
            }
        });
    }

    /// Reads outputs as the engine plane's run log gives them: from the cursor in the journal, some of them twice.
    pub(super) fn read_outputs(&self, plane: &TradingPlane) {
        let (handle, world) = (plane.handle().clone(), Arc::clone(&self.world));
        let sent = Arc::clone(&self.outputs);
        let schedule = schedule_name("on-outputs");
        tokio::spawn(async move {
            let mut next = world.audit(|audit| Ok(audit.output_cursor(&schedule))) + 1;
            loop {
                if sent.load(Ordering::Relaxed) < next {
                    sleep(MS * 50).await;
                    continue;
                }
                let at = TsMs(WALL + 1000 * i64::try_from(next).unwrap());
                match handle.take_output(RunSeq(next), at).await {
                    Ok(()) if 1 < next && world.below(6) == 0 => next -= 1,
                    Ok(()) => next += 1,
                    Err(_) => sleep(MS * 30).await,
                }
            }
        });
    }

    fn flip_the_switch(&mut self) {
        let (what, value): (_, Option<&[u8]>) = match self.below(4) {
            0 => ("kill switch engaged", Some(b"on")),
            1 => ("kill switch garbage", Some(b"maybe")),
            2 => ("kill switch missing", None),
            _ => {
                self.world.saw("kill switch hangs");
                self.kill_switch.set(ReadMood::Hangs);
                self.world.set_stopped(true);
                return;
            }
        };
        self.world.saw(what);
        self.world.note(format_args!("{what}"));
        if self.one_in(2) {
            self.kill_switch.memory.put_value(value);
        } else {
            self.kill_switch.memory.put_silently(value);
        }
        self.world.set_stopped(true);
    }

    pub(super) fn allow_trading(&self) {
        self.world.saw("kill switch trading again");
        self.kill_switch.set(ReadMood::Works);
        self.kill_switch.memory.put_value(Some(b"off"));
        self.world.set_stopped(false);
    }

    fn jump_the_clock(&mut self) {
        let (what, ms) = match self.below(6) {
            0 | 1 => ("clock jumps ahead, small", i64::try_from(1 + self.below(20_000)).unwrap()),
            2 => ("clock jumps ahead, large", i64::try_from(60_000 + self.below(4_000_000)).unwrap()),
            3 | 4 => ("clock jumps back, small", -i64::try_from(1 + self.below(10_000)).unwrap()),
            _ => ("clock jumps back, large", -i64::try_from(60_000 + self.below(4_000_000)).unwrap()),
        };
        self.world.saw(what);
        self.set_clock(self.clock.ms() + ms);
    }

    /// A second writer takes the journal over: the plane has to find that out and end (LOG-3).
    async fn be_superseded(&mut self, plane: &mut Option<TradingPlane>) -> Option<Ended> {
        self.world.saw("overtaken by a second writer");
        self.world.may_end_as(FatalKind::Fenced);
        self.journal.take_over().await;
        let stop = TradingCommand::LatchKill { reason: "as told".to_owned() };
        for round in 0..60_u64 {
            let key = format!("key-{}", self.commands.len());
            self.commands.push((key.clone(), stop.clone()));
            self.send_command(plane.as_ref().expect("it runs"), &key, stop.clone());
            if let Some(ended) = self.pass(plane, 200 + 10 * round).await {
                return Some(ended);
            }
        }
        self.world.violated("LOG-3: a writer that was superseded goes on");
        Some(Ended::Stopped)
    }

    pub(super) async fn stop(&mut self, plane: &mut Option<TradingPlane>) -> Ended {
        let running = plane.take().expect("it runs");
        let grace = Duration::from_secs(if self.one_in(3) { 1 } else { 20 });
        let stopped = running.stop(grace).await;
        self.world.note(format_args!("stopped: {stopped:?}"));
        match stopped {
            TradingStop::Clean => self.world.saw("clean stop"),
            TradingStop::Unfinished(_) => self.world.saw("stop that ran out of time"),
            TradingStop::Failed(failure) => return self.failed(failure.kind, &failure.what),
        }
        Ended::Stopped
    }
}

/// Announces the session of the strategies' market. Each announcement is a later one than the last.
pub(super) fn announce_session(plane: &TradingPlane, is_open: bool) {
    static ANNOUNCED: AtomicI64 = AtomicI64::new(0);
    let at = TsMs(ANNOUNCED.fetch_add(1, Ordering::Relaxed));
    let announced = SessionAnnouncement { market: "24-7".to_owned(), is_open, at };
    plane.handle().view.announce_session(&announced);
}
