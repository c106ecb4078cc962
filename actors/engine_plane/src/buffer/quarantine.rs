//! The quarantine: what is no receipt becomes durable with the reason, before the receipts of its batch.

use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::ports::log::AppendError;
use orchestrator_runtime::address::answer;
use orchestrator_runtime::fatal::Fatal;
use orchestrator_runtime::group_commit::Landed;
use ractor::{ActorRef, RpcReplyPort};

use super::messages::{AppendRefused, BufferMsg};
use super::{BufferState, QUARANTINE};

/// Novelty of a refused item: new, or in the quarantine already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// From an earlier transmission: same origin, same position.
    Before,
    /// It was not.
    New,
}

/// Answers for each refused item, once all are durable.
pub type AsideReply = RpcReplyPort<Result<Vec<Known>, AppendRefused>>;

/// Somebody who waits for refused items to be durable.
pub struct PendingAside {
    known: Vec<Known>,
    reply: AsideReply,
}

impl BufferState {
    pub(super) fn set_aside(
        &mut self,
        me: &ActorRef<BufferMsg>,
        records: Vec<QuarantineRecord>,
        reply: AsideReply,
    ) {
        let mut known = Vec::with_capacity(records.len());
        for record in &records {
            let positions = self.book.positions();
            let before = record.position != 0
                && (record.position <= positions.settled(&record.origin)
                    || positions.is_quarantined_ahead(&record.origin, record.position));
            known.push(if before { Known::Before } else { Known::New });
            if !before {
                self.quarantine.push(|bytes| record.encode_to(bytes));
            }
        }
        match self.quarantine.wait(PendingAside { known, reply }) {
            None => self.queue_flush(me),
            Some(PendingAside { known, reply }) if self.quarantine.is_idle() => answer(reply, Ok(known)),
            Some(pending) => {
                self.quarantine.wait_behind(pending);
                self.queue_flush(me);
            }
        }
    }

    pub(super) fn quarantine_flushed(
        &mut self,
        me: &ActorRef<BufferMsg>,
        landed: Landed<PendingAside>,
    ) -> Result<(), Fatal> {
        let size = landed.size();
        match landed.result {
            Ok(()) => {
                self.quarantine.landed(true, landed.batch.last(), size);
                self.health.answered(QUARANTINE, self.quarantine.has_room());
                self.quarantine_tail = self.quarantine_tail.max(landed.batch.last());
                for (seq, payload) in landed.batch.iter() {
                    let record = QuarantineRecord::decode(payload)
                        .map_err(|error| Fatal::undecodable(QUARANTINE, seq.0, error))?;
                    self.book.note_quarantined(&record.origin, record.position);
                }
                for PendingAside { known, reply } in landed.waiters {
                    answer(reply, Ok(known));
                }
                self.flush(me);
                Ok(())
            }
            Err(AppendError::Full { detail }) if landed.proved.is_some() => {
                self.quarantine.not_proved();
                self.no_room(me, QUARANTINE, landed.proved, &detail);
                self.flush(me);
                Ok(())
            }
            Err(AppendError::Full { detail }) => {
                self.no_room(me, QUARANTINE, landed.proved, &detail);
                let given_up = self.quarantine.landed(false, self.quarantine_tail, size);
                for pending in landed.waiters.into_iter().chain(given_up) {
                    answer(pending.reply, Err(AppendRefused::NoRoom(detail.clone())));
                }
                Ok(())
            }
            Err(error) => Err(self.give_up(QUARANTINE, error)),
        }
    }
}
