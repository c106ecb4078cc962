//! The demo feed: a seeded synthetic exchange, so that the first command shows something.
//!
//! It sends what real feeds send: every type of event, bursts, exact duplicates, skewed clocks, unknown types, lines
//! that are no receipts, and now and then no snapshot where one is due. Never trade on it.

mod events;
mod generator;
mod market;
mod random;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ids::{Origin, Symbol};
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::source::{
    ResumeAt, Settlement, Source, SourceBatch, SourceError, SourceFactory,
};
use orchestrator_kernel::ports::unsettled::{Turn, Unsettled};
use tokio::time::Instant;

use self::generator::Generator;

/// Time between two steps of the feed.
const STEP: Duration = Duration::from_millis(STEP_MS);
const STEP_MS: u64 = 10;
/// A feed that is later than this does not catch up: it goes on from now.
const CAUGHT_UP_MAX: Duration = Duration::from_millis(250);
/// Items of a batch at most.
const BATCH_ITEMS_MAX: usize = 512;
/// Batches that may be unsettled at once.
const UNSETTLED_BATCHES_MAX: usize = 8;
/// Largest rate: what a step makes stays small.
pub const RATE_PER_SECOND_MAX: u32 = 1_000_000;

/// Settings of the demo feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoFeedOptions {
    /// Name of the source; the origin of its items.
    pub name: String,
    /// One seed (and one start) gives one sequence of events, on every platform; their times are those of the clock.
    pub seed: u64,
    /// At least one, each 1 to 128 bytes without control characters.
    pub symbols: Vec<String>,
    /// Events a second, of all symbols together, besides snapshots and bursts. 0 sends snapshots only; up to
    /// [`RATE_PER_SECOND_MAX`].
    pub rate_per_second: u32,
    /// Each symbol has a snapshot at each multiple of this. More than 0.
    pub snapshot_interval_ms: u32,
    /// How long after its boundary a snapshot comes. Less than the scheduler's delay, or its run misses it.
    pub snapshot_lag_ms: u32,
    /// After how long the feed ends; never if nothing.
    pub duration: Option<Duration>,
}

impl Default for DemoFeedOptions {
    /// Three symbols, 200 events a second, snapshots every 3 s with a lag of 50 ms, without end.
    fn default() -> Self {
        Self {
            name: "demo".to_owned(),
            seed: 1,
            symbols: ["BTCUSDT", "ETHUSDT", "SOLUSDT"].map(str::to_owned).into(),
            rate_per_second: 200,
            snapshot_interval_ms: 3_000,
            snapshot_lag_ms: 50,
            duration: None,
        }
    }
}

impl DemoFeedOptions {
    fn check_ranges(&self) -> Result<(), SourceError> {
        let wrong = if self.symbols.is_empty() {
            "symbols must not be empty".to_owned()
        } else if let Some(symbol) = self.symbols.iter().find(|symbol| !Symbol::is_valid(symbol)) {
            format!("symbol {symbol:?} must have 1 to 128 bytes and no control characters")
        } else if self.rate_per_second > RATE_PER_SECOND_MAX {
            format!("rate_per_second must be at most {RATE_PER_SECOND_MAX}, found {}", self.rate_per_second)
        } else if self.snapshot_interval_ms == 0 {
            "snapshot_interval_ms must be more than 0".to_owned()
        } else {
            return Ok(());
        };
        Err(SourceError::Fatal { detail: format!("demo feed {}: {wrong}", self.name) })
    }
}

/// Opens the demo feed. After a restart it simply numbers on: nothing of a synthetic feed has to be read again.
#[derive(Clone)]
pub struct DemoFeedFactory {
    options: DemoFeedOptions,
    clock: Arc<dyn Clock>,
}

impl DemoFeedFactory {
    /// A feed whose events carry the time of `clock`, which must not be a driven one.
    #[must_use]
    pub fn new(options: DemoFeedOptions, clock: Arc<dyn Clock>) -> Self {
        Self { options, clock }
    }
}

#[async_trait]
impl SourceFactory for DemoFeedFactory {
    fn name(&self) -> &str {
        &self.options.name
    }

    /// # Errors
    ///
    /// [`SourceError::Fatal`] when an option is out of range or the clock is driven by receipts.
    async fn open_source(&self, resume: ResumeAt) -> Result<Box<dyn Source>, SourceError> {
        self.options.check_ranges()?;
        if self.clock.is_driven() {
            let detail =
                "the demo feed needs the wall clock; a recorded clock waits for the feed itself".to_owned();
            return Err(SourceError::Fatal { detail });
        }
        let now = Instant::now();
        Ok(Box::new(DemoFeed {
            generator: Generator::new(&self.options, resume.position),
            clock: Arc::clone(&self.clock),
            rate_per_second: u64::from(self.options.rate_per_second),
            unsettled: Unsettled::new(Origin::from(self.options.name.as_str()), UNSETTLED_BATCHES_MAX),
            next_step: now,
            ends_at: self.options.duration.map(|duration| now + duration),
            owed: 0,
        }))
    }
}

/// An open feed.
struct DemoFeed {
    generator: Generator,
    clock: Arc<dyn Clock>,
    rate_per_second: u64,
    unsettled: Unsettled,
    next_step: Instant,
    ends_at: Option<Instant>,
    /// Thousandths of an event that earlier steps left over.
    owed: u64,
}

impl DemoFeed {
    /// Makes what is due at the next step. Cancel safe: it waits first and does everything else at once.
    async fn make_due_events(&mut self) -> Result<(), SourceError> {
        tokio::time::sleep_until(self.next_step).await;
        let Some(now) = self.clock.now() else {
            return Err(SourceError::Lost {
                detail: "the clock of the demo feed has not started".to_owned(),
            });
        };
        self.owed += self.rate_per_second * STEP_MS;
        self.generator.make_events(now.0, self.owed / 1_000);
        self.owed %= 1_000;
        let late = self.next_step.elapsed();
        self.next_step += if late > CAUGHT_UP_MAX { late + STEP } else { STEP };
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.ends_at.is_some_and(|end| self.next_step >= end)
    }
}

#[async_trait]
impl Source for DemoFeed {
    async fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        match self.unsettled.next_turn() {
            Turn::Again(batch) => return Ok(Some(batch)),
            // A settlement needs `self` too, so it always comes after this future was dropped.
            Turn::Wait => return std::future::pending().await,
            Turn::Fresh => {}
        }
        loop {
            let items = self.generator.take_items(BATCH_ITEMS_MAX);
            if !items.is_empty() {
                return Ok(Some(self.unsettled.hand_over(items)));
            }
            match (self.has_ended(), self.unsettled.is_empty()) {
                (false, _) => self.make_due_events().await?,
                (true, true) => return Ok(None),
                // A refused batch may still have to come again.
                (true, false) => return std::future::pending().await,
            }
        }
    }

    async fn settle_batch(&mut self, id: u64, settlement: Settlement) -> Result<(), SourceError> {
        self.unsettled.settle_oldest(id, &settlement)
    }
}

#[cfg(test)]
mod tests;
