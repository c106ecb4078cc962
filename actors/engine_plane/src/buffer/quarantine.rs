//! The quarantine: what is no receipt becomes durable with the reason, before the receipts of its batch.

use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::ports::log::LogName;
use orchestrator_runtime::address::send_reply;
use orchestrator_runtime::fatal::Fatal;
use orchestrator_runtime::group_commit::Landed;
use orchestrator_runtime::log_writer::{Landing, Waited};
use ractor::{ActorRef, RpcReplyPort};

use super::BufferState;
use super::messages::{AppendRefused, BufferMsg};

/// Novelty of a refused item: new, or in the quarantine already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemNovelty {
    /// From an earlier transmission: same origin, same position.
    Before,
    /// It was not.
    New,
}

/// Answers for each refused item, once all are durable.
pub type QuarantineReply = RpcReplyPort<Result<Vec<ItemNovelty>, AppendRefused>>;

/// Somebody who waits for refused items to be durable.
pub struct QuarantineWaiter {
    known: Vec<ItemNovelty>,
    reply: QuarantineReply,
}

impl BufferState {
    pub(super) fn append_quarantined(
        &mut self,
        me: &ActorRef<BufferMsg>,
        records: Vec<QuarantineRecord>,
        reply: QuarantineReply,
    ) {
        let mut known = Vec::with_capacity(records.len());
        for record in &records {
            let positions = self.book.positions();
            let before = record.position != 0
                && (record.position <= positions.settled_up_to(&record.origin)
                    || positions.is_quarantined_ahead(&record.origin, record.position));
            known.push(if before { ItemNovelty::Before } else { ItemNovelty::New });
            if !before {
                self.quarantine.push_record(|bytes| record.encode_to(bytes));
            }
        }
        match self.quarantine.wait_for_pushed(QuarantineWaiter { known, reply }) {
            Waited::Queued => self.queue_flush(me),
            Waited::Durable(QuarantineWaiter { known, reply }) => send_reply(reply, Ok(known)),
        }
    }

    pub(super) fn settle_landed_quarantine(
        &mut self,
        me: &ActorRef<BufferMsg>,
        landed: Landed<QuarantineWaiter>,
    ) -> Result<(), Fatal> {
        match self.quarantine.land_batch(landed, self.quarantine_tail)? {
            Landing::Durable { batch, waiters, .. } => {
                self.quarantine_tail = self.quarantine_tail.max(batch.last_seq());
                for (seq, payload) in batch.iter() {
                    let record = QuarantineRecord::decode(payload)
                        .map_err(|error| Fatal::undecodable_record(LogName::Quarantine, seq.0, error))?;
                    self.book.note_quarantined(&record.origin, record.position);
                }
                for QuarantineWaiter { known, reply } in waiters {
                    send_reply(reply, Ok(known));
                }
                self.begin_appends(me);
            }
            Landing::Refused { waiters, detail } => {
                for pending in waiters {
                    send_reply(pending.reply, Err(AppendRefused::NoRoom(detail.clone())));
                }
                self.probe_later(me);
            }
            Landing::StillFull => {
                self.probe_later(me);
                self.begin_appends(me);
            }
        }
        Ok(())
    }
}
