//! What the scheduler can be told, and for which symbols it makes runs.

use orchestrator_kernel::ids::{IngestSeq, Symbol, TsMs};
use ractor::{ActorId, RpcReplyPort};

/// Requests to the scheduler, facts told to it, and messages that it sends to itself.
pub enum SchedulerMsg {
    /// The clock reached the armed time.
    Wake,
    /// A runner is up. Sent by a runner after its start, once it has finished what a crash interrupted.
    RunnerUp {
        /// Its symbol.
        symbol: Symbol,
        /// Which one it is among the symbol's runners of this process.
        runner: ActorId,
        /// Where its next cut starts; `None` before its first.
        next_start: Option<IngestSeq>,
        /// Its last engine timestamp.
        floor: Option<TsMs>,
    },
    /// A run has its terminal record. Sent by its runner.
    RunEnded {
        /// Its symbol.
        symbol: Symbol,
        /// Planned time of its tick.
        planned: TsMs,
    },
    /// A symbol was stopped for good. Sent by the supervisor of the runners.
    RunnerHalted(Symbol),
    /// Receipts of new symbols are durable. Sent by the buffer.
    Discovered(Vec<Symbol>),
    /// Wait no longer for runners that have not reported. Sent by the scheduler to itself after its start.
    StopGathering,
    /// Look again whether publishing still holds the schedule back.
    Resume,
    /// Look whether the wall clock is behind the logs.
    LookAtClock,
    /// Make no more runs; report.
    Drain(RpcReplyPort<()>),
}

/// Choice of the symbols that are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Universe {
    /// These.
    Listed(Vec<Symbol>),
    /// Each that has a receipt, up to a limit.
    Discover {
        /// Symbols at most.
        limit: usize,
    },
}
