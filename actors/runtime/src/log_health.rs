//! What an actor knows of the logs that it writes, and when that makes the service not ready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use orchestrator_kernel::ports::log::LogName;
use orchestrator_kernel::ports::observer::{Observation, Observer};

use crate::status::{Condition, StatusBoard};

/// Trouble of a log that takes no append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTrouble {
    /// It does not answer: whether the batch in flight is there is unknown, and it is sent again.
    NoAnswer,
    /// It takes nothing: nothing of the batch is there.
    NoRoom,
}

/// The logs behind one condition. The condition holds as long as one of them is in trouble.
#[derive(Clone)]
pub struct LogHealth {
    condition: Condition,
    board: StatusBoard,
    observer: Arc<dyn Observer>,
    troubles: Arc<Mutex<BTreeMap<LogName, LogTrouble>>>,
}

impl LogHealth {
    /// A log that works so far; `condition` is raised while it does not.
    #[must_use]
    pub fn new(condition: Condition, board: StatusBoard, observer: Arc<dyn Observer>) -> Self {
        Self { condition, board, observer, troubles: Arc::default() }
    }

    /// An attempt to append to `log` failed.
    pub fn note_failed_append(&self, log: LogName, trouble: LogTrouble, detail: &str) {
        self.observer.observe(&Observation::AppendFailed { log });
        self.note_trouble(log, trouble, detail);
    }

    /// `log` is in trouble, as an attempt or a probe told. One line a change.
    pub fn note_trouble(&self, log: LogName, trouble: LogTrouble, detail: &str) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.insert(log, trouble);
        let detail = format!("{log}: {detail}");
        if self.board.raise_condition(self.condition.clone(), detail.clone()) {
            tracing::error!(
                error_kind = self.condition.runbook_word(),
                error_detail = detail,
                log = log.as_str(),
                "cannot append"
            );
        }
    }

    /// `log` has answered. Only one that is known to have room is well again: time proves nothing, and neither does an
    /// answer to less than what was refused.
    pub fn note_answer(&self, log: LogName, has_room: bool) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match troubles.get_mut(&log) {
            None => {}
            Some(trouble) if !has_room => *trouble = LogTrouble::NoRoom,
            Some(_) => {
                troubles.remove(&log);
                if troubles.is_empty() && self.board.clear_condition(&self.condition) {
                    tracing::info!(log = log.as_str(), "appending goes on");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ports::observer::Unobserved;

    use super::*;

    #[test]
    fn the_condition_holds_as_long_as_one_log_is_in_trouble() {
        let board = StatusBoard::default();
        let health = LogHealth::new(Condition::BufferFailing, board.clone(), Arc::new(Unobserved));
        let holds = || board.current_status().conditions.contains_key(&Condition::BufferFailing);

        health.note_failed_append(LogName::Receipts, LogTrouble::NoAnswer, "timed out");
        health.note_failed_append(LogName::Quarantine, LogTrouble::NoRoom, "disk full");
        health.note_answer(LogName::Receipts, true);
        assert!(holds(), "the quarantine is still full");

        health.note_failed_append(LogName::Quarantine, LogTrouble::NoAnswer, "timed out");
        health.note_answer(LogName::Quarantine, false);
        assert!(holds(), "an answer says nothing of room");
        health.note_answer(LogName::Quarantine, true);
        assert!(!holds());
    }
}
