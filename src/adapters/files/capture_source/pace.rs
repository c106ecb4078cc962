//! The pace of a replay: when a recorded item is due.

use std::time::Duration;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::input_time::InputTimes;
use serde::Deserialize;
use tokio::time::Instant;

/// A delay of the taker up to this is caught up; a longer one moves the rest of the replay back.
const CAUGHT_UP_MAX: Duration = Duration::from_millis(100);
/// Longest wait that is computed, so that no absurd timestamp overflows.
const WAIT_MAX: Duration = Duration::from_secs(365 * 86_400);

/// A wait from which on it is said what the replay waits for.
const WAIT_TOLD: Duration = Duration::from_secs(3600);

/// `recv_ts_ms` of an item, if it has one that an exchange's clock can have shown: another one says nothing of the
/// pace.
pub(super) fn recorded_at(item: &[u8]) -> Option<TsMs> {
    #[derive(Deserialize)]
    struct Recorded {
        recv_ts_ms: i64,
    }
    let at = TsMs(serde_json::from_slice::<Recorded>(item).ok()?.recv_ts_ms);
    InputTimes::PLAUSIBLE.check_time(at, None).is_ok().then_some(at)
}

/// Maps recorded times to the runtime's clock. The first recorded time is due at once.
#[derive(Debug)]
pub(super) struct Pace {
    times: f64,
    start: Option<Start>,
    /// The last long wait that was told.
    told: Option<Instant>,
}

#[derive(Debug)]
struct Start {
    /// When `recorded` is due.
    at: Instant,
    recorded: TsMs,
    /// The largest recorded time so far: an item from the past, or without a time, is due with it.
    reached: TsMs,
}

impl Pace {
    /// A pace of `times` the recorded speed, not started.
    pub(super) const fn new(times: f64) -> Self {
        Self { times, start: None, told: None }
    }

    /// When an item recorded at `recorded` is due. Never before an earlier item.
    pub(super) fn due_time(&mut self, recorded: Option<TsMs>, now: Instant) -> Instant {
        let start = match (&mut self.start, recorded) {
            (Some(start), _) => start,
            (None, None) => return now,
            (None, Some(recorded)) => self.start.insert(Start { at: now, recorded, reached: recorded }),
        };
        start.reached = start.reached.max(recorded.unwrap_or(start.reached));
        start.at + scaled_wait(start.reached.0.saturating_sub(start.recorded.0), self.times)
    }

    /// Says once what a replay that seems to stand still waits for.
    pub(super) fn tell_long_wait(&mut self, due: Instant, now: Instant) {
        let wait = due.saturating_duration_since(now);
        if WAIT_TOLD <= wait && self.told.replace(due) != Some(due) {
            tracing::warn!(
                wait_hours = wait.as_secs() / 3600,
                domain = "ingest",
                "the recording has a gap before its next line and is replayed at its own speed; speed = \"max\" does not wait"
            );
        }
    }

    /// Tells that what was `due` is taken `now`: a long delay moves everything after it back, so that the replay never
    /// is denser than the recording.
    pub(super) fn note_taken(&mut self, due: Instant, now: Instant) {
        let late = now.saturating_duration_since(due);
        if let Some(start) = &mut self.start
            && late > CAUGHT_UP_MAX
        {
            start.at += late;
        }
    }
}

fn scaled_wait(recorded_ms: i64, times: f64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 285,000 years of milliseconds")]
    let seconds = recorded_ms.max(0) as f64 / 1e3 / times;
    Duration::try_from_secs_f64(seconds).map_or(WAIT_MAX, |wait| wait.min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelopes_time_is_read_and_not_one_inside_the_payload() {
        let line =
            br#"{"raw_payload":"{\"recv_ts_ms\":1}","normalized":{"recv_ts_ms":2},"recv_ts_ms":1723161255030}"#;

        assert_eq!(recorded_at(line), Some(TsMs(1_723_161_255_030)));
        assert_eq!(recorded_at(b"garbage"), None);
        assert_eq!(recorded_at(br#"{"recv_ts_ms":null}"#), None);
        for absurd in ["0", "1723161255", "1723161255030000", "9223372036854775807"] {
            assert_eq!(
                recorded_at(format!("{{\"recv_ts_ms\":{absurd}}}").as_bytes()),
                None,
                "no wait for {absurd}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn items_are_due_at_their_recorded_distance_divided_by_the_speed() {
        let now = Instant::now();
        let mut pace = Pace::new(2.0);
        let mut due_ms =
            |recorded: Option<i64>| pace.due_time(recorded.map(TsMs), now).duration_since(now).as_millis();

        assert_eq!(due_ms(None), 0);
        assert_eq!(due_ms(Some(1_000)), 0);
        assert_eq!(due_ms(Some(1_500)), 250);
        assert_eq!(due_ms(Some(900)), 250, "time ran backwards: due with the item before it");
        assert_eq!(due_ms(None), 250);
        assert_eq!(due_ms(Some(3_000)), 1_000);
        assert_eq!(due_ms(Some(i64::MAX)), WAIT_MAX.as_millis());
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_delay_moves_the_rest_back_and_a_short_one_does_not() {
        let now = Instant::now();
        let mut pace = Pace::new(1.0);
        let first = pace.due_time(Some(TsMs(0)), now);

        pace.note_taken(first, first + CAUGHT_UP_MAX);
        assert_eq!(pace.due_time(Some(TsMs(1_000)), now), now + Duration::from_secs(1));
        pace.note_taken(first, first + Duration::from_secs(5));
        assert_eq!(pace.due_time(Some(TsMs(1_000)), now), now + Duration::from_secs(6));
    }
}
