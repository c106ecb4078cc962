//! What the cadence can be told.

use orchestrator_kernel::ids::{RunSeq, TsMs};
use orchestrator_kernel::trading::ids::{CycleId, ScheduleName};
use ractor::RpcReplyPort;

/// An event that schedules may wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleEvent {
    /// The topic that it came by.
    pub topic: String,
    /// Its identifier: the same event again fires nothing.
    pub event_id: String,
    /// When it happened, as it says itself.
    pub at: TsMs,
}

/// Next fire of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextFire {
    /// The schedule.
    pub schedule: ScheduleName,
    /// When it fires next; nothing when time brings none, or when its calendar does not say.
    pub at: Option<TsMs>,
}

/// Requests to the cadence, and messages that it sends to itself.
pub enum CadenceMsg {
    /// Decide what is due. Sent by the actor to itself when time has come.
    Look,
    /// Decide what is due by a driven clock, which waits for the reply. Sent by whoever keeps step with a recording.
    WorkOff(RpcReplyPort<()>),
    /// A cycle of this schedule is over. Sent by the cycles.
    CycleEnded(ScheduleName, CycleId),
    /// Begin again from the journal: something that was decided is not on record. Sent by the cycles, and by itself.
    Reload,
    /// An event came. Sent by whoever consumes the bus; the reply says that what was decided is durable.
    Event(ScheduleEvent, RpcReplyPort<()>),
    /// An output of the engine plane is durable. Sent by whoever reads the run log, in its order; the reply says that
    /// what was decided is durable.
    Output(RunSeq, TsMs, RpcReplyPort<()>),
    /// Report the last output that any schedule has decided: the cursor in the run log.
    LastOutput(RpcReplyPort<Option<RunSeq>>),
    /// Report the next fires, by name.
    NextFires(RpcReplyPort<Vec<NextFire>>),
    /// Fire nothing any more, report.
    Drain(RpcReplyPort<()>),
}
