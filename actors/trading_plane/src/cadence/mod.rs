//! Cadence: decides which cycles are due, and puts every fire that begins none on record. Failure domain: the trading
//! plane; when it is down nothing fires, and what was missed is decided by each schedule's misfire policy.
//!
//! ```text
//! clock ─Look─▶ next_step (kernel) ─▶ Fire ─▶ cycles: fired + started, one piece
//! events ─────▶                      ─▶ Hold ─▶ journal: it waits
//! cycles ─CycleEnded─▶               ─▶ Skip ─▶ journal: why          ─▶ Wait ─▶ the clock's next time
//! ```

mod lane;
pub mod messages;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use orchestrator_kernel::ids::{RunSeq, TsMs};
use orchestrator_kernel::mutant;
use orchestrator_kernel::trading::event::matches_topic;
use orchestrator_kernel::trading::ids::{CycleId, ScheduleName};
use orchestrator_kernel::trading::journal::{
    FireTrigger, JournalAuthor, JournalEntry, JournalFact, JournalIndex,
};
use orchestrator_kernel::trading::schedule::{FireSkipReason, ScheduleStep};
use orchestrator_runtime::address::{Address, send_reply};
use orchestrator_runtime::status::Condition;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::task::JoinHandle;

use crate::cycle::messages::{BeginRefused, CyclesMsg, FireOrder};
use crate::journal::messages::{JournalDoor, JournalRefused, JournalWriter};
use crate::settings::{TradingPorts, TradingSettings};

use lane::Lane;
use messages::{CadenceMsg, NextFire, ScheduleEvent};

/// Steps that one look takes at most before others are heard.
const STEPS_MAX: u32 = 1000;
/// Cycles of events that are remembered since the last reload, to tell that an event comes again.
const EVENTS_REMEMBERED_MAX: usize = 1 << 14;

/// Settings and ports of the cadence; cloned for each start.
#[derive(Clone)]
pub struct CadenceArgs {
    /// The plane's settings.
    pub settings: Arc<TradingSettings>,
    /// The plane's ports.
    pub ports: TradingPorts,
    /// Where records go.
    pub door: JournalDoor,
    /// Who begins cycles.
    pub cycles: Address<CyclesMsg>,
}

/// Wakes the actor; ends with its owner.
struct WakeUp(JoinHandle<()>);

impl Drop for WakeUp {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Cadence state between two messages, rebuilt from the journal by `pre_start`.
pub struct CadenceState {
    args: CadenceArgs,
    writer: JournalWriter,
    /// What the journal said at the last reload.
    known: Arc<JournalIndex>,
    /// Cycles of events since then, and those whose fire was on record without them.
    of_events: BTreeSet<CycleId>,
    lanes: BTreeMap<ScheduleName, Lane>,
    wake_up: Option<WakeUp>,
    is_drained: bool,
}

/// Consequence of one step.
enum AfterStep {
    /// Ask for the next one.
    Again,
    /// This schedule has nothing to do now.
    Rest,
}

/// The actor.
pub struct CadenceActor;

impl Actor for CadenceActor {
    type Msg = CadenceMsg;
    type State = CadenceState;
    type Arguments = CadenceArgs;

    async fn pre_start(
        &self,
        me: ActorRef<CadenceMsg>,
        args: CadenceArgs,
    ) -> Result<CadenceState, ActorProcessingErr> {
        let (known, writer) = args.door.read_snapshot().await?;
        let (lanes, of_events) = (BTreeMap::new(), BTreeSet::new());
        let mut state =
            CadenceState { args, writer, known, of_events, lanes, wake_up: None, is_drained: false };
        state.reload_lanes().await?;
        me.cast(CadenceMsg::Look)?;
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<CadenceMsg>,
        message: CadenceMsg,
        state: &mut CadenceState,
    ) -> Result<(), ActorProcessingErr> {
        let done = match message {
            CadenceMsg::Look => state.look(&me).await,
            CadenceMsg::WorkOff(reply) => {
                let done = state.look(&me).await;
                // Without an answer it is asked again: time does not pass what could not be decided.
                if done.is_ok() {
                    send_reply(reply, ());
                }
                done
            }
            CadenceMsg::CycleEnded(schedule, cycle) => {
                let lane = state.lanes.get_mut(&schedule);
                let was_running = lane.is_some_and(|lane| lane.running.remove(&cycle));
                // A driven clock has waited for this end already; another look would race with its next moment.
                if was_running || !state.args.ports.clock.is_driven() {
                    state.look_at(&me, &schedule).await
                } else {
                    Ok(())
                }
            }
            CadenceMsg::Reload => {
                state.reload_lanes().await?;
                state.look(&me).await
            }
            CadenceMsg::Event(event, reply) => {
                let done = state.take_event(&event).await;
                state.answer_durable(&me, &done, reply);
                done
            }
            CadenceMsg::Output(run_seq, at, reply) => {
                let done = state.take_output(run_seq, at).await;
                state.answer_durable(&me, &done, reply);
                done
            }
            CadenceMsg::LastOutput(reply) => {
                send_reply(reply, state.lanes.values().filter_map(|lane| lane.last_output).max());
                Ok(())
            }
            CadenceMsg::NextFires(reply) => {
                send_reply(reply, state.list_next_fires());
                Ok(())
            }
            CadenceMsg::Drain(reply) => {
                state.is_drained = true;
                state.wake_up = None;
                send_reply(reply, ());
                Ok(())
            }
        };
        match done {
            Ok(()) => Ok(()),
            // Nothing was sent, so nothing is lost: ask again in a while.
            Err(BeginRefused::Journal(JournalRefused::Failing)) => {
                state.look_later(&me);
                Ok(())
            }
            Err(BeginRefused::Journal(refused @ JournalRefused::Down(_))) => Err(refused.into()),
            Err(refused) => {
                tracing::warn!(error = %refused, "schedules go on from what is durable, once the journal takes it");
                state.reload_lanes().await?;
                me.cast(CadenceMsg::Look)?;
                Ok(())
            }
        }
    }
}

impl CadenceState {
    /// Answers whoever brought an event or an output, once what was decided of it is durable: it is forgotten then. A
    /// journal without room takes back what it had accepted, and then this begins again from what is durable. Others
    /// are heard meanwhile.
    fn answer_durable(
        &self,
        me: &ActorRef<CadenceMsg>,
        done: &Result<(), BeginRefused>,
        reply: RpcReplyPort<()>,
    ) {
        if done.is_err() || self.is_drained {
            return;
        }
        let (writer, me) = (self.writer.clone(), me.clone());
        tokio::spawn(async move {
            match writer.wait_durable().await {
                Ok(_) => send_reply(reply, ()),
                Err(refused) => {
                    tracing::warn!(error = %refused, "an event has to be told again");
                    // Without it every further one would be refused: this writer continues what is not there.
                    if me.cast(CadenceMsg::Reload).is_err() {
                        tracing::debug!("the cadence has ended");
                    }
                }
            }
        });
    }

    /// Every schedule as the journal knows it. Waits until the journal has room.
    async fn reload_lanes(&mut self) -> Result<(), ActorProcessingErr> {
        let running = self.args.cycles.call(CyclesMsg::Running).await?;
        let (index, writer) = self.args.door.read_snapshot().await?;
        self.writer = writer;
        // A fire that is on record without its cycle begins below; its event may come again meanwhile.
        let open = index.schedules().values().flat_map(|account| account.open.values());
        self.of_events = open.map(|fired| fired.cycle_id).collect();
        let since = index.config().map_or_else(|| self.wall_now(), |(_, since)| since);
        let lane_of = |settings: &crate::settings::ScheduleSettings| {
            let of_schedule = running.iter().filter(|cycle| cycle.schedule.as_ref() == Some(&settings.name));
            let running = of_schedule.map(|cycle| cycle.cycle_id).collect();
            let account = index.schedules().get(&settings.name);
            (settings.name.clone(), Lane::restored(settings.clone(), account, since, running))
        };
        self.lanes = self.args.settings.schedules.iter().map(lane_of).collect();
        self.known = index;
        Ok(())
    }

    /// Decides everything that is due, the more important schedules first, and waits for the next time.
    async fn look(&mut self, me: &ActorRef<CadenceMsg>) -> Result<(), BeginRefused> {
        if !self.may_decide()? {
            return Ok(());
        }
        self.warn_of_calendars();
        let mut by_priority: Vec<(i32, ScheduleName)> = self
            .lanes
            .iter()
            .map(|(name, lane)| (lane.settings.schedule.priority.saturating_neg(), name.clone()))
            .collect();
        by_priority.sort();
        let mut steps_left = STEPS_MAX;
        for (_, name) in by_priority {
            self.take_steps(&name, &mut steps_left).await?;
        }
        self.end_look(me, steps_left);
        Ok(())
    }

    /// The same for one schedule: the end of a cycle lets no other one fire. A look at all of them for each of a
    /// thousand ends would take longer than their cycles.
    async fn look_at(&mut self, me: &ActorRef<CadenceMsg>, name: &ScheduleName) -> Result<(), BeginRefused> {
        if !self.may_decide()? {
            return Ok(());
        }
        let mut steps_left = STEPS_MAX;
        self.take_steps(name, &mut steps_left).await?;
        self.end_look(me, steps_left);
        Ok(())
    }

    /// Tells whether anything is decided now.
    fn may_decide(&self) -> Result<bool, BeginRefused> {
        match self.is_drained {
            true => Ok(false),
            false if self.writer.holds_cycles() => Err(JournalRefused::Failing.into()),
            false => Ok(true),
        }
    }

    async fn take_steps(&mut self, name: &ScheduleName, steps_left: &mut u32) -> Result<(), BeginRefused> {
        while 0 < *steps_left {
            *steps_left -= 1;
            match self.take_step(name).await? {
                AfterStep::Again => {}
                AfterStep::Rest => break,
            }
        }
        Ok(())
    }

    /// Others are heard before what was not decided.
    fn end_look(&mut self, me: &ActorRef<CadenceMsg>, steps_left: u32) {
        if steps_left == 0 && me.cast(CadenceMsg::Look).is_err() {
            tracing::debug!("the cadence ends");
        }
        self.arm_wake_up(me);
    }

    async fn take_step(&mut self, name: &ScheduleName) -> Result<AfterStep, BeginRefused> {
        let now = self.wall_now();
        let Some(lane) = self.lanes.get_mut(name) else { return Ok(AfterStep::Rest) };
        if let Some(fired) = lane.unbegun.first().cloned() {
            let order = lane.order_recorded(&fired);
            let is_too_late = fired.planned_ts_ms < now.plus_ms(-lane.settings.schedule.lateness_max_ms);
            if is_too_late {
                let fact = lane.skip_order(&order, FireSkipReason::TooLate, now);
                self.push_fact(name, fact).await?;
            } else {
                self.begin_order(name, order).await?;
            }
            return Ok(AfterStep::Again);
        }
        let step = match lane.state.next_step(&lane.settings.schedule, now, lane.running_count()) {
            Ok(step) => step,
            Err(error) => {
                // Nothing known is no holiday: it is said, and nothing fires.
                lane.next = None;
                let schedule = &lane.settings.schedule;
                let why = schedule.explain_no_fire(lane.state.decided_until(), Some(&error));
                tracing::error!(schedule = %name, why, "a schedule does not fire");
                return Ok(AfterStep::Rest);
            }
        };
        let trigger = lane.time_trigger();
        self.carry_out(name, step, trigger).await
    }

    async fn carry_out(
        &mut self,
        name: &ScheduleName,
        step: ScheduleStep,
        trigger: FireTrigger,
    ) -> Result<AfterStep, BeginRefused> {
        let now = self.wall_now();
        let Some(lane) = self.lanes.get_mut(name) else { return Ok(AfterStep::Rest) };
        match step {
            ScheduleStep::Wait { until } => {
                lane.next = until;
                return Ok(AfterStep::Rest);
            }
            ScheduleStep::Fire { planned, cancels_oldest } => {
                let order = lane.order_fire(planned, trigger);
                if cancels_oldest {
                    let why = format!("schedule {name} fired again");
                    self.args
                        .cycles
                        .cast(CyclesMsg::CancelOldest(name.clone(), why))
                        .map_err(JournalRefused::from)?;
                }
                self.begin_order(name, order).await?;
            }
            ScheduleStep::Hold { planned } => {
                let fact = lane.hold_fire(planned, trigger, now);
                self.push_fact(name, fact).await?;
            }
            ScheduleStep::Skip(skipped) => {
                let fact = lane.skip_fires(skipped, skipped.reason.into(), trigger, now);
                tracing::info!(schedule = %name, fires = skipped.count, reason = ?skipped.reason, "fires skipped");
                if !mutant!(SkipNotRecorded) {
                    self.push_fact(name, fact).await?;
                }
            }
        }
        Ok(AfterStep::Again)
    }

    /// Lets the cycle of an order begin, or puts on record why it does not.
    async fn begin_order(&mut self, name: &ScheduleName, order: FireOrder) -> Result<(), BeginRefused> {
        let asked = order.clone();
        let writer = self.writer.clone();
        let begun = self.args.cycles.call(|reply| CyclesMsg::BeginFire(Box::new(asked), writer, reply)).await;
        let begun = begun.map_err(JournalRefused::from)?;
        let now = self.wall_now();
        let Some(lane) = self.lanes.get_mut(name) else { return Ok(()) };
        let reason = match begun {
            Ok(cycle) => {
                lane.note_begun(&order, cycle, now);
                if self.args.ports.clock.is_driven() {
                    // A driven clock stands still while a cycle works, so cycles of one moment come one after the
                    // other: the order of their records is no thread's business (REP-2).
                    let idle =
                        self.args.cycles.call(|reply| CyclesMsg::WaitIdle { behind_agent: true, reply });
                    idle.await.map_err(JournalRefused::from)?;
                    self.lanes.values_mut().for_each(|lane| lane.running.clear());
                }
                return Ok(());
            }
            Err(BeginRefused::Skip(reason)) => reason,
            Err(BeginRefused::UnknownPipeline(_)) => FireSkipReason::Disabled,
            Err(BeginRefused::TooManySymbols(_)) => FireSkipReason::TooManySymbols,
            Err(refused @ BeginRefused::Journal(_)) => return Err(refused),
        };
        tracing::info!(schedule = %name, fire = order.fire, reason = reason.as_str(), "a fire is skipped");
        let fact = lane.skip_order(&order, reason, now);
        self.push_fact(name, fact).await
    }

    async fn take_event(&mut self, event: &ScheduleEvent) -> Result<(), BeginRefused> {
        let named = self
            .lanes
            .values()
            .filter(|lane| lane.settings.topics.iter().any(|pattern| matches_topic(pattern, &event.topic)));
        let names: Vec<ScheduleName> = named.map(|lane| lane.settings.name.clone()).collect();
        for name in names {
            let (topic, event_id) = (event.topic.clone(), event.event_id.clone());
            self.fire_on_demand(&name, FireTrigger::Event { topic, event_id }, event.at).await?;
        }
        Ok(())
    }

    async fn take_output(&mut self, run_seq: RunSeq, at: TsMs) -> Result<(), BeginRefused> {
        let named = self.lanes.values().filter(|lane| lane.settings.on_outputs);
        let names: Vec<ScheduleName> = named.map(|lane| lane.settings.name.clone()).collect();
        for name in names {
            // The cursor stands in our own records: what is below it is decided.
            let last = self.lanes.get(&name).and_then(|lane| lane.last_output);
            if last.is_some_and(|last| run_seq <= last) && !mutant!(OutputFiresTwice) {
                continue;
            }
            self.fire_on_demand(&name, FireTrigger::Output { run_seq }, at).await?;
            if let Some(lane) = self.lanes.get_mut(&name) {
                lane.last_output = Some(run_seq);
            }
        }
        Ok(())
    }

    /// Decides a fire that no time brings.
    async fn fire_on_demand(
        &mut self,
        name: &ScheduleName,
        trigger: FireTrigger,
        at: TsMs,
    ) -> Result<(), BeginRefused> {
        if self.is_drained {
            return Ok(());
        }
        let now = self.wall_now();
        let Some(lane) = self.lanes.get_mut(name) else { return Ok(()) };
        let cycle = CycleId::derive(None, name, at, &trigger.to_text());
        let is_known = self.known.knows_cycle(&cycle) || self.of_events.contains(&cycle);
        if is_known && !mutant!(EventFiresTwice) {
            let order = lane.order_fire(at, trigger);
            let fact = lane.skip_order(&order, FireSkipReason::AlreadyFired, now);
            return self.push_fact(name, fact).await;
        }
        let step = match lane.state.on_demand_step(&lane.settings.schedule, now, lane.running_count()) {
            // The event's own time names it, so that it is the same one when it comes again.
            ScheduleStep::Fire { cancels_oldest, .. } => ScheduleStep::Fire { planned: at, cancels_oldest },
            ScheduleStep::Hold { .. } => ScheduleStep::Hold { planned: at },
            step @ (ScheduleStep::Skip(_) | ScheduleStep::Wait { .. }) => step,
        };
        self.carry_out(name, step, trigger).await?;
        self.of_events.insert(cycle);
        if EVENTS_REMEMBERED_MAX < self.of_events.len() {
            self.of_events.pop_first();
        }
        Ok(())
    }

    async fn push_fact(&mut self, schedule: &ScheduleName, fact: JournalFact) -> Result<(), BeginRefused> {
        let correlation = orchestrator_kernel::trading::ids::CorrelationId::new(schedule.as_str());
        let Some(correlation) = correlation else { return Ok(()) };
        let entry = JournalEntry {
            who: JournalAuthor::Schedule(schedule.clone()),
            planned_ts_ms: None,
            at_ms: self.wall_now(),
            correlation,
            fact,
        };
        self.writer.push_entries(vec![entry]).await?;
        Ok(())
    }

    /// Sees to it that the actor looks when the next fire is due, by the wall clock: one that jumps brings it earlier
    /// or later, and what was missed is decided as late. On a driven clock whoever keeps step with it asks.
    fn arm_wake_up(&mut self, me: &ActorRef<CadenceMsg>) {
        if self.args.ports.clock.is_driven() {
            return;
        }
        let next = self.lanes.values().filter_map(|lane| lane.next).min();
        self.wake_up = next.map(|at| {
            let (clock, me) = (Arc::clone(&self.args.ports.clock), me.clone());
            WakeUp(tokio::spawn(async move {
                clock.sleep_until(at).await;
                if me.cast(CadenceMsg::Look).is_err() {
                    tracing::debug!("the cadence ended before the next fire");
                }
            }))
        });
    }

    fn look_later(&self, me: &ActorRef<CadenceMsg>) {
        me.send_after(self.args.settings.journal_retry, || CadenceMsg::Look);
    }

    /// Says which calendars end soon.
    fn warn_of_calendars(&self) {
        let now = self.wall_now();
        for (name, calendar) in &self.args.settings.calendars {
            let days = calendar.days_left(now).unwrap_or(i64::MIN);
            let condition = Condition::CalendarEnding(name.clone());
            if days < i64::from(self.args.settings.calendar_warning_days) {
                let detail = format!("its data end in {days} days: schedules that need it fire no more then");
                self.args.ports.board.raise_condition(condition, detail);
            } else {
                self.args.ports.board.clear_condition(&condition);
            }
        }
    }

    fn list_next_fires(&self) -> Vec<NextFire> {
        let lanes = self.lanes.values();
        lanes.map(|lane| NextFire { schedule: lane.settings.name.clone(), at: lane.next }).collect()
    }

    fn wall_now(&self) -> TsMs {
        self.args.ports.clock.now().unwrap_or_default()
    }
}
