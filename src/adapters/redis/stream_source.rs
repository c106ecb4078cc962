//! A Redis Stream as a source: one consumer of a consumer group.
//!
//! ```text
//!            ┌─ XREADGROUP … 0     at the start, and after a refusal: what we were given and did not acknowledge
//! stream ────┼─ XREADGROUP … >     then: what nobody was given yet, waiting for it
//!            └─ XAUTOCLAIM         every claim_idle / 2: what a consumer that is gone has left
//!                  │
//!                  ▼ batch ──▶ log ──Durable──▶ XACK
//!                                └──Refused──▶ read again from 0 once nothing is in flight
//! ```
//!
//! **The server remembers what is not settled.** Every entry that it ever gave us stays in our list there until we
//! acknowledge it. So nothing is kept here for a repetition, and a read that is given up loses nothing.
//!
//! **At least once.** Entry ids (`milliseconds-number`) have holes, so they are no positions: an entry that comes again
//! is a receipt again. It comes again when this process dies between the durable append and the XACK, and when it is
//! held up for longer than `claim_idle` while another consumer of the group looks for what is left. A crash of a
//! *server* that syncs always repeats nothing: what is known to be durable is remembered over its absence and
//! acknowledged first. (One that syncs every second can lose acknowledgements, and new entries, with its last second.)
//!
//! **An entry without an event**, or one that was deleted before it was read, becomes an item that is no receipt: it
//! ends in the quarantine, with the entry's id, the reason and its fields, and is acknowledged.
//!
//! Trimming the stream is the business of whoever writes it.

mod entries;
mod group;
mod look;
#[cfg(any(test, feature = "testkit"))]
#[doc(hidden)]
pub mod testkit;

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, FutureExt as _};
use orchestrator_kernel::ids::Origin;
use orchestrator_kernel::ports::source::{
    RawItem, ResumeAt, Settlement, Source, SourceBatch, SourceError, SourceFactory, SourceOddity,
};
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use self::entries::{EntryId, StreamEntry};
use self::group::{Group, GroupFault, ReadFrom};
use self::look::{Removed, StreamLook};
use super::connect::{Endpoint, UrlError};
use super::replay::{self, ReplayedCommands};

/// How long the server holds a read when there is nothing new. Also the longest that a claim waits for its turn.
/// A server that stops answering is noticed after this and the response timeout, and readiness must say so within two
/// seconds: with a second each, nothing was left for saying it.
const BLOCK: Duration = Duration::from_millis(500);
/// Entries of the first read, before their size is known.
const FIRST_COUNT: usize = 16;
/// Bytes that a read aims at: it asks for as many entries as have had these bytes lately.
const READ_BYTES: usize = 4 << 20;
/// Batches that may be unsettled at once.
const UNSETTLED_BATCHES_MAX: usize = 8;

/// Settings of a stream that is read as a source. No `Debug`: the URL may hold a password.
#[derive(Clone)]
pub struct StreamSourceOptions {
    /// Name of the source; the origin of its receipts.
    pub name: String,
    /// `redis://` or `rediss://`, with user and password if the server asks for them.
    pub url: String,
    /// Key of the stream. Made, empty, when it is not there.
    pub stream: String,
    /// The consumer group. Made when it is not there; every group gets every entry.
    pub group: String,
    /// Our name in the group. No two processes may have the same.
    pub consumer: String,
    /// The field of an entry that holds the event's bytes.
    pub field: String,
    /// Where a group that is made begins: `0` with the oldest entry, `$` with what comes from then on, or behind an id.
    pub start: String,
    /// Entries of one read at most; fewer when they are large. At least 1.
    pub count_max: usize,
    /// How long an entry may be unacknowledged before another consumer takes it over. More than the longest that an
    /// append takes.
    pub claim_idle: Duration,
    /// Longest for a connection.
    pub connect_timeout: Duration,
    /// Longest for an answer, beyond the time that a read is meant to wait.
    pub response_timeout: Duration,
}

/// Memory of the source that outlives one opening of it.
#[derive(Default)]
struct Memory {
    /// Durable, and not known to be acknowledged. Bounded by what was in flight at the last fault.
    durable: Mutex<BTreeSet<EntryId>>,
    /// Whether the group was there before.
    group_seen: AtomicBool,
    /// Whether people were told that the server forgets what was given out.
    forgets_told: AtomicBool,
    removed: Mutex<RemovedTold>,
}

/// Entries that were removed before they were read, as far as people were told of them.
#[derive(Default)]
struct RemovedTold {
    /// Those that the server's count still has in it.
    count: u64,
    /// The newest one where they are not counted.
    newest: EntryId,
}

impl RemovedTold {
    /// What is new in `look`: nothing, or how many entries, when that is known.
    fn learn_removed(&mut self, look: &StreamLook) -> Option<Option<u64>> {
        match look.removed_unread() {
            Some(Removed::Counted(count)) => {
                let known = std::mem::replace(&mut self.count, count);
                Some(count.saturating_sub(known)).filter(|new| 0 < *new).map(Some)
            }
            Some(Removed::Newest(id)) if self.newest < id => {
                self.newest = id;
                Some(None)
            }
            Some(Removed::Newest(_)) => None,
            None => {
                // What was not given is waiting, or is in the count for good, or, for a later server, no longer.
                let bound = look.not_given()?;
                self.count = if look.is_read_up() { bound } else { self.count.min(bound) };
                None
            }
        }
    }
}

impl Memory {
    fn lock_durable(&self) -> MutexGuard<'_, BTreeSet<EntryId>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_removed(&self) -> MutexGuard<'_, RemovedTold> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells people when a group that was there before had to be made.
    fn note_made(&self, group: &Group) {
        if self.group_seen.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                domain = "ingest",
                place = group.place,
                stream = group.stream,
                group = group.group,
                "the consumer group was gone and is made again from the oldest entry: its entries come again, and those that were deleted with it are lost"
            );
        }
    }
}

/// Opens the stream.
pub struct StreamSourceFactory {
    endpoint: Endpoint,
    options: StreamSourceOptions,
    memory: Arc<Memory>,
}

impl StreamSourceFactory {
    /// Reads the options; nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`UrlError`].
    pub fn new(options: StreamSourceOptions) -> Result<Self, UrlError> {
        let endpoint = Endpoint::parse(&options.url, options.connect_timeout)?;
        Ok(Self { endpoint, options, memory: Arc::default() })
    }

    async fn open_connection(
        &self,
        response_timeout: Duration,
    ) -> Result<MultiplexedConnection, SourceError> {
        let opened = self.endpoint.open_connection(Some(response_timeout)).await;
        opened.map_err(|error| SourceError::Lost { detail: error.to_string() })
    }
}

#[async_trait]
impl SourceFactory for StreamSourceFactory {
    fn name(&self) -> &str {
        &self.options.name
    }

    /// `resume` says nothing here: the group knows where it is.
    async fn open_source(&self, _resume: ResumeAt) -> Result<Box<dyn Source>, SourceError> {
        let options = &self.options;
        let group = Group {
            place: self.endpoint.place().to_owned(),
            stream: options.stream.clone(),
            group: options.group.clone(),
            consumer: options.consumer.clone(),
            field: options.field.clone(),
        };
        let mut source = StreamSource {
            reads: self.open_connection(BLOCK + options.response_timeout).await?,
            commands: self.open_connection(options.response_timeout).await?,
            group: Arc::new(group),
            memory: Arc::clone(&self.memory),
            origin: Origin::from(options.name.as_str()),
            count_max: options.count_max.max(1),
            count: FIRST_COUNT.min(options.count_max.max(1)),
            claim_idle: options.claim_idle,
            claim: (Instant::now(), EntryId::default()),
            from: ReadFrom::Pending(EntryId::default()),
            step: None,
            in_flight: VecDeque::new(),
            next_id: 1,
            again: false,
            fault: None,
            looks: true,
            told_further: false,
            oddities: Vec::new(),
        };
        source.begin_group(&options.start).await?;
        Ok(Box::new(source))
    }
}

/// Answer of the server, by what it was asked for.
enum Step {
    Read(ReadFrom, Vec<StreamEntry>, Option<Looked>),
    Claimed(entries::Claimed),
    Made,
}

/// What the server showed before new entries were read; nothing when it does not let us see.
type Looked = Result<StreamLook, ()>;

/// One opened stream.
struct StreamSource {
    /// For reads, which the server may hold for [`BLOCK`].
    reads: MultiplexedConnection,
    /// For everything else.
    commands: MultiplexedConnection,
    group: Arc<Group>,
    memory: Arc<Memory>,
    origin: Origin,
    count_max: usize,
    /// Entries to ask for next.
    count: usize,
    claim_idle: Duration,
    /// When to look for what others left, and behind which entry.
    claim: (Instant, EntryId),
    from: ReadFrom,
    /// What the server is being asked. Kept here, so that giving up `next` does not give it up.
    step: Option<BoxFuture<'static, Result<Step, GroupFault>>>,
    in_flight: VecDeque<(u64, Vec<EntryId>)>,
    next_id: u64,
    /// Something was refused: everything unacknowledged is read again once nothing is in flight.
    again: bool,
    fault: Option<SourceError>,
    /// Whether the server lets us see what was removed.
    looks: bool,
    told_further: bool,
    oddities: Vec<SourceOddity>,
}

impl StreamSource {
    /// Makes the group where it is missing, and acknowledges what was durable before the last fault.
    async fn begin_group(&mut self, start: &str) -> Result<(), SourceError> {
        let seen = self.memory.group_seen.load(Ordering::Relaxed);
        // A group that was there had been given entries: `$` would skip those that came since.
        self.tell_what_is_forgotten().await;
        let made = self.group.create_group(self.commands.clone(), if seen { "0" } else { start }).await;
        if made.map_err(source_error)? {
            self.memory.note_made(&self.group);
        }
        self.memory.group_seen.store(true, Ordering::Relaxed);
        self.acknowledge_durable().await.map_err(source_error)
    }

    /// Tells people once when a restart of the server forgets what it has given out, if that can be known: then entries
    /// come again, and are receipts again.
    async fn tell_what_is_forgotten(&mut self) {
        let Group { place, stream, group, consumer, .. } = &*self.group;
        let (written, mut commands) =
            (ReplayedCommands::of_group(stream, group, consumer), self.commands.clone());
        if let Some(refused) = replay::refused_replay(&mut commands, &written).await
            && !self.memory.forgets_told.swap(true, Ordering::Relaxed)
        {
            let advice = replay::replay_advice(&refused);
            tracing::warn!(
                domain = "ingest",
                place,
                stream,
                advice,
                "entries of the stream come again after each restart of its server"
            );
        }
    }

    /// Acknowledges what is durable. What may not have been acknowledged stays in memory.
    async fn acknowledge_durable(&mut self) -> Result<(), GroupFault> {
        let ids: Vec<EntryId> = self.memory.lock_durable().iter().copied().collect();
        for ids in ids.chunks(self.count_max) {
            self.group.acknowledge_entries(self.commands.clone(), ids).await?;
            let mut durable = self.memory.lock_durable();
            for id in ids {
                durable.remove(id);
            }
        }
        Ok(())
    }

    /// What to ask the server for next.
    fn begin_step(&self) -> BoxFuture<'static, Result<Step, GroupFault>> {
        let (group, count, from) = (Arc::clone(&self.group), self.count, self.from);
        let (due, behind) = self.claim;
        if from == ReadFrom::New && due <= Instant::now() {
            let (connection, idle) = (self.commands.clone(), self.claim_idle);
            return async move { group.claim_idle(connection, idle, behind, count).await.map(Step::Claimed) }
                .boxed();
        }
        let (connection, looks) = (self.reads.clone(), self.looks && from == ReadFrom::New);
        async move {
            // Right before the read: the read moves the group over what is gone, and nothing shows it any more.
            let looked = match looks {
                true => Some(group.look_up_stream(connection.clone()).await?),
                false => None,
            };
            group
                .read_entries(connection, from, count, BLOCK)
                .await
                .map(|entries| Step::Read(from, entries, looked))
        }
        .boxed()
    }

    /// Tells what was removed before it was read, once.
    fn note_removed(&mut self, looked: Option<Looked>) {
        match looked {
            Some(Ok(look)) => {
                let Some(count) = self.memory.lock_removed().learn_removed(&look) else { return };
                let Group { stream, group, .. } = &*self.group;
                let detail = format!(
                    "entries of {stream} were removed before group {group} read them; trim only what XPENDING and XINFO \
                     GROUPS show as read"
                );
                self.oddities.push(SourceOddity::Missing { count, detail });
            }
            Some(Err(())) => {
                self.looks = false;
                tracing::warn!(
                    domain = "ingest",
                    stream = self.group.stream,
                    "the server does not show what was removed from the stream: the user needs +xinfo|stream and +xinfo|groups"
                );
            }
            None => {}
        }
    }

    /// Tells of fields that are not kept, once an opening.
    fn note_further(&mut self, entries: &[StreamEntry]) {
        let Some(entry) = entries.iter().find(|entry| !entry.further.is_empty()) else { return };
        if !std::mem::replace(&mut self.told_further, true) {
            let detail =
                format!("entry {} has the fields {:?} too, which are not kept", entry.id, entry.further);
            self.oddities.push(SourceOddity::Extra { detail });
        }
    }

    /// What the server's answer means: entries to hand over, or nothing.
    fn take_answer(&mut self, answer: Result<Step, GroupFault>) -> Vec<StreamEntry> {
        match answer {
            Ok(Step::Read(ReadFrom::New, entries, looked)) => {
                self.note_removed(looked);
                self.note_further(&entries);
                entries
            }
            Ok(Step::Read(ReadFrom::Pending(_), entries, _)) => {
                self.from = entries.last().map_or(ReadFrom::New, |last| ReadFrom::Pending(last.id));
                entries
            }
            Ok(Step::Claimed(claimed)) => {
                let all = claimed.next == EntryId::default();
                let wait = if all { self.claim_idle / 2 } else { Duration::ZERO };
                self.claim = (Instant::now() + wait, claimed.next);
                // Ours are claimed as well when they were held up for long.
                let ours: BTreeSet<EntryId> =
                    self.in_flight.iter().flat_map(|(_, ids)| ids).copied().collect();
                claimed.entries.into_iter().filter(|entry| !ours.contains(&entry.id)).collect()
            }
            Ok(Step::Made) => {
                self.memory.note_made(&self.group);
                self.from = ReadFrom::Pending(EntryId::default());
                Vec::new()
            }
            Err(GroupFault::GroupGone) => {
                let (group, connection) = (Arc::clone(&self.group), self.commands.clone());
                self.step = Some(
                    async move { group.create_group(connection, "0").await.map(|_| Step::Made) }.boxed(),
                );
                Vec::new()
            }
            Err(GroupFault::Failed(error)) => {
                self.fault = Some(error);
                Vec::new()
            }
        }
    }

    fn hand_over(&mut self, entries: Vec<StreamEntry>) -> SourceBatch {
        let bytes: usize = entries.iter().map(|entry| entry.bytes.len()).sum();
        let fitting = READ_BYTES / (bytes / entries.len().max(1)).max(1);
        self.count = fitting.min(self.count.saturating_mul(2)).clamp(1, self.count_max);
        let id = self.next_id;
        self.next_id += 1;
        self.in_flight.push_back((id, entries.iter().map(|entry| entry.id).collect()));
        let items = entries.into_iter().map(|entry| RawItem {
            position: None,
            bytes: entry.bytes,
            oversized: None,
            topic: None,
        });
        SourceBatch { id, origin: self.origin.clone(), items: items.collect() }
    }
}

#[async_trait]
impl Source for StreamSource {
    /// An error is told only once every batch is settled: until then, what becomes durable can be remembered.
    async fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        loop {
            let must_wait =
                self.again || self.fault.is_some() || self.in_flight.len() >= UNSETTLED_BATCHES_MAX;
            if must_wait && !self.in_flight.is_empty() {
                // A settlement needs `self` too, so it always comes after this future was dropped.
                return std::future::pending().await;
            }
            if let Some(fault) = self.fault.take() {
                return Err(fault);
            }
            let step = match &mut self.step {
                Some(step) => step,
                None => {
                    if std::mem::take(&mut self.again) {
                        self.from = ReadFrom::Pending(EntryId::default());
                    }
                    let step = self.begin_step();
                    self.step.insert(step)
                }
            };
            let answer = step.await;
            self.step = None;
            let entries = self.take_answer(answer);
            // After a refusal these are read again with all others.
            if !entries.is_empty() && !self.again {
                return Ok(Some(self.hand_over(entries)));
            }
        }
    }

    fn take_oddities(&mut self) -> Vec<SourceOddity> {
        std::mem::take(&mut self.oddities)
    }

    async fn settle_batch(&mut self, id: u64, settlement: Settlement) -> Result<(), SourceError> {
        let ids = match self.in_flight.pop_front() {
            Some((oldest, ids)) if oldest == id => ids,
            oldest => {
                self.in_flight.extend(oldest);
                let detail = format!("batch {id} was settled, which is not the oldest in flight");
                return Err(SourceError::Lost { detail });
            }
        };
        match settlement {
            Settlement::Durable(_) => {
                self.memory.lock_durable().extend(ids);
                if self.fault.is_none()
                    && let Err(fault) = self.acknowledge_durable().await
                {
                    // Told by `next`, once everything is settled. A group that is gone remembers nothing of ours.
                    match fault {
                        GroupFault::Failed(error) => self.fault = Some(error),
                        GroupFault::GroupGone => self.memory.lock_durable().clear(),
                    }
                }
            }
            // Without positions there is no gap; all the same, nothing of it was stored.
            Settlement::Refused { .. } | Settlement::Denied { .. } | Settlement::Gap { .. } => {
                self.again = true
            }
        }
        Ok(())
    }
}

/// An error before anything was handed over. A group that is gone right after it was made may be there next time.
fn source_error(fault: GroupFault) -> SourceError {
    match fault {
        GroupFault::Failed(error) => error,
        GroupFault::GroupGone => SourceError::Lost { detail: "the consumer group is gone".to_owned() },
    }
}
