//! What the trading plane knows of the engine plane: its logs, read as any subscriber reads them.

use std::time::Duration;

use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{RunSeq, Seq};
use orchestrator_kernel::ports::log::{Log, ReadError, ReadLimit};
use orchestrator_trading_plane::plane::TradingHandle;
use tokio_util::task::AbortOnDropHandle;

use crate::service::wiring::trading::{MarketFeed, RecordedMarket};

/// Records before the start that are read so that prices and outputs are known at once.
const READ_BACK: u64 = 10_000;
/// Receipts from which on a follower that is behind goes on near the end: the market's past is of no use.
const BEHIND_MAX: u64 = 1_000_000;
/// How often the receipt log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a log that cannot be read, or a cadence that is down, is left alone.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Feeds the market and the schedules that wait for outputs, until the handles are dropped.
pub(super) fn spawn_followers(feed: MarketFeed, handle: TradingHandle) -> Vec<AbortOnDropHandle<()>> {
    let MarketFeed { market, receipts, runs, mut committed } = feed;
    let prices = std::sync::Arc::clone(&market);
    let of_receipts = tokio::spawn(async move {
        let mut next = read_back_from(receipts.stat().tail);
        loop {
            match take_receipts(receipts.as_ref(), &prices, next, BEHIND_MAX).await {
                Ok(read_to) => next = read_to,
                Err(error) => wait_for_log("receipts", &error).await,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    let of_runs = tokio::spawn(async move {
        let mut follower = RunFollower::new(&market, &handle);
        let mut next = read_back_from(runs.stat().tail);
        loop {
            committed.borrow_and_update();
            match follower.take_runs(runs.as_ref(), next).await {
                Ok(read_to) => next = read_to,
                Err(error) => wait_for_log("runs", &error).await,
            }
            if committed.changed().await.is_err() {
                return;
            }
        }
    });
    [of_receipts, of_runs].map(AbortOnDropHandle::new).into()
}

pub(super) fn read_back_from(tail: Seq) -> Seq {
    Seq(tail.0.saturating_sub(READ_BACK) + 1)
}

pub(super) async fn wait_for_log(log: &'static str, error: &ReadError) {
    tracing::warn!(log, %error, "the trading plane cannot read it now, and tries again");
    tokio::time::sleep(TRY_AGAIN).await;
}

/// Takes everything from `next` on; returns where to go on. Whoever is more than `behind_max` behind goes on near the
/// end.
pub(super) async fn take_receipts(
    log: &dyn Log,
    market: &RecordedMarket,
    mut next: Seq,
    behind_max: u64,
) -> Result<Seq, ReadError> {
    loop {
        let stat = log.stat();
        if behind_max < stat.tail.0.saturating_sub(next.0) {
            next = read_back_from(stat.tail);
        }
        next = next.max(stat.start);
        let batch = log.read(next, ReadLimit::default()).await?;
        if batch.is_empty() {
            return Ok(next);
        }
        for (seq, payload) in batch.iter() {
            next = seq.next();
            if let Ok(receipt) = ReceiptRecord::decode(payload) {
                market.take_receipt(&receipt);
            }
        }
    }
}

/// Reader of the run log.
pub(super) struct RunFollower<'a> {
    market: &'a RecordedMarket,
    handle: &'a TradingHandle,
    /// Outputs below this position are decided, or were there before any schedule waited for one; unknown at first.
    told_below: Option<Seq>,
}

impl<'a> RunFollower<'a> {
    pub(super) const fn new(market: &'a RecordedMarket, handle: &'a TradingHandle) -> Self {
        Self { market, handle, told_below: None }
    }

    pub(super) async fn take_runs(&mut self, log: &dyn Log, mut next: Seq) -> Result<Seq, ReadError> {
        let told_below = match self.told_below {
            Some(told_below) => told_below,
            // A question to the cadence and one to the journal for each output, thousands a second, for nothing.
            None if !self.handle.waits_for_outputs => Seq(u64::MAX),
            None => {
                let decided = self.wait_for_cursor().await;
                // The first start ever fires for what comes, not for what was there.
                let first = decided.map_or(log.stat().tail.next(), |last| Seq::from(last).next());
                next = next.min(first).max(log.stat().start);
                *self.told_below.insert(first)
            }
        };
        loop {
            next = next.max(log.stat().start);
            let batch = log.read(next, ReadLimit::default()).await?;
            if batch.is_empty() {
                return Ok(next);
            }
            for (seq, payload) in batch.iter() {
                next = seq.next();
                let Ok(record) = RunRecord::decode(payload) else { continue };
                if self.market.take_run(&record) && told_below <= seq {
                    self.tell_output(RunSeq::from(seq), &record).await;
                }
            }
        }
    }

    /// The last output that any schedule has decided.
    async fn wait_for_cursor(&self) -> Option<RunSeq> {
        loop {
            match self.handle.last_decided_output().await {
                Ok(decided) => return decided,
                Err(down) => {
                    tracing::debug!(%down, "the cadence is asked again");
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    /// Tells the schedules until they have decided it. One that comes twice fires once.
    async fn tell_output(&self, seq: RunSeq, record: &RunRecord) {
        while let Err(down) = self.handle.take_output(seq, record.facts.engine_timestamp_ms).await {
            tracing::debug!(%down, "the output is told again");
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }
}
