//! A batch on its way: what was decoded, what was refused, and what becomes of each item.

use std::sync::Arc;

use orchestrator_kernel::engine::contracts::quarantine::{KEPT_BYTES_MAX, QuarantineRecord, describe_cut};
use orchestrator_kernel::engine::contracts::raw_market_event::NotAReceipt;
use orchestrator_kernel::ids::{Origin, TsMs};
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::ports::source::{ItemFate, PositionSpan, RawItem};

use crate::buffer::messages::Arrival;

/// A batch after decoding.
pub(super) struct DecodedBatch {
    pub(super) id: u64,
    pub(super) origin: Origin,
    pub(super) span: Option<PositionSpan>,
    pub(super) arrivals: Vec<Arrival>,
    /// Index in the batch, position, reason, item.
    pub(super) refused: Vec<(usize, u64, NotAReceipt, RawItem)>,
}

/// Fates of a batch's items, in the order of the batch.
pub(super) struct ItemFates {
    items: Vec<Option<ItemFate>>,
    at: usize,
}

impl ItemFates {
    pub(super) fn new(sorted: &DecodedBatch) -> Self {
        let mut items = vec![None; sorted.arrivals.len() + sorted.refused.len()];
        for (index, _, why, _) in &sorted.refused {
            if let Some(item) = items.get_mut(*index) {
                *item = Some(ItemFate::Quarantined(why.to_string()));
            }
        }
        Self { items, at: 0 }
    }

    pub(super) fn set_next(&mut self, fate: ItemFate) {
        while self.items.get(self.at).is_some_and(Option::is_some) {
            self.at += 1;
        }
        if let Some(item) = self.items.get_mut(self.at) {
            *item = Some(fate);
        }
    }

    pub(super) fn into_items(self) -> Vec<ItemFate> {
        self.items.into_iter().flatten().collect()
    }
}

/// Received items whose fate is open. What is open still when it is dropped was not stored, or not known to be: then
/// upstream keeps it, and it counts as refused.
pub(super) struct OpenItems {
    observer: Arc<dyn Observer>,
    left: u64,
}

impl OpenItems {
    pub(super) fn note_received(observer: &Arc<dyn Observer>, count: usize) -> Self {
        let count = count as u64;
        observer.observe(&Observation::ItemsReceived { count });
        Self { observer: Arc::clone(observer), left: count }
    }

    /// Tells what became of `count` of them.
    pub(super) fn settle_items(&mut self, count: u64, fate: &Observation<'_>) {
        self.left = self.left.saturating_sub(count);
        self.observer.observe(fate);
    }

    pub(super) fn settle_duplicates(&mut self, count: usize) {
        let count = count as u64;
        if count > 0 {
            self.settle_items(count, &Observation::ItemsDuplicate { count });
        }
    }
}

impl Drop for OpenItems {
    fn drop(&mut self) {
        if self.left > 0 {
            self.observer.observe(&Observation::ItemsRefused { count: self.left });
        }
    }
}

/// The quarantine's record of a refused item.
pub(super) fn quarantine_record(
    sorted: &DecodedBatch,
    position: u64,
    why: &NotAReceipt,
    item: &RawItem,
    now: TsMs,
) -> QuarantineRecord {
    let size = item.oversized.unwrap_or(item.bytes.len() as u64);
    let bytes = item.bytes.get(..KEPT_BYTES_MAX).unwrap_or(&item.bytes).to_vec();
    tracing::warn!(
        origin = %sorted.origin, position, error_kind = why.reason(), error_detail = %why, domain = "ingest",
        "not a receipt, kept in the quarantine"
    );
    QuarantineRecord {
        at_ms: now,
        origin: sorted.origin.to_string(),
        position,
        reason: why.reason().to_owned(),
        detail: describe_cut(&item.bytes, size)
            .map_or_else(|| why.to_string(), |cut| format!("{why}; {cut}")),
        size,
        bytes,
    }
}
