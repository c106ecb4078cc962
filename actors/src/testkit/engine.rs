//! An engine that is a pure function with a visible state, and fails as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::EngineMode;
use orchestrator_kernel::ports::engine::{Engine, EngineAnswer, EngineCall, EngineError, EngineIdentity};
use orchestrator_runtime::testkit::CrashPoint;

/// What one call does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Answers.
    Answer,
    /// Answers after this time.
    AnswerAfter(Duration),
    /// Fails with this kind.
    Fail(ErrorKind),
    /// Never answers.
    Hang,
    /// Panics.
    Panic,
}

#[derive(Debug, Default)]
struct Script {
    /// Per symbol: what the next calls do; when it is empty they do `always`.
    next: BTreeMap<String, VecDeque<Act>>,
    always: BTreeMap<String, Act>,
    fails: Option<fn(&EngineCall) -> bool>,
    calls: Vec<(tokio::time::Instant, EngineCall)>,
}

/// The engine.
#[derive(Debug)]
pub struct TestEngine {
    script: Mutex<Script>,
    crash: Mutex<CrashPoint>,
}

impl Default for TestEngine {
    fn default() -> Self {
        Self { script: Mutex::default(), crash: Mutex::new(CrashPoint::never()) }
    }
}

impl TestEngine {
    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next calls for `symbol` do this, one after the other.
    pub fn next(&self, symbol: &str, acts: impl IntoIterator<Item = Act>) {
        self.script().next.entry(symbol.to_owned()).or_default().extend(acts);
    }

    /// Lets every further call for `symbol` do this.
    pub fn always(&self, symbol: &str, act: Act) {
        self.script().always.insert(symbol.to_owned(), act);
    }

    /// Lets every call fail of which `fails` says so: a failure that is a function of the call, as the answer is.
    pub fn fails(&self, fails: fn(&EngineCall) -> bool) {
        self.script().fails = Some(fails);
    }

    /// From now on the steps of this point count.
    pub fn set_crash(&self, crash: &CrashPoint) {
        *self.crash.lock().unwrap_or_else(PoisonError::into_inner) = crash.clone();
    }

    /// The calls made, each with its time.
    #[must_use]
    pub fn calls(&self) -> Vec<(tokio::time::Instant, EngineCall)> {
        self.script().calls.clone()
    }

    /// The calls made for `symbol`.
    #[must_use]
    pub fn calls_of(&self, symbol: &str) -> usize {
        self.script().calls.iter().filter(|(_, call)| call.symbol.as_str() == symbol).count()
    }

    /// The answer: counts the symbol's runs in its state, and shows inputs and count.
    #[must_use]
    pub fn answer(call: &EngineCall) -> EngineAnswer {
        let ts = call.engine_timestamp_ms;
        let size = call.inputs.len();
        let count = call.state.as_deref().map_or(0, |state| state.parse::<u64>().expect("our state")) + 1;
        let regime_output =
            format!(r#"{{"inputs":{size},"regime":"r{}","symbol":"{}"}}"#, ts.0 % 7, call.symbol);
        match call.mode {
            EngineMode::Truth => EngineAnswer::Truth { regime_output },
            EngineMode::Hysteresis => EngineAnswer::Hysteresis {
                decision: format!(r#"{{"count":{count},"selected_output":{regime_output}}}"#),
                state: count.to_string(),
            },
        }
    }
}

#[async_trait]
impl Engine for TestEngine {
    fn identity(&self) -> EngineIdentity {
        EngineIdentity { name: "test".to_owned(), version: "1".to_owned(), code_hash: String::new() }
    }

    async fn call(&self, call: &EngineCall) -> Result<EngineAnswer, EngineError> {
        self.call_as(call, None).await
    }
}

impl TestEngine {
    /// One call that does `act`; without it, what the script says.
    ///
    /// # Errors
    ///
    /// As told.
    ///
    /// # Panics
    ///
    /// As told.
    pub async fn call_as(&self, call: &EngineCall, act: Option<Act>) -> Result<EngineAnswer, EngineError> {
        let crash = self.crash.lock().unwrap_or_else(PoisonError::into_inner).clone();
        crash.step().await;
        let symbol = call.symbol.as_str();
        let act = self.act(call, act);
        if let Act::Fail(kind) = act {
            crash.step().await;
            return Err(EngineError::from_engine(kind, "as told"));
        }
        match act {
            Act::Answer | Act::Fail(_) => {}
            Act::AnswerAfter(time) => tokio::time::sleep(time).await,
            Act::Hang => std::future::pending().await,
            Act::Panic => panic!("the engine panics for {symbol}, as told"),
        }
        crash.step().await;
        Ok(Self::answer(call))
    }

    fn act(&self, call: &EngineCall, told: Option<Act>) -> Act {
        let mut script = self.script();
        script.calls.push((tokio::time::Instant::now(), call.clone()));
        if let Some(act) = told {
            return act;
        }
        let symbol = call.symbol.as_str();
        let next = script.next.get_mut(symbol).and_then(VecDeque::pop_front);
        let fails = script.fails.is_some_and(|fails| fails(call));
        let fails = fails.then_some(Act::Fail(ErrorKind::EngineFailure));
        next.or(fails).or_else(|| script.always.get(symbol).cloned()).unwrap_or(Act::Answer)
    }
}
