//! The one execution path of commands: known already, decided, recorded, durable, answered.

use orchestrator_kernel::ids::{Symbol, TsMs};
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::backtests::BacktestRefused;
use orchestrator_kernel::trading::agent::{AgentCause, AgentCommand, AgentRefusal, AgentState};
use orchestrator_kernel::trading::decision::{DecisionRoute, TradeDecision, route_decision};
use orchestrator_kernel::trading::ids::{CommandId, CorrelationId, CycleId, StrategyName};
use orchestrator_kernel::trading::journal::{
    CommandEnded, CommandOutcome, CommandReceived, JournalAuthor, JournalEntry, JournalFact, KillLatched,
    OpenCommand,
};
use orchestrator_kernel::trading::schedule::FireSkipReason;
use orchestrator_kernel::trading::strategy::{
    StrategyChanged, StrategyCommand, StrategyDefinition, StrategyStatus, move_strategy,
};

use super::AgentActorState;
use crate::command::{CommandAnswer, CommandOrigin, CommandRefused, DECISION_AGE_MAX_MS, TradingCommand};
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
        let origin = match self.find_attempt(&command, origin.id) {
            Ok(id) => CommandOrigin { id, ..origin },
            Err(_) if mutant!(KeyNotLookedAt) => origin,
            Err(answered) => return (answered, None),
        };
        if self.writer.is_failing() {
            return (Err(CommandRefused::undecided("the journal takes no records now")), None);
        }
        match self.record_command(&command, &origin).await {
            Ok(answered) => (answered, None),
            Err(refused) => (Err(CommandRefused::in_doubt(&refused.to_string())), Some(refused)),
        }
    }

    /// The id that a command is carried out under, or the answer that its key has already: the same key and body have
    /// the same answer, the same key with another body is refused.
    ///
    /// What the plane did not take (503) did nothing, and whoever is told so sends it again, with the same key: that is
    /// a further attempt, under an id that follows from the last one's.
    fn find_attempt(&self, command: &TradingCommand, first: CommandId) -> Result<CommandId, Answered> {
        let conflict = |why: &str| Err(Err(CommandRefused::Conflict(why.to_owned())));
        let ended = self.known.ended_commands();
        let mut id = first;
        while let Some(known) = ended.iter().rev().find(|known| known.received.command_id == id) {
            if known.received.name != command.command_name() || known.received.body != command.to_body() {
                return conflict("the idempotency key was used for another command");
            }
            match &known.outcome {
                CommandOutcome::Done { answer } => {
                    return Err(serde_json::from_str(answer).map_err(|error| {
                        CommandRefused::Conflict(format!(
                            "it was done, and its answer is not readable: {error}"
                        ))
                    }));
                }
                CommandOutcome::Refused { status: 503, .. } => id = id.next_attempt(),
                CommandOutcome::Refused { status, detail } => {
                    return Err(Err(CommandRefused::of_status(*status, detail.clone())));
                }
            }
        }
        // Cycles are remembered for longer than answers, and one id is one cycle.
        match self.known.knows_cycle(&CycleId::of_command(id)) {
            true => conflict("the idempotency key was used before, and its answer is no longer kept"),
            false => Ok(id),
        }
    }

    /// The outcome of a command that a crash left without one. Nothing has changed since: this actor alone changes
    /// what commands change.
    pub(super) fn settle_interrupted(&self, open: &OpenCommand) -> CommandOutcome {
        let refused = |status, detail: &str| CommandOutcome::Refused { status, detail: detail.to_owned() };
        if !open.was_done {
            return refused(503, "a crash interrupted it before it changed anything: send it again");
        }
        let command = serde_json::from_str(&open.received.body).ok();
        let answer = command.and_then(|command| self.answer_of_done(&command, open.received.command_id));
        match answer.and_then(|answer| serde_json::to_string(&answer).ok()) {
            Some(answer) => CommandOutcome::Done { answer },
            None => refused(409, "a crash interrupted its answer: what it changed is on record"),
        }
    }

    /// The answer of a command whose change is on record, and is the last one. A moment that is not on record is now.
    fn answer_of_done(&self, command: &TradingCommand, id: CommandId) -> Option<CommandAnswer> {
        let (agent, now) = (self.known.agent(), self.wall_now());
        Some(match command {
            TradingCommand::Agent(AgentCommand::Start { .. }) => CommandAnswer::AgentStarted {
                at: agent.started_at.unwrap_or(now),
                active_strategies: self.covered_strategies(agent),
            },
            TradingCommand::Agent(AgentCommand::Stop { .. }) => {
                CommandAnswer::AgentStopped { at: agent.stopped_at.unwrap_or(now) }
            }
            TradingCommand::Agent(AgentCommand::Pause { .. }) => {
                CommandAnswer::AgentPaused { resume_at: agent.resume_at }
            }
            TradingCommand::Agent(AgentCommand::Resume) => CommandAnswer::AgentResumed { at: now },
            TradingCommand::Strategy(name, _) => {
                let status = self.known.strategies().get(name)?.status;
                CommandAnswer::StrategyMoved { status: status.as_str().to_owned(), at: now }
            }
            TradingCommand::AnalyzeStrategy { .. }
            | TradingCommand::RunCycle { .. }
            | TradingCommand::ExecuteDecision { .. } => {
                CommandAnswer::CycleBegun { cycle_id: CycleId::of_command(id) }
            }
            TradingCommand::RunBacktest(_) => CommandAnswer::BacktestQueued { job: id },
            TradingCommand::LatchKill { .. } | TradingCommand::ReleaseLatch { .. } => {
                CommandAnswer::LatchChanged { latched: self.known.latched().is_some() }
            }
            TradingCommand::ReportError { .. }
            | TradingCommand::AnnounceSession(_)
            | TradingCommand::NoteEvent { .. } => CommandAnswer::Noted,
            // It is refused, and changes nothing.
            TradingCommand::RequestRelease { .. } => return None,
        })
    }

    /// Strategies that are active and that the agent covers.
    fn covered_strategies(&self, agent: &AgentState) -> Vec<StrategyName> {
        let active =
            self.known.strategies().iter().filter(|(name, known)| {
                known.status == StrategyStatus::Active && agent.covers_strategy(name)
            });
        active.map(|(name, _)| name.clone()).collect()
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
        let answered = match self.find_cycle_order(command, origin.id, &correlation) {
            // The cycle's start comes between the command and its result.
            Some(Ok(order)) => {
                let received = std::mem::take(&mut entries);
                self.writer.push_entries(received.clone()).await?;
                self.take_known(&received);
                self.begin_cycle(order).await?
            }
            Some(Err(refused)) => Err(refused),
            None => self.decide_change(command, origin.id).map(|(change, answer)| {
                entries.extend(change.map(|change| entry(self, change)));
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
        if let TradingCommand::AnnounceSession(announced) = command {
            self.args.ports.view.announce_session(announced);
        }
        if let (TradingCommand::RunBacktest(request), Ok(_)) = (command, &answered) {
            self.args.ports.backtests.begin_job(origin.id, request.clone());
        }
        Ok(answered)
    }

    /// The change that a command makes, and its answer.
    fn decide_change(
        &self,
        command: &TradingCommand,
        id: CommandId,
    ) -> Result<(Option<JournalFact>, CommandAnswer), CommandRefused> {
        let (change, answer) = match command {
            TradingCommand::Agent(command) => self.decide_agent(command)?,
            TradingCommand::Strategy(name, command) => self.decide_strategy(name, *command)?,
            TradingCommand::LatchKill { reason } => latch_change(true, reason),
            TradingCommand::ReleaseLatch { reason } => match self.known.latched() {
                Some(_) => latch_change(false, reason),
                None => return Err(CommandRefused::Conflict("trading is not latched".to_owned())),
            },
            TradingCommand::RequestRelease { .. } => {
                let why = "an event releases nothing: an operator does, by kill/release";
                return Err(CommandRefused::Conflict(why.to_owned()));
            }
            TradingCommand::ReportError { detail, pauses: true } => {
                let cause = AgentCause::ErrorOccurred(detail.clone());
                let changed = self.known.agent().decide_change(cause, self.wall_now());
                let change = changed.ok().flatten().map(JournalFact::AgentChanged);
                return Ok((change, CommandAnswer::Noted));
            }
            TradingCommand::RunBacktest(request) => {
                self.args.ports.backtests.check_request(request).map_err(refusal_of_backtest)?;
                return Ok((None, CommandAnswer::BacktestQueued { job: id }));
            }
            TradingCommand::ReportError { pauses: false, .. }
            | TradingCommand::AnnounceSession(_)
            | TradingCommand::NoteEvent { .. } => return Ok((None, CommandAnswer::Noted)),
            TradingCommand::AnalyzeStrategy { .. }
            | TradingCommand::RunCycle { .. }
            | TradingCommand::ExecuteDecision { .. } => {
                return Err(CommandRefused::Invalid("a cycle is no change".to_owned()));
            }
        };
        Ok((Some(change), answer))
    }

    fn decide_agent(&self, command: &AgentCommand) -> Result<(JournalFact, CommandAnswer), CommandRefused> {
        if let AgentCommand::Start { strategies: Some(names), .. } = command {
            self.find_all_strategies(names)?;
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
                active_strategies: self.covered_strategies(&changed.state),
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

    /// The strategy, if it trades all of these symbols.
    fn find_traded(
        &self,
        name: &StrategyName,
        symbols: &[Symbol],
    ) -> Result<&StrategyDefinition, CommandRefused> {
        let definition = &self.find_strategy(name)?.definition;
        match symbols.iter().find(|symbol| !definition.symbols.contains(symbol)) {
            Some(strange) => {
                let why = format!("symbols: strategy {name} does not trade {strange}");
                Err(CommandRefused::Invalid(why))
            }
            None => Ok(definition),
        }
    }

    fn find_all_strategies(&self, names: &[StrategyName]) -> Result<(), CommandRefused> {
        match names.iter().find(|name| !self.known.strategies().contains_key(*name)) {
            Some(unknown) => {
                Err(CommandRefused::Invalid(format!("strategies: there is no strategy {unknown}")))
            }
            None => Ok(()),
        }
    }

    /// The cycle that a command asks for, if it asks for one.
    fn find_cycle_order(
        &self,
        command: &TradingCommand,
        id: CommandId,
        correlation: &CorrelationId,
    ) -> Option<Result<CommandOrder, CommandRefused>> {
        let order = |pipeline, strategies| CommandOrder {
            command: id,
            correlation: correlation.clone(),
            pipeline,
            strategies,
            symbols: Vec::new(),
            decisions: Vec::new(),
        };
        match command {
            TradingCommand::AnalyzeStrategy { strategy, symbols } => {
                Some(self.find_traded(strategy, symbols).map(|definition| CommandOrder {
                    symbols: symbols.clone(),
                    ..order(definition.pipeline.clone(), vec![strategy.clone()])
                }))
            }
            TradingCommand::ExecuteDecision { decision, made_at } => {
                Some(self.judge_decision(decision, *made_at).map(|definition| CommandOrder {
                    decisions: vec![decision.clone()],
                    ..order(definition.pipeline.clone(), vec![decision.strategy.clone()])
                }))
            }
            TradingCommand::RunCycle { pipeline, strategies, .. } => Some(
                self.find_all_strategies(strategies).map(|()| order(pipeline.clone(), strategies.clone())),
            ),
            TradingCommand::Agent(_)
            | TradingCommand::Strategy(..)
            | TradingCommand::LatchKill { .. }
            | TradingCommand::ReleaseLatch { .. }
            | TradingCommand::RequestRelease { .. }
            | TradingCommand::AnnounceSession(_)
            | TradingCommand::ReportError { .. }
            | TradingCommand::RunBacktest(_)
            | TradingCommand::NoteEvent { .. } => None,
        }
    }

    /// The strategy of a decision that came by event; one of no known strategy or symbol, or a late one, begins
    /// nothing.
    fn judge_decision(
        &self,
        decision: &TradeDecision,
        made_at: TsMs,
    ) -> Result<&StrategyDefinition, CommandRefused> {
        let known = self.known.strategies().get(&decision.strategy).map(|known| &known.definition);
        match (route_decision(decision, false, known), known) {
            (DecisionRoute::Skipped(reason), _) => Err(refusal_of(reason)),
            (_, None) => Err(refusal_of(FireSkipReason::UnknownStrategy)),
            _ if DECISION_AGE_MAX_MS < self.wall_now().0.saturating_sub(made_at.0) => {
                Err(refusal_of(FireSkipReason::TooLate))
            }
            (DecisionRoute::Begins | DecisionRoute::Answers, Some(definition)) => Ok(definition),
        }
    }

    async fn begin_cycle(&mut self, order: CommandOrder) -> Result<Answered, JournalRefused> {
        let writer = self.writer.clone();
        let begun =
            self.args.cycles.call(|reply| CyclesMsg::BeginCommand(Box::new(order), writer, reply)).await?;
        if self.args.ports.clock.is_driven() {
            // The cycle's records come before the command's result: their order is no thread's business (REP-2).
            self.args.cycles.call(|reply| CyclesMsg::WaitIdle { behind_agent: false, reply }).await?;
        }
        match begun {
            Ok(cycle_id) => {
                self.known.remember_cycle(cycle_id);
                Ok(Ok(CommandAnswer::CycleBegun { cycle_id }))
            }
            Err(BeginRefused::UnknownPipeline(name)) => {
                Ok(Err(CommandRefused::NotFound(format!("there is no pipeline {name}"))))
            }
            Err(BeginRefused::Skip(reason)) => Ok(Err(refusal_of(reason))),
            Err(BeginRefused::TooManySymbols(exceeded)) => {
                Ok(Err(CommandRefused::Invalid(format!("strategies: {exceeded}"))))
            }
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
        FireSkipReason::HistoryBehind => CommandRefused::Unavailable(format!(
            "{why}: trading.history.required is true, and the history is behind the journal"
        )),
        FireSkipReason::AgentNotRunning
        | FireSkipReason::StrategyNotActive
        | FireSkipReason::Overlap
        | FireSkipReason::QueueFull
        | FireSkipReason::Misfire
        | FireSkipReason::TooLate
        | FireSkipReason::RateLimited
        | FireSkipReason::SessionClosed
        | FireSkipReason::Disabled
        | FireSkipReason::TooManySymbols
        | FireSkipReason::AlreadyFired
        | FireSkipReason::UnknownStrategy
        | FireSkipReason::UnknownSymbol => CommandRefused::Conflict(why),
    }
}

fn refusal_of_backtest(refused: BacktestRefused) -> CommandRefused {
    let why = refused.to_string();
    match refused {
        BacktestRefused::Off => CommandRefused::Conflict(why),
        BacktestRefused::NoCapture(_) => CommandRefused::NotFound(why),
        BacktestRefused::QueueFull { .. } => CommandRefused::Unavailable(why),
    }
}

fn latch_change(latched: bool, reason: &str) -> (JournalFact, CommandAnswer) {
    let reason = orchestrator_kernel::error::bounded_detail(reason);
    (JournalFact::KillLatched(KillLatched { latched, reason }), CommandAnswer::LatchChanged { latched })
}
