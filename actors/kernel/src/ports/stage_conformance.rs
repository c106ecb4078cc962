//! The suite that every backend of stages passes unchanged: each promise of the port as one check.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;

use super::stage::{StageBackend, StageRequest};
use crate::ids::TsMs;
use crate::trading::ids::{CommandId, CycleId};
use crate::trading::journal::{
    ConfigHash, CycleCause, CycleStarted, STAGE_DATA_BYTES_MAX, StageErrorKind, TradingMode,
};
use crate::trading::pipeline::canonical_pipeline;

/// Makes the backends that the suite works on.
#[async_trait]
pub trait StageBackendProvider: Send + Sync {
    /// A backend whose stage ING answers the data `{"echo":1}` and whose stage FEAT fails by its own words.
    async fn fresh(&self) -> Arc<dyn StageBackend>;
}

/// A question for the stage at `index` of the canonical pipeline.
#[must_use]
pub fn sample_request(index: usize) -> StageRequest {
    let pipeline = canonical_pipeline();
    let stage = pipeline.stages.get(index).cloned().unwrap_or_else(|| panic!("no stage {index}"));
    let command = CommandId::derive("conformance");
    let started = CycleStarted {
        cycle_id: CycleId::of_command(command),
        cause: CycleCause::Command(command),
        started_at: TsMs(1_768_002_660_000),
        pipeline,
        begin_at: 0,
        strategies: Vec::new(),
        symbols: Vec::new(),
        decisions: Vec::new(),
        mode: TradingMode::Paper,
        dry_run: true,
        as_of_date: "2026-01-09".to_owned(),
        config: ConfigHash([0; 32]),
        denied_at_start: Vec::new(),
    };
    StageRequest {
        started: Arc::new(started),
        stage,
        attempt: 1,
        strategy: None,
        outputs: Arc::default(),
        decisions: Arc::default(),
        time_left: Duration::from_secs(5),
    }
}

/// Runs the whole suite.
///
/// # Panics
///
/// When a promise is broken.
pub async fn run(provider: &dyn StageBackendProvider) {
    answers_and_failures_are_told_apart(provider).await;
    a_call_that_is_dropped_harms_no_other(provider).await;
    calls_do_not_wait_for_each_other(provider).await;
}

async fn answers_and_failures_are_told_apart(provider: &dyn StageBackendProvider) {
    let backend = provider.fresh().await;
    let answer = backend.call_stage(sample_request(0)).await;
    let output = answer.unwrap_or_else(|error| panic!("ING failed: {error}"));
    assert_eq!(output.data, r#"{"echo":1}"#);
    assert!(output.data.len() <= STAGE_DATA_BYTES_MAX && output.decisions.is_empty());

    match backend.call_stage(sample_request(1)).await {
        Err(error) => assert_eq!(error.kind, StageErrorKind::Provider),
        Ok(output) => panic!("FEAT answered {output:?}"),
    }
}

async fn a_call_that_is_dropped_harms_no_other(provider: &dyn StageBackendProvider) {
    let backend = provider.fresh().await;
    {
        let mut dropped = pin!(backend.call_stage(sample_request(0)));
        // Polled once, so that it has begun.
        poll_fn(|cx| Poll::Ready(dropped.as_mut().poll(cx).is_ready())).await;
    }
    assert!(backend.call_stage(sample_request(0)).await.is_ok(), "after a dropped call");
}

async fn calls_do_not_wait_for_each_other(provider: &dyn StageBackendProvider) {
    let backend = provider.fresh().await;
    let (first, second) = (backend.call_stage(sample_request(0)), backend.call_stage(sample_request(0)));
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut one, mut other) = (None, None);
    poll_fn(|cx| {
        // The second is driven first: it may not need the first one's progress.
        for (call, done) in [(second.as_mut(), &mut other), (first.as_mut(), &mut one)] {
            if done.is_none()
                && let Poll::Ready(answer) = call.poll(cx)
            {
                *done = Some(answer);
            }
        }
        if one.is_some() && other.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    assert!(one.is_some_and(|answer| answer.is_ok()) && other.is_some_and(|answer| answer.is_ok()));
}

#[cfg(test)]
mod tests {
    use super::super::stage::MemoryStages;
    use super::*;
    use crate::trading::journal::{StageError, StageOutput};

    struct InMemory;

    #[async_trait]
    impl StageBackendProvider for InMemory {
        async fn fresh(&self) -> Arc<dyn StageBackend> {
            let stages = MemoryStages::default();
            for _ in 0..3 {
                let data = r#"{"echo":1}"#.to_owned();
                stages.push_answer("ING", Ok(StageOutput { data, ..StageOutput::default() }));
                stages.push_answer("FEAT", Err(StageError::new(StageErrorKind::Provider, "no features")));
            }
            Arc::new(stages)
        }
    }

    #[test]
    fn the_reference_keeps_the_promises() {
        pollster::block_on(run(&InMemory));
    }
}
