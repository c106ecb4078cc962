//! What comes when: the sequence of items, as a function of the seed and of the times at which it is asked.

use std::collections::VecDeque;

use bytes::Bytes;
use orchestrator_kernel::ports::source::RawItem;

use super::DemoFeedOptions;
use super::events;
use super::market::Market;
use super::random::Random;

/// Once in so many events: the exact bytes come a second time.
const DUPLICATE_ONE_IN: u32 = 400;
/// Once in so many events: something that is no receipt.
const GARBAGE_ONE_IN: u32 = 2_000;
/// Once in so many events: a type that nobody knows.
const UNKNOWN_ONE_IN: u32 = 1_000;
/// Once in so many events: a DecodeFailure.
const DECODE_FAILURE_ONE_IN: u32 = 1_000;
/// Once in so many steps of a busy feed: a burst.
const BURST_ONE_IN: u32 = 500;
/// Events of a burst at most.
const BURST_MAX: u32 = 400;
/// Once in so many boundaries of a symbol: its snapshot is left out.
const OMITTED_ONE_IN: u32 = 40;

/// The synthetic exchange. Numbers its items on from where it resumes.
pub(super) struct Generator {
    random: Random,
    markets: Vec<Market>,
    position: u64,
    snapshot_interval_ms: i64,
    snapshot_lag_ms: i64,
    /// The last boundary whose snapshots were made, or that passed before the start.
    boundary_ms: Option<i64>,
    pending: VecDeque<RawItem>,
}

impl Generator {
    /// A generator that goes on after `position`. Options must have been checked.
    pub(super) fn new(options: &DemoFeedOptions, position: u64) -> Self {
        // Another sequence after each restart: the feed goes on, it does not repeat itself.
        let mut random = Random::new(options.seed, position);
        let markets = options.symbols.iter().map(|symbol| Market::new(symbol, &mut random)).collect();
        Self {
            random,
            markets,
            position,
            snapshot_interval_ms: i64::from(options.snapshot_interval_ms),
            snapshot_lag_ms: i64::from(options.snapshot_lag_ms),
            boundary_ms: None,
            pending: VecDeque::new(),
        }
    }

    /// Makes `count` events of time `now_ms`, sometimes a burst of more, and the snapshots that are due.
    pub(super) fn make_events(&mut self, now_ms: i64, count: u64) {
        let is_burst = count > 0 && self.random.one_in(BURST_ONE_IN);
        let burst = if is_burst { BURST_MAX / 4 + self.random.next_below(BURST_MAX * 3 / 4) } else { 0 };
        for _ in 0..count + u64::from(burst) {
            self.make_event(now_ms);
        }
        self.make_due_snapshots(now_ms);
    }

    /// Takes up to `max` of the items made.
    pub(super) fn take_items(&mut self, max: usize) -> Vec<RawItem> {
        self.pending.drain(..max.min(self.pending.len())).collect()
    }

    fn make_event(&mut self, now_ms: i64) {
        let random = &mut self.random;
        let index = random.next_below(u32::try_from(self.markets.len()).unwrap_or(u32::MAX));
        let Some(market) = self.markets.get_mut(index as usize) else { return };
        let bytes = if random.one_in(GARBAGE_ONE_IN) {
            events::garbage_bytes(now_ms, random)
        } else if random.one_in(UNKNOWN_ONE_IN) {
            events::unknown_event(market, now_ms, random)
        } else if random.one_in(DECODE_FAILURE_ONE_IN) {
            events::decode_failure(market, now_ms, random)
        } else {
            events::random_event(market, now_ms, random)
        };
        if random.one_in(DUPLICATE_ONE_IN) {
            self.queue_item(bytes.clone());
        }
        self.queue_item(bytes);
    }

    /// Makes the snapshots of the newest boundary. Boundaries skipped by a jump of the clock have none, and no boundary
    /// has them twice.
    fn make_due_snapshots(&mut self, now_ms: i64) {
        let due = now_ms - self.snapshot_lag_ms;
        let boundary_ms = due - due.rem_euclid(self.snapshot_interval_ms);
        let last = *self.boundary_ms.get_or_insert(boundary_ms);
        if boundary_ms <= last {
            return;
        }
        self.boundary_ms = Some(boundary_ms);
        for index in 0..self.markets.len() {
            if self.random.one_in(OMITTED_ONE_IN) {
                continue;
            }
            if let Some(market) = self.markets.get_mut(index) {
                let bytes = events::snapshot_event(market, boundary_ms, now_ms, &mut self.random);
                self.queue_item(bytes);
            }
        }
    }

    fn queue_item(&mut self, bytes: Bytes) {
        self.position += 1;
        self.pending.push_back(RawItem {
            position: Some(self.position),
            bytes,
            oversized: None,
            topic: None,
        });
    }
}
