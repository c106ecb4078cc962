//! The log's one writer: a thread that turns queued appends into one write and one sync a group.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{AcquireError, Acquired, AppendError, ReadLimit};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::super::fs::is_full;
use super::frame::Frame;
use super::meta::MetaFile;
use super::segment::{HEADER_BYTES, Header, Spare};
use super::store::{ActiveSegment, Store};

/// A group is committed when it has this many bytes: some milliseconds of writing.
const GROUP_BYTES_MAX: u64 = 8 << 20;
/// Records are noted as known durable at least this often, for the regression check of the next start.
const HIGH_WATER_BYTES: u64 = 16 << 20;

/// Requests to the writer thread.
pub(super) enum Request {
    /// Make the batch durable. Without a frame: an empty batch, of which only the epoch is checked.
    Append { epoch: Epoch, frame: Option<Frame>, reply: Reply },
    /// See to it that a frame of so many bytes has room.
    ProveRoom { epoch: Epoch, bytes: u64, reply: Reply },
    /// Start a new epoch, behind everything queued before.
    Acquire { reply: oneshot::Sender<Result<Acquired, AcquireError>> },
}

type Reply = oneshot::Sender<Result<(), AppendError>>;

/// Limits of the writer.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentLimits {
    pub(super) segment_bytes: u64,
    pub(super) capacity_bytes: Option<u64>,
}

/// Error of a failed storage. Every later append gets it too.
struct Failure {
    kind: io::ErrorKind,
    text: String,
}

impl Failure {
    fn to_error(&self) -> io::Error {
        io::Error::new(self.kind, self.text.clone())
    }
}

struct Staged {
    frame: Frame,
    at: u64,
    reply: Reply,
}

/// State of the writer thread.
pub(super) struct SegmentWriter {
    store: Arc<Store>,
    meta: Arc<MetaFile>,
    room: SegmentLimits,
    epoch: Epoch,
    failure: Option<Failure>,
    group: Vec<Staged>,
    /// Where the next frame goes, and the last record staged.
    end: u64,
    tail: Seq,
    /// Where the last frame starts; 0 when the segment has none.
    last_at: u64,
    spare: Arc<Mutex<Option<Spare>>>,
    /// Counts prepared files: a name is never used twice, since the file of an earlier one may just become a segment.
    prepared: u64,
    housekeeping: Option<JoinHandle<()>>,
    unnoted_bytes: u64,
}

impl SegmentWriter {
    pub(super) fn new(
        store: Arc<Store>,
        meta: MetaFile,
        room: SegmentLimits,
        epoch: Epoch,
        last_at: u64,
    ) -> Self {
        let (end, tail) = {
            let catalogue = store.catalogue();
            (catalogue.active.end, catalogue.tail)
        };
        Self {
            store,
            meta: Arc::new(meta),
            room,
            epoch,
            failure: None,
            group: Vec::new(),
            end,
            tail,
            last_at,
            spare: Arc::default(),
            prepared: 0,
            housekeeping: None,
            unnoted_bytes: 0,
        }
    }

    /// Serves requests until every sender is gone, then notes a clean end.
    pub(super) fn serve_requests(mut self, mut requests: mpsc::Receiver<Request>) {
        self.keep_house();
        while let Some(request) = requests.blocking_recv() {
            self.take_request(request);
            // What queued up meanwhile shares one sync.
            while self.group_bytes() < GROUP_BYTES_MAX
                && let Ok(request) = requests.try_recv()
            {
                self.take_request(request);
            }
            self.commit_group();
        }
        self.close_cleanly();
    }

    fn take_request(&mut self, request: Request) {
        match request {
            Request::Append { epoch, frame, reply } => match self.admit_append(epoch, frame) {
                Ok(Some((frame, at))) => self.group.push(Staged { frame, at, reply }),
                Ok(None) => send_answer(reply, Ok(())),
                Err(error) => send_answer(reply, Err(error)),
            },
            Request::ProveRoom { epoch, bytes, reply } => {
                let proved = self.check_writer(epoch).and_then(|()| self.make_room(bytes));
                send_answer(reply, proved);
            }
            Request::Acquire { reply } => {
                self.commit_group();
                let acquired = self.begin_epoch();
                // A caller that went away fenced all the same.
                reply.send(acquired).ok();
            }
        }
    }

    fn begin_epoch(&mut self) -> Result<Acquired, AcquireError> {
        let failed = |source| AcquireError::Io { log: self.store.name.clone(), source };
        if let Some(failure) = &self.failure {
            return Err(failed(failure.to_error()));
        }
        self.store.check_place().map_err(failed)?;
        self.epoch = self.meta.next_epoch(self.store.outside_mark().is_some()).map_err(failed)?;
        self.store.catalogue_mut().writer = self.epoch;
        Ok(Acquired { epoch: self.epoch, tail: self.tail })
    }

    /// Decides about an append: the frame and its place when it is to be written, nothing when it is already there.
    fn admit_append(
        &mut self,
        epoch: Epoch,
        frame: Option<Frame>,
    ) -> Result<Option<(Frame, u64)>, AppendError> {
        self.check_writer(epoch)?;
        let Some(frame) = frame else { return Ok(None) };
        if frame.first_seq() != self.tail.next() {
            return self.compare_repeated(&frame).map(|()| None);
        }
        self.make_room(frame.len())?;
        let at = self.end;
        self.last_at = at;
        self.end += frame.len();
        self.tail = frame.last_seq();
        Ok(Some((frame, at)))
    }

    fn check_writer(&self, epoch: Epoch) -> Result<(), AppendError> {
        self.check_healthy()?;
        match epoch == self.epoch {
            true => Ok(()),
            false => Err(AppendError::Fenced { mine: epoch, current: self.epoch }),
        }
    }

    fn check_healthy(&self) -> Result<(), AppendError> {
        match &self.failure {
            None => Ok(()),
            Some(failure) => Err(AppendError::Poisoned { source: failure.to_error() }),
        }
    }

    /// An append whose positions are all taken: equal is a repeated success, different a conflict.
    fn compare_repeated(&mut self, frame: &Frame) -> Result<(), AppendError> {
        self.commit_group();
        self.check_healthy()?;
        let start = self.store.catalogue().start_seq();
        if frame.last_seq() > self.tail || frame.first_seq() < start {
            return Err(AppendError::Gap { first: frame.first_seq(), tail: self.tail });
        }
        let mut at = frame.first_seq();
        let mut payloads = frame.payloads();
        while at <= frame.last_seq() {
            let stored = match self.store.read_blocking(at, ReadLimit::default()) {
                Ok(stored) => stored,
                Err(error) => return Err(self.poison_log(io::Error::other(error))),
            };
            for ((seq, stored), offered) in stored.iter().zip(payloads.by_ref()) {
                if stored != offered {
                    return Err(AppendError::Conflict { at: seq });
                }
            }
            at = stored.last_seq().next();
        }
        Ok(())
    }

    fn group_bytes(&self) -> u64 {
        self.group.iter().map(|staged| staged.frame.len()).sum()
    }

    /// Writes the staged frames, syncs once, and only then answers.
    fn commit_group(&mut self) {
        if self.group.is_empty() {
            return;
        }
        let mut group = std::mem::take(&mut self.group);
        // Records that are synced into a directory which is gone are gone too.
        if let Err(error) = self.write_and_sync(&mut group).and_then(|()| self.store.check_segment()) {
            return self.refuse_group(group, error);
        }
        let mut catalogue = self.store.catalogue_mut();
        for staged in &group {
            catalogue.active.index.note_frame(staged.frame.first_seq(), staged.at);
        }
        catalogue.active.end = self.end;
        catalogue.tail = self.tail;
        drop(catalogue);
        if let Err(error) = self.store.note_mark() {
            return self.refuse_group(group, error);
        }
        self.unnoted_bytes += group.iter().map(|staged| staged.frame.len()).sum::<u64>();
        for staged in group.drain(..) {
            send_answer(staged.reply, Ok(()));
        }
        self.group = group;
        if self.unnoted_bytes >= HIGH_WATER_BYTES {
            self.keep_house();
        }
    }

    /// Answers a group that is not, or not certainly, durable.
    fn refuse_group(&mut self, group: Vec<Staged>, error: io::Error) {
        let error = self.poison_log(error);
        warn!(log = %self.store.name, error = %error, batches = group.len(), "appends are not answered with success");
        for staged in group {
            send_answer(staged.reply, self.check_healthy());
        }
    }

    fn write_and_sync(&self, group: &mut [Staged]) -> io::Result<()> {
        let (file, synced) = {
            let catalogue = self.store.catalogue();
            (Arc::clone(&catalogue.active.file), catalogue.tail)
        };
        for staged in group {
            file.write_at(staged.frame.finish_head(self.epoch, synced, self.store.log_id), staged.at)?;
        }
        file.sync()
    }

    /// Never writes again: what a failed sync left in memory may never reach the medium, whatever a second sync says.
    fn poison_log(&mut self, source: io::Error) -> AppendError {
        error!(log = %self.store.name, error = %source, "log storage failed, nothing more is written by this process");
        let failure = Failure { kind: source.kind(), text: source.to_string() };
        let poisoned = AppendError::Poisoned { source: failure.to_error() };
        self.failure = Some(failure);
        poisoned
    }

    /// Sees to it that `needed` bytes fit behind the staged frames.
    fn make_room(&mut self, needed: u64) -> Result<(), AppendError> {
        let size = self.store.catalogue().active.size;
        if self.end + needed <= size {
            return Ok(());
        }
        self.commit_group();
        self.check_healthy()?;
        self.roll_segment(needed).map_err(|error| match error {
            RollError::Capacity(limit) => AppendError::Full { detail: format!("capacity_bytes is {limit}") },
            RollError::Io(error) if is_full(&error) => AppendError::Full { detail: error.to_string() },
            RollError::Io(error) => self.poison_log(error),
        })
    }

    /// Starts the next segment, or enlarges the present one when it is empty and the batch larger than a segment.
    fn roll_segment(&mut self, needed: u64) -> Result<(), RollError> {
        // Never into a directory that took the place of the log's own.
        self.store.check_segment()?;
        let size = self.room.segment_bytes.max(HEADER_BYTES + needed);
        let (first, file, old_size) = {
            let catalogue = self.store.catalogue();
            (catalogue.active.first, Arc::clone(&catalogue.active.file), catalogue.active.size)
        };
        let is_empty = self.end == HEADER_BYTES;
        self.check_capacity(if is_empty { size } else { self.end + size })?;
        if is_empty {
            file.allocate(size)?;
            file.sync()?;
            self.store.catalogue_mut().active.size = size;
            return Ok(());
        }
        let header = Header {
            log_id: self.store.log_id,
            first: self.tail.next(),
            previous_first: first,
            previous_end: self.end,
            previous_last: self.last_at,
        };
        let next = self.take_spare(size)?.into_segment(&*self.store.fs, &self.store.dir, &header, size)?;
        if old_size > self.end
            && let Err(error) = file.truncate(self.end)
        {
            // Only room is lost: where the records end is told by the next segment's header.
            warn!(log = %self.store.name, error = %error, "cannot give back the unused end of a segment");
        }
        let size = next.size()?;
        let active = ActiveSegment {
            first: header.first,
            id: Some(next.file_id()?),
            file: next,
            end: HEADER_BYTES,
            size,
            index: Default::default(),
        };
        self.store.seal_active(active);
        self.end = HEADER_BYTES;
        self.last_at = 0;
        self.keep_house();
        Ok(())
    }

    /// `active` is what the segments in use will take beside the sealed ones.
    fn check_capacity(&self, active: u64) -> Result<(), RollError> {
        let used = self.store.catalogue().sealed_bytes() + active;
        match self.room.capacity_bytes {
            Some(limit) if used > limit => Err(RollError::Capacity(limit)),
            Some(_) | None => Ok(()),
        }
    }

    fn take_spare(&mut self, size: u64) -> io::Result<Spare> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(spare) = spare {
            return Ok(spare);
        }
        let name = self.spare_name();
        Spare::prepare_segment(&*self.store.fs, &self.store.dir, &name, size)
    }

    fn spare_name(&mut self) -> String {
        self.prepared += 1;
        format!("spare-{}", self.prepared)
    }

    /// Prepares the next segment and notes what is durable, beside the appends. Skipped while the last one still runs.
    fn keep_house(&mut self) {
        if self.housekeeping.as_ref().is_some_and(|job| !job.is_finished()) {
            return;
        }
        self.join_housekeeping();
        self.unnoted_bytes = 0;
        let active_size = self.store.catalogue().active.size;
        let may_prepare = self.check_capacity(active_size + self.room.segment_bytes).is_ok();
        let (store, meta, spare) = (Arc::clone(&self.store), Arc::clone(&self.meta), Arc::clone(&self.spare));
        let (size, name) = (self.room.segment_bytes, self.spare_name());
        let job = Box::new(move || {
            if !note_durable(&store, &meta) {
                return;
            }
            let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.is_none() && may_prepare {
                // When there is no room, the append that needs the segment says so.
                *spare = Spare::prepare_segment(&*store.fs, &store.dir, &name, size).ok();
            }
        });
        match self.store.fs.run_in_background(job) {
            Ok(handle) => self.housekeeping = handle,
            Err(error) => {
                warn!(log = %self.store.name, error = %error, "cannot prepare the next segment ahead")
            }
        }
    }

    fn join_housekeeping(&mut self) {
        if let Some(job) = self.housekeeping.take()
            && job.join().is_err()
        {
            warn!(log = %self.store.name, "log housekeeping panicked");
        }
    }

    fn close_cleanly(mut self) {
        self.join_housekeeping();
        if self.failure.is_none() {
            note_durable(&self.store, &self.meta);
        }
    }
}

/// Notes in the log's folder how far it is durable; `false` when that folder is not there any more: another one of the
/// same name belongs to somebody else. The note only helps to see a loss where no mark is kept outside: a log goes on
/// without it.
fn note_durable(store: &Store, meta: &MetaFile) -> bool {
    let (tail, active_first) = {
        let catalogue = store.catalogue();
        (catalogue.tail, catalogue.active.first)
    };
    let place = store.check_place();
    let is_there = place.is_ok();
    if let Err(error) = place.and_then(|()| meta.note_durable(tail, active_first)) {
        warn!(log = %store.name, error = %error, "cannot note how far the log is durable");
    }
    is_there
}

fn send_answer(reply: Reply, result: Result<(), AppendError>) {
    // A caller that went away sends the batch again, and learns then that it is there.
    reply.send(result).ok();
}

enum RollError {
    Capacity(u64),
    Io(io::Error),
}

impl From<io::Error> for RollError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
