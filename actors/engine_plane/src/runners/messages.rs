//! What a symbol's runner can be told, and the group that knows where each one is.

use orchestrator_kernel::engine::cadence::Tick;
use orchestrator_kernel::engine::cut::SymbolCut;
use ractor::{ActorId, RpcReplyPort};

pub use super::Runners;

/// One run to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The runner that it is for. A runner that was started meanwhile gets it anew, in its turn, once it has reported.
    pub runner: ActorId,
    /// Its tick.
    pub tick: Tick,
    /// Its receipts.
    pub cut: SymbolCut,
}

/// Requests to a runner.
pub enum RunnerMsg {
    /// Make this run. Sent by the scheduler, which hands over a bounded number of them.
    Run(Box<Run>),
    /// Tell the scheduler where the symbol stands. Sent by the scheduler when it starts.
    Announce,
    /// Report once the current run is done.
    Drain(RpcReplyPort<()>),
}
