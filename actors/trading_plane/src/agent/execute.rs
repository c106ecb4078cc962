//! The one execution path of commands: known already, decided, recorded, durable, answered.

use orchestrator_kernel::trading::agent::{AgentCause, AgentCommand, AgentRefusal};
use orchestrator_kernel::trading::ids::{CorrelationId, PipelineName, StrategyName};
use orchestrator_kernel::trading::journal::{
    CommandEnded, CommandOutcome, CommandReceived, JournalAuthor, JournalEntry, JournalFact, KillLatched,
};
use orchestrator_kernel::trading::schedule::FireSkipReason;
use orchestrator_kernel::trading::strategy::{
    StrategyChanged, StrategyCommand, StrategyStatus, move_strategy,
};

use super::AgentActorState;
use crate::command::{CommandAnswer, CommandOrigin, CommandRefused, TradingCommand};
use crate::cycle::messages::{BeginRefused, CommandOrder, CyclesMsg};
use crate::journal::messages::JournalRefused;

type Answered = Result<CommandAnswer, CommandRefused>;

impl AgentActorState {
    /// Carries out a command. The second part says that the journal refused in the middle of it: then nothing is known
    /// for sure here, and the actor has to begin again.
    pub(super) async fn execute_command(
        &mut self,
        command: TradingCommand,
        origin: CommandOrigin,
    ) -> (Answered, Option<JournalRefused>) {
        if let Some(answered) = self.find_repeated(&command, &origin) {
            return (answered, None);
        }
        if self.writer.is_failing() {
            let why = "the journal takes no records now".to_owned();
            return (Err(CommandRefused::Unavailable(why)), None);
        }
        match self.record_command(&command, &origin).await {
            Ok(answered) => (answered, None),
            Err(refused) => {
                let why = format!("it is not on record whether this was done: {refused}");
                (Err(CommandRefused::Unavailable(why)), Some(refused))
            }
        }
    }

    /// The same key and body have the same answer; the same key with another body is refused.
    fn find_repeated(&self, command: &TradingCommand, origin: &CommandOrigin) -> Option<Answered> {
        let mut ended = self.known.ended_commands().iter();
        let known = ended.find(|known| known.received.command_id == origin.id)?;
        if known.received.name != command.command_name() || known.received.body != command.to_body() {
            let why = "the idempotency key was used for another command".to_owned();
            return Some(Err(CommandRefused::Conflict(why)));
        }
        Some(match &known.outcome {
            CommandOutcome::Done { answer } => serde_json::from_str(answer)
                .map_err(|error| CommandRefused::Unavailable(format!("its answer is not readable: {error}"))),
            CommandOutcome::Refused { status, detail } => {
                Err(CommandRefused::of_status(*status, detail.clone()))
            }
        })
    }

    async fn record_command(
        &mut self,
        command: &TradingCommand,
        origin: &CommandOrigin,
    ) -> Result<Answered, JournalRefused> {
        let correlation = CorrelationId::new(&origin.id.to_string()).unwrap_or_else(super::own_correlation);
        let received = JournalFact::CommandReceived(CommandReceived {
            command_id: origin.id,
            name: command.command_name().to_owned(),
            body: command.to_body(),
            from: origin.from.clone(),
        });
        let entry = |state: &Self, fact| JournalEntry {
            who: JournalAuthor::Operator(origin.operator.clone()),
            correlation: correlation.clone(),
            ..state.own_entry(fact)
        };
        let mut entries = vec![entry(self, received)];
        let answered = match self.find_cycle_order(command) {
            // The cycle's start comes between the command and its result.
            Some(Ok((pipeline, strategies))) => {
                let received = std::mem::take(&mut entries);
                self.writer.push_entries(received.clone()).await?;
                self.take_known(&received);
                let order = CommandOrder {
                    command: origin.id,
                    correlation: correlation.clone(),
                    pipeline,
                    strategies,
                };
                self.begin_cycle(order).await?
            }
            Some(Err(refused)) => Err(refused),
            None => self.decide_change(command).map(|(change, answer)| {
                entries.push(entry(self, change));
                answer
            }),
        };
        let outcome = match &answered {
            Ok(answer) => CommandOutcome::Done { answer: serde_json::to_string(answer).unwrap_or_default() },
            Err(refused) => {
                CommandOutcome::Refused { status: refused.http_status(), detail: refused.to_string() }
            }
        };
        let ended = CommandEnded { command_id: origin.id, outcome };
        entries.push(entry(self, JournalFact::CommandEnded(ended)));
        self.commit_known(entries).await?;
        Ok(answered)
    }

    /// The change that a command makes, and its answer.
    fn decide_change(
        &self,
        command: &TradingCommand,
    ) -> Result<(JournalFact, CommandAnswer), CommandRefused> {
        match command {
            TradingCommand::Agent(command) => self.decide_agent(command),
            TradingCommand::Strategy(name, command) => self.decide_strategy(name, *command),
            TradingCommand::LatchKill { reason } => Ok(latch_change(true, reason)),
            TradingCommand::ReleaseLatch { reason } => match self.known.latched() {
                Some(_) => Ok(latch_change(false, reason)),
                None => Err(CommandRefused::Conflict("trading is not latched".to_owned())),
            },
            TradingCommand::AnalyzeStrategy(_) | TradingCommand::RunCycle { .. } => {
                Err(CommandRefused::Invalid("a cycle is no change".to_owned()))
            }
        }
    }

    fn decide_agent(&self, command: &AgentCommand) -> Result<(JournalFact, CommandAnswer), CommandRefused> {
        if let AgentCommand::Start { strategies: Some(names), .. } = command
            && let Some(unknown) = names.iter().find(|name| !self.known.strategies().contains_key(*name))
        {
            return Err(CommandRefused::Invalid(format!("strategies: there is no strategy {unknown}")));
        }
        let now = self.wall_now();
        let decided = self.known.agent().decide_change(AgentCause::Command(command.clone()), now);
        let changed = decided.map_err(|refused| match refused {
            AgentRefusal::Conflict(_) => CommandRefused::Conflict(refused.to_string()),
            AgentRefusal::Duration => CommandRefused::Invalid(refused.to_string()),
        })?;
        let changed = changed.ok_or_else(|| CommandRefused::Conflict("nothing changes".to_owned()))?;
        let answer = match command {
            AgentCommand::Start { .. } => CommandAnswer::AgentStarted {
                at: now,
                active_strategies: self
                    .known
                    .strategies()
                    .iter()
                    .filter(|(name, known)| {
                        known.status == StrategyStatus::Active && changed.state.covers_strategy(name)
                    })
                    .map(|(name, _)| name.clone())
                    .collect(),
            },
            AgentCommand::Stop { .. } => CommandAnswer::AgentStopped { at: now },
            AgentCommand::Pause { .. } => CommandAnswer::AgentPaused { resume_at: changed.state.resume_at },
            AgentCommand::Resume => CommandAnswer::AgentResumed { at: now },
        };
        Ok((JournalFact::AgentChanged(changed), answer))
    }

    fn decide_strategy(
        &self,
        name: &StrategyName,
        command: StrategyCommand,
    ) -> Result<(JournalFact, CommandAnswer), CommandRefused> {
        let from = self.find_strategy(name)?.status;
        let to =
            move_strategy(from, command).map_err(|refused| CommandRefused::Conflict(refused.to_string()))?;
        let moved = StrategyChanged::Moved { name: name.clone(), from, to, command };
        let answer = CommandAnswer::StrategyMoved { status: to.as_str().to_owned(), at: self.wall_now() };
        Ok((JournalFact::StrategyChanged(moved), answer))
    }

    fn find_strategy(
        &self,
        name: &StrategyName,
    ) -> Result<&orchestrator_kernel::trading::journal::KnownStrategy, CommandRefused> {
        let found = self.known.strategies().get(name);
        found.ok_or_else(|| CommandRefused::NotFound(format!("there is no strategy {name}")))
    }

    /// The cycle that a command asks for, if it asks for one.
    fn find_cycle_order(
        &self,
        command: &TradingCommand,
    ) -> Option<Result<(PipelineName, Vec<StrategyName>), CommandRefused>> {
        match command {
            TradingCommand::AnalyzeStrategy(name) => Some(
                self.find_strategy(name).map(|known| (known.definition.pipeline.clone(), vec![name.clone()])),
            ),
            TradingCommand::RunCycle { pipeline, strategies } => {
                Some(Ok((pipeline.clone(), strategies.clone())))
            }
            TradingCommand::Agent(_)
            | TradingCommand::Strategy(..)
            | TradingCommand::LatchKill { .. }
            | TradingCommand::ReleaseLatch { .. } => None,
        }
    }

    async fn begin_cycle(&self, order: CommandOrder) -> Result<Answered, JournalRefused> {
        let begun = self.args.cycles.call(|reply| CyclesMsg::BeginCommand(Box::new(order), reply)).await?;
        match begun {
            Ok(cycle_id) => Ok(Ok(CommandAnswer::CycleBegun { cycle_id })),
            Err(BeginRefused::UnknownPipeline(name)) => {
                Ok(Err(CommandRefused::NotFound(format!("there is no pipeline {name}"))))
            }
            Err(BeginRefused::Skip(reason)) => Ok(Err(refusal_of(reason))),
            Err(BeginRefused::Journal(refused)) => Err(refused),
        }
    }
}

fn refusal_of(reason: FireSkipReason) -> CommandRefused {
    let why = format!("no cycle begins: {}", reason.as_str());
    match reason {
        FireSkipReason::Shutdown | FireSkipReason::MaxConcurrent | FireSkipReason::JournalFailing => {
            CommandRefused::Unavailable(why)
        }
        FireSkipReason::AgentNotRunning
        | FireSkipReason::StrategyNotActive
        | FireSkipReason::Overlap
        | FireSkipReason::QueueFull
        | FireSkipReason::Misfire
        | FireSkipReason::TooLate
        | FireSkipReason::RateLimited
        | FireSkipReason::SessionClosed
        | FireSkipReason::Disabled
        | FireSkipReason::AlreadyFired
        | FireSkipReason::UnknownStrategy
        | FireSkipReason::UnknownSymbol => CommandRefused::Conflict(why),
    }
}

fn latch_change(latched: bool, reason: &str) -> (JournalFact, CommandAnswer) {
    let reason = orchestrator_kernel::error::bounded_detail(reason);
    (JournalFact::KillLatched(KillLatched { latched, reason }), CommandAnswer::LatchChanged { latched })
}
