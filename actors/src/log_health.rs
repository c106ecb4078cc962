//! What an actor knows of the logs that it writes, and when that makes the service not ready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use orchestrator_kernel::ports::observer::{Observation, Observer};

use crate::status::{Condition, StatusBoard};

/// What is wrong with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It does not answer: whether the batch in flight is there is unknown, and it is sent again.
    NoAnswer,
    /// It takes nothing: nothing of the batch is there.
    NoRoom,
}

/// The logs behind one condition. The condition holds as long as one of them is in trouble.
#[derive(Clone)]
pub(crate) struct LogHealth {
    condition: Condition,
    board: StatusBoard,
    observer: Arc<dyn Observer>,
    troubles: Arc<Mutex<BTreeMap<&'static str, Trouble>>>,
}

impl LogHealth {
    pub(crate) fn new(condition: Condition, board: StatusBoard, observer: Arc<dyn Observer>) -> Self {
        Self { condition, board, observer, troubles: Arc::default() }
    }

    /// An attempt on `log` failed.
    pub(crate) fn failed(&self, log: &'static str, trouble: Trouble, detail: &str) {
        self.observer.observe(&Observation::AppendFailed { log });
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.insert(log, trouble);
        let detail = format!("{log}: {detail}");
        if self.board.raise(self.condition.clone(), detail.clone()) {
            tracing::error!(error_kind = self.condition.word(), error_detail = detail, log, "cannot append");
        }
    }

    /// Records were appended to `log`.
    pub(crate) fn works(&self, log: &'static str) {
        self.over(log, |_| true);
    }

    /// `log` answers. Whether it has room again is not known by that.
    pub(crate) fn answers(&self, log: &'static str) {
        self.over(log, |trouble| trouble == Trouble::NoAnswer);
    }

    /// `log` is given another chance, because only an attempt can tell whether there is room.
    pub(crate) fn give_a_chance(&self, log: &'static str) {
        self.over(log, |trouble| trouble == Trouble::NoRoom);
    }

    fn over(&self, log: &'static str, is_over: impl Fn(Trouble) -> bool) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.get(log).copied().is_some_and(is_over) {
            troubles.remove(log);
            if troubles.is_empty() && self.board.clear(&self.condition) {
                tracing::info!(log, "appending goes on");
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
        let holds = || board.read().conditions.contains_key(&Condition::BufferFailing);

        health.failed("receipts", Trouble::NoAnswer, "timed out");
        health.failed("quarantine", Trouble::NoRoom, "disk full");
        health.works("receipts");
        assert!(holds(), "the quarantine is still full");

        health.answers("quarantine");
        assert!(holds(), "an answer says nothing of room");
        health.give_a_chance("quarantine");
        assert!(!holds());
    }
}
