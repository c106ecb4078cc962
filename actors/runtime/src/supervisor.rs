//! The supervisor: starts children in order, starts them again by their policy, and gives up loudly.
//!
//! It knows no business. Its handlers never wait for I/O: a child is started by a task of its own, whose result comes
//! back as a message, so that the exits of its siblings are handled meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::restart::{ChildExit, RestartBudget, RestartPolicy, RestartVerdict};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, Signal, SupervisionEvent};
use tokio::time::Instant;

use crate::fatal::{Chain, Fatal, FatalKind, FatalSlot, NotRestartable, cause_in};

/// Starts one incarnation of a child, linked to its parent.
pub type Start =
    Arc<dyn Fn(Parent) -> BoxFuture<'static, Result<ActorCell, ActorProcessingErr>> + Send + Sync>;

/// One line of the tree's table.
#[derive(Clone)]
pub struct ChildSpec {
    /// Name in the tree, in logs and in metrics.
    pub name: String,
    /// The name for metrics, the same for all children of a kind.
    pub kind: &'static str,
    /// When and how often it is started again.
    pub policy: RestartPolicy,
    /// Starts it.
    pub start: Start,
    /// Called when it is halted.
    pub on_halt: Option<OnHalt>,
}

/// Told why a child was halted.
pub type OnHalt = Arc<dyn Fn(&str) + Send + Sync>;

/// Requests to a supervisor, and messages that it sends to itself.
pub enum SupervisorMsg {
    /// Take this child in and start it.
    Add(ChildSpec),
    /// Start this child again. Sent by the supervisor to itself after the back-off.
    Respawn(String),
    /// A start has ended. Sent by the task that started the child.
    Started(String, Result<ActorCell, ActorProcessingErr>),
    /// The service stops: exits are in order from now on, nothing is started again.
    StopRestarting,
}

/// Supervisor that a child is started under, and the slot for the reason why the child cannot go on.
#[derive(Clone)]
pub struct Parent {
    /// The supervisor.
    pub cell: ActorCell,
    /// The child's name in the tree.
    pub child: String,
    /// Where the first fatal failure is kept.
    pub fatal: FatalSlot,
}

impl Parent {
    /// Keeps a [`Fatal`] among the causes of `error`. The child calls it while it is still up: whoever finds it down
    /// can then be sure that its reason is known.
    pub fn note_fatal(&self, error: &ActorProcessingErr) {
        if let Some(fatal) = cause_in::<Fatal>(error.as_ref()) {
            self.fatal.put_first(fatal.kind, format!("{}: {}", self.child, Chain(fatal)));
        }
    }
}

/// Settings and ports of a supervisor.
pub struct SupervisorArgs {
    /// Its name in logs.
    pub name: &'static str,
    /// Children that are started with it, in this order.
    pub children: Vec<ChildSpec>,
    /// Where the first fatal failure is kept.
    pub fatal: FatalSlot,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
}

struct Child {
    spec: ChildSpec,
    budget: RestartBudget,
}

/// How a child ended: the reason of a normal end, or the error.
type Ended = Result<String, ActorProcessingErr>;

/// Supervisor state between two messages.
pub struct SupervisorState {
    name: &'static str,
    fatal: FatalSlot,
    observer: Arc<dyn Observer>,
    children: BTreeMap<String, Child>,
    running: BTreeMap<ActorId, String>,
    /// Exits that came before the message that tells which child had been started: exits overtake messages.
    early: BTreeMap<ActorId, Ended>,
    since: Instant,
    stopping: bool,
}

/// The actor.
pub struct Supervisor;

impl Actor for Supervisor {
    type Msg = SupervisorMsg;
    type State = SupervisorState;
    type Arguments = SupervisorArgs;

    async fn pre_start(
        &self,
        me: ActorRef<SupervisorMsg>,
        args: SupervisorArgs,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let SupervisorArgs { name, children, fatal, observer } = args;
        let mut state = SupervisorState {
            name,
            fatal,
            observer,
            children: BTreeMap::new(),
            running: BTreeMap::new(),
            early: BTreeMap::new(),
            since: Instant::now(),
            stopping: false,
        };
        for spec in children {
            let cell = (spec.start)(state.parent_of_child(&me, &spec.name)).await?;
            state.running.insert(cell.get_id(), spec.name.clone());
            state.take_in(spec);
        }
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<SupervisorMsg>,
        message: SupervisorMsg,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMsg::Add(spec) => {
                let name = spec.name.clone();
                if !state.children.contains_key(&name) {
                    state.take_in(spec);
                    state.spawn_child(&me, name);
                }
            }
            SupervisorMsg::Respawn(name) => {
                if !state.stopping {
                    state.spawn_child(&me, name);
                }
            }
            SupervisorMsg::Started(name, Ok(cell)) => {
                if let Some(ended) = state.early.remove(&cell.get_id()) {
                    return state.handle_end(&me, &name, ended);
                }
                state.running.insert(cell.get_id(), name);
            }
            SupervisorMsg::Started(name, Err(error)) => return state.handle_failure(&me, &name, &error),
            SupervisorMsg::StopRestarting => state.stopping = true,
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<SupervisorMsg>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, ended) = match event {
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                (cell, ended_by(reason.unwrap_or_default()))
            }
            SupervisionEvent::ActorFailed(cell, error) => (cell, Err(error)),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        let Some(name) = state.running.remove(&cell.get_id()) else {
            state.early.insert(cell.get_id(), ended);
            return Ok(());
        };
        state.handle_end(&me, &name, ended)
    }
}

impl SupervisorState {
    fn take_in(&mut self, spec: ChildSpec) {
        let budget = RestartBudget::new(spec.policy);
        self.children.insert(spec.name.clone(), Child { spec, budget });
    }

    fn spawn_child(&self, me: &ActorRef<SupervisorMsg>, name: String) {
        let Some(child) = self.children.get(&name) else { return };
        let start = (child.spec.start)(self.parent_of_child(me, &name));
        let me = me.clone();
        tokio::spawn(async move {
            if me.cast(SupervisorMsg::Started(name, start.await)).is_err() {
                tracing::debug!("supervisor ended before its child had started");
            }
        });
    }

    fn parent_of_child(&self, me: &ActorRef<SupervisorMsg>, child: &str) -> Parent {
        Parent { cell: me.get_cell(), child: child.to_owned(), fatal: self.fatal.clone() }
    }

    fn handle_end(
        &mut self,
        me: &ActorRef<SupervisorMsg>,
        name: &str,
        ended: Ended,
    ) -> Result<(), ActorProcessingErr> {
        match ended {
            Ok(reason) => self.handle_exit(me, name, ChildExit::Normal, &reason),
            Err(error) => self.handle_failure(me, name, &error),
        }
    }

    /// A child failed. What no restart can mend is not tried again.
    fn handle_failure(
        &mut self,
        me: &ActorRef<SupervisorMsg>,
        name: &str,
        error: &ActorProcessingErr,
    ) -> Result<(), ActorProcessingErr> {
        let why = Chain(error.as_ref()).to_string();
        if cause_in::<Fatal>(error.as_ref()).is_some() {
            tracing::error!(actor = name, supervisor = self.name, reason = why, "actor failed for good");
            return if self.stopping { Ok(()) } else { Err(why.into()) };
        }
        if cause_in::<NotRestartable>(error.as_ref()).is_some() && !self.stopping {
            self.halt_child(name, &why);
            return Ok(());
        }
        self.handle_exit(me, name, ChildExit::Failed, &why)
    }

    /// The child stays down, and it is said that it does.
    fn halt_child(&self, name: &str, why: &str) {
        let Some(child) = self.children.get(name) else { return };
        self.observer.observe(&Observation::ActorExited { actor: child.spec.kind, verdict: "halted" });
        tracing::error!(actor = name, reason = why, "actor stays down: trying again cannot help, or did not");
        if let Some(on_halt) = &child.spec.on_halt {
            on_halt(why);
        }
    }

    fn handle_exit(
        &mut self,
        me: &ActorRef<SupervisorMsg>,
        name: &str,
        exit: ChildExit,
        why: &str,
    ) -> Result<(), ActorProcessingErr> {
        if self.stopping {
            return Ok(());
        }
        let now = self.since.elapsed();
        let Some(child) = self.children.get_mut(name) else { return Ok(()) };
        let verdict = child.budget.on_exit(exit, now);
        let actor = child.spec.kind;
        match verdict {
            RestartVerdict::Leave => tracing::info!(actor = name, "actor ended"),
            RestartVerdict::RestartAfter(delay) => {
                self.observer.observe(&Observation::ActorExited { actor, verdict: "restarted" });
                tracing::warn!(actor = name, reason = why, ?delay, "actor ended, starting it again");
                let name = name.to_owned();
                if !mutant!(DeadActorStaysDead) {
                    me.send_after(delay, || SupervisorMsg::Respawn(name));
                }
            }
            RestartVerdict::Halt => self.halt_child(name, why),
            RestartVerdict::Escalate => {
                self.observer.observe(&Observation::ActorExited { actor, verdict: "escalated" });
                tracing::error!(actor = name, supervisor = self.name, reason = why, "actor failed for good");
                self.fatal.put_first(FatalKind::Internal, format!("{name} failed for good: {why}"));
                return Err(format!("{name} failed for good: {why}").into());
            }
        }
        Ok(())
    }
}

/// An end by itself, unless the actor was killed: the framework reports both alike, and a killed one is not done.
fn ended_by(reason: String) -> Ended {
    let is_killed = reason == Signal::Kill.to_string();
    if is_killed { Err(reason.into()) } else { Ok(reason) }
}
