//! The port of the fan-out: where outputs go. It knows no consumer.

use async_trait::async_trait;
use bytes::Bytes;

use crate::engine::run_id::RunId;
use crate::ids::{RunSeq, Symbol};

/// One output on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputMessage {
    /// Position of the terminal run record that this output is a function of.
    pub run_seq: RunSeq,
    /// Which of that record's outputs, counted from 0.
    pub index: u32,
    /// The run.
    pub run_id: RunId,
    /// The `event_type`.
    pub event_type: &'static str,
    /// The symbol.
    pub symbol: Symbol,
    /// Number of this output among the symbol's outputs: 1, 2, 3 … without gap.
    pub symbol_seq: u64,
    /// The OrchestratorEvent in its wire form.
    pub body: Bytes,
}

impl OutputMessage {
    /// What consumers deduplicate on: `{run_id}:{event_type}`.
    #[must_use]
    pub fn message_id(&self) -> String {
        format!("{}:{}", self.run_id, self.event_type)
    }

    /// Position in the output stream, for resuming: `{run_seq}.{index}`.
    #[must_use]
    pub fn stream_id(&self) -> String {
        format!("{}.{}", self.run_seq, self.index)
    }
}

/// Remedy that outputs need before a fan-out takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Time: the same outputs are offered again.
    Time,
    /// Somebody has to change the settings, the rights or the topology there. Nothing is taken until then, so it is
    /// tried on like a passing fault, but said at once.
    Operator,
    /// Nothing that happens by itself: the output behind the confirmed ones is refused for good, whenever it is
    /// offered. Others may be taken.
    NoneForThisOutput,
}

/// Failure of a publication: outputs were not taken. They stay in the run log and are offered again.
#[derive(Debug, thiserror::Error)]
#[error("{fan_out} did not take outputs: {detail}")]
pub struct PublishError {
    /// The provider.
    pub fan_out: String,
    /// What happened, without secrets.
    pub detail: String,
    /// How many messages of the batch, from its start, are confirmed all the same.
    pub confirmed: usize,
    /// What can help.
    pub remedy: Remedy,
}

/// A place that outputs are published to, in order.
#[async_trait]
pub trait FanOut: Send {
    /// Name for logs and metrics.
    fn name(&self) -> &str;

    /// Makes ready to publish before there is anything to publish: what subscribers bind to exists from the start.
    /// Nothing to do when it is ready.
    ///
    /// # Errors
    ///
    /// [`PublishError`] with nothing confirmed. Publishing makes ready too.
    async fn prepare(&mut self) -> Result<(), PublishError> {
        Ok(())
    }

    /// Publishes in order; `Ok` means that every message is confirmed: durable there and routed.
    ///
    /// Messages may come again after a crash or an error: at least once.
    ///
    /// # Errors
    ///
    /// [`PublishError`] with the confirmed prefix (OUT-2).
    async fn publish(&mut self, messages: &[OutputMessage]) -> Result<(), PublishError>;

    /// Why it takes nothing now although it is reached: a broker that blocks its publishers. For people; publishing is
    /// not attempted while it says so.
    fn held_back(&self) -> Option<String> {
        None
    }

    /// Whether it may still be held back although it does not say so: it lost its connection while it was. It is asked
    /// to publish then, and only what it confirms, or what it says, ends the doubt.
    fn is_in_doubt(&self) -> bool {
        false
    }
}
