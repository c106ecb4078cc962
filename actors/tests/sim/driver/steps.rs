//! What happens to a running tree: items, ticks, faults, jumps of the clock, kills, second writers, stops.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orchestrator_actors::testkit::ManualClock;
use orchestrator_actors::tree::{StopOutcome, Tree};
use orchestrator_runtime::fatal::FatalKind;

use super::{Ended, Sim};
use crate::plan;

impl Sim {
    pub(super) async fn step(&mut self, tree: &mut Option<Tree>) -> Option<Ended> {
        match self.below(32) {
            0..=10 => self.push_items(),
            11..=14 => return self.next_tick(tree).await,
            15 => self.repeat(),
            16 => self.leave_out(),
            17 => {
                self.world.saw("broker blocked");
                self.broker.block(true);
            }
            18..=19 => self.broker.block(false),
            20 => self.fill_a_log(),
            21..=22 => self.jump_the_clock(),
            23..=24 => self.kill_an_actor(tree),
            25 if self.one_in(3) => return self.be_superseded(tree).await,
            26 if self.one_in(2) => return Some(self.stop(tree).await),
            // Only logs on a server can be overtaken so, and there an idle tree asks whether they are still its own.
            28 if self.zombie.is_none() && self.settings.log_writer.probe_every.is_some() => {
                self.world.saw("overtaken by a second tree");
                self.zombie = tree.take();
                let next = ManualClock::at(self.clock.ms());
                self.zombies_clock = Some(std::mem::replace(&mut self.clock, next));
                return Some(Ended::Overtaken);
            }
            27 => {
                let weather = plan::weather(&mut self.dice);
                self.world.set_weather(weather);
            }
            _ => {}
        }
        self.refuse_or_decide(tree).await;
        let ms = match self.below(4) {
            0 => 1,
            1 => 1 + self.below(20),
            2 => 1 + self.below(150),
            _ => 1 + self.below(600),
        };
        self.pass(tree, ms).await
    }

    fn next_item(&mut self, symbol: &str) -> Bytes {
        self.items += 1;
        let next = (self.clock.ms().div_euclid(1000) + 1) * 1000;
        match self.below(12) {
            0..=4 => plan::snapshot(symbol, self.items, next),
            5 => plan::snapshot(symbol, self.items, next + 1000),
            6 => plan::snapshot(symbol, self.items, next - 1000 * (1 + self.below(3)) as i64),
            7 => {
                self.world.saw("item that is no receipt");
                plan::garbage(self.items)
            }
            _ => plan::trade(symbol, self.items),
        }
    }

    fn push_items(&mut self) {
        let source = usize::from(self.one_in(4));
        let count = 1 + self.below(9);
        let mut items = Vec::new();
        for _ in 0..count {
            let symbol = self.below(self.symbols.len() as u64) as usize;
            let strange = self.keeping.is_some_and(|keeping| keeping.strangers) && self.one_in(6);
            let symbol = if strange { "stranger" } else { self.symbols[symbol] };
            items.push(self.next_item(symbol));
        }
        self.world.note(format_args!("{count} new items for source {source}"));
        self.sources[source].push(items);
    }

    /// The wall clock reaches the next planned time: exactly, or a little later.
    async fn next_tick(&mut self, tree: &mut Option<Tree>) -> Option<Ended> {
        let late = if self.one_in(2) { 0 } else { self.below(300) as i64 };
        let planned = ((self.clock.ms() - 100).div_euclid(1000) + 1) * 1000 + 100 + late;
        let ms = (planned - self.clock.ms()).unsigned_abs();
        if let Some(ended) = self.pass(tree, ms).await {
            return Some(ended);
        }
        self.pass(tree, 1).await
    }

    fn repeat(&mut self) {
        self.world.saw("producer repeats items");
        let (source, count) = (usize::from(self.one_in(4)), 1 + self.below(12) as usize);
        self.sources[source].repeat(count);
    }

    fn leave_out(&mut self) {
        self.world.saw("producer leaves items out");
        let count = 1 + self.below(3) as usize;
        self.sources[0].leave_out(count);
    }

    fn fill_a_log(&mut self) {
        let appends = 1 + self.below(6) as i64;
        let log = [&self.receipts, &self.quarantine, &self.runs][self.dice.next_below(3) as usize];
        log.fill(appends);
    }

    fn jump_the_clock(&mut self) {
        let (what, by) = match self.below(6) {
            0 => ("clock jumps back, small", -1 - self.below(300) as i64),
            1 => ("clock jumps back, large", -1000 - self.below(3_600_000) as i64),
            2 => ("clock jumps ahead, small", 1 + self.below(300) as i64),
            3 => ("clock jumps ahead, large", 1000 + self.below(3_600_000) as i64),
            4 => ("clock jumps back, small", -1 - self.below(20) as i64),
            _ => ("clock is mended", self.latest - self.clock.ms()),
        };
        self.world.saw(what);
        self.set_clock(self.clock.ms() + by);
    }

    fn kill_an_actor(&mut self, tree: &Option<Tree>) {
        let Some(tree) = tree else { return };
        let actors = tree.actor_addresses();
        let (kind, ends) = match self.below(16) {
            _ if self.keeping.is_some() && self.one_in(4) => ("retention", false),
            0..=3 => ("scheduler", false),
            4..=6 => ("publisher", false),
            7..=11 => ("symbol_runner", false),
            12 => ("kill_switch", false),
            13 => ("run_log", true),
            14 => ("buffer", true),
            _ => ("runners", true),
        };
        let cell = match kind {
            "scheduler" => actors.scheduler.current_actor().map(|actor| actor.get_cell()),
            "publisher" => actors.publisher.current_actor().map(|actor| actor.get_cell()),
            "retention" => actors.retention.current_actor().map(|actor| actor.get_cell()),
            "kill_switch" => actors.kill_switch.current_actor().map(|actor| actor.get_cell()),
            "run_log" => actors.run_log.current_actor().map(|actor| actor.get_cell()),
            "buffer" => actors.buffer.current_actor().map(|actor| actor.get_cell()),
            "runners" => actors.runners.current_actor().map(|actor| actor.get_cell()),
            _ => {
                let runners = tree.runners().runner_addresses();
                let Some(runner) = runners.get(self.below(runners.len().max(1) as u64) as usize) else {
                    return;
                };
                runner.current_actor().map(|actor| actor.get_cell())
            }
        };
        let Ok(cell) = cell else { return };
        if kind == "retention" {
            self.world.saw("retention killed");
        }
        self.world.saw(if ends { "actor killed that must not die" } else { "actor killed" });
        self.world.note(format_args!("kill {kind}"));
        self.world.caused(kind);
        if ends {
            self.world.may_end_as(FatalKind::Internal);
        }
        cell.kill();
    }

    /// A second writer takes a log over: the tree must end as fenced, and nothing of it lands after that (LOG-3).
    async fn be_superseded(&mut self, tree: &mut Option<Tree>) -> Option<Ended> {
        self.heal();
        let role = self.below(2);
        let log = if role == 0 { Arc::clone(&self.receipts) } else { Arc::clone(&self.runs) };
        log.take_over().await;
        self.world.saw("superseded by a second writer");
        self.world.note(format_args!("a second writer takes over log {role}"));
        self.world.may_end_as(FatalKind::Fenced);
        for _ in 0..30 {
            self.push_items();
            for ms in [1, 999] {
                if let Some(ended) = self.pass(tree, ms).await {
                    return Some(ended);
                }
            }
        }
        self.world.violated("LOG-3: a superseded tree did not end within 30 s");
        Some(Ended::Stopped)
    }

    pub(super) async fn stop(&mut self, tree: &mut Option<Tree>) -> Ended {
        let grace = Duration::from_secs(5 + self.below(55));
        let Some(running) = tree.take() else { return Ended::Stopped };
        let stopped = running.stop(grace).await;
        self.world.note(format_args!("stopped: {stopped:?}"));
        match stopped {
            StopOutcome::Clean => {
                self.world.saw("clean stop");
                self.check_ledger();
            }
            StopOutcome::Unfinished(_) => self.world.saw("stop that ran out of time"),
            StopOutcome::Failed(kind, what) => {
                self.failed(kind, &what);
            }
        }
        self.crashed = false;
        Ended::Stopped
    }
}
