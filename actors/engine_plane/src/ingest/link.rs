//! The way to the buffer, and what its answers mean upstream.

use std::collections::BTreeMap;

use orchestrator_kernel::ids::{EventType, Origin, SourceId, TsMs};
use orchestrator_kernel::ports::observer::Observation;
use orchestrator_kernel::ports::source::{ItemFate, Settlement};
use orchestrator_runtime::address::{Address, Down};

use super::batch::{Decoded, Fates, OpenItems, Piece, Sorted, quarantined};
use crate::buffer::messages::{AppendRefused, Appended, Arrival, Batch, BufferMsg, Credit, Known};

/// The way to the buffer.
pub(super) struct Link {
    /// The source's own origin, for which a refusal always passes: nobody else repeats its items.
    pub(super) own: Origin,
    pub(super) buffer: Address<BufferMsg>,
    pub(super) retry_after_ms: u64,
}

impl Link {
    /// The receipts; what was refused is quarantined before, see
    /// [`Positions`](orchestrator_kernel::engine::positions::Positions).
    pub(super) async fn store(
        self,
        sorted: Sorted,
        at: TsMs,
        credit: Credit,
        mut open: OpenItems,
    ) -> Settlement {
        let mut fates = Fates::new(&sorted);
        let arrivals = sorted.receipts.into_iter();
        let arrivals = arrivals.map(|Decoded { position, receipt, .. }| Arrival { at, position, receipt });
        let arrivals = arrivals.collect();
        let piece = Piece { origin: sorted.origin, span: sorted.span, arrivals };
        match self.append(piece, credit, &mut fates, &mut open).await {
            Ok(()) => Settlement::Durable(fates.into_items()),
            Err(refused) => refused,
        }
    }

    pub(super) async fn set_aside(
        &self,
        sorted: &Sorted,
        now: TsMs,
        open: &mut OpenItems,
    ) -> Result<(), Settlement> {
        if sorted.refused.is_empty() {
            return Ok(());
        }
        let records = sorted
            .refused
            .iter()
            .map(|(_, position, why, item)| quarantined(sorted, *position, why, item, now));
        let records = records.collect();
        let (origin, span) = (sorted.origin.clone(), sorted.span);
        let ask = |reply| BufferMsg::Quarantine { origin, span, records, reply };
        let known = match self.buffer.call(ask).await {
            Ok(Ok(known)) => known,
            Ok(Err(refused)) => return Err(self.refused(refused, &sorted.origin)),
            Err(down) => return Err(self.down(down)),
        };
        for ((_, _, why, _), known) in sorted.refused.iter().zip(known) {
            match known {
                Known::Before => open.duplicate(1),
                Known::New => open.settled(1, &Observation::ItemQuarantined { reason: why.reason() }),
            }
        }
        Ok(())
    }

    pub(super) async fn append(
        &self,
        piece: Piece,
        credit: Credit,
        fates: &mut Fates,
        open: &mut OpenItems,
    ) -> Result<(), Settlement> {
        let Piece { origin, span, arrivals } = piece;
        let counted: Vec<(SourceId, EventType)> = arrivals
            .iter()
            .map(|arrival| (arrival.receipt.source_id.clone(), arrival.receipt.event_type.clone()))
            .collect();
        let batch = Batch { origin: origin.clone(), span, arrivals, credit };
        match self.buffer.call(|reply| BufferMsg::Append(batch, reply)).await {
            Ok(Ok(appended)) => {
                note_appended(&counted, appended, fates, open);
                Ok(())
            }
            Ok(Err(refused)) => Err(self.refused(refused, &origin)),
            Err(down) => Err(self.down(down)),
        }
    }

    fn refused(&self, refused: AppendRefused, origin: &Origin) -> Settlement {
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

    fn down(&self, down: Down) -> Settlement {
        Settlement::Refused { reason: down.to_string(), retry_after_ms: self.retry_after_ms }
    }
}

fn note_appended(
    counted: &[(SourceId, EventType)],
    appended: Appended,
    fates: &mut Fates,
    open: &mut OpenItems,
) {
    let (duplicates, fresh) = counted.split_at(appended.duplicates.min(counted.len()));
    open.duplicate(duplicates.len());
    duplicates.iter().for_each(|_| fates.next(ItemFate::Duplicate));
    fresh.iter().for_each(|_| fates.next(ItemFate::Appended));
    let mut counts: BTreeMap<&(SourceId, EventType), u64> = BTreeMap::new();
    for key in fresh {
        *counts.entry(key).or_default() += 1;
    }
    for ((source_id, event_type), count) in counts {
        open.settled(count, &Observation::ReceiptsAppended { source_id, event_type, count });
    }
}
