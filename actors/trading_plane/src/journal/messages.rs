//! What the journal can be told, what it tells, and the door through which records come in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::RecordBatch;
use orchestrator_kernel::trading::event::EventCursor;
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_kernel::trading::journal::{JournalEntry, JournalIndex};
use orchestrator_runtime::address::{Address, Down};
use orchestrator_runtime::group_commit::Landed;
use orchestrator_runtime::status::{Condition, StatusBoard};
use ractor::RpcReplyPort;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reason for which records are not in the journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalRefused {
    /// There is no room. Nothing may be decided from what is not on record.
    #[error("the journal has no room: {0}")]
    Full(String),
    /// It takes nothing now, and nothing was sent to it.
    #[error("the journal takes no records now")]
    Failing,
    /// What stood before these records was refused, so they continue nothing: begin again from the snapshot.
    #[error("the journal has lost what these records continue")]
    Lost,
    /// Something stopped trading after these gates had looked: ask them again, a little later.
    #[error("trading was stopped meanwhile: {0}")]
    Flipped(String),
    /// The journal is down: the trading plane is stopping, or has stopped.
    #[error(transparent)]
    Down(#[from] Down),
}

/// Moment at which the author of records is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnsweredWhen {
    /// They have their place in the chain. For what happens inside a cycle.
    Accepted,
    /// They are durable. For what has an effect.
    Durable,
}

/// Records of one author, to be appended in this order and with nothing between them.
pub struct JournalAppend {
    pub(super) entries: Vec<JournalEntry>,
    pub(super) term: u64,
    pub(super) answered_when: AnsweredWhen,
    pub(super) reply: RpcReplyPort<Result<JournalSeq, JournalRefused>>,
    pub(super) room: OwnedSemaphorePermit,
}

/// Requests to the journal, and messages that it sends to itself.
pub enum JournalMsg {
    /// Append records. Sent through a [`JournalWriter`], which waits for the answer.
    Append(JournalAppend),
    /// Report what the records add up to, once all that came before is durable and there is room. Asked by whoever
    /// starts, and by whoever lost its place.
    Snapshot(RpcReplyPort<JournalSnapshot>),
    /// Append what somebody waits for. Sent by the actor to itself, behind everything that is in the mailbox already.
    Flush,
    /// Append what nobody waits for yet. Sent by itself, a while after it came.
    Linger,
    /// A batch has landed.
    Flushed(Landed<JournalWaiter>),
    /// Look whether the batch in flight has been on its way for long. Sent by itself.
    CheckSlow,
    /// Ask an idle journal whether it is still there and ours, or one without room whether it has some. Sent by itself.
    Probe,
    /// Finish what is in flight, save a checkpoint, report.
    Drain(RpcReplyPort<()>),
}

/// Records in a batch, and who waits for them, if anybody does.
pub struct JournalWaiter {
    pub(super) last: JournalSeq,
    pub(super) reply: Option<RpcReplyPort<Result<JournalSeq, JournalRefused>>>,
    /// Room in the queue, free again when this goes.
    pub(super) _room: OwnedSemaphorePermit,
}

/// State that the journal's records add up to, and the term in which it is true.
#[derive(Clone, Debug)]
pub struct JournalSnapshot {
    /// The state.
    pub index: Arc<JournalIndex>,
    pub(super) term: u64,
}

/// The last batch that became durable, for readers at the tail: they need not read it back.
#[derive(Clone, Debug, Default)]
pub struct JournalCommitted {
    /// The last durable record.
    pub tail: JournalSeq,
    /// The epoch of the journal's writer.
    pub epoch: Epoch,
    /// The records of the last batch.
    pub batch: Arc<RecordBatch>,
    /// Behind all that the journal had when this process opened it, to tell what comes since.
    pub opened: Arc<EventCursor>,
}

impl JournalCommitted {
    /// The position behind the last durable record.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.tail.next().into()
    }
}

/// The door to the journal: a bounded queue. Cheap to clone; it outlives the actor.
///
/// ```text
/// author ── room in the queue? ──▶ accepted (chained, numbered) ──▶ durable
///              waits                 answers Accepted                answers Durable
/// ```
#[derive(Clone, Debug)]
pub struct JournalDoor {
    pub(super) address: Address<JournalMsg>,
    room: Arc<Semaphore>,
    queue_max: u32,
    /// Counts the refusals: what was decided from records that a refusal took is void.
    pub(super) term: Arc<AtomicU64>,
    pub(super) board: StatusBoard,
    /// Whether cycles wait while the history is behind.
    needs_history: bool,
}

impl JournalDoor {
    /// The door to a journal that is not up yet. `queue_max` records may be on their way, at least one.
    #[must_use]
    pub fn new(queue_max: u32, board: StatusBoard) -> Self {
        Self {
            address: Address::new("journal"),
            room: Arc::new(Semaphore::new(queue_max.max(1) as usize)),
            queue_max: queue_max.max(1),
            term: Arc::new(AtomicU64::new(0)),
            board,
            needs_history: false,
        }
    }

    /// The same door, and whether cycles wait while the history is behind (specification 001 §11).
    #[must_use]
    pub fn requiring_history(self, needs_history: bool) -> Self {
        Self { needs_history, ..self }
    }

    /// Where the actor is reached.
    #[must_use]
    pub const fn address(&self) -> &Address<JournalMsg> {
        &self.address
    }

    /// Whether the journal takes nothing now.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.board.holds_condition(&Condition::JournalFailing)
    }

    /// Whether cycles do not begin or go on now: the journal takes nothing, or the history that they need is behind.
    #[must_use]
    pub fn holds_cycles(&self) -> bool {
        self.is_failing() || (self.needs_history && self.board.holds_condition(&Condition::HistoryBehind))
    }

    /// What the records add up to, and a writer that continues them. Waits until all that was sent before is durable
    /// and the journal has room.
    ///
    /// # Errors
    ///
    /// [`Down`].
    pub async fn read_snapshot(&self) -> Result<(Arc<JournalIndex>, JournalWriter), Down> {
        let JournalSnapshot { index, term } = self.address.call(JournalMsg::Snapshot).await?;
        Ok((index, JournalWriter { door: self.clone(), term }))
    }
}

/// Writer of records that continue what its author knows. Cheap to clone.
#[derive(Clone, Debug)]
pub struct JournalWriter {
    door: JournalDoor,
    term: u64,
}

impl JournalWriter {
    /// Puts records into the chain and returns the last one's position. They become durable soon, and before anything
    /// that is committed behind them.
    ///
    /// # Errors
    ///
    /// [`JournalRefused`]: none of them is in the chain.
    pub async fn push_entries(&self, entries: Vec<JournalEntry>) -> Result<JournalSeq, JournalRefused> {
        self.send_entries(entries, AnsweredWhen::Accepted).await
    }

    /// Makes records durable, and with them all that was pushed before; returns the last one's position.
    ///
    /// # Errors
    ///
    /// [`JournalRefused`]: none of them is durable, and nothing may follow from them.
    pub async fn commit_entries(&self, entries: Vec<JournalEntry>) -> Result<JournalSeq, JournalRefused> {
        self.send_entries(entries, AnsweredWhen::Durable).await
    }

    /// Waits until everything that was pushed is durable: whatever cannot be taken back follows from it.
    ///
    /// # Errors
    ///
    /// [`JournalRefused`]: some of it is not there, and will not be.
    pub async fn wait_durable(&self) -> Result<JournalSeq, JournalRefused> {
        self.send_entries(Vec::new(), AnsweredWhen::Durable).await
    }

    /// Whether the journal takes nothing now.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.door.is_failing()
    }

    /// As [`JournalDoor::holds_cycles`].
    #[must_use]
    pub fn holds_cycles(&self) -> bool {
        self.door.holds_cycles()
    }

    /// Says whether what this writer continues is still there.
    ///
    /// # Errors
    ///
    /// [`JournalRefused::Lost`].
    pub fn check_term(&self) -> Result<(), JournalRefused> {
        let holds = self.door.term.load(Ordering::Acquire) == self.term;
        holds.then_some(()).ok_or(JournalRefused::Lost)
    }

    async fn send_entries(
        &self,
        entries: Vec<JournalEntry>,
        answered_when: AnsweredWhen,
    ) -> Result<JournalSeq, JournalRefused> {
        let records = u32::try_from(entries.len()).unwrap_or(u32::MAX).clamp(1, self.door.queue_max);
        let room = Arc::clone(&self.door.room).acquire_many_owned(records).await;
        let room = room.map_err(|_| Down("journal"))?;
        let term = self.term;
        let answer = self
            .door
            .address
            .call(|reply| JournalMsg::Append(JournalAppend { entries, term, answered_when, reply, room }));
        answer.await?
    }
}
