//! The work of one stage: its provider is called within its budget, strategies in parallel.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use orchestrator_kernel::ports::stage::{StageBackend, StageRequest};
use orchestrator_kernel::trading::cycle::{CycleState, merge_strategy_answers};
use orchestrator_kernel::trading::ids::StrategyName;
use orchestrator_kernel::trading::journal::{StageError, StageErrorKind, StageOutcome, StageOutput};
use orchestrator_kernel::trading::stage::{StageProvider, StageRole, StageSpec};
use tokio::time::{Instant, timeout_at};

use crate::journal::messages::JournalWriter;

/// One attempt of a stage, ready to be made.
pub(super) struct StageAttempt {
    pub(super) request: StageRequest,
    /// Strategies that decide each for itself; nothing for a stage that works for all at once.
    strategies: Option<Vec<StrategyName>>,
    /// Until when answers of strategies are collected.
    collect_until: Instant,
}

impl StageAttempt {
    /// The attempt as the cycle stands now.
    pub(super) fn new(
        state: &CycleState,
        stage: StageSpec,
        attempt: u32,
        time_left: Duration,
        collect_until: Instant,
    ) -> Self {
        let done = state.ended_stages().filter_map(|(_, ended)| match &ended.outcome {
            StageOutcome::Done(output) => Some((ended.name.clone(), output.clone())),
            StageOutcome::Failed(_) => None,
        });
        let live: Vec<StrategyName> = state.live_strategies().cloned().collect();
        let decides = stage.role() == StageRole::Signal && !live.is_empty();
        let request = StageRequest {
            started: Arc::new(state.started().clone()),
            stage,
            attempt,
            strategy: None,
            outputs: Arc::new(done.collect()),
            decisions: Arc::new(state.decisions().to_vec()),
            time_left,
        };
        Self { request, strategies: decides.then_some(live), collect_until }
    }

    /// Makes the attempt. A strategy that does not answer in time has failed, and stops no other.
    pub(super) async fn make(
        self,
        backend: Arc<dyn StageBackend>,
        journal: JournalWriter,
    ) -> Result<StageOutput, StageError> {
        let Self { mut request, strategies, collect_until } = self;
        if request.stage.provider == StageProvider::Event {
            // Whoever hears the request acts upon it: what it is asked for is on record before.
            let waited = Instant::now();
            journal.wait_durable().await.map_err(|refused| {
                StageError::new(StageErrorKind::Unavailable, &format!("nothing was asked: {refused}"))
            })?;
            request.time_left = request.time_left.saturating_sub(waited.elapsed());
        }
        let Some(strategies) = strategies else { return backend.call_stage(request).await };
        let (provider, known) = (request.stage.provider, Arc::clone(&request.decisions));
        let calls = strategies.into_iter().map(|name| {
            let request = StageRequest { strategy: Some(name.clone()), ..request.clone() };
            let backend = Arc::clone(&backend);
            async move {
                let answer = timeout_at(collect_until, backend.call_stage(request)).await;
                (name, answer.unwrap_or_else(|_| Err(late_error())))
            }
        });
        merge_strategy_answers(provider, &known, join_all(calls).await)
    }
}

fn late_error() -> StageError {
    StageError::new(StageErrorKind::Timeout, "no decision within the stage's budget")
}
