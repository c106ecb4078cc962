//! The way to rest: everything heals, is worked off, runs again, and is compared with what the logs say.

use std::time::Duration;

use bytes::Bytes;
use orchestrator_actors::testkit::Baseline;
use orchestrator_actors::tree::{StopOutcome, Tree};
use orchestrator_kernel::engine::retention::Policy;
use orchestrator_kernel::ports::log::{Log, LogStat};
use orchestrator_runtime::fatal::FatalKind;
use orchestrator_runtime::status::Condition;
use tokio::time::sleep;

use super::{Ended, MS, REST_MAX, ROLES, Sim};
use crate::plan;
use crate::retention::Keeping;
use crate::world::Weather;

impl Sim {
    /// Nothing ends without a cause (ISO-1): an actor that fails by itself has found the logs or its own state broken.
    pub(super) fn check_exits(&self) {
        let counts = self.ledger.counts();
        for kind in ["kill_switch", "publisher", "scheduler", "ingest", "symbol_runner", "retention"] {
            let ended = counts.exits_of(kind, "restarted") + counts.exits_of(kind, "halted");
            let causes = self.world.causes_of(kind);
            if causes < ended {
                self.world.violated(format!("{kind} ended {ended} times, of which {causes} were provoked"));
            }
        }
        if !counts.halted.is_empty() && self.world.causes_of("symbol_runner") <= 5 {
            self.world.violated(format!("{:?} were halted without enough causes", counts.halted));
        }
    }

    /// The conservation laws, at a moment when nothing is in flight.
    pub(super) fn check_ledger(&self) {
        let ((open_runs, backlog), open) =
            self.world.audit(|audit| Ok((audit.found_at_start(), audit.open_runs())));
        if self.zombies_clock.is_some() {
            // Its publisher loads the cursor too: what this process began with is not known.
            return;
        }
        if open > 0 && self.world.causes_of("symbol_runner") > 0 {
            // The runner had just died: its run is left to the next start.
            self.world.saw("stop with a run open");
            return;
        }
        self.ledger.check_at_rest(Baseline { open_runs, backlog });
    }

    /// From here on nothing fails, and the clock is right.
    pub(super) fn heal(&mut self) {
        let yields = self.world.weather().yields;
        self.world.set_weather(Weather { yields, ..Weather::default() });
        self.broker.block(false);
        self.take_everything();
        [&self.receipts, &self.quarantine, &self.runs].iter().for_each(|log| log.fill(0));
        self.sources.iter().for_each(|source| source.remember());
        // A receipt may be stamped one millisecond after the time that was sealed.
        self.set_clock(self.latest + 2);
    }

    fn what_is_missing(&self, tree: &Tree) -> Option<String> {
        let unsettled: usize = self.sources.iter().map(|source| source.unsettled()).sum();
        let (open, missing) = self.world.audit(|audit| Ok((audit.open_runs(), audit.missing_outputs())));
        let (status, backlog) = (tree.board.current_status(), tree.flow.waiting_outputs());
        // That publishing moves again is noticed with the next tick.
        let blocked = status.conditions.contains_key(&Condition::PublishBlocked) && backlog == 0;
        if (status.ready || blocked) && (unsettled, open, missing, backlog) == (0, 0, 0, 0) {
            return None;
        }
        Some(format!(
            "{unsettled} items not settled, {open} runs open, {missing} outputs not published, backlog {backlog}, {status:?}"
        ))
    }

    /// Waits, with the wall clock standing still, until nothing is left to be done; at least for so many milliseconds.
    async fn drained(&mut self, tree: &mut Option<Tree>, least: u32) -> Option<Ended> {
        let since = tokio::time::Instant::now();
        let mut wait = least;
        loop {
            let running = tree.as_mut().expect("stopped last");
            let failed = tokio::select! {
                biased;
                failed = running.wait_for_failure() => Some(failed),
                () = sleep(MS * wait) => None,
            };
            if let Some((kind, what)) = failed {
                *tree = None;
                return Some(self.failed(kind, &what));
            }
            self.check_exits();
            self.retry_what_is_held(tree).await;
            let missing = self.what_is_missing(tree.as_ref().expect("it runs"))?;
            if REST_MAX < since.elapsed() {
                self.world.violated(format!("not at rest after {REST_MAX:?} without faults: {missing}"));
                return Some(Ended::Stopped);
            }
            wait = (wait * 4).min(1000);
        }
    }

    /// Liveness: everything heals, everything is worked off, every symbol runs again; then the oracle.
    pub(super) async fn come_to_rest(&mut self, tree: &mut Option<Tree>) -> Ended {
        self.heal();
        self.world.note(format_args!("from here on nothing fails"));
        if !self.ledger.counts().halted.is_empty() {
            self.world.saw("symbol halted");
            return self.stop(tree).await;
        }
        // What hung when the weather changed still takes its time.
        if let Some(ended) = self.drained(tree, 5000).await {
            return ended;
        }
        for _ in 0..2 {
            let symbols = self.symbols.clone();
            let last = |sim: &Self, symbol| sim.world.audit(|audit| Ok(audit.last_run(symbol)));
            let before: Vec<_> = symbols.iter().map(|symbol| last(self, symbol)).collect();
            let next = (self.clock.ms().div_euclid(1000) + 1) * 1000;
            let items: Vec<Bytes> = symbols
                .iter()
                .zip(self.items + 1..)
                .map(|(symbol, n)| plan::snapshot(symbol, n, next))
                .collect();
            self.items += items.len() as u64;
            self.sources[0].push(items);
            if let Some(ended) = self.drained(tree, 2).await {
                return ended;
            }
            for ms in [1100, 1] {
                if let Some(ended) = self.pass(tree, ms).await {
                    return ended;
                }
            }
            if let Some(ended) = self.drained(tree, 2).await {
                return ended;
            }
            for (symbol, before) in symbols.iter().zip(before) {
                if last(self, symbol) <= before && self.ledger.counts().halted.is_empty() {
                    let (counts, status) =
                        (self.ledger.counts(), tree.as_ref().map(|tree| tree.board.current_status()));
                    self.world.violated(format!(
                        "{symbol} is not run any more: last at {before:?}; {counts:?} {status:?}"
                    ));
                }
            }
        }
        self.end(tree).await
    }

    /// A tree that was overtaken has ended by itself: it met its successor's epoch, or what else befell it.
    async fn zombie_is_gone(&mut self) {
        let Some(mut zombie) = self.zombie.take() else { return };
        match tokio::time::timeout(Duration::from_secs(10), zombie.wait_for_failure()).await {
            Ok((FatalKind::Fenced, _)) => self.world.saw("overtaken tree ended as fenced"),
            Ok((FatalKind::Storage | FatalKind::Away | FatalKind::Internal, _)) => {
                self.world.saw("overtaken tree ended otherwise")
            }
            Ok((FatalKind::Corrupt, what)) => {
                self.world.violated(format!("an overtaken tree found the logs corrupt: {what}"))
            }
            Err(_) => self.world.violated("LOG-3: an overtaken tree goes on"),
        }
    }

    async fn end(&mut self, tree: &mut Option<Tree>) -> Ended {
        if let Some(ended) = self.let_go(tree).await {
            return ended;
        }
        self.zombie_is_gone().await;
        let Some(running) = tree.take() else { return Ended::Stopped };
        match running.stop(Duration::from_secs(60)).await {
            StopOutcome::Clean => self.check_ledger(),
            other => self.world.violated(format!("the last stop was not clean: {other:?}")),
        }
        for source in &self.sources {
            if let Err(objection) = source.check_stored() {
                self.world.violated(objection);
            }
        }
        self.world.audit(|audit| audit.oracle());
        self.check_whole().await;
        let counts = self.world.audit(|audit| Ok(audit.counts()));
        self.world.note(format_args!("receipts, quarantined, run records, outputs: {counts:?}"));
        Ended::Done
    }

    /// Waits until no more is kept than what the limits say and what is needed.
    async fn let_go(&mut self, tree: &mut Option<Tree>) -> Option<Ended> {
        let keeping = self.keeping?;
        let since = tokio::time::Instant::now();
        loop {
            // The wall clock stands still: nothing comes meanwhile.
            if let Some(ended) = self.drained(tree, 500).await {
                return Some(ended);
            }
            let too_much = self.kept_too_much(keeping)?;
            // Its supervisor waits up to a minute before it starts it again.
            if REST_MAX * 3 < since.elapsed() {
                self.world.violated(format!("retention does not let go what may go: {too_much}"));
                return Some(Ended::Stopped);
            }
        }
    }

    fn kept_too_much(&self, keeping: Keeping) -> Option<String> {
        let limits = keeping.settings.limits;
        let (receipts, runs) = (self.receipts.stat(), self.runs.stat());
        let below = |policy: Policy, stat: LogStat| {
            policy.records_max.map_or(1, |max| (stat.tail.0 + 1).saturating_sub(max).max(1))
        };
        let [wanted, runs_below] = [below(limits.receipts, receipts), below(limits.runs, runs)];
        let wanted = wanted.min(receipts.tail.0.max(1));
        let to_stay = self.world.audit(|audit| Ok(audit.first_to_stay(wanted, runs_below)));
        let items = self.quarantine.stat();
        let left = [
            ("receipts", receipts, wanted.min(to_stay)),
            ("runs", runs, runs_below),
            ("quarantine", items, below(limits.quarantine, items)),
        ];
        let too_much = left.into_iter().find(|(_, stat, from)| stat.start.0 + keeping.unit <= *from);
        too_much.map(|(log, stat, from)| format!("{log} before {from} of {stat:?}, {keeping:?}"))
    }

    /// LOG-4: archive and log together are what there ever was; without an archive the log is the end of it.
    async fn check_whole(&self) {
        for (at, log) in [&self.receipts, &self.quarantine, &self.runs].into_iter().enumerate() {
            let (mut start, mut records) = log.records().await;
            if let Some(archives) = &self.archives {
                let mut whole = archives[at].records().await;
                whole.extend(records.drain(..).skip((whole.len() + 1).saturating_sub(start as usize)));
                (start, records) = (1, whole);
            }
            self.world.audit(|audit| audit.is_whole(ROLES[at], start, &records));
        }
    }
}
