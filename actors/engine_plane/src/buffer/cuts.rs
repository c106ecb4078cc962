//! Seals: the cuts of a tick, at hand where the receipts came in time, read back from the log where they did not.

use orchestrator_kernel::engine::cadence::Tick;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::cut::{CutRequest, Rebuild, SymbolCut};
use orchestrator_kernel::ids::{IngestSeq, Seq, TsMs};
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::log::{LogName, ReadError, ReadLimit};
use orchestrator_runtime::address::send_reply;
use orchestrator_runtime::fatal::Fatal;
use ractor::RpcReplyPort;

use super::BufferState;
use super::messages::CutsTaken;

/// A seal that waits for receipts before it.
pub(super) struct WaitingSeal {
    after: Seq,
    tick: Tick,
    requests: Vec<CutRequest>,
    next: TsMs,
    reply: RpcReplyPort<CutsTaken>,
}

impl BufferState {
    pub(super) fn queue_seal(
        &mut self,
        tick: Tick,
        requests: Vec<CutRequest>,
        next: TsMs,
        reply: RpcReplyPort<CutsTaken>,
    ) {
        if !mutant!(SealNotApplied) {
            self.sealed = self.sealed.max(Some(tick.planned_ts_ms));
        }
        let after = Seq(self.receipts.next_seq().0 - 1);
        self.seals.push_back(WaitingSeal { after, tick, requests, next, reply });
    }

    /// Takes the cuts of the seals whose receipts have all landed.
    pub(super) async fn take_cuts(&mut self) -> Result<(), Fatal> {
        while let Some(seal) = self
            .seals
            .pop_front_if(|seal| seal.after <= Seq::from(self.book.tail()) || self.receipts.is_idle())
        {
            let WaitingSeal { tick, requests, next, reply, .. } = seal;
            let (planned, engine_ts) = (tick.planned_ts_ms, tick.engine_timestamp_ms);
            let sealed = self.book.seal_tick(planned, engine_ts, requests, Some(next));
            let end = match sealed.end {
                Some(end) => end,
                None => self.last_at_or_before(planned).await?,
            };
            let mut cuts = sealed.cuts;
            if !sealed.missing.is_empty() {
                cuts.extend(self.rebuild_cuts(end, engine_ts, sealed.missing).await?);
            }
            send_reply(reply, CutsTaken { end, cuts });
        }
        Ok(())
    }

    async fn rebuild_cuts(
        &mut self,
        end: IngestSeq,
        engine_ts: TsMs,
        requests: Vec<CutRequest>,
    ) -> Result<Vec<SymbolCut>, Fatal> {
        let mut rebuild = Rebuild::new(end, engine_ts, requests);
        let (from, to) = (rebuild.from().into(), self.book.tail().into());
        self.readable
            .scan_records(from, to, |seq, payload| {
                let record = ReceiptRecord::decode(payload)
                    .map_err(|error| Fatal::undecodable_record(LogName::Receipts, seq.0, error))?;
                rebuild.observe_receipt(&record);
                Ok(())
            })
            .await?;
        let (cuts, slices) = rebuild.into_cuts();
        for (symbol, slice) in slices {
            self.book.restore_slice(symbol, slice);
        }
        Ok(cuts)
    }

    /// The highest sequence with `ingest_ts_ms ≤ planned` (CUT-2), by bisection: timestamps never decrease (LOG-5).
    /// What retention trimmed, also meanwhile, is before every cut that is still to be taken.
    async fn last_at_or_before(&self, planned: TsMs) -> Result<IngestSeq, Fatal> {
        let start = self.readable.start_seq().0;
        let (mut low, mut high) = (start - 1, self.book.tail().0);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let read = self.readable.try_read(Seq(middle), ReadLimit { records: 1, bytes: 0 }).await;
            let found = match read {
                Err(ReadError::Trimmed { start, .. }) if !mutant!(SealMeetsATrim) => {
                    low = (start.0 - 1).min(high);
                    continue;
                }
                read => read.map_err(|error| Fatal::on_read(LogName::Receipts, error))?,
            };
            let record = ReceiptRecord::decode(found.get(0).unwrap_or_default())
                .map_err(|error| Fatal::undecodable_record(LogName::Receipts, middle, error))?;
            if record.ingest_ts_ms <= planned { low = middle } else { high = middle - 1 }
        }
        Ok(IngestSeq(low))
    }
}
