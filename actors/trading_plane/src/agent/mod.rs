//! Agent: carries out commands, and keeps the agent's and the strategies' states. Failure domain: the trading plane.
//!
//! ```text
//! face ─Execute─▶ decide (kernel) ─▶ received · change · result, one piece ─▶ durable ─▶ answer
//! cycles ─AuditFailed─▶ error        clock ─PauseDue─▶ running
//! ```
//!
//! It alone writes these records, so what it knows is what the journal says; when the journal refuses, it starts again
//! from there.

mod execute;
pub mod messages;

use std::sync::Arc;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::mutant;
use orchestrator_kernel::trading::agent::{AgentCause, AgentRefusal};
use orchestrator_kernel::trading::ids::{CorrelationId, StrategyName};
use orchestrator_kernel::trading::journal::{
    CommandEnded, JournalAuthor, JournalEntry, JournalFact, JournalIndex,
};
use orchestrator_kernel::trading::strategy::StrategyChanged;
use orchestrator_runtime::address::{Address, send_reply};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinHandle;

use crate::command::{SESSION_ANNOUNCE, TradingCommand};
use crate::cycle::messages::CyclesMsg;
use crate::journal::messages::{JournalDoor, JournalRefused, JournalWriter};
use crate::settings::{TradingPorts, TradingSettings};
use crate::view::TradingView;

use messages::AgentMsg;

/// Settings and ports of the agent; cloned for each start.
#[derive(Clone)]
pub struct AgentArgs {
    /// The plane's settings.
    pub settings: Arc<TradingSettings>,
    /// The plane's ports.
    pub ports: TradingPorts,
    /// Where records go.
    pub door: JournalDoor,
    /// Who begins cycles.
    pub cycles: Address<CyclesMsg>,
}

/// The end of a pause by the wall clock; ends with its owner.
struct PauseTimer(JoinHandle<()>);

impl Drop for PauseTimer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Agent state between two messages, rebuilt from the journal by `pre_start`.
pub struct AgentActorState {
    args: AgentArgs,
    writer: JournalWriter,
    /// What the journal says, with our own records.
    known: JournalIndex,
    pause: Option<PauseTimer>,
}

/// The actor.
pub struct Agent;

impl Actor for Agent {
    type Msg = AgentMsg;
    type State = AgentActorState;
    type Arguments = AgentArgs;

    async fn pre_start(
        &self,
        me: ActorRef<AgentMsg>,
        args: AgentArgs,
    ) -> Result<AgentActorState, ActorProcessingErr> {
        loop {
            let (index, writer) = args.door.read_snapshot().await?;
            let known = (*index).clone();
            show_announcements(&known, &args.ports.view);
            let mut state = AgentActorState { args: args.clone(), writer, known, pause: None };
            match state.settle_start().await {
                Ok(()) => {
                    state.arm_pause(&me);
                    return Ok(state);
                }
                // The next snapshot comes when there is room: a start waits for it.
                Err(JournalRefused::Full(_) | JournalRefused::Lost) => {}
                Err(refused) => return Err(refused.into()),
            }
        }
    }

    async fn handle(
        &self,
        me: ActorRef<AgentMsg>,
        message: AgentMsg,
        state: &mut AgentActorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            AgentMsg::Execute { command, origin, reply } => {
                let (answer, broken) = state.execute_command(command, origin).await;
                send_reply(reply, answer);
                state.arm_pause(&me);
                // Began again from the journal: what it knows here may not be there.
                broken.map_or(Ok(()), |refused| Err(refused.into()))
            }
            AgentMsg::AuditFailed(cycle) => Ok(state.change_agent(AgentCause::AuditFailed(cycle)).await?),
            AgentMsg::ErrorOccurred(detail) => {
                Ok(state.change_agent(AgentCause::ErrorOccurred(detail)).await?)
            }
            AgentMsg::PauseDue => {
                state.change_agent(AgentCause::PauseEnded).await?;
                state.arm_pause(&me);
                Ok(())
            }
            AgentMsg::WorkOff(reply) => {
                state.change_agent(AgentCause::PauseEnded).await?;
                send_reply(reply, state.known.agent().resume_at);
                Ok(())
            }
            AgentMsg::Drain(reply) => {
                send_reply(reply, ());
                Ok(())
            }
        }
    }
}

impl AgentActorState {
    /// Puts on record what a start brings: the configuration and strategies if they are others than before, the results
    /// of commands that a crash interrupted, an audit that failed, a pause that ended meanwhile.
    async fn settle_start(&mut self) -> Result<(), JournalRefused> {
        let mut facts = Vec::new();
        let configuration = &self.args.settings.configuration;
        if self.known.config().map(|(hash, _)| hash) != Some(configuration.config_hash()) {
            facts.push(JournalFact::ConfigurationSnapshot(configuration.clone()));
        }
        facts.extend(self.changed_strategies().into_iter().map(JournalFact::StrategyChanged));
        let entries: Vec<_> = facts.into_iter().map(|fact| self.own_entry(fact)).collect();
        let interrupted = self.known.open_commands().values().map(|open| {
            let outcome = self.settle_interrupted(open);
            let ended = CommandEnded { command_id: open.received.command_id, outcome };
            let fact = JournalFact::CommandEnded(ended);
            JournalEntry { correlation: open.correlation.clone(), ..self.own_entry(fact) }
        });
        let entries = entries.into_iter().chain(interrupted).collect();
        self.commit_known(entries).await?;
        if let Some(cycle) = self.known.audit_debt() {
            self.change_agent(AgentCause::AuditFailed(cycle)).await?;
        }
        if mutant!(PauseOutlivesItsEnd) { Ok(()) } else { self.change_agent(AgentCause::PauseEnded).await }
    }

    fn changed_strategies(&self) -> Vec<StrategyChanged> {
        let configured = &self.args.settings.strategies;
        let defined = configured.iter().filter_map(|(definition, status)| {
            let known = self.known.strategies().get(&definition.name);
            let changed = known.is_none_or(|known| known.definition != *definition);
            let status = known.map_or(*status, |known| known.status);
            changed.then(|| StrategyChanged::Defined { definition: definition.clone(), status })
        });
        let is_configured =
            |name: &StrategyName| configured.iter().any(|(definition, _)| definition.name == *name);
        let removed = self.known.strategies().keys().filter(|name| !is_configured(name));
        defined.chain(removed.map(|name| StrategyChanged::Removed { name: name.clone() })).collect()
    }

    /// Lets the agent change for a reason that is no command.
    async fn change_agent(&mut self, cause: AgentCause) -> Result<(), JournalRefused> {
        let changed: Result<_, AgentRefusal> = self.known.agent().decide_change(cause, self.wall_now());
        if let Ok(Some(changed)) = changed {
            tracing::warn!(
                from = changed.from.as_str(),
                to = changed.state.status.as_str(),
                "the agent changes"
            );
            let entry = self.own_entry(JournalFact::AgentChanged(changed));
            self.commit_known(vec![entry]).await?;
        }
        Ok(())
    }

    /// Makes records durable, and takes them as known.
    async fn commit_known(&mut self, entries: Vec<JournalEntry>) -> Result<(), JournalRefused> {
        if entries.is_empty() {
            return Ok(());
        }
        self.writer.commit_entries(entries.clone()).await?;
        self.take_known(&entries);
        Ok(())
    }

    fn take_known(&mut self, entries: &[JournalEntry]) {
        for entry in entries {
            self.known.take_entry(self.known.tail(), entry);
        }
    }

    fn own_entry(&self, fact: JournalFact) -> JournalEntry {
        JournalEntry {
            who: JournalAuthor::Actor("agent".to_owned()),
            planned_ts_ms: None,
            at_ms: self.wall_now(),
            correlation: own_correlation(),
            fact,
        }
    }

    fn wall_now(&self) -> TsMs {
        self.args.ports.clock.now().unwrap_or_default()
    }

    /// Waits for the end of a pause by the wall clock: one that jumps ends it earlier or later, as it says. On a driven
    /// clock whoever keeps step with it asks.
    fn arm_pause(&mut self, me: &ActorRef<AgentMsg>) {
        if self.args.ports.clock.is_driven() {
            return;
        }
        let now = self.wall_now();
        let resume_at = self.known.agent().resume_at;
        let resume_at = resume_at.filter(|resume_at| now < *resume_at || !mutant!(PauseOutlivesItsEnd));
        self.pause = resume_at.map(|resume_at| {
            let (clock, me) = (Arc::clone(&self.args.ports.clock), me.clone());
            PauseTimer(tokio::spawn(async move {
                clock.sleep_until(resume_at).await;
                if me.cast(AgentMsg::PauseDue).is_err() {
                    tracing::debug!("the agent ended before its pause");
                }
            }))
        });
    }
}

/// Shows what was announced of markets' sessions before this start, as far as the record remembers: a market that was
/// announced as closed is not open because of a restart.
fn show_announcements(known: &JournalIndex, view: &TradingView) {
    let announced = known.ended_commands().iter().filter(|ended| ended.received.name == SESSION_ANNOUNCE);
    for ended in announced {
        if let Ok(TradingCommand::AnnounceSession(announced)) = serde_json::from_str(&ended.received.body) {
            view.announce_session(&announced);
        }
    }
}

/// The correlation of what nobody asked for.
fn own_correlation() -> CorrelationId {
    #[expect(clippy::expect_used, reason = "the text is a correlation")]
    CorrelationId::new("agent").expect("a correlation")
}
