//! A cycle: its stages in order, within their budgets, with gates between them; it ends once.
//!
//! ```text
//!            records                              now, answers, readings
//!               │                                           │
//!  CycleState ◀─┴─ apply          CycleRun ──next_step──▶ AskGates │ CallStage │ Wait │ Append(record) │ Ended
//!  (durable, survives a crash)    (budgets, attempts: a restart loses them and loses nothing)
//! ```
//!
//! The driver does what [`CycleRun::next_step`] says, appends what it is given and applies it. After a crash the same
//! records give the same state, and the cycle goes on under the same id.
//!
//! What may begin, by what has happened:
//!
//! | so far | stages that are begun |
//! |---|---|
//! | all well, or degraded | each enabled one, in order, once its gates allow |
//! | failed, or out of time | critical ones that settle what was executed (PORT, GOV), if anything was |
//! | a gate denied, a stage blocked, cancelled | none |

mod answer;
mod backoff;
mod gates;
mod result;
mod run;
mod state;
mod status;

pub use answer::{CYCLE_DECISIONS_MAX, StrategyAnswer, merge_strategy_answers};
pub use gates::{HookReply, gates_denied};
pub(in crate::trading) use result::error_wire;
pub use result::{CYCLE_RESULT_SCHEMA_VERSION, CycleResult, StageSummary};
pub use run::{AnswerFate, CycleRun, CycleStep, StageCall};
pub use state::{CYCLE_ERRORS_MAX, CycleNow, CycleOutOfOrder, CycleState};
pub use status::{CycleEndReason, CycleErrorCode, CycleStatus};

#[cfg(test)]
mod tests;
