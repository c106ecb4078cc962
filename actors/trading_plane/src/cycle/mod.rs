//! Cycles: begins them, runs each in a task of its own, and goes on with those that a crash interrupted.
//!
//! Failure domain: the trading plane. A cycle that breaks goes on from its records, and is cancelled when it breaks
//! again.
//!
//! ```text
//! cadence ─BeginFire─┐                       ┌─▶ task ─▶ gates, stages ─▶ journal
//! agent ─BeginCommand┴▶ Cycles ─ fired+started ┤
//! journal ─ open cycles ─▶ (same ids)          └─▶ task …            ─Finished─▶ cadence, agent
//! ```

mod begin;
mod gates;
pub mod messages;
mod task;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::mutant;
use orchestrator_kernel::trading::cycle::{CycleNow, CycleRun};
use orchestrator_kernel::trading::ids::{CycleId, ScheduleName};
use orchestrator_kernel::trading::journal::CycleCause;
use orchestrator_runtime::address::{Address, send_reply};
use orchestrator_runtime::fatal::{Fatal, FatalKind};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::agent::messages::AgentMsg;
use crate::cadence::messages::CadenceMsg;
use crate::journal::messages::{JournalDoor, JournalWriter};
use crate::settings::{TradingPorts, TradingSettings};
use crate::view::TradingView;

use messages::{CycleOutcome, CyclesMsg, RunningCycle};
use task::{CycleTask, TaskFailure};

/// Count of defects by cycle. It outlives the actor: a cycle that takes it down is counted too.
#[derive(Clone, Debug, Default)]
pub struct CycleDefects(Arc<Mutex<BTreeMap<CycleId, u32>>>);

impl CycleDefects {
    fn count(&self, cycle: CycleId) -> u32 {
        let mut defects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = defects.entry(cycle).or_default();
        *count = count.saturating_add(1);
        *count
    }

    fn known(&self, cycle: &CycleId) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(cycle).copied().unwrap_or(0)
    }

    fn forget(&self, cycle: &CycleId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(cycle);
    }
}

/// Settings and ports of the cycles; cloned for each start.
#[derive(Clone)]
pub struct CyclesArgs {
    /// The plane's settings.
    pub settings: Arc<TradingSettings>,
    /// The plane's ports.
    pub ports: TradingPorts,
    /// Where records go.
    pub door: JournalDoor,
    /// What is on record, to read.
    pub view: TradingView,
    /// Told when a cycle of a schedule is over.
    pub cadence: Address<CadenceMsg>,
    /// Told when an audit failed.
    pub agent: Address<AgentMsg>,
    /// How often each cycle broke.
    pub defects: CycleDefects,
}

/// A cycle in progress.
struct CycleInProgress {
    schedule: Option<ScheduleName>,
    /// Order of beginning, to tell which is the oldest.
    began: u64,
    cancel: watch::Sender<Option<String>>,
    task: AbortHandle,
}

impl Drop for CycleInProgress {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// State of the cycles between two messages, rebuilt from the journal by `pre_start`.
pub struct CyclesState {
    args: CyclesArgs,
    writer: JournalWriter,
    running: BTreeMap<CycleId, CycleInProgress>,
    begun: u64,
    drain: Option<RpcReplyPort<()>>,
    /// Who waits until none runs, and whether until the agent has heard of it.
    idle: Vec<(bool, RpcReplyPort<()>)>,
    /// The plane stops: nothing begins any more.
    is_drained: bool,
}

/// The actor.
pub struct Cycles;

impl Actor for Cycles {
    type Msg = CyclesMsg;
    type State = CyclesState;
    type Arguments = CyclesArgs;

    async fn pre_start(
        &self,
        me: ActorRef<CyclesMsg>,
        args: CyclesArgs,
    ) -> Result<CyclesState, ActorProcessingErr> {
        let (_, writer) = args.door.read_snapshot().await?;
        let running = BTreeMap::new();
        let mut state =
            CyclesState { args, writer, running, begun: 0, drain: None, idle: Vec::new(), is_drained: false };
        state.resume_open_cycles(&me).await?;
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<CyclesMsg>,
        message: CyclesMsg,
        state: &mut CyclesState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CyclesMsg::BeginFire(order, writer, reply) => {
                state.begin_fire(&me, *order, &writer, reply).await?
            }
            CyclesMsg::BeginCommand(order, writer, reply) => {
                state.begin_command(&me, *order, &writer, reply).await?;
            }
            CyclesMsg::CancelOldest(schedule, why) => state.cancel_oldest(&schedule, &why),
            CyclesMsg::CancelAll(why) => state.cancel_all(&why),
            CyclesMsg::Running(reply) => send_reply(reply, state.list_running()),
            CyclesMsg::Finished { cycle, began, outcome } => {
                state.finish_cycle(&me, cycle, began, outcome).await?;
            }
            CyclesMsg::WaitIdle { behind_agent, reply } => state.idle.push((behind_agent, reply)),
            CyclesMsg::Drain(reply) => {
                state.is_drained = true;
                state.drain = Some(reply);
            }
        }
        if state.running.is_empty() {
            state.answer_idle();
        }
        if state.running.is_empty()
            && let Some(reply) = state.drain.take()
        {
            send_reply(reply, ());
        }
        Ok(())
    }
}

impl CyclesState {
    /// Goes on with every cycle that is open by the journal and does not run. Nothing trades before they are known.
    ///
    /// Who waits for the end of a cycle is told to look at the journal too: the word of an end may be lost with whoever
    /// was to pass it on.
    async fn resume_open_cycles(&mut self, me: &ActorRef<CyclesMsg>) -> Result<(), ActorProcessingErr> {
        let (index, writer) = self.args.door.read_snapshot().await?;
        self.writer = writer;
        self.args.view.set_catching_up(false);
        for (id, open) in index.open_cycles() {
            if self.running.contains_key(id) || mutant!(OpenCyclesForgotten) {
                continue;
            }
            let state = open.to_state().map_err(|error| {
                let what = "an open cycle of the journal is none";
                Fatal { kind: FatalKind::Corrupt, what: what.to_owned(), source: Some(Box::new(error)) }
            })?;
            tracing::info!(cycle = %id, progress = state.progress_percent(), "a cycle goes on that was interrupted");
            let schedule = schedule_of(&state.started().cause);
            let origin = Instant::now();
            let wall = self.args.ports.clock.now().unwrap_or(state.started().started_at);
            let mut run = CycleRun::resume_cycle(state, CycleNow { elapsed: origin.elapsed(), wall });
            let broke = self.args.defects.known(id);
            if self.args.settings.cycle_defects_max < broke {
                run.cancel_cycle(&format!("it broke {broke} times"));
            }
            self.spawn_cycle(me, *id, schedule, run, open.planned_ts_ms, origin);
        }
        if let Some(cycle) = index.audit_debt() {
            self.tell_agent_of_failed_audit(cycle);
        }
        self.tell_cadence_to_look();
        Ok(())
    }

    fn spawn_cycle(
        &mut self,
        me: &ActorRef<CyclesMsg>,
        id: CycleId,
        schedule: Option<ScheduleName>,
        run: CycleRun,
        planned: Option<TsMs>,
        origin: Instant,
    ) {
        let (cancel, cancelled) = watch::channel(None);
        let task = CycleTask::new(self.args.clone(), self.writer.clone(), run, planned, origin, cancelled);
        let task = tokio::spawn(task.run_to_end());
        let abort = task.abort_handle();
        self.begun = self.begun.saturating_add(1);
        let (me, began) = (me.clone(), self.begun);
        tokio::spawn(async move {
            let outcome = match task.await {
                Ok(Ok(ended)) => CycleOutcome::Ended { audit_failed: ended.audit_failed },
                Ok(Err(TaskFailure::Journal(refused))) => CycleOutcome::Refused(refused),
                Ok(Err(TaskFailure::OutOfOrder(error))) => CycleOutcome::Defect(error.to_string()),
                // By its owner, who knows.
                Err(ended) if ended.is_cancelled() => return,
                Err(panicked) => CycleOutcome::Defect(panicked.to_string()),
            };
            if me.cast(CyclesMsg::Finished { cycle: id, began, outcome }).is_err() {
                tracing::debug!(cycle = %id, "the cycles ended before this one");
            }
        });
        self.running.insert(id, CycleInProgress { schedule, began, cancel, task: abort });
    }

    async fn finish_cycle(
        &mut self,
        me: &ActorRef<CyclesMsg>,
        cycle: CycleId,
        began: u64,
        outcome: CycleOutcome,
    ) -> Result<(), ActorProcessingErr> {
        // The end of an earlier run of a cycle that goes on says nothing of the one that runs now.
        if self.running.get(&cycle).is_none_or(|running| running.began != began) {
            return Ok(());
        }
        let schedule = self.running.remove(&cycle).and_then(|finished| finished.schedule.clone());
        match outcome {
            CycleOutcome::Ended { audit_failed } => {
                self.args.defects.forget(&cycle);
                if audit_failed {
                    self.tell_agent_of_failed_audit(cycle);
                }
                if let Some(schedule) = schedule
                    && self.args.cadence.cast(CadenceMsg::CycleEnded(schedule, cycle)).is_err()
                {
                    tracing::debug!("the cadence is down, it asks which cycles run when it starts");
                }
                Ok(())
            }
            CycleOutcome::Refused(refused) => {
                tracing::warn!(%cycle, error = %refused, "cycles go on from what is durable, once the journal takes it");
                // What any of them continues is as lost.
                self.running.clear();
                self.resume_open_cycles(me).await
            }
            CycleOutcome::Defect(detail) => {
                let times = self.args.defects.count(cycle);
                tracing::error!(%cycle, times, detail, "a cycle broke, it goes on from its records");
                self.resume_open_cycles(me).await
            }
        }
    }

    /// Answers at once, or behind everything that the agent was told: of a failed audit it has heard then.
    fn answer_idle(&mut self) {
        for (behind_agent, reply) in self.idle.drain(..) {
            if !behind_agent {
                send_reply(reply, ());
                continue;
            }
            let agent = self.args.agent.clone();
            tokio::spawn(async move {
                if agent.call(AgentMsg::Drain).await.is_err() {
                    tracing::debug!("the agent is down, it reads of failed audits when it starts");
                }
                send_reply(reply, ());
            });
        }
    }

    fn tell_agent_of_failed_audit(&self, cycle: CycleId) {
        if self.args.agent.cast(AgentMsg::AuditFailed(cycle)).is_err() {
            tracing::debug!("the agent is down, it reads of the failed audit when it starts");
        }
    }

    fn tell_cadence_to_look(&self) {
        if self.args.cadence.cast(CadenceMsg::Reload).is_err() {
            tracing::debug!("the cadence is down, it asks which cycles run when it starts");
        }
    }

    fn cancel_oldest(&self, schedule: &ScheduleName, why: &str) {
        let of_schedule = self
            .running
            .values()
            .filter(|cycle| cycle.schedule.as_ref() == Some(schedule) && cycle.cancel.borrow().is_none());
        if let Some(oldest) = of_schedule.min_by_key(|cycle| cycle.began) {
            oldest.cancel.send_replace(Some(why.to_owned()));
        }
    }

    fn cancel_all(&self, why: &str) {
        for cycle in self.running.values() {
            cycle.cancel.send_if_modified(|told| match told {
                Some(_) => false,
                None => {
                    *told = Some(why.to_owned());
                    true
                }
            });
        }
    }

    fn list_running(&self) -> Vec<RunningCycle> {
        let running = self.running.iter();
        running.map(|(id, it)| RunningCycle { cycle_id: *id, schedule: it.schedule.clone() }).collect()
    }
}

fn schedule_of(cause: &CycleCause) -> Option<ScheduleName> {
    match cause {
        CycleCause::Fire { schedule, .. } => Some(schedule.clone()),
        CycleCause::Command(_) => None,
    }
}
