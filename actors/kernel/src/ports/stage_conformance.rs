//! The suites that every backend of stages, and every one of hooks, passes unchanged: each promise of the ports as one
//! check.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use rust_decimal::Decimal;

use super::stage::{HookBackend, HookRequest, StageBackend, StageRequest};
use crate::ids::TsMs;
use crate::trading::gate::{GatePlace, HookAnswer, HookError, HookVote, Narrowing};
use crate::trading::ids::{CommandId, CycleId, DecisionId, StageName};
use crate::trading::journal::{
    ConfigHash, CycleCause, CycleStarted, STAGE_DATA_BYTES_MAX, StageErrorKind, TradingMode,
};
use crate::trading::pipeline::canonical_pipeline;
use crate::trading::stage::{HookMode, HookMoment, HookSpec, StageProvider};

/// Makes the backends that the suite works on.
#[async_trait]
pub trait StageBackendProvider: Send + Sync {
    /// A backend whose stage ING answers the data `{"echo":1}` and whose stage FEAT fails by its own words.
    async fn fresh(&self) -> Arc<dyn StageBackend>;
}

/// Makes the backends of hooks that the suite works on.
#[async_trait]
pub trait HookBackendProvider: Send + Sync {
    /// A backend whose hook `allows` allows, `denies` denies with the reason `not today`, `narrows` limits decision
    /// `d-1` to 2.5 shares and drops `d-2`, and `breaks` fails.
    async fn fresh(&self) -> Arc<dyn HookBackend>;
}

/// A question for the stage at `index` of the canonical pipeline.
#[must_use]
pub fn sample_request(index: usize) -> StageRequest {
    let started = sample_cycle();
    let stage = started.pipeline.stages.get(index).cloned().unwrap_or_else(|| panic!("no stage {index}"));
    StageRequest {
        started: Arc::new(started),
        stage,
        attempt: 1,
        strategy: None,
        outputs: Arc::default(),
        decisions: Arc::default(),
        time_left: Duration::from_secs(60),
    }
}

/// A question for the hook of this name, before RISK.
#[must_use]
pub fn sample_question(hook: &str) -> HookRequest {
    let named = |name: &str| StageName::new(name).unwrap_or_else(|| panic!("no name: {name}"));
    HookRequest {
        started: Arc::new(sample_cycle()),
        hook: HookSpec {
            name: named(hook),
            stage: named("RISK"),
            moment: HookMoment::Before,
            mode: HookMode::Hard,
            provider: StageProvider::Http,
            budget: Duration::from_secs(60),
        },
        place: GatePlace::Before(3),
        decisions: Arc::default(),
    }
}

fn sample_cycle() -> CycleStarted {
    let command = CommandId::derive("conformance");
    CycleStarted {
        cycle_id: CycleId::of_command(command),
        cause: CycleCause::Command(command),
        started_at: TsMs(1_768_002_660_000),
        pipeline: canonical_pipeline(),
        begin_at: 0,
        strategies: Vec::new(),
        symbols: Vec::new(),
        decisions: Vec::new(),
        mode: TradingMode::Paper,
        dry_run: true,
        as_of_date: "2026-01-09".to_owned(),
        config: ConfigHash([0; 32]),
        denied_at_start: Vec::new(),
    }
}

/// Runs the whole suite of stages.
///
/// # Panics
///
/// When a promise is broken.
pub async fn run(provider: &dyn StageBackendProvider) {
    answers_and_failures_are_told_apart(provider).await;
    a_call_that_is_dropped_harms_no_other(provider).await;
    calls_do_not_wait_for_each_other(provider).await;
}

/// Runs the whole suite of hooks.
///
/// # Panics
///
/// When a promise is broken.
pub async fn run_for_hooks(provider: &dyn HookBackendProvider) {
    let hooks = provider.fresh().await;
    for (hook, answer) in hook_answers() {
        assert_eq!(hooks.ask_hook(sample_question(hook)).await, Ok(answer), "{hook}");
    }
    for silent in ["breaks", "nobody-there"] {
        match hooks.ask_hook(sample_question(silent)).await {
            Err(HookError::Failed(why)) => assert!(!why.is_empty(), "{silent} says nothing"),
            other => panic!("{silent} answered {other:?}"),
        }
    }
    {
        let mut dropped = pin!(hooks.ask_hook(sample_question("allows")));
        poll_fn(|cx| Poll::Ready(dropped.as_mut().poll(cx).is_ready())).await;
    }
    assert!(hooks.ask_hook(sample_question("allows")).await.is_ok(), "after a dropped question");
}

/// What the suite's hooks answer.
#[must_use]
pub fn hook_answers() -> Vec<(&'static str, HookAnswer)> {
    let id = |id: &str| DecisionId::new(id).unwrap_or_else(|| panic!("no identifier: {id}"));
    let patch = vec![
        Narrowing::Limit { decision_id: id("d-1"), quantity: Decimal::new(25, 1) },
        Narrowing::Drop(id("d-2")),
    ];
    let answer = |vote, reasons: &[&str], patch| HookAnswer {
        vote,
        reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
        patch,
    };
    vec![
        ("allows", answer(HookVote::Allow, &[], Vec::new())),
        ("denies", answer(HookVote::Deny, &["not today"], Vec::new())),
        ("narrows", answer(HookVote::Modify, &["too large"], patch)),
    ]
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
    use super::super::stage::{MemoryHooks, MemoryStages};
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

    #[async_trait]
    impl HookBackendProvider for InMemory {
        async fn fresh(&self) -> Arc<dyn HookBackend> {
            let hooks = MemoryHooks::default();
            for (hook, answer) in hook_answers() {
                hooks.set_answer(hook, Ok(answer));
            }
            hooks.set_answer("breaks", Err(HookError::Failed("broken".to_owned())));
            Arc::new(hooks)
        }
    }

    #[test]
    fn the_references_keep_the_promises() {
        pollster::block_on(run(&InMemory));
        pollster::block_on(run_for_hooks(&InMemory));
    }
}
