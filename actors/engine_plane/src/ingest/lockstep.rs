//! Ingest under a driven clock: the clock passes a deadline only when every receipt before it is durable.

use std::iter::Peekable;
use std::vec::IntoIter;

use orchestrator_kernel::engine::contracts::raw_market_event::SNAPSHOT_INPUTS;
use orchestrator_kernel::ids::{Origin, TsMs};
use orchestrator_kernel::ports::source::Settlement;
use orchestrator_kernel::rfc3339::to_rfc3339;

use super::batch::{AppendBatch, DecodedBatch, DecodedReceipt, ItemFates, OpenItems};
use super::{IngestArgs, IngestState, receipts_size, stopping_settlement};
use crate::buffer::messages::Arrival;

/// Rest of a batch, taken piece by piece.
struct BatchRemainder {
    origin: Origin,
    receipts: Peekable<IntoIter<DecodedReceipt>>,
    /// First and last position that are left, quarantined items included.
    span: Option<(u64, u64)>,
}

impl BatchRemainder {
    /// The time of the next receipt. It never goes back: a receipt that came late has the time of the one before it.
    fn next_time(&mut self, latest: Option<TsMs>) -> Option<TsMs> {
        let next = self.receipts.peek()?;
        Some(latest.map_or(next.at, |latest| latest.max(next.at)))
    }

    /// The receipts up to `barrier`; a piece that holds the last one stands for everything that is left.
    /// Each that time ran backwards to is shown to `behind`, with the time that was reached before it.
    fn take_up_to(
        &mut self,
        barrier: Option<TsMs>,
        latest: &mut Option<TsMs>,
        behind: impl Fn(&DecodedReceipt, TsMs),
    ) -> AppendBatch {
        let mut arrivals = Vec::new();
        while let Some(decoded) = self.receipts.next_if(|next| barrier.is_none_or(|end| next.at <= end)) {
            if let Some(reached) = latest.filter(|latest| decoded.at < *latest) {
                behind(&decoded, reached);
            }
            let DecodedReceipt { position, at, receipt } = decoded;
            let at = latest.map_or(at, |latest| latest.max(at));
            *latest = Some(at);
            arrivals.push(Arrival { at, position, receipt });
        }
        let upto = match (self.receipts.peek(), arrivals.last(), self.span) {
            (Some(_), Some(arrival), Some(_)) => Some(arrival.position),
            (Some(_), None, _) | (_, _, None) => None,
            (None, _, Some((_, last))) => Some(last),
        };
        AppendBatch { origin: self.origin.clone(), span: self.take_span(upto), arrivals }
    }

    /// The positions after the last receipt of the batch: quarantined items have theirs too.
    fn take_remainder(mut self) -> Option<AppendBatch> {
        let upto = self.span.map(|(_, last)| last);
        let span = self.take_span(upto)?;
        Some(AppendBatch { origin: self.origin, span: Some(span), arrivals: Vec::new() })
    }

    fn take_span(&mut self, upto: Option<u64>) -> Option<(u64, u64)> {
        let ((first, last), upto) = self.span.zip(upto)?;
        self.span = (upto < last).then_some((upto + 1, last));
        Some((first, upto))
    }
}

impl IngestState {
    /// Appends a batch piece by piece, each up to the clock's next deadline: so a cut holds exactly the receipts up to
    /// its planned time.
    pub(super) async fn append_in_lockstep(
        &mut self,
        sorted: DecodedBatch,
        mut open: OpenItems,
    ) -> Settlement {
        let link = self.buffer_link();
        if let Err(refused) =
            link.quarantine_refused(&sorted, self.latest.unwrap_or_default(), &mut open).await
        {
            return refused;
        }
        let mut fates = ItemFates::new(&sorted);
        let DecodedBatch { origin, span, receipts, .. } = sorted;
        let mut pieces = BatchRemainder { origin, receipts: receipts.into_iter().peekable(), span };
        while let Some(at) = pieces.next_time(self.latest) {
            if !self.advance_clock(at).await {
                return stopping_settlement();
            }
            let barrier = self.args.clock.armed_deadline();
            // The next tick is armed; a receipt from before the last one comes too late for the run of its own time.
            let last_tick = barrier.map(|next| next.plus_ms(-self.args.interval_ms));
            let piece = pieces.take_up_to(barrier, &mut self.latest, |late, reached| {
                if last_tick.is_some_and(|tick| late.at <= tick) {
                    note_late(&self.args, late, reached);
                }
            });
            if let Err(refused) = self.append_piece(piece, &mut fates, &mut open).await {
                return refused;
            }
        }
        if let Some(piece) = pieces.take_remainder()
            && let Err(refused) = self.append_piece(piece, &mut fates, &mut open).await
        {
            return refused;
        }
        Settlement::Durable(fates.into_items())
    }

    async fn append_piece(
        &mut self,
        piece: AppendBatch,
        fates: &mut ItemFates,
        open: &mut OpenItems,
    ) -> Result<(), Settlement> {
        let credit =
            self.wait_for_room(receipts_size(piece.arrivals.iter().map(|arrival| &arrival.receipt))).await?;
        self.buffer_link().append_batch(piece, credit, fates, open).await
    }

    /// Lets the clock go to `at`; `false` when the service stops first.
    async fn advance_clock(&mut self, at: TsMs) -> bool {
        tokio::select! {
            biased;
            () = self.args.stop.cancelled() => false,
            () = self.args.clock.advance(at) => true,
        }
    }

    /// The end of a recording is the end of its runs: waits until those that are due are done.
    pub(super) async fn work_off(&mut self) {
        if let Some(latest) = self.latest.filter(|_| self.args.clock.is_driven())
            && !self.advance_clock(latest).await
        {
            tracing::debug!("stopped before the last runs of the recording were done");
        }
    }
}

fn note_late(args: &IngestArgs, late: &DecodedReceipt, reached: TsMs) {
    let receipt = &late.receipt;
    let is_snapshot = receipt.event_type.as_str() == SNAPSHOT_INPUTS;
    if args.times.note_late(late.position, is_snapshot, late.at, reached) {
        tracing::warn!(
            source = args.factory.name(), position = late.position, symbol = %receipt.symbol,
            recv_ts = to_rfc3339(late.at), reached = to_rfc3339(reached), domain = "ingest",
            "time runs backwards in the recording: a receipt came after the tick of its own time; further ones are counted"
        );
    }
}
