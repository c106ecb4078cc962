//! Intake: events of others from the bus. It reads, recognises and hands on; what follows is decided by the actors.
//!
//! ```text
//! queue ─▶ does it fit? ─no─▶ dead letters, with the reason
//!             │ yes
//!             ├─▶ a command, under an identifier of the event ─▶ durable ┐
//!             └─▶ schedules that wait for its topic ─▶ decided           ├─▶ acknowledged
//! ```
//!
//! Nothing is acknowledged before what it does is decided. What comes again finds its answer on record, or its fire
//! decided, so that it does nothing twice.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::ports::source::{
    ItemFate, RawItem, ResumeAt, Settlement, Source, SourceBatch, SourceError, SourceFactory,
};
use orchestrator_kernel::trading::event::{
    AnalysisRequest, EventNaming, IncomingEvent, IncomingMisfit, IncomingPayload, ServiceHealth, SessionWord,
    matches_topic,
};
use orchestrator_kernel::trading::ids::{CommandId, ForeignEventKey};
use orchestrator_runtime::status::{Condition, StatusBoard};
use tokio::time::sleep;

use crate::cadence::messages::ScheduleEvent;
use crate::command::{CommandOrigin, CommandRefused, SessionAnnouncement, TradingCommand};
use crate::plane::TradingHandle;

mod requests;

pub use requests::AnalysisRequests;

/// Who commands what an event asks for.
const OPERATOR: &str = "event bus";
/// Identifiers under which one event may command: a crash leaves one behind that was begun and not carried out.
const COMMAND_TRIES_MAX: u32 = 3;
/// How often it is looked for services that have fallen silent.
const SERVICES_EVERY: Duration = Duration::from_secs(1);

/// Intake of events, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeSettings {
    /// Names on the wire.
    pub naming: EventNaming,
    /// Patterns of names that are taken, without the prefix. Whoever may publish them may trade.
    pub patterns: Vec<String>,
    /// Whether another service's error pauses the agent.
    pub pause_on_error: bool,
    /// Whether hours before and after the session are ones to trade in.
    pub extended_hours: bool,
    /// Time between two heartbeats of another service.
    pub heartbeat_interval: Duration,
    /// How long it waits before it tries again what failed.
    pub retry: Duration,
}

/// Fate of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntakeFate {
    /// What it does is decided.
    Taken,
    /// It is on record and refused, for this reason.
    Refused(String),
    /// It is no event for us: to the dead letters, with this reason.
    Misfit(String),
    /// The plane takes nothing now: it is to be offered again.
    Again(String),
}

/// The way of events into the trading plane.
pub struct EventIntake {
    handle: TradingHandle,
    settings: IntakeSettings,
    /// Requests that decisions may answer; nothing where no stage asks.
    requests: Option<Arc<AnalysisRequests>>,
    observer: Arc<dyn Observer>,
    board: StatusBoard,
}

impl EventIntake {
    /// Into this plane.
    #[must_use]
    pub fn new(
        handle: TradingHandle,
        settings: IntakeSettings,
        observer: Arc<dyn Observer>,
        board: StatusBoard,
    ) -> Self {
        handle.view.expect_heartbeats(settings.heartbeat_interval);
        Self { handle, settings, requests: None, observer, board }
    }

    /// The same, and decisions may answer these requests.
    #[must_use]
    pub fn answering(self, requests: Option<Arc<AnalysisRequests>>) -> Self {
        Self { requests, ..self }
    }

    /// Takes events from the source for as long as the future is polled, and opens it again after each loss.
    pub async fn run(self, factory: Arc<dyn SourceFactory>) {
        loop {
            let lost = match factory.open_source(ResumeAt::default()).await {
                Ok(source) => {
                    if self.board.clear_condition(&Condition::EventIntakeDown) {
                        tracing::info!("events of others are taken from the bus again");
                    }
                    self.drain_source(source).await
                }
                Err(error) => error,
            };
            self.note_down(&lost.to_string());
            sleep(self.settings.retry).await;
        }
    }

    /// Takes batches until the source is lost.
    async fn drain_source(&self, mut source: Box<dyn Source>) -> SourceError {
        loop {
            let next = tokio::select! {
                biased;
                next = source.next_batch() => next,
                () = sleep(SERVICES_EVERY) => {
                    self.show_services();
                    continue;
                }
            };
            let batch = match next {
                Ok(Some(batch)) => batch,
                Ok(None) => return SourceError::Lost { detail: "the source has ended".to_owned() },
                Err(error) => return error,
            };
            if let Err(error) = self.settle_batch(source.as_mut(), batch).await {
                return error;
            }
            self.show_services();
        }
    }

    async fn settle_batch(&self, source: &mut dyn Source, batch: SourceBatch) -> Result<(), SourceError> {
        match self.take_items(&batch.items).await {
            Ok(fates) => {
                source.settle_batch(batch.id, Settlement::Durable(fates)).await?;
                self.board.clear_condition(&Condition::EventIntakeDown);
                Ok(())
            }
            Err(reason) => {
                self.note_down(&reason);
                let retry_after_ms = u64::try_from(self.settings.retry.as_millis()).unwrap_or(u64::MAX);
                source.settle_batch(batch.id, Settlement::Refused { reason, retry_after_ms }).await?;
                sleep(self.settings.retry).await;
                Ok(())
            }
        }
    }

    /// The fate of each, or why none is to be acknowledged. What was decided of them is so again, when they come again.
    async fn take_items(&self, items: &[RawItem]) -> Result<Vec<ItemFate>, String> {
        let mut fates = Vec::with_capacity(items.len());
        for item in items {
            let fate = self.take_message(item.topic.as_deref().unwrap_or_default(), &item.bytes).await;
            let (word, fate) = match fate {
                IntakeFate::Taken => ("taken", ItemFate::Appended),
                IntakeFate::Refused(_) => ("refused", ItemFate::Appended),
                IntakeFate::Misfit(reason) => ("dead_letter", ItemFate::Quarantined(reason)),
                IntakeFate::Again(reason) => return Err(reason),
            };
            self.observer.observe(&Observation::EventTaken { fate: word });
            fates.push(fate);
        }
        Ok(fates)
    }

    /// Takes one message, and returns when what it does is decided and durable.
    pub async fn take_message(&self, topic: &str, bytes: &[u8]) -> IntakeFate {
        let event = match self.read_event(topic, bytes) {
            Ok(event) => event,
            Err(misfit) => {
                tracing::warn!(topic, reason = %misfit, "a message is no event for us: to the dead letters");
                return IntakeFate::Misfit(misfit.to_string());
            }
        };
        let is_answer = matches!(
            (&event.payload, &self.requests),
            (IncomingPayload::Decision(decision), Some(requests))
                if requests.take_answer(&event.correlation, decision)
        );
        let commanded = match self.command_of(&event).filter(|_| !is_answer) {
            Some(command) => self.execute_command(&event, command).await,
            None => IntakeFate::Taken,
        };
        if let IntakeFate::Again(_) = commanded {
            return commanded;
        }
        let event_id = key_of(&event).to_string();
        let IncomingEvent { name, at, .. } = event;
        match self.handle.take_event(ScheduleEvent { topic: name, event_id, at }).await {
            Ok(()) => commanded,
            Err(down) => IntakeFate::Again(down.to_string()),
        }
    }

    /// Bindings of an earlier configuration may still bring what is no longer listed: that is refused here.
    fn read_event(&self, topic: &str, bytes: &[u8]) -> Result<IncomingEvent, IncomingMisfit> {
        let event = IncomingEvent::parse(topic, &self.settings.naming, bytes)?;
        let is_listed = self.settings.patterns.iter().any(|pattern| matches_topic(pattern, &event.name));
        if is_listed { Ok(event) } else { Err(IncomingMisfit::Unlisted(event.name)) }
    }

    /// What an event asks for; nothing where only schedules may wait for it.
    fn command_of(&self, event: &IncomingEvent) -> Option<TradingCommand> {
        let note = |detail: String| {
            let name = event.name.clone();
            Some(TradingCommand::NoteEvent { name, detail: format!("{} {detail}", event.event_id) })
        };
        match &event.payload {
            IncomingPayload::Heartbeat(beat) => {
                self.handle.view.take_heartbeat(beat);
                None
            }
            IncomingPayload::Session(news) => {
                let is_open = match news.current {
                    SessionWord::Regular => true,
                    SessionWord::Pre | SessionWord::Post => self.settings.extended_hours,
                    SessionWord::Closed => false,
                };
                let market = news.market.clone();
                Some(TradingCommand::AnnounceSession(SessionAnnouncement { market, is_open, at: event.at }))
            }
            IncomingPayload::Error(error) => Some(TradingCommand::ReportError {
                detail: error.to_line(),
                pauses: self.settings.pause_on_error,
            }),
            // The late answer to a request is thrown away: it begins nothing.
            IncomingPayload::Decision(_) if AnalysisRequest::is_answered_by(&event.correlation) => {
                note("answers a request that is open no longer, or is not what it asked for".to_owned())
            }
            IncomingPayload::Decision(decision) => {
                Some(TradingCommand::ExecuteDecision { decision: decision.clone(), made_at: event.at })
            }
            IncomingPayload::KillActivate(asked) => {
                Some(TradingCommand::LatchKill { reason: asked.reason.clone() })
            }
            IncomingPayload::KillDeactivate(asked) => {
                Some(TradingCommand::RequestRelease { reason: asked.reason.clone() })
            }
            // Orders are not sent yet, so that no order can be one of ours.
            IncomingPayload::Order(news) => note(format!("order {} of {}", news.order_id, news.symbol)),
            IncomingPayload::DecisionJudged(judged) => {
                note(format!("decision {}: approved {}", judged.decision_id, judged.approved))
            }
            IncomingPayload::Backtest(request) => Some(TradingCommand::RunBacktest(request.clone())),
            IncomingPayload::Other => None,
        }
    }

    /// Carries out what an event asks for, under an identifier that is the event's: a repetition finds its answer.
    ///
    /// A command that a crash kept from being carried out is recorded as refused for the moment, so that the event
    /// needs another identifier; one that was carried out is not refused so.
    async fn execute_command(&self, event: &IncomingEvent, command: TradingCommand) -> IntakeFate {
        let (mut unavailable, key) = (String::new(), key_of(event));
        for number in 0..COMMAND_TRIES_MAX {
            let origin = CommandOrigin {
                id: CommandId::of_event(&key, number),
                operator: OPERATOR.to_owned(),
                from: format!("{} of {}", event.name, event.source),
            };
            match self.handle.execute_command(command.clone(), origin).await {
                Ok(_) => return IntakeFate::Taken,
                Err(refused) if refused.is_undecided() => return IntakeFate::Again(refused.to_string()),
                Err(CommandRefused::Unavailable(why)) => unavailable = why,
                Err(refused) => {
                    tracing::warn!(
                        name = event.name, source = event.source, event_id = event.event_id, reason = %refused,
                        "an event of somebody else is on record and refused"
                    );
                    return IntakeFate::Refused(refused.to_string());
                }
            }
        }
        // Each of them is on record as refused: there is no room for one more cycle, say.
        IntakeFate::Refused(unavailable)
    }

    fn note_down(&self, reason: &str) {
        if self.board.raise_condition(Condition::EventIntakeDown, reason) {
            tracing::warn!(reason, "events of others are not taken from the bus; they wait there");
        }
    }

    /// Says which services are not well.
    fn show_services(&self) {
        for (service, health) in self.handle.view.list_services() {
            let condition = Condition::ServiceUnhealthy(service);
            match health {
                ServiceHealth::Healthy | ServiceHealth::Degraded => {
                    self.board.clear_condition(&condition);
                }
                ServiceHealth::Unhealthy => {
                    self.board.raise_condition(condition, "silent, or not well by its own word");
                }
            }
        }
    }
}

/// What an event is recognised by when it comes again: each source counts for itself.
fn key_of(event: &IncomingEvent) -> ForeignEventKey {
    ForeignEventKey::new(&event.source, &event.event_id)
}
