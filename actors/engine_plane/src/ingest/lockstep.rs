//! Ingest under a driven clock: the clock passes a deadline only when every receipt before it is durable.

use std::iter::Peekable;
use std::vec::IntoIter;

use orchestrator_kernel::engine::contracts::raw_market_event::SNAPSHOT_INPUTS;
use orchestrator_kernel::ids::{Origin, TsMs};
use orchestrator_kernel::ports::source::{PositionSpan, Settlement};
use orchestrator_kernel::rfc3339::to_rfc3339;

use super::batch::{DecodedBatch, ItemFates, OpenItems};
use super::{IngestArgs, IngestState, arrivals_size, stopping_settlement};
use crate::buffer::messages::{Arrival, ArrivalBatch};

/// Rest of a batch, taken piece by piece.
struct BatchRemainder {
    origin: Origin,
    arrivals: Peekable<IntoIter<Arrival>>,
    /// The positions that are left.
    span: Option<PositionSpan>,
}

impl BatchRemainder {
    /// The time of the next receipt. It never goes back: a receipt that came late has the time of the one before it.
    fn next_time(&mut self, latest: Option<TsMs>) -> Option<TsMs> {
        let next = self.arrivals.peek()?;
        Some(latest.map_or(next.at, |latest| latest.max(next.at)))
    }

    /// The receipts up to `barrier`; a piece that holds the last one stands for everything that is left.
    /// Each that time ran backwards to is shown to `behind`, with the time that was reached before it.
    fn take_up_to(
        &mut self,
        barrier: Option<TsMs>,
        latest: &mut Option<TsMs>,
        behind: impl Fn(&Arrival, TsMs),
    ) -> ArrivalBatch {
        let mut arrivals = Vec::new();
        while let Some(mut next) = self.arrivals.next_if(|next| barrier.is_none_or(|end| next.at <= end)) {
            if let Some(reached) = latest.filter(|latest| next.at < *latest) {
                behind(&next, reached);
                next.at = reached;
            }
            *latest = Some(next.at);
            arrivals.push(next);
        }
        let upto = match (self.arrivals.peek(), arrivals.last(), self.span) {
            (Some(_), Some(arrival), Some(_)) => Some(arrival.position),
            (Some(_), None, _) | (_, _, None) => None,
            (None, _, Some(span)) => Some(span.last),
        };
        ArrivalBatch { origin: self.origin.clone(), span: self.take_span(upto), arrivals }
    }

    /// The positions after the last receipt of the batch: quarantined items have theirs too.
    fn take_remainder(self) -> Option<ArrivalBatch> {
        let span = self.span?;
        Some(ArrivalBatch { origin: self.origin, span: Some(span), arrivals: Vec::new() })
    }

    fn take_span(&mut self, upto: Option<u64>) -> Option<PositionSpan> {
        let (taken, left) = self.span?.split_after(upto?);
        self.span = left;
        Some(taken)
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
        let DecodedBatch { origin, span, arrivals, .. } = sorted;
        let mut pieces = BatchRemainder { origin, arrivals: arrivals.into_iter().peekable(), span };
        while let Some(at) = pieces.next_time(self.latest) {
            if !self.advance_clock(at).await {
                return stopping_settlement();
            }
            let barrier = self.args.clock.armed_deadline();
            // The next tick is armed; a receipt from before the last one comes too late for the run of its own time.
            let last_tick = self.args.clock.next_tick().map(|next| next.plus_ms(-self.args.interval_ms));
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
        piece: ArrivalBatch,
        fates: &mut ItemFates,
        open: &mut OpenItems,
    ) -> Result<(), Settlement> {
        let credit = self.wait_for_room(arrivals_size(&piece.arrivals)).await?;
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

fn note_late(args: &IngestArgs, late: &Arrival, reached: TsMs) {
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
