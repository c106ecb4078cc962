//! Outputs as lines of JSON in a file: the fan-out of the embedded default.
//!
//! The file has an identity beside its name. Before and after each write it is looked which file the name stands for,
//! so that an output counts as published only when it is in that file, or in one that was renamed away from there. What
//! a file that took its place lacks at its end is written again from the run log. See the decision record
//! `0019-positions-and-names-have-an-identity`.

mod ending;
mod outbox;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use orchestrator_kernel::ids::RunSeq;
use orchestrator_kernel::ports::fan_out::{FanOut, OutputMessage, PublishError, Remedy};
use orchestrator_kernel::ports::log::ReadError;
use tracing::{info, warn};

use self::ending::{Ending, LineName, RecentMessageIds, end_of_last_line};
pub use self::outbox::Outbox;
use super::fs::{Fs, FsFile};
use super::off_runtime;

/// How much is written with one call.
const WRITE_BYTES_MAX: usize = 4 << 20;

/// Settings of the outputs file.
#[derive(Clone)]
pub struct NdjsonOptions {
    /// Whether an output counts as confirmed only after it survives a crash of the machine. The file can always be
    /// written again from the run log.
    pub sync: bool,
    /// Where the file is.
    pub fs: Arc<dyn Fs>,
}

/// Reason for which the outputs file is not written.
#[derive(Debug, thiserror::Error)]
pub enum OutputsFileError {
    /// Another process has it.
    #[error("another process writes it; give each service a publish.file of its own")]
    InUse,
    /// It holds something else than outputs of this run log. Not a byte of it was changed.
    #[error(
        "it is no outputs file of this service: {why}; it was left as it is: move it away, or name another publish.file"
    )]
    NotOurs {
        /// What tells.
        why: String,
    },
    /// It has outputs of this run log that the run log does not have any more.
    #[error(
        "it has the output {id} of a run record that this run log has lost: LOG_REGRESSED; restore the log, or move the \
         file away if the log was restored to an earlier moment on purpose"
    )]
    Regressed {
        /// The output.
        id: String,
    },
    /// The run log, from which it is written again, cannot be read.
    #[error("cannot read the run log")]
    Runs(#[from] ReadError),
    /// The storage failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Appends each output as one line.
///
/// The publisher sends again what it has no confirmation for; what is among the last 4096 lines is recognised and not
/// written again. A line that a crash cut short is removed when the file is opened. Nobody else may write the file; to
/// rotate it, rename it.
pub struct NdjsonFile {
    name: String,
    lines: Arc<Mutex<Lines>>,
    outbox: Option<Outbox>,
}

impl NdjsonFile {
    /// Opens or creates the file `path`.
    ///
    /// # Errors
    ///
    /// [`OutputsFileError`]; a file that is none of ours is not changed.
    pub fn open(path: &Path, options: NdjsonOptions) -> Result<Self, OutputsFileError> {
        let mut lines = Lines {
            path: path.to_owned(),
            options,
            opened: None,
            recent: RecentMessageIds::default(),
            unchecked: None,
            confirmed: None,
        };
        lines.ensure_open()?;
        Ok(Self {
            name: format!("file {}", path.display()),
            lines: Arc::new(Mutex::new(lines)),
            outbox: None,
        })
    }

    /// Names the run log that the file is derived from. Nothing is written before the end of the file was compared with
    /// it.
    ///
    /// # Errors
    ///
    /// The runtime shuts down.
    pub async fn derived_from(mut self, outbox: Outbox) -> io::Result<Self> {
        let published = outbox.published;
        self.outbox = Some(outbox);
        let is_new = self
            .with_lines(move |lines| {
                lines.confirmed = Some(Confirmed { id: String::new(), run_seq: published });
                lines.unchecked.is_none()
            })
            .await?;
        if is_new && RunSeq(0) < published {
            warn!(
                file = self.name, from = %published.next(),
                "the outputs file begins with this run record; earlier outputs are in the file that was moved away, or \
                 `orchestrator replay` writes them again"
            );
        }
        Ok(self)
    }

    async fn with_lines<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Lines) -> T + Send + 'static,
    ) -> io::Result<T> {
        let lines = Arc::clone(&self.lines);
        // What a panic leaves is what an error leaves: the file is looked at again.
        off_runtime(move || work(&mut lines.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    /// Writes the messages; how many were confirmed before an error, if there was one.
    async fn write_messages(&self, messages: &[OutputMessage]) -> Result<(), Failed> {
        let messages = messages.to_vec();
        match self.with_lines(move |lines| lines.publish_messages(&messages)).await {
            Ok(written) => written,
            Err(error) => Err(Failed { why: Why::Error(error.into()), confirmed: 0 }),
        }
    }

    /// Compares the end of a file that was opened with the run log, and writes what was confirmed and is missing there.
    /// The same is done whenever another file takes its place.
    ///
    /// # Errors
    ///
    /// [`OutputsFileError::NotOurs`] when the last line is no output of this run log.
    pub async fn catch_up(&self) -> Result<(), OutputsFileError> {
        let take = |lines: &mut Lines| {
            let confirmed = lines.confirmed.as_ref().map_or(RunSeq(0), |confirmed| confirmed.run_seq);
            lines.unchecked.take().map(|last| (last, confirmed))
        };
        let Some((last, confirmed)) = self.with_lines(take).await? else { return Ok(()) };
        let caught_up = self.write_missing(&last, confirmed).await;
        if caught_up.is_err() {
            self.with_lines(|lines| lines.opened = None).await?;
        }
        caught_up
    }

    async fn write_missing(&self, last: &LineName, confirmed: RunSeq) -> Result<(), OutputsFileError> {
        let Some(outbox) = &self.outbox else { return Ok(()) };
        let Some(mut next) = outbox.find_run(&last.run_id).await? else {
            return self.last_line_is_unknown(last.message_id(), outbox).await;
        };
        if next < confirmed {
            let (from, to) = (next, confirmed);
            warn!(
                file = self.name, %from, %to,
                "outputs that were published are missing at the end of the file: written again from the run log"
            );
        }
        while let Some(page) = outbox.outputs_page(next, confirmed).await? {
            next = page.next;
            self.write_messages(&page.messages).await.map_err(Failed::into_error)?;
        }
        Ok(())
    }

    /// The last line is no output of this run log: of another one, of records that were trimmed, or of records that
    /// were lost. What the file has of the log's own end tells.
    async fn last_line_is_unknown(&self, id: String, outbox: &Outbox) -> Result<(), OutputsFileError> {
        let newest = outbox.newest_message_ids().await?;
        let knows_newest = move |lines: &mut Lines| newest.iter().any(|id| lines.recent.contains_id(id));
        if self.with_lines(knows_newest).await? {
            return Err(OutputsFileError::Regressed { id });
        }
        if outbox.is_whole() {
            let why = format!("its last line is the output {id}, which is not in this run log");
            return Err(OutputsFileError::NotOurs { why });
        }
        warn!(
            file = self.name,
            last = id,
            "the run record of the last line was trimmed: what it lacks is not known"
        );
        Ok(())
    }

    fn publish_error(&self, error: &OutputsFileError, confirmed: usize) -> PublishError {
        let (fan_out, detail) = (self.name.clone(), error.to_string());
        PublishError { fan_out, detail, confirmed, remedy: Remedy::Time }
    }
}

#[async_trait]
impl FanOut for NdjsonFile {
    fn name(&self) -> &str {
        &self.name
    }

    async fn publish(&mut self, messages: &[OutputMessage]) -> Result<(), PublishError> {
        let mut confirmed = 0;
        while let Some(rest) = messages.get(confirmed..).filter(|rest| !rest.is_empty()) {
            match self.write_messages(rest).await {
                Ok(()) => return Ok(()),
                Err(Failed { why: Why::AnotherFile, confirmed: more }) => {
                    confirmed += more;
                    self.catch_up().await.map_err(|error| self.publish_error(&error, confirmed))?;
                }
                Err(Failed { why: Why::Error(error), confirmed: more }) => {
                    return Err(self.publish_error(&error, confirmed + more));
                }
            }
        }
        Ok(())
    }
}

struct Failed {
    why: Why,
    confirmed: usize,
}

enum Why {
    /// A file was opened whose end has to be compared with what was confirmed.
    AnotherFile,
    Error(OutputsFileError),
}

impl Failed {
    fn into_error(self) -> OutputsFileError {
        match self.why {
            Why::AnotherFile => io::Error::other("it was replaced while it was written again").into(),
            Why::Error(error) => error,
        }
    }
}

struct Opened {
    file: Arc<dyn FsFile>,
    /// The byte after the last whole line.
    end: u64,
}

/// The last output that counts as published.
struct Confirmed {
    /// Its message id; empty when it was confirmed by an earlier process.
    id: String,
    run_seq: RunSeq,
}

/// Fate of the file that is open.
enum Fate {
    /// It is where it was, and as long as it was.
    Here,
    /// Somebody else made it longer or shorter.
    Resized(u64),
    /// It has another name; what was written into it is there.
    Renamed,
    /// It has no name any more: what was written into it is gone.
    Deleted,
    /// As `Deleted`, and another file has its name.
    Replaced,
}

struct Lines {
    path: PathBuf,
    options: NdjsonOptions,
    /// `None` after an error, and when the name stands for another file: then it is opened and looked at again.
    opened: Option<Opened>,
    recent: RecentMessageIds,
    /// The last line of a file that was opened, where it is not the one that was confirmed last. Nothing is written
    /// before it was compared with the run log.
    unchecked: Option<LineName>,
    confirmed: Option<Confirmed>,
}

impl Lines {
    /// Writes the messages in portions; each is confirmed as a whole.
    fn publish_messages(&mut self, messages: &[OutputMessage]) -> Result<(), Failed> {
        let mut confirmed = 0;
        while let Some(rest) = messages.get(confirmed..).filter(|rest| !rest.is_empty()) {
            match self.publish_portion(rest) {
                Ok(None) => return Err(Failed { why: Why::AnotherFile, confirmed }),
                Ok(Some(count)) => confirmed += count,
                Err(error) => {
                    self.opened = None;
                    return Err(Failed { why: Why::Error(error), confirmed });
                }
            }
        }
        Ok(())
    }

    /// Writes as many messages as make one call; returns how many that is, with those that are there already. Nothing
    /// is written, and none returned, while the end of another file has to be compared first.
    fn publish_portion(&mut self, messages: &[OutputMessage]) -> Result<Option<usize>, OutputsFileError> {
        self.leave_file_of_another_name()?;
        let (file, end) = self.ensure_open()?;
        if self.unchecked.is_some() {
            return Ok(None);
        }
        let portion = self.next_portion(messages)?;
        if !portion.bytes.is_empty() {
            self.write_at_end(&file, end, &portion.bytes)?;
            portion.ids.into_iter().for_each(|id| self.recent.add_id(id));
        }
        if let Some(last) = messages.get(..portion.count).and_then(<[_]>::last) {
            let is_later = self.confirmed.as_ref().is_none_or(|known| known.run_seq <= last.run_seq);
            if is_later {
                self.confirmed = Some(Confirmed { id: last.message_id(), run_seq: last.run_seq });
            }
        }
        Ok(Some(portion.count))
    }

    /// The lines of as many messages as make one write, without those that are there already.
    fn next_portion(&self, messages: &[OutputMessage]) -> io::Result<Portion> {
        let mut portion = Portion::default();
        for message in messages {
            let is_full = WRITE_BYTES_MAX < portion.bytes.len() + message.body.len();
            if is_full && !portion.bytes.is_empty() {
                break;
            }
            portion.count += 1;
            let id = message.message_id();
            if self.recent.contains_id(&id) {
                continue;
            }
            if message.body.iter().any(|byte| matches!(byte, b'\n' | 0)) {
                let text = format!("output {id} holds a line break or a zero byte, it is no line of JSON");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            portion.bytes.extend_from_slice(&message.body);
            portion.bytes.push(b'\n');
            portion.ids.push(id);
        }
        Ok(portion)
    }

    fn write_at_end(&mut self, file: &Arc<dyn FsFile>, end: u64, bytes: &[u8]) -> io::Result<()> {
        let written = file.write_at(bytes, end);
        if let Err(error) = written.and_then(|()| if self.options.sync { file.sync() } else { Ok(()) }) {
            // Not to be found when the file is opened again: after a failed sync nobody knows what is durable, and
            // what is found counts as published.
            self.take_back(&**file, end);
            return Err(error);
        }
        // Cut by somebody between the look and the write: what is missing before the lines reads as zeros.
        let mut before = [b'\n'];
        if 0 < end {
            file.read_at(&mut before, end - 1)?;
        }
        if before != [b'\n'] {
            self.take_back(&**file, end_of_last_line(&**file, end)?);
            return Err(io::Error::other("it was cut by somebody else while it was written"));
        }
        self.opened = Some(Opened { file: Arc::clone(file), end: end + bytes.len() as u64 });
        match self.open_file_fate()? {
            Some(Fate::Deleted | Fate::Replaced) => {
                Err(io::Error::other("it was deleted or replaced while it was written"))
            }
            // What was written is in the file of this name, or in the one that was renamed.
            Some(Fate::Here | Fate::Resized(_) | Fate::Renamed) | None => Ok(()),
        }
    }

    fn take_back(&self, file: &dyn FsFile, end: u64) {
        if let Err(error) = file.truncate(end) {
            warn!(file = %self.path.display(), error = %error, "cannot remove unconfirmed outputs");
        }
    }

    /// What became of the file that is open, if one is.
    fn open_file_fate(&self) -> io::Result<Option<Fate>> {
        let Some(Opened { file, end }) = &self.opened else { return Ok(None) };
        let (own, named) = (file.file_facts()?, self.options.fs.facts_at(&self.path)?);
        let size = file.size()?;
        Ok(Some(match named {
            Some(named) if named.id == own.id && size == *end => Fate::Here,
            Some(named) if named.id == own.id => Fate::Resized(size),
            Some(_) | None if 0 < own.links => Fate::Renamed,
            Some(_) => Fate::Replaced,
            None => Fate::Deleted,
        }))
    }

    /// Closes the file when its name stands for another one by now, or for none, or when somebody else changed it.
    fn leave_file_of_another_name(&mut self) -> io::Result<()> {
        let file = self.path.display();
        let published = self.confirmed.as_ref().map_or(RunSeq(0), |confirmed| confirmed.run_seq);
        match self.open_file_fate()? {
            None | Some(Fate::Here) => return Ok(()),
            Some(Fate::Renamed) => {
                info!(%file, %published, "the outputs file was renamed: outputs go on in a new one");
            }
            Some(Fate::Deleted) => warn!(
                %file, %published,
                "the outputs file was deleted: outputs go on in a new one; those up to this run record can be had by \
                 `orchestrator replay`"
            ),
            Some(Fate::Replaced) => warn!(
                %file, %published,
                "the outputs file was replaced by another one: outputs go on in that one, and what it lacks can be had \
                 by `orchestrator replay`"
            ),
            Some(Fate::Resized(size)) => warn!(
                %file, %published, size,
                "somebody else changed the outputs file: it is looked at again; what was cut off can be had by \
                 `orchestrator replay`"
            ),
        }
        self.opened = None;
        Ok(())
    }

    /// The open file and its end; opens it when it is not open, and then removes a line that was cut short.
    fn ensure_open(&mut self) -> Result<(Arc<dyn FsFile>, u64), OutputsFileError> {
        if let Some(opened) = &self.opened {
            return Ok((Arc::clone(&opened.file), opened.end));
        }
        let file = self.open_or_create()?;
        if !file.try_lock()? {
            return Err(OutputsFileError::InUse);
        }
        let size = file.size()?;
        let Ending { end, recent, last } = Ending::of_file(&*file, size)?;
        if end < size {
            warn!(file = %self.path.display(), bytes = size - end, "removing an output line that was cut short");
            file.truncate(end)?;
        }
        // What is recognised as published must be as durable as what is written.
        if self.options.sync {
            file.sync()?;
        }
        // A new file goes on where the one before it ended: what that one has is not written again.
        if 0 < end {
            self.recent = recent;
        }
        let confirmed = self.confirmed.as_ref();
        self.unchecked =
            last.filter(|last| confirmed.is_none_or(|confirmed| confirmed.id != last.message_id()));
        self.opened = Some(Opened { file: Arc::clone(&file), end });
        Ok((file, end))
    }

    fn open_or_create(&self) -> Result<Arc<dyn FsFile>, OutputsFileError> {
        let fs = &self.options.fs;
        match fs.facts_at(&self.path)? {
            Some(named) if !named.is_regular => {
                Err(OutputsFileError::NotOurs { why: "it is no regular file".to_owned() })
            }
            Some(_) => Ok(fs.open_file(&self.path)?),
            None => {
                let dir = self.path.parent().unwrap_or(Path::new("."));
                fs.create_dir(dir)?;
                let file = fs.create_file(&self.path)?;
                fs.sync_dir(dir)?;
                Ok(file)
            }
        }
    }
}

/// Lines that are written with one call.
#[derive(Default)]
struct Portion {
    bytes: Vec<u8>,
    ids: Vec<String>,
    /// Messages that they stand for, with those that are there already.
    count: usize,
}

#[cfg(test)]
mod tests;
