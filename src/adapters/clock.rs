//! The clocks: the wall, and a recording.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::clock::Clock;

mod recorded;

pub use recorded::{RecordedClock, RecordedFollower};

/// Longest sleep before the wall clock is read again: so late is a jump of the clock noticed.
const SLICE_MAX: Duration = Duration::from_millis(250);

/// The wall clock of the machine, in milliseconds since the Unix epoch.
///
/// It may jump either way. A sleep follows a jump within a quarter of a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock;

#[async_trait]
impl Clock for WallClock {
    fn now(&self) -> Option<TsMs> {
        Some(read_wall())
    }

    async fn wait_started(&self) -> TsMs {
        read_wall()
    }

    async fn sleep_until(&self, deadline: TsMs) {
        sleep_in_slices(deadline, read_wall).await;
    }

    fn armed_deadline(&self) -> Option<TsMs> {
        None
    }

    fn is_driven(&self) -> bool {
        false
    }

    async fn advance(&self, _: TsMs) {}
}

fn read_wall() -> TsMs {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => TsMs(ms(since)),
        Err(before) => TsMs(-ms(before.duration())),
    }
}

async fn sleep_in_slices(deadline: TsMs, read: impl Fn() -> TsMs) {
    loop {
        let left = deadline.0.saturating_sub(read().0);
        match u64::try_from(left) {
            Ok(left_ms) if left_ms > 0 => {
                tokio::time::sleep(Duration::from_millis(left_ms).min(SLICE_MAX)).await;
            }
            Ok(_) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;
