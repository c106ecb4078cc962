//! A fan-out that records, and fails as it is told.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ports::fan_out::{FanOut, OutputMessage, PublishError, Remedy};
use orchestrator_runtime::testkit::CrashPoint;

/// What one attempt does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// Fails with this many messages taken, all of them confirmed.
    FailAfter(usize),
    /// Takes the messages, but is not answered.
    Hang,
    /// Works, but takes this time for each message.
    Slow(Duration),
    /// Panics.
    Panic,
}

#[derive(Debug, Default)]
struct Inner {
    taken: Vec<OutputMessage>,
    next: VecDeque<Publish>,
    always: Option<Publish>,
    held_back: Option<&'static str>,
    unprepared: Option<&'static str>,
    refused: BTreeSet<String>,
    in_doubt: bool,
    attempts: u64,
}

/// What subscribers got, in the order of arrival, repetitions included.
#[derive(Clone, Debug, Default)]
pub struct Outputs(Arc<Mutex<Inner>>);

impl Outputs {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next attempts do this.
    pub fn next(&self, acts: impl IntoIterator<Item = Publish>) {
        self.inner().next.extend(acts);
    }

    /// Lets every further attempt do this; `None`: work.
    pub fn always(&self, act: Option<Publish>) {
        self.inner().always = act;
    }

    /// Refuses the outputs of this symbol for good, or takes them again.
    pub fn refuse(&self, symbol: &str, is_refused: bool) {
        let refused = &mut self.inner().refused;
        let _was = if is_refused { refused.insert(symbol.to_owned()) } else { refused.remove(symbol) };
    }

    /// Says what an operator has to mend before it takes anything.
    pub fn unprepare(&self, reason: Option<&'static str>) {
        self.inner().unprepared = reason;
    }

    /// Says why it takes nothing now.
    pub fn hold_back(&self, reason: Option<&'static str>) {
        self.inner().held_back = reason;
    }

    /// Loses its connection while it takes nothing: until it confirms something nobody knows.
    pub fn leave_in_doubt(&self) {
        let mut inner = self.inner();
        inner.held_back = None;
        inner.in_doubt = true;
    }

    /// Everything that arrived.
    #[must_use]
    pub fn taken(&self) -> Vec<OutputMessage> {
        self.inner().taken.clone()
    }

    /// Attempts made.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.inner().attempts
    }

    /// What a consumer keeps: the first message of each `message_id`.
    #[must_use]
    pub fn deduplicated(&self) -> Vec<OutputMessage> {
        let mut seen = BTreeSet::new();
        self.taken().into_iter().filter(|message| seen.insert(message.message_id())).collect()
    }

    /// Distinct messages that arrived.
    #[must_use]
    pub fn len(&self) -> usize {
        self.deduplicated().len()
    }

    /// Whether nothing arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner().taken.is_empty()
    }
}

/// The fan-out of one process.
#[derive(Debug)]
pub struct RecordingFanOut {
    /// Its name.
    pub name: &'static str,
    /// Where messages go.
    pub outputs: Outputs,
    /// When the process ends.
    pub crash: CrashPoint,
}

impl RecordingFanOut {
    fn refusal(&self, confirmed: usize, detail: &str, remedy: Remedy) -> PublishError {
        PublishError { fan_out: self.name.to_owned(), detail: detail.to_owned(), confirmed, remedy }
    }
}

#[async_trait]
impl FanOut for RecordingFanOut {
    fn name(&self) -> &str {
        self.name
    }

    async fn prepare(&mut self) -> Result<(), PublishError> {
        match self.outputs.inner().unprepared {
            None => Ok(()),
            Some(reason) => Err(self.refusal(0, reason, Remedy::Operator)),
        }
    }

    fn held_back(&self) -> Option<String> {
        self.outputs.inner().held_back.map(str::to_owned)
    }

    fn is_in_doubt(&self) -> bool {
        self.outputs.inner().in_doubt
    }

    async fn publish(&mut self, messages: &[OutputMessage]) -> Result<(), PublishError> {
        self.crash.step().await;
        self.prepare().await?;
        let act = {
            let mut inner = self.outputs.inner();
            inner.attempts += 1;
            inner.next.pop_front().or(inner.always)
        };
        let refused = {
            let inner = self.outputs.inner();
            messages.iter().position(|message| inner.refused.contains(message.symbol.as_str()))
        };
        if let (None, Some(refused)) = (act, refused) {
            self.outputs.inner().taken.extend(messages.iter().take(refused).cloned());
            return Err(self.refusal(refused, "not this symbol, as told", Remedy::NoneForThisOutput));
        }
        let taken = match act {
            None | Some(Publish::Hang | Publish::Slow(_)) => messages.len(),
            Some(Publish::FailAfter(count)) => count.min(messages.len()),
            Some(Publish::Panic) => panic!("the fan-out panics, as told"),
        };
        self.outputs.inner().taken.extend(messages.iter().take(taken).cloned());
        self.crash.step().await;
        match act {
            None => {
                self.outputs.inner().in_doubt = false;
                Ok(())
            }
            Some(Publish::Hang) => std::future::pending().await,
            Some(Publish::Slow(each)) => {
                tokio::time::sleep(each * u32::try_from(messages.len()).unwrap_or(u32::MAX)).await;
                Ok(())
            }
            Some(Publish::FailAfter(_) | Publish::Panic) => Err(self.refusal(taken, "as told", Remedy::Time)),
        }
    }
}
