//! Scheduler: decides when runs happen and hands their cuts to the runners. Failure domain: engine.
//!
//! Under the wall clock a tick never waits for the one before it: a busy symbol queues a bounded number of runs, then
//! its tick is skipped and counted. Ticks that are made up for after an absence are all due at once, so that says
//! nothing of a symbol's speed: their runs wait here until its runner has room. Under a driven clock (a recording's)
//! the clock stands still until everything of a tick is done: that is what makes two runs of one recording equal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use orchestrator_kernel::engine::cadence::{Cadence, GAP_TICKS_MAX, GapSkip, Tick};
use orchestrator_kernel::engine::cut::CutRequest;
use orchestrator_kernel::ids::{IngestSeq, Symbol, TsMs};
use orchestrator_kernel::ports::clock::{Clock, TimeGap};
use orchestrator_kernel::ports::observer::{Observation, Observer, TickSkipReason};
use orchestrator_kernel::rfc3339::to_rfc3339;
use orchestrator_runtime::address::{Address, send_reply};
use orchestrator_runtime::clock_watch::{ClockWatch, LOOK_EVERY};
use orchestrator_runtime::status::{Condition, StatusBoard};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef};
use tokio::task::JoinHandle;

use self::lane::{SymbolSchedule, SymbolScheduleLimits};
use crate::buffer::messages::{BufferMsg, ReceiptLogExtent};
use crate::flow::OutputFlow;
use crate::recorded_times::RecordedTimes;
use crate::run_log::messages::{Overview, RunLogMsg};
use crate::runners::messages::{RunnerMsg, Runners};

mod lane;
pub mod messages;

use messages::{SchedulerMsg, Universe};

/// Settings of the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerSettings {
    /// When runs happen.
    pub cadence: Cadence,
    /// Ticks that are made up for after an absence, at most.
    pub catch_up_max: u32,
    /// Runs of one symbol that may wait or be in progress.
    pub runs_queued_max: usize,
    /// Which symbols are run.
    pub universe: Universe,
}

/// Settings and ports of the scheduler; cloned for each start.
#[derive(Clone)]
pub struct SchedulerArgs {
    /// How it is done.
    pub settings: SchedulerSettings,
    /// The process's clock.
    pub clock: Arc<dyn Clock>,
    /// Takes the cuts.
    pub buffer: Address<BufferMsg>,
    /// Knows where each symbol stands.
    pub run_log: Address<RunLogMsg>,
    /// Starts runners and knows their addresses.
    pub runners: Runners,
    /// Whether publishing holds the schedule back.
    pub flow: OutputFlow,
    /// Whether the wall clock is behind the logs.
    pub watch: ClockWatch,
    /// The tick that the schedule began with, as long as no run of it is in the log: it outlives this actor, so that
    /// one that is started again meanwhile does not begin anew.
    pub began: Arc<OnceLock<Tick>>,
    /// What is odd about a recording's times.
    pub times: RecordedTimes,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
    /// Readiness.
    pub board: StatusBoard,
}

/// Scheduler state between two messages, rebuilt from the run log by `pre_start`.
pub struct SchedulerState {
    args: SchedulerArgs,
    lanes: BTreeMap<Symbol, SymbolSchedule>,
    next: Option<Tick>,
    /// Ticks to be fired, oldest first. Under a driven clock one at a time. Several at once are made up for.
    waiting: VecDeque<Tick>,
    timer: Option<Timer>,
    /// The runners have not all reported yet. Meanwhile ticks wait, so that one seal serves all symbols.
    gathering: bool,
    /// A look whether publishing moves again is on its way.
    resuming: bool,
    draining: bool,
    /// Symbols beyond the limit: the first ones by name, all by number.
    left_out: Vec<Symbol>,
    left_out_total: u64,
}

/// Symbols that the condition names.
const LEFT_OUT_NAMED_MAX: usize = 10;

/// How long a tick waits for runners that have not reported since the scheduler's start. Then it is fired for those
/// that have; the others get it when they report (ISO-1).
const GATHER_MAX: Duration = Duration::from_secs(1);

/// Time between two looks whether publishing moves again.
const RESUME_EVERY: Duration = Duration::from_millis(100);

/// Waits for the clock; ends with its owner.
struct Timer(JoinHandle<()>);

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The actor.
pub struct Scheduler;

impl Actor for Scheduler {
    type Msg = SchedulerMsg;
    type State = SchedulerState;
    type Arguments = SchedulerArgs;

    async fn pre_start(
        &self,
        _me: ActorRef<SchedulerMsg>,
        args: SchedulerArgs,
    ) -> Result<SchedulerState, ActorProcessingErr> {
        let overview = args.run_log.call(RunLogMsg::Overview).await?;
        let extent = args.buffer.call(BufferMsg::Extent).await?;
        let (next, waiting) = first_ticks(&args, &overview, &extent);
        let mut state = SchedulerState {
            args,
            lanes: BTreeMap::new(),
            next,
            waiting,
            timer: None,
            gathering: true,
            resuming: false,
            draining: false,
            left_out: Vec::new(),
            left_out_total: 0,
        };
        let symbols = match &state.args.settings.universe {
            Universe::Listed(symbols) => symbols.clone(),
            // Those that ran before come first, so that a limit picks the same ones again.
            Universe::Discover { .. } => {
                overview.symbols.into_iter().map(|(symbol, ..)| symbol).chain(extent.symbols).collect()
            }
        };
        state.admit_symbols(symbols);
        // Also for a symbol that is run no longer: its runner finishes what a crash interrupted (RUN-4).
        overview.open.iter().for_each(|symbol| state.args.runners.ensure_started(symbol));
        Ok(state)
    }

    async fn post_start(
        &self,
        me: ActorRef<SchedulerMsg>,
        state: &mut SchedulerState,
    ) -> Result<(), ActorProcessingErr> {
        for symbol in state.lanes.keys() {
            state.args.runners.ask_to_report(symbol);
        }
        me.send_after(GATHER_MAX, || SchedulerMsg::StopGathering);
        state.look_at_clock(&me);
        state.fire_due_ticks(&me).await
    }

    async fn handle(
        &self,
        me: ActorRef<SchedulerMsg>,
        message: SchedulerMsg,
        state: &mut SchedulerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SchedulerMsg::Wake => state.take_due_ticks(&me).await?,
            SchedulerMsg::RunnerUp { symbol, runner, next_start, floor } => {
                state.runner_up(symbol, runner, next_start, floor).await?
            }
            SchedulerMsg::RunEnded { symbol, planned } => state.run_ended(&symbol, planned),
            SchedulerMsg::RunnerHalted(symbol) => state.drop_symbol(&symbol),
            SchedulerMsg::Discovered(symbols) => {
                if let Universe::Discover { .. } = state.args.settings.universe {
                    state.admit_symbols(symbols);
                }
            }
            SchedulerMsg::StopGathering => state.gathering = false,
            SchedulerMsg::Resume => state.resuming = false,
            SchedulerMsg::LookAtClock => state.look_at_clock(&me),
            SchedulerMsg::Drain(reply) => {
                state.draining = true;
                state.timer = None;
                send_reply(reply, ());
            }
        }
        state.fire_due_ticks(&me).await
    }
}

impl SchedulerArgs {
    /// The schedule's first tick; `time` decides it unless it has begun already.
    fn begin_at(&self, time: TsMs) -> Tick {
        *self.began.get_or_init(|| self.settings.cadence.first_tick(time))
    }
}

/// The next tick and those that are due for symbols which a crash interrupted in the middle of one.
fn first_ticks(
    args: &SchedulerArgs,
    overview: &Overview,
    extent: &ReceiptLogExtent,
) -> (Option<Tick>, VecDeque<Tick>) {
    match (overview.last_planned_ts, extent.first_ts) {
        // Some symbols may have had their runs of the last ticks and others not: they are offered again, and only those
        // that are behind take them.
        (Some(last), _) => {
            let listed: Option<BTreeSet<&Symbol>> = match &args.settings.universe {
                Universe::Listed(symbols) => Some(symbols.iter().collect()),
                Universe::Discover { .. } => None,
            };
            let is_run = |symbol: &Symbol| listed.as_ref().is_none_or(|listed| listed.contains(symbol));
            let floors = overview.symbols.iter().filter(|(symbol, ..)| is_run(symbol));
            let slowest = floors.map(|(_, _, floor)| *floor).min();
            let owed = args
                .settings
                .cadence
                .has_tick_at(last)
                .then(|| args.settings.cadence.owed_ticks(slowest, last, args.settings.catch_up_max));
            // A symbol that is listed again is behind by ticks whose receipts are gone: it begins with what is there.
            let can_be_cut = |tick: &Tick| extent.gone_ts <= Some(tick.planned_ts_ms);
            (
                Some(args.settings.cadence.tick_after(last)),
                owed.into_iter().flatten().filter(can_be_cut).collect(),
            )
        }
        // Nothing was run yet: the schedule begins with the log, so that a crash before the first run moves no tick.
        (None, Some(first)) => (Some(args.begin_at(first)), VecDeque::new()),
        (None, None) => (args.clock.now().map(|now| args.begin_at(now)), VecDeque::new()),
    }
}

impl SchedulerState {
    /// Takes symbols into the schedule and has their runners started.
    fn admit_symbols(&mut self, symbols: Vec<Symbol>) {
        for symbol in symbols {
            if self.lanes.contains_key(&symbol) || self.args.runners.is_halted(&symbol) {
                continue;
            }
            if let Universe::Discover { limit } = self.args.settings.universe
                && limit <= self.lanes.len()
            {
                self.leave_out(symbol, limit);
                continue;
            }
            self.args.runners.ensure_started(&symbol);
            self.lanes.insert(symbol, SymbolSchedule::default());
        }
    }

    /// A symbol gets no place. One line a change; the condition names the first ones.
    fn leave_out(&mut self, symbol: Symbol, limit: usize) {
        if self.left_out.contains(&symbol) {
            return;
        }
        self.left_out_total += 1;
        if self.left_out.len() < LEFT_OUT_NAMED_MAX {
            self.left_out.push(symbol.clone());
        }
        let names = self.left_out.iter().map(Symbol::as_str).collect::<Vec<_>>().join(", ");
        let detail =
            format!("symbols.limit is {limit}; {} left out, first of them {names}", self.left_out_total);
        if self.args.board.raise_condition(Condition::SymbolLimit, detail) {
            tracing::warn!(%symbol, limit, "symbols.limit reached: receipts of further symbols are stored, not run");
        }
    }

    /// Waits for the next tick's time. A driven clock waits for us in turn, so it is armed only when all work is done.
    fn arm_next_tick(&mut self, me: &ActorRef<SchedulerMsg>) -> Result<(), ActorProcessingErr> {
        if self.timer.is_some() || self.draining {
            return Ok(());
        }
        let (clock, next, me) = (Arc::clone(&self.args.clock), self.next, me.clone());
        if let Some(next) = next {
            self.args.buffer.cast(BufferMsg::Arm(next.planned_ts_ms))?;
        }
        self.timer = Some(Timer(tokio::spawn(async move {
            match next {
                Some(next) => clock.sleep_until(next.planned_ts_ms).await,
                None => drop(clock.wait_started().await),
            }
            if me.cast(SchedulerMsg::Wake).is_err() {
                tracing::debug!("scheduler ended before its timer");
            }
        })));
        Ok(())
    }

    /// A driven clock is never behind: receipts are stamped with its time.
    fn look_at_clock(&self, me: &ActorRef<SchedulerMsg>) {
        if let Some(now) = self.args.clock.now().filter(|_| !self.args.clock.is_driven()) {
            self.args.watch.check_clock(now);
            me.send_after(LOOK_EVERY, || SchedulerMsg::LookAtClock);
        }
    }

    async fn take_due_ticks(&mut self, me: &ActorRef<SchedulerMsg>) -> Result<(), ActorProcessingErr> {
        self.timer = None;
        let Some(now) = self.args.clock.now() else { return self.arm_next_tick(me) };
        let Some(next) = self.next else {
            self.next = Some(self.args.begin_at(now));
            return self.arm_next_tick(me);
        };
        if let Some(gap) = self.args.clock.crossing_gap()
            && let Some(skip) =
                self.args.settings.cadence.skip_gap(next, gap, self.args.settings.catch_up_max)
        {
            self.skip_middle_of(gap, skip);
            return self.arm_next_tick(me);
        }
        let due = self.args.settings.cadence.due_ticks(next, now, self.args.settings.catch_up_max);
        if due.missed > 0 {
            tracing::warn!(missed = due.missed, "ticks were missed, more than schedule.catch_up_max");
            self.note_skipped(TickSkipReason::Missed, due.missed * self.lanes.len() as u64);
        }
        self.args.watch.note_time(due.ticks.last().map(|tick| tick.planned_ts_ms));
        self.next = Some(due.next);
        self.waiting.extend(due.ticks);
        Ok(())
    }

    /// A recording with a very long gap makes no run for each interval of it: nothing was received there.
    fn skip_middle_of(&mut self, gap: TimeGap, skip: GapSkip) {
        self.next = Some(skip.next);
        self.args.times.note_gap(gap, skip.skipped);
        tracing::warn!(
            from = to_rfc3339(gap.from),
            to = to_rfc3339(gap.to),
            missed = skip.skipped,
            ran_at_either_end = self.args.settings.catch_up_max,
            "a gap of the recording has more than {GAP_TICKS_MAX} ticks; those in the middle of it are not run"
        );
        self.note_skipped(TickSkipReason::Missed, skip.skipped.saturating_mul(self.lanes.len() as u64));
    }

    /// Fires what can be fired, then waits for the next tick.
    async fn fire_due_ticks(&mut self, me: &ActorRef<SchedulerMsg>) -> Result<(), ActorProcessingErr> {
        let driven = self.args.clock.is_driven();
        self.gathering = self.gathering && !self.lanes.values().all(SymbolSchedule::is_up);
        if self.gathering && !driven {
            return self.arm_next_tick(me);
        }
        let is_made_up = 1 < self.waiting.len();
        self.give_up_oldest();
        while !self.waiting.is_empty() && !self.draining {
            let paused = self.publish_paused();
            if driven && (!self.is_settled() || paused) {
                if paused {
                    self.resume_later(me);
                }
                return Ok(());
            }
            let Some(tick) = self.waiting.pop_front() else { break };
            if paused {
                self.note_skipped(TickSkipReason::PublishBlocked, self.lanes.len() as u64);
            } else {
                self.fire_tick(tick, None, is_made_up).await?;
            }
        }
        self.hand_over_held(me);
        if !driven || (self.is_settled() && self.waiting.is_empty()) {
            self.arm_next_tick(me)
        } else {
            Ok(())
        }
    }

    fn is_settled(&self) -> bool {
        self.lanes.values().all(SymbolSchedule::is_settled)
    }

    /// Keeps the newest `catch_up_max` of the ticks that wait: those that some symbol owes since before the start and
    /// those that came due meanwhile are one absence. A driven clock gives up none, because its schedule is the
    /// recording's.
    fn give_up_oldest(&mut self) {
        let max = self.args.settings.catch_up_max.max(1) as usize;
        let excess = self.waiting.len().saturating_sub(max);
        if excess > 0 && !self.args.clock.is_driven() {
            tracing::warn!(missed = excess, "ticks were missed, more than schedule.catch_up_max");
            let given_up: Vec<Tick> = self.waiting.drain(..excess).collect();
            let behind = |tick: &Tick| self.lanes.values().filter(|lane| lane.is_behind(tick)).count() as u64;
            self.note_skipped(TickSkipReason::Missed, given_up.iter().map(behind).sum());
        }
    }

    /// Hands each runner what it has room for. While publishing is paused nothing is skipped of what is held: it waits.
    fn hand_over_held(&mut self, me: &ActorRef<SchedulerMsg>) {
        if self.draining || !self.lanes.values().any(SymbolSchedule::has_held) {
            return;
        }
        if self.publish_paused() {
            return self.resume_later(me);
        }
        let limits = self.schedule_limits();
        for (symbol, lane) in &mut self.lanes {
            while let Some(run) = lane.next_run(limits) {
                self.args.runners.send_to_runner(symbol, RunnerMsg::Run(Box::new(run)));
            }
        }
    }

    /// One look at a time, however many messages come meanwhile.
    fn resume_later(&mut self, me: &ActorRef<SchedulerMsg>) {
        if !self.resuming {
            self.resuming = true;
            me.send_after(RESUME_EVERY, || SchedulerMsg::Resume);
        }
    }

    const fn schedule_limits(&self) -> SymbolScheduleLimits {
        SymbolScheduleLimits {
            queued: self.args.settings.runs_queued_max,
            held: self.args.settings.catch_up_max as usize,
        }
    }

    fn publish_paused(&self) -> bool {
        let paused = self.args.flow.is_paused();
        let (board, condition) = (&self.args.board, Condition::PublishBlocked);
        if paused {
            let detail = format!("{} outputs wait for publication", self.args.flow.waiting_outputs());
            if board.raise_condition(condition, detail) {
                tracing::warn!(
                    domain = "publish",
                    backlog = self.args.flow.waiting_outputs(),
                    "publishing is blocked, scheduling pauses"
                );
            }
        } else if board.clear_condition(&condition) {
            tracing::info!(domain = "publish", "publishing moves again, scheduling goes on");
        }
        paused
    }

    fn note_skipped(&self, reason: TickSkipReason, count: u64) {
        if count > 0 {
            self.args.observer.observe(&Observation::TickSkipped { reason, count });
        }
    }

    /// Seals the log at the tick and hands the cuts to the runners; only `one` symbol's when given.
    async fn fire_tick(
        &mut self,
        tick: Tick,
        one: Option<&Symbol>,
        is_made_up: bool,
    ) -> Result<(), ActorProcessingErr> {
        let requests = self.cut_requests(tick, one, is_made_up);
        let next = self.next.unwrap_or(tick).planned_ts_ms;
        let taken = self.args.buffer.call(|reply| BufferMsg::Seal { tick, requests, next, reply }).await?;
        let members: BTreeSet<Symbol> = taken.cuts.iter().map(|cut| cut.symbol.clone()).collect();
        if self.args.clock.is_driven() && one.is_none() {
            self.args.run_log.cast(RunLogMsg::OpenRound(members))?;
        }
        if let Some(now) = self.args.clock.now().filter(|_| one.is_none()) {
            let lag_seconds = (now.0 - tick.planned_ts_ms.0).max(0) as f64 / 1e3;
            self.args.observer.observe(&Observation::Tick { lag_seconds, runs: taken.cuts.len() as u64 });
        }
        let limits = self.schedule_limits();
        for cut in taken.cuts {
            let Some(lane) = self.lanes.get_mut(&cut.symbol) else { continue };
            let symbol = cut.symbol.clone();
            lane.queue_run(tick, cut);
            // A runner that has started and not reported yet leaves this alone: it was meant for the one before.
            while let Some(run) = lane.next_run(limits) {
                self.args.runners.send_to_runner(&symbol, RunnerMsg::Run(Box::new(run)));
            }
        }
        Ok(())
    }

    /// The cuts to be taken at `tick`. A runner that is down gets the tick when it reports, see
    /// [`runner_up`](Self::runner_up).
    fn cut_requests(&mut self, tick: Tick, one: Option<&Symbol>, is_made_up: bool) -> Vec<CutRequest> {
        let only_if_seen = matches!(self.args.settings.universe, Universe::Discover { .. });
        let limits = self.schedule_limits();
        let mut busy = 0;
        let mut requests = Vec::with_capacity(self.lanes.len());
        for (symbol, lane) in &mut self.lanes {
            let wanted = one.is_none_or(|one| one == symbol);
            if !wanted || !lane.is_behind(&tick) {
                continue;
            }
            if !lane.has_room(limits, is_made_up) {
                busy += 1;
                continue;
            }
            if !lane.is_up() {
                lane.promise_tick(tick);
                continue;
            }
            let (start, floor) = (lane.next_start, lane.floor);
            requests.push(CutRequest {
                symbol: symbol.clone(),
                start,
                floor,
                only_if_seen: only_if_seen && start.is_none(),
            });
        }
        self.note_skipped(TickSkipReason::SymbolBusy, busy);
        requests
    }

    /// A runner is up, for the first time or again. What it had not begun when it went down is handed to it once more:
    /// its cut is taken from the log, so nothing is lost and nothing repeated.
    async fn runner_up(
        &mut self,
        symbol: Symbol,
        runner: ActorId,
        next_start: Option<IngestSeq>,
        floor: Option<TsMs>,
    ) -> Result<(), ActorProcessingErr> {
        let Some(lane) = self.lanes.get_mut(&symbol) else { return Ok(()) };
        for tick in lane.reset_for_runner(runner, next_start, floor) {
            tracing::info!(%symbol, planned_ts_ms = tick.planned_ts_ms.0, "handing a run to its restarted runner again");
            self.fire_tick(tick, Some(&symbol), true).await?;
        }
        Ok(())
    }

    fn run_ended(&mut self, symbol: &Symbol, planned: TsMs) {
        if let Some(lane) = self.lanes.get_mut(symbol) {
            lane.end_run(planned);
        }
    }

    fn drop_symbol(&mut self, symbol: &Symbol) {
        self.lanes.remove(symbol);
    }
}
