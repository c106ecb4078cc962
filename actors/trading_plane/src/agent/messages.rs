//! What the agent can be told.

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::trading::ids::CycleId;
use ractor::RpcReplyPort;

use crate::command::{CommandAnswer, CommandOrigin, CommandRefused, TradingCommand};

/// Requests to the agent, and messages that it sends to itself.
pub enum AgentMsg {
    /// Carry out a command. Sent by a face, which waits for the reply; if it goes away, the command is carried out all
    /// the same.
    Execute {
        /// The command.
        command: TradingCommand,
        /// Where it came from.
        origin: CommandOrigin,
        /// Its answer, once that is durable.
        reply: RpcReplyPort<Result<CommandAnswer, CommandRefused>>,
    },
    /// The audit of this cycle failed and fails closed. Sent by the cycles.
    AuditFailed(CycleId),
    /// An error occurred somewhere that by policy pauses. Sent by whoever consumes `system.error.occurred`.
    ErrorOccurred(String),
    /// The time of a pause may have come. Sent by the actor to itself.
    PauseDue,
    /// Do what is due by a driven clock, and report when the pause ends. Sent by whoever keeps step with a recording.
    WorkOff(RpcReplyPort<Option<TsMs>>),
    /// Finish what is in flight, report.
    Drain(RpcReplyPort<()>),
}
