//! Whether a supervisor starts a child again: restart kind, intensity and back-off as one decision.

use std::collections::VecDeque;
use std::time::Duration;

/// Rule for starting a child again after it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Whatever the reason.
    Permanent,
    /// Only after a failure; a normal end is an end.
    Transient,
    /// Never: its death is the supervisor's.
    Never,
}

/// Reaction of a supervisor to a child that fails more often than its intensity allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeyondIntensity {
    /// The supervisor fails too.
    Escalate,
    /// The child stays down and is shown; its siblings go on.
    Halt,
}

/// The restart rules of one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// When it is started again.
    pub restart: Restart,
    /// Restarts allowed within `period`; one more is beyond the intensity.
    pub restarts_max: u32,
    /// The window of `restarts_max`.
    pub period: Duration,
    /// Delay of the first restart in a window; doubled for each further one up to `backoff_max`.
    pub backoff_min: Duration,
    /// Longest delay.
    pub backoff_max: Duration,
    /// What happens beyond the intensity.
    pub beyond: BeyondIntensity,
}

/// End of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildExit {
    /// It stopped by itself.
    Normal,
    /// It failed or panicked, or could not start.
    Failed,
}

/// Reaction of the supervisor to a child's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartVerdict {
    /// Start it again after this delay.
    RestartAfter(Duration),
    /// Leave it down; that is in order.
    Leave,
    /// Leave it down and say so: it failed too often.
    Halt,
    /// Fail.
    Escalate,
}

/// The recent restarts of one child. `now` is monotonic time since any fixed moment.
#[derive(Clone, Debug)]
pub struct RestartBudget {
    policy: RestartPolicy,
    recent: VecDeque<Duration>,
}

impl RestartBudget {
    /// A child that has not been restarted yet.
    #[must_use]
    pub const fn new(policy: RestartPolicy) -> Self {
        Self { policy, recent: VecDeque::new() }
    }

    /// Decides after an exit at `now`.
    pub fn on_exit(&mut self, exit: ChildExit, now: Duration) -> RestartVerdict {
        match (self.policy.restart, exit) {
            (Restart::Transient, ChildExit::Normal) => return RestartVerdict::Leave,
            (Restart::Never, ChildExit::Normal | ChildExit::Failed) => return self.verdict_beyond(),
            (Restart::Permanent, ChildExit::Normal | ChildExit::Failed)
            | (Restart::Transient, ChildExit::Failed) => {}
        }
        while self.recent.front().is_some_and(|at| now.saturating_sub(*at) >= self.policy.period) {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.policy.restarts_max as usize {
            return self.verdict_beyond();
        }
        let doublings = u32::try_from(self.recent.len()).unwrap_or(u32::MAX).min(31);
        self.recent.push_back(now);
        RestartVerdict::RestartAfter(
            self.policy.backoff_min.saturating_mul(1 << doublings).min(self.policy.backoff_max),
        )
    }

    const fn verdict_beyond(&self) -> RestartVerdict {
        match self.policy.beyond {
            BeyondIntensity::Escalate => RestartVerdict::Escalate,
            BeyondIntensity::Halt => RestartVerdict::Halt,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn policy(restart: Restart, beyond: BeyondIntensity) -> RestartPolicy {
        RestartPolicy {
            restart,
            restarts_max: 2,
            period: Duration::from_secs(60),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_millis(150),
            beyond,
        }
    }

    #[test]
    fn intensity_is_counted_in_a_sliding_window() {
        let mut budget = RestartBudget::new(policy(Restart::Permanent, BeyondIntensity::Escalate));
        let at = Duration::from_secs;

        assert_eq!(
            budget.on_exit(ChildExit::Failed, at(0)),
            RestartVerdict::RestartAfter(Duration::from_millis(100))
        );
        assert_eq!(
            budget.on_exit(ChildExit::Normal, at(59)),
            RestartVerdict::RestartAfter(Duration::from_millis(150))
        );
        assert_eq!(
            budget.on_exit(ChildExit::Failed, at(60)),
            RestartVerdict::RestartAfter(Duration::from_millis(150))
        );
        assert_eq!(budget.on_exit(ChildExit::Failed, at(61)), RestartVerdict::Escalate);
    }

    #[test]
    fn kinds_differ_in_what_a_normal_end_means() {
        let verdict = |restart, exit| {
            RestartBudget::new(policy(restart, BeyondIntensity::Halt)).on_exit(exit, Duration::ZERO)
        };

        assert_eq!(verdict(Restart::Transient, ChildExit::Normal), RestartVerdict::Leave);
        assert!(matches!(verdict(Restart::Transient, ChildExit::Failed), RestartVerdict::RestartAfter(_)));
        assert!(matches!(verdict(Restart::Permanent, ChildExit::Normal), RestartVerdict::RestartAfter(_)));
        assert_eq!(verdict(Restart::Never, ChildExit::Normal), RestartVerdict::Halt);
    }

    proptest! {
        #[test]
        fn no_window_holds_more_restarts_than_allowed(gaps in prop::collection::vec(0..30u64, 1..200)) {
            let mut budget = RestartBudget::new(policy(Restart::Permanent, BeyondIntensity::Halt));
            let mut now = Duration::ZERO;
            let mut restarts: Vec<Duration> = Vec::new();
            for gap in gaps {
                now += Duration::from_secs(gap);
                if let RestartVerdict::RestartAfter(_) = budget.on_exit(ChildExit::Failed, now) {
                    restarts.push(now);
                }
                let recent = restarts.iter().filter(|at| now - **at < Duration::from_secs(60)).count();
                prop_assert!(recent <= 2);
            }
        }
    }
}
