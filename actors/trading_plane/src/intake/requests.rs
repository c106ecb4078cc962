//! Requests for decisions: the stages whose work whoever answers on the bus does.
//!
//! ```text
//! stage, its cycle is durable ─▶ a request for each symbol ─▶ bus … decisions that answer ─▶ stage
//!                                     the budget ends: what has come counts, what comes later never does
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::event_bus::EventBus;
use orchestrator_kernel::ports::stage::{StageBackend, StageRequest};
use orchestrator_kernel::trading::decision::TradeDecision;
use orchestrator_kernel::trading::event::{AnalysisRequest, EventStyle};
use orchestrator_kernel::trading::ids::CorrelationId;
use orchestrator_kernel::trading::journal::{StageError, StageErrorKind, StageOutput};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::view::TradingView;

/// Part of the budget that is kept for the way back: an answer after the budget counts for nothing.
const KEPT_PERCENT: u32 = 10;

/// Answer that a request waits for.
struct OpenRequest {
    request: AnalysisRequest,
    answered: mpsc::Sender<TradeDecision>,
}

/// The requests that wait for their answers.
pub struct AnalysisRequests {
    bus: Arc<dyn EventBus>,
    style: EventStyle,
    clock: Arc<dyn Clock>,
    view: TradingView,
    open: Mutex<BTreeMap<CorrelationId, OpenRequest>>,
}

/// The requests of one call; they are open no longer when it ends, however it ends.
struct CallRequests<'a> {
    requests: &'a AnalysisRequests,
    correlations: Vec<CorrelationId>,
}

impl Drop for CallRequests<'_> {
    fn drop(&mut self) {
        let mut open = self.requests.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.correlations.iter().for_each(|correlation| drop(open.remove(correlation)));
    }
}

impl AnalysisRequests {
    /// Requests over this bus.
    #[must_use]
    pub fn new(bus: Arc<dyn EventBus>, style: EventStyle, clock: Arc<dyn Clock>, view: TradingView) -> Self {
        Self { bus, style, clock, view, open: Mutex::default() }
    }

    /// Takes a decision that answers an open request, once; says whether it does.
    #[must_use]
    pub fn take_answer(&self, correlation: &CorrelationId, decision: &TradeDecision) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = open.get(correlation).is_some_and(|open| {
            open.request.strategy == decision.strategy && open.request.symbol == decision.symbol
        });
        fits && open.remove(correlation).is_some_and(|open| open.answered.try_send(decision.clone()).is_ok())
    }

    fn requests_of(&self, request: &StageRequest) -> Vec<AnalysisRequest> {
        let at = self.clock.now().unwrap_or_default();
        let asked =
            request.strategy.as_ref().map_or(request.started.strategies.as_slice(), std::slice::from_ref);
        let known = asked.iter().filter_map(|name| self.view.strategy(name));
        let of_strategy = |known: orchestrator_kernel::trading::journal::KnownStrategy| {
            let (cycle_id, stage) = (request.started.cycle_id, request.stage.name.clone());
            let strategy = known.definition.name.clone();
            let of_symbol = move |symbol| AnalysisRequest {
                cycle_id,
                stage: stage.clone(),
                strategy: strategy.clone(),
                symbol,
                at,
            };
            known.definition.symbols.into_iter().map(of_symbol)
        };
        known.flat_map(of_strategy).collect()
    }
}

#[async_trait]
impl StageBackend for AnalysisRequests {
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
        let until = Instant::now() + request.time_left * (100 - KEPT_PERCENT) / 100;
        let requests = self.requests_of(&request);
        // Each request is answered once: there is room for every answer.
        let (answered, mut answers) = mpsc::channel(requests.len().max(1));
        let correlations = requests.iter().map(AnalysisRequest::correlation_id).collect();
        // Open before they are published: an answer cannot come too early.
        let call = CallRequests { requests: self, correlations };
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            for (correlation, request) in call.correlations.iter().zip(&requests) {
                let (request, answered) = (request.clone(), answered.clone());
                open.insert(correlation.clone(), OpenRequest { request, answered });
            }
        }
        drop(answered);
        let events: Vec<_> = requests.iter().map(|it| it.to_event().to_message(&self.style)).collect();
        self.bus
            .publish(&events)
            .await
            .map_err(|error| StageError::new(StageErrorKind::Unavailable, &error.to_string()))?;
        let mut output = StageOutput { data: "{}".to_owned(), ..StageOutput::default() };
        // It ends with the last answer.
        while let Ok(Some(decision)) = timeout_at(until, answers.recv()).await {
            output.decisions.push(decision);
        }
        if output.decisions.is_empty() && !requests.is_empty() {
            let detail = format!("none of {} requests was answered in time", requests.len());
            return Err(StageError::new(StageErrorKind::Timeout, &detail));
        }
        Ok(output)
    }
}
