//! The trading plane in step with a recording: time stands still while it works, so that two runs of one recording
//! write equal journals (REP-2).
//!
//! ```text
//! a tick, its runs durable ─┐
//! a schedule's own moment ──┴▶ receipts, outputs told ─▶ what is due, cycle by cycle ─▶ asleep ─▶ time moves on
//! ```
//!
//! Everything up to the moment is durable when a turn begins, and nothing after it is in the logs: what a cycle sees of
//! the market is a function of the recording alone.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::{Seq, TsMs};
use orchestrator_kernel::ports::clock::{Clock, TimeGap};
use orchestrator_kernel::rfc3339::to_rfc3339;
use orchestrator_trading_plane::plane::TradingHandle;

use super::feed::{RunFollower, read_back_from, take_receipts, wait_for_log};
use crate::service::wiring::trading::{MarketFeed, RecordedStep};

/// Turns within one gap between two receipts that are all taken: nothing is learned in it. Behind them the rest of the
/// gap counts as an absence, which each schedule's misfire policy decides.
const GAP_TURNS_MAX: u32 = 10_000;
/// How long an actor that is down is left alone.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Keeps the plane in step, until it is dropped.
pub(super) async fn keep_step(
    step: RecordedStep,
    feed: MarketFeed,
    clock: Arc<dyn Clock>,
    handle: TradingHandle,
) {
    let RecordedStep { follower, opening } = step;
    let mut recorded = RecordedLogs::behind(&feed, &handle);
    let mut gap = GapTurns::default();
    // The plane has looked once by itself, in the moment in which it started.
    settle_start(&handle).await;
    if let Some((command, origin)) = opening
        && let Err(refused) = handle.execute_command(command, origin).await
    {
        tracing::error!(%refused, "the command that begins the trading was refused");
    }
    loop {
        recorded.read_on().await;
        let now = clock.now().unwrap_or_default();
        let due = work_off(&handle, now).await;
        follower.sleep_until(due).await;
        while let Some(end) = gap.rest_of_gap(clock.as_ref()) {
            follower.sleep_until(Some(end)).await;
        }
    }
}

/// Reader of both logs: the market, and outputs for schedules that wait for them.
struct RecordedLogs<'a> {
    feed: &'a MarketFeed,
    outputs: RunFollower<'a>,
    next_receipt: Seq,
    next_run: Seq,
}

impl<'a> RecordedLogs<'a> {
    /// Begins near the ends: a service that goes on knows the market then.
    fn behind(feed: &'a MarketFeed, handle: &'a TradingHandle) -> Self {
        Self {
            feed,
            outputs: RunFollower::new(&feed.market, handle),
            next_receipt: read_back_from(feed.receipts.stat().tail),
            next_run: read_back_from(feed.runs.stat().tail),
        }
    }

    /// Takes everything that is there; what cannot be read is tried again, because time must not pass it.
    async fn read_on(&mut self) {
        let MarketFeed { market, receipts, runs, committed: _ } = self.feed;
        loop {
            match take_receipts(receipts.as_ref(), market, self.next_receipt, u64::MAX).await {
                Ok(read_to) => break self.next_receipt = read_to,
                Err(error) => wait_for_log("receipts", &error).await,
            }
        }
        loop {
            match self.outputs.take_runs(runs.as_ref(), self.next_run).await {
                Ok(read_to) => break self.next_run = read_to,
                Err(error) => wait_for_log("runs", &error).await,
            }
        }
    }
}

async fn settle_start(handle: &TradingHandle) {
    while let Err(down) = handle.wait_settled().await {
        tracing::debug!(%down, "the start of the trading plane is waited for");
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Does what is due, however often it takes: time does not pass what is not decided.
async fn work_off(handle: &TradingHandle, now: TsMs) -> Option<TsMs> {
    loop {
        match handle.work_off_due(now).await {
            Ok(next) => return next,
            Err(down) => {
                tracing::debug!(%down, "what is due is asked for again");
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
    }
}

/// Count of the turns in the gap that the clock crosses.
#[derive(Debug, Default)]
struct GapTurns {
    gap: Option<TimeGap>,
    turns: u32,
}

impl GapTurns {
    /// Counts a turn. In the middle of a very long gap: the last moment of it, up to which nothing is looked at.
    fn rest_of_gap(&mut self, clock: &dyn Clock) -> Option<TsMs> {
        let gap = clock.crossing_gap();
        if gap != self.gap {
            *self = Self { gap, turns: 0 };
        }
        self.turns = self.turns.saturating_add(1);
        let end = gap?.to.plus_ms(-1);
        if self.turns < GAP_TURNS_MAX || clock.now().is_none_or(|now| end <= now) {
            return None;
        }
        if self.turns == GAP_TURNS_MAX {
            tracing::warn!(
                from = to_rfc3339(clock.now()?),
                to = to_rfc3339(end),
                "a gap of the recording has more than {GAP_TURNS_MAX} turns of the trading plane; the rest of it counts \
                 as an absence"
            );
        }
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;

    /// A clock that crosses a gap from 0 to a million.
    struct CrossingClock(Mutex<i64>);

    #[async_trait]
    impl Clock for CrossingClock {
        fn now(&self) -> Option<TsMs> {
            Some(TsMs(*self.0.lock().unwrap()))
        }
        async fn wait_started(&self) -> TsMs {
            TsMs(0)
        }
        async fn sleep_until(&self, _: TsMs) {}
        fn armed_deadline(&self) -> Option<TsMs> {
            None
        }
        fn crossing_gap(&self) -> Option<TimeGap> {
            Some(TimeGap { from: TsMs(0), to: TsMs(1_000_000) })
        }
        fn is_driven(&self) -> bool {
            true
        }
        async fn advance(&self, _: TsMs) {}
    }

    #[test]
    fn the_rest_of_a_gap_with_very_many_turns_is_slept_through_to_its_last_moment() {
        let clock = CrossingClock(Mutex::new(0));
        let mut gap = GapTurns::default();
        for turn in 1..i64::from(GAP_TURNS_MAX) {
            *clock.0.lock().unwrap() = turn;
            assert_eq!(gap.rest_of_gap(&clock), None, "turn {turn}");
        }

        assert_eq!(gap.rest_of_gap(&clock), Some(TsMs(999_999)));
        assert_eq!(gap.rest_of_gap(&clock), Some(TsMs(999_999)), "a tick in the middle of it brings no turn");
        *clock.0.lock().unwrap() = 999_999;
        assert_eq!(gap.rest_of_gap(&clock), None);
    }
}
