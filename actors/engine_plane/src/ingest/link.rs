//! The way to the buffer, and what its answers mean upstream.

use std::collections::BTreeMap;

use orchestrator_kernel::ids::{EventType, Origin, SourceId, TsMs};
use orchestrator_kernel::ports::observer::Observation;
use orchestrator_kernel::ports::source::{ItemFate, Settlement};
use orchestrator_runtime::address::{Address, Down};

use super::batch::{DecodedBatch, ItemFates, OpenItems, quarantine_record};
use crate::buffer::messages::{AppendRefused, Appended, ArrivalBatch, BufferMsg, Credit, ItemNovelty};

/// The way to the buffer.
pub(super) struct BufferLink {
    /// The source's own origin, for which a refusal always passes: nobody else repeats its items.
    pub(super) own: Origin,
    pub(super) buffer: Address<BufferMsg>,
    pub(super) retry_after_ms: u64,
}

impl BufferLink {
    /// The receipts; what was refused is quarantined before, see
    /// [`Positions`](orchestrator_kernel::engine::positions::Positions).
    pub(super) async fn store_batch(
        self,
        sorted: DecodedBatch,
        credit: Credit,
        mut open: OpenItems,
    ) -> Settlement {
        let mut fates = ItemFates::new(&sorted);
        let DecodedBatch { origin, span, arrivals, .. } = sorted;
        let batch = ArrivalBatch { origin, span, arrivals };
        match self.append_batch(batch, credit, &mut fates, &mut open).await {
            Ok(()) => Settlement::Durable(fates.into_items()),
            Err(refused) => refused,
        }
    }

    pub(super) async fn quarantine_refused(
        &self,
        sorted: &DecodedBatch,
        now: TsMs,
        open: &mut OpenItems,
    ) -> Result<(), Settlement> {
        if sorted.refused.is_empty() {
            return Ok(());
        }
        let records = sorted
            .refused
            .iter()
            .map(|(_, position, why, item)| quarantine_record(sorted, *position, why, item, now));
        let records = records.collect();
        let (origin, span) = (sorted.origin.clone(), sorted.span);
        let ask = |reply| BufferMsg::Quarantine { origin, span, records, reply };
        let known = match self.buffer.call(ask).await {
            Ok(Ok(known)) => known,
            Ok(Err(refused)) => return Err(self.refusal_settlement(refused, &sorted.origin)),
            Err(down) => return Err(self.down_settlement(down)),
        };
        for ((_, _, why, _), known) in sorted.refused.iter().zip(known) {
            match known {
                ItemNovelty::Before => open.settle_duplicates(1),
                ItemNovelty::New => {
                    open.settle_items(1, &Observation::ItemQuarantined { reason: why.reason() })
                }
            }
        }
        Ok(())
    }

    pub(super) async fn append_batch(
        &self,
        batch: ArrivalBatch,
        credit: Credit,
        fates: &mut ItemFates,
        open: &mut OpenItems,
    ) -> Result<(), Settlement> {
        let origin = batch.origin.clone();
        let counted: Vec<(SourceId, EventType)> = batch
            .arrivals
            .iter()
            .map(|arrival| (arrival.receipt.source_id.clone(), arrival.receipt.event_type.clone()))
            .collect();
        match self.buffer.call(|reply| BufferMsg::Append { batch, credit, reply }).await {
            Ok(Ok(appended)) => {
                note_appended(&counted, appended, fates, open);
                Ok(())
            }
            Ok(Err(refused)) => Err(self.refusal_settlement(refused, &origin)),
            Err(down) => Err(self.down_settlement(down)),
        }
    }

    fn refusal_settlement(&self, refused: AppendRefused, origin: &Origin) -> Settlement {
        match refused {
            AppendRefused::Gap { expected } => Settlement::Gap { expected },
            AppendRefused::TooManyProducers { .. } if *origin != self.own => {
                Settlement::Denied { reason: refused.to_string() }
            }
            AppendRefused::NoRoom(_) | AppendRefused::TooManyProducers { .. } => {
                Settlement::Refused { reason: refused.to_string(), retry_after_ms: self.retry_after_ms }
            }
        }
    }

    fn down_settlement(&self, down: Down) -> Settlement {
        Settlement::Refused { reason: down.to_string(), retry_after_ms: self.retry_after_ms }
    }
}

fn note_appended(
    counted: &[(SourceId, EventType)],
    appended: Appended,
    fates: &mut ItemFates,
    open: &mut OpenItems,
) {
    let (duplicates, fresh) = counted.split_at(appended.duplicates.min(counted.len()));
    open.settle_duplicates(duplicates.len());
    duplicates.iter().for_each(|_| fates.set_next(ItemFate::Duplicate));
    fresh.iter().for_each(|_| fates.set_next(ItemFate::Appended));
    let mut counts: BTreeMap<&(SourceId, EventType), u64> = BTreeMap::new();
    for key in fresh {
        *counts.entry(key).or_default() += 1;
    }
    for ((source_id, event_type), count) in counts {
        open.settle_items(count, &Observation::ReceiptsAppended { source_id, event_type, count });
    }
}
