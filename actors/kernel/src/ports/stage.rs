//! The ports of a stage's work and of a hook's answer: built in, behind HTTP, or in a worker process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::trading::decision::TradeDecision;
use crate::trading::gate::{GatePlace, HookAnswer, HookError};
use crate::trading::ids::{StageName, StrategyName};
use crate::trading::journal::{CycleStarted, StageError, StageErrorKind, StageOutput};
use crate::trading::stage::{HookMoment, HookSpec, StageSpec};

/// One attempt of a stage, with everything that it may work from.
#[derive(Clone, Debug)]
pub struct StageRequest {
    /// The cycle.
    pub started: Arc<CycleStarted>,
    /// The stage.
    pub stage: StageSpec,
    /// Number of the attempt, from 1 on. With cycle, stage and strategy it names what is asked: the same again is the
    /// same question.
    pub attempt: u32,
    /// The strategy that decisions are wanted for; nothing where the stage works for all of them at once.
    pub strategy: Option<StrategyName>,
    /// Outputs of the stages before, in their order.
    pub outputs: Arc<Vec<(StageName, StageOutput)>>,
    /// The cycle's decisions so far, in their order.
    pub decisions: Arc<Vec<TradeDecision>>,
    /// Time for the answer, by monotonic time. One that comes later is thrown away.
    pub time_left: Duration,
}

impl StageRequest {
    /// What is asked, as one text: `cycle/stage/strategy/attempt`. A provider that meets it again may answer as it did.
    #[must_use]
    pub fn question_key(&self) -> String {
        let strategy = self.strategy.as_ref().map_or("", StrategyName::as_str);
        format!("{}/{}/{strategy}/{}", self.started.cycle_id, self.stage.name, self.attempt)
    }
}

/// Backend that does the work of stages.
#[async_trait]
pub trait StageBackend: Send + Sync {
    /// Does a stage's work once. The caller may drop the future at any moment, and then takes no answer.
    ///
    /// # Errors
    ///
    /// [`StageError`], of the kind that says whether there was an answer.
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError>;
}

/// One question to a hook.
#[derive(Clone, Debug)]
pub struct HookRequest {
    /// The cycle.
    pub started: Arc<CycleStarted>,
    /// The hook.
    pub hook: HookSpec,
    /// Where in the cycle it is asked.
    pub place: GatePlace,
    /// The cycle's decisions so far.
    pub decisions: Arc<Vec<TradeDecision>>,
}

impl HookRequest {
    /// What is asked, as one text: `cycle/hook/moment`. A hook has one place in its pipeline.
    #[must_use]
    pub fn question_key(&self) -> String {
        let moment = match self.hook.moment {
            HookMoment::Before => "before",
            HookMoment::After => "after",
        };
        format!("{}/{}/{moment}", self.started.cycle_id, self.hook.name)
    }
}

/// Backend that answers for hooks.
#[async_trait]
pub trait HookBackend: Send + Sync {
    /// Asks a hook once. Its budget is kept by the caller, who drops the future.
    ///
    /// # Errors
    ///
    /// [`HookError`]: it did not answer, or not in a form that counts.
    async fn ask_hook(&self, request: HookRequest) -> Result<HookAnswer, HookError>;
}

#[derive(Debug, Default)]
struct StageScript {
    answers: BTreeMap<String, VecDeque<Result<StageOutput, StageError>>>,
    asked: Vec<String>,
}

/// The reference: stages that answer what they were told, and an empty object when they were told nothing.
#[derive(Debug, Default)]
pub struct MemoryStages(Mutex<StageScript>);

impl MemoryStages {
    fn lock_script(&self) -> MutexGuard<'_, StageScript> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next attempt of `stage` end so.
    pub fn push_answer(&self, stage: &str, answer: Result<StageOutput, StageError>) {
        self.lock_script().answers.entry(stage.to_owned()).or_default().push_back(answer);
    }

    /// The stages that were called, in order.
    #[must_use]
    pub fn asked_stages(&self) -> Vec<String> {
        self.lock_script().asked.clone()
    }
}

#[async_trait]
impl StageBackend for MemoryStages {
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
        let mut script = self.lock_script();
        let name = request.stage.name.to_string();
        script.asked.push(name.clone());
        let told = script.answers.get_mut(&name).and_then(VecDeque::pop_front);
        told.unwrap_or_else(|| Ok(StageOutput { data: "{}".to_owned(), ..StageOutput::default() }))
    }
}

/// Hooks of which there are none: each asked one is unavailable, which a HARD hook's denial is.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHooks;

#[async_trait]
impl HookBackend for NoHooks {
    async fn ask_hook(&self, request: HookRequest) -> Result<HookAnswer, HookError> {
        Err(HookError::Failed(format!("nobody answers for hook {}", request.hook.name)))
    }
}

/// The reference: hooks that answer what they were told, and are unavailable when they were told nothing.
#[derive(Debug, Default)]
pub struct MemoryHooks(Mutex<BTreeMap<String, Result<HookAnswer, HookError>>>);

impl MemoryHooks {
    /// Lets `hook` answer so.
    pub fn set_answer(&self, hook: &str, answer: Result<HookAnswer, HookError>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(hook.to_owned(), answer);
    }
}

#[async_trait]
impl HookBackend for MemoryHooks {
    async fn ask_hook(&self, request: HookRequest) -> Result<HookAnswer, HookError> {
        let told = {
            let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            answers.get(request.hook.name.as_str()).cloned()
        };
        match told {
            Some(answer) => answer,
            None => NoHooks.ask_hook(request).await,
        }
    }
}

/// The error of a stage whose provider is not there.
#[must_use]
pub fn unavailable_stage(stage: &StageName) -> StageError {
    StageError::new(StageErrorKind::Unavailable, &format!("nobody does the work of stage {stage}"))
}
