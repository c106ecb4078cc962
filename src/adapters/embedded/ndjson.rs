//! Outputs as lines of JSON in a file: the fan-out of the embedded default.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use orchestrator_kernel::ports::fan_out::{FanOut, OutputMessage, PublishError};
use serde::Deserialize;
use tracing::warn;

use super::fs::{Fs, FsFile};
use super::off_runtime;

/// Lines whose message ids are remembered, so that outputs published again are not written twice.
const RECENT_LINES: usize = 4096;
/// How much of the file's end is read for them.
const RECENT_BYTES_MAX: u64 = 16 << 20;
/// How much is written with one call.
const WRITE_BYTES_MAX: usize = 4 << 20;

/// How the file is written.
#[derive(Clone)]
pub struct NdjsonOptions {
    /// Whether an output counts as confirmed only after it survives a crash of the machine. The file can always be
    /// written again from the run log.
    pub sync: bool,
    /// Where the file is.
    pub fs: Arc<dyn Fs>,
}

/// Appends each output as one line.
///
/// The publisher sends again what it has no confirmation for; what is among the last 4096 lines is recognised and not
/// written again. A line that a crash cut short is removed when the file is opened. Nobody else may write the file; to
/// rotate it, stop the service.
pub struct NdjsonFile {
    name: String,
    shared: Arc<Mutex<Lines>>,
}

impl NdjsonFile {
    /// Opens or creates the file `path`.
    ///
    /// # Errors
    ///
    /// The storage failed.
    pub fn open(path: &Path, options: NdjsonOptions) -> io::Result<Self> {
        let mut lines = Lines { path: path.to_owned(), options, opened: None, recent: Recent::default() };
        lines.opened()?;
        Ok(Self { name: format!("file {}", path.display()), shared: Arc::new(Mutex::new(lines)) })
    }
}

#[async_trait]
impl FanOut for NdjsonFile {
    fn name(&self) -> &str {
        &self.name
    }

    async fn publish(&mut self, messages: &[OutputMessage]) -> Result<(), PublishError> {
        let (shared, messages) = (Arc::clone(&self.shared), messages.to_vec());
        let written = off_runtime(move || {
            // What a panic leaves is what an error leaves: the file is looked at again.
            shared.lock().unwrap_or_else(PoisonError::into_inner).publish(&messages)
        });
        let failed = match written.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failed)) => failed,
            Err(error) => Failed { error, confirmed: 0 },
        };
        Err(PublishError {
            fan_out: self.name.clone(),
            detail: failed.error.to_string(),
            confirmed: failed.confirmed,
        })
    }
}

struct Failed {
    error: io::Error,
    confirmed: usize,
}

struct Opened {
    file: Arc<dyn FsFile>,
    /// The byte after the last whole line.
    end: u64,
}

struct Lines {
    path: PathBuf,
    options: NdjsonOptions,
    /// `None` after an error: then the file is opened and looked at again.
    opened: Option<Opened>,
    recent: Recent,
}

impl Lines {
    /// Writes the messages in portions; each is confirmed as a whole.
    fn publish(&mut self, messages: &[OutputMessage]) -> Result<(), Failed> {
        let mut confirmed = 0;
        while let Some(rest) = messages.get(confirmed..).filter(|rest| !rest.is_empty()) {
            match self.publish_portion(rest) {
                Ok(count) => confirmed += count,
                Err(error) => {
                    self.opened = None;
                    return Err(Failed { error, confirmed });
                }
            }
        }
        Ok(())
    }

    /// Writes as many messages as make one call; returns how many that is, with those that are there already.
    fn publish_portion(&mut self, messages: &[OutputMessage]) -> io::Result<usize> {
        let (file, end) = self.opened()?;
        if file.size()? != end {
            return Err(io::Error::other("somebody else changed the file; it is opened again"));
        }
        let mut buffer = Vec::new();
        let mut ids = Vec::new();
        let mut count = 0;
        for message in messages {
            if !buffer.is_empty() && buffer.len() + message.body.len() > WRITE_BYTES_MAX {
                break;
            }
            count += 1;
            let id = message.message_id();
            if self.recent.contains(&id) {
                continue;
            }
            if message.body.iter().any(|byte| matches!(byte, b'\n' | 0)) {
                let text = format!("output {id} holds a line break or a zero byte, it is no line of JSON");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            buffer.extend_from_slice(&message.body);
            buffer.push(b'\n');
            ids.push(id);
        }
        if !buffer.is_empty() {
            let written = file.write_at(&buffer, end);
            if let Err(error) = written.and_then(|()| if self.options.sync { file.sync() } else { Ok(()) }) {
                // Not to be found when the file is opened again: after a failed sync nobody knows what is durable, and
                // what is found counts as published.
                if let Err(error) = file.truncate(end) {
                    warn!(file = %self.path.display(), error = %error, "cannot remove unconfirmed outputs");
                }
                return Err(error);
            }
            self.opened = Some(Opened { file, end: end + buffer.len() as u64 });
            ids.into_iter().for_each(|id| self.recent.add(id));
        }
        Ok(count)
    }

    /// The open file and its end; opens it when it is not open, and then removes a line that was cut short.
    fn opened(&mut self) -> io::Result<(Arc<dyn FsFile>, u64)> {
        if let Some(opened) = &self.opened {
            return Ok((Arc::clone(&opened.file), opened.end));
        }
        let file = self.open_or_create()?;
        let size = file.size()?;
        let (end, recent) = check_end(&*file, size)?;
        if end < size {
            warn!(file = %self.path.display(), bytes = size - end, "removing an output line that was cut short");
            file.truncate(end)?;
        }
        // What is recognised as published must be as durable as what is written.
        if self.options.sync {
            file.sync()?;
        }
        self.recent = recent;
        self.opened = Some(Opened { file: Arc::clone(&file), end });
        Ok((file, end))
    }

    fn open_or_create(&self) -> io::Result<Arc<dyn FsFile>> {
        let fs = &self.options.fs;
        match fs.open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let dir = self.path.parent().unwrap_or(Path::new("."));
                fs.create_dir(dir)?;
                let file = fs.create(&self.path)?;
                fs.sync_dir(dir)?;
                Ok(file)
            }
            opened => opened,
        }
    }
}

/// The byte after the last line that is whole, and the names of the last lines.
///
/// A write that a crash cut short may lack its beginning as well as its end; what is missing then reads as zeros, which
/// no JSON holds.
fn check_end(file: &dyn FsFile, size: u64) -> io::Result<(u64, Recent)> {
    let start = size.saturating_sub(RECENT_BYTES_MAX);
    let mut last = vec![0; usize::try_from(size - start).unwrap_or(usize::MAX)];
    let read = file.read_at(&mut last, start)?;
    last.truncate(read);
    let unbroken = last.iter().position(|byte| *byte == 0).unwrap_or(last.len());
    let end = end_of_last_line(file, start + unbroken as u64)?;
    last.truncate(usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX));
    Ok((end, Recent::of_lines(&last)))
}

/// The byte after the last line break before `size`; 0 when there is none.
fn end_of_last_line(file: &dyn FsFile, size: u64) -> io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        let part = buffer.get_mut(..usize::try_from(end - start).unwrap_or(usize::MAX)).unwrap_or_default();
        let read = file.read_at(part, start)?;
        let found = part.get(..read).and_then(|part| part.iter().rposition(|byte| *byte == b'\n'));
        if let Some(at) = found {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Message ids of the last lines.
#[derive(Default)]
struct Recent {
    order: VecDeque<Arc<str>>,
    ids: HashSet<Arc<str>>,
}

/// The part of an output that names it.
#[derive(Deserialize)]
struct LineName {
    run_id: String,
    event_type: String,
}

impl Recent {
    /// The ids of the last lines.
    fn of_lines(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n').rev();
        // A line that is cut by the window, or not ours, has no name and is passed over.
        let names =
            lines.take(RECENT_LINES + 1).filter_map(|line| serde_json::from_slice::<LineName>(line).ok());
        let ids: Vec<String> = names.map(|name| format!("{}:{}", name.run_id, name.event_type)).collect();
        let mut recent = Self::default();
        ids.into_iter().rev().for_each(|id| recent.add(id));
        recent
    }

    fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    fn add(&mut self, id: String) {
        let id: Arc<str> = id.into();
        if self.ids.insert(Arc::clone(&id)) {
            self.order.push_back(id);
        }
        if self.order.len() > RECENT_LINES
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use orchestrator_kernel::ids::{EngineMode, IngestSeq, RunSeq, Symbol, TsMs};
    use orchestrator_kernel::run_id::RunId;

    use super::super::fault_fs::{FaultFs, Rng};
    use super::*;

    const PATH: &str = "/outputs/events.jsonl";

    fn message(number: u64) -> OutputMessage {
        let symbol = Symbol::from("BTCUSDT");
        let run_id = RunId::derive(&symbol, TsMs(0), IngestSeq(number), EngineMode::Truth);
        let event_type = "EngineRunCompleted";
        OutputMessage {
            run_seq: RunSeq(number),
            index: 0,
            run_id,
            event_type,
            symbol,
            symbol_seq: number,
            body: Bytes::from(format!(r#"{{"event_type":"{event_type}","n":{number},"run_id":"{run_id}"}}"#)),
        }
    }

    fn messages(numbers: std::ops::RangeInclusive<u64>) -> Vec<OutputMessage> {
        numbers.map(message).collect()
    }

    fn open(fs: &FaultFs, sync: bool) -> io::Result<NdjsonFile> {
        NdjsonFile::open(Path::new(PATH), NdjsonOptions { sync, fs: Arc::new(fs.clone()) })
    }

    fn text(numbers: std::ops::RangeInclusive<u64>) -> String {
        numbers.map(|number| String::from_utf8(message(number).body.to_vec()).unwrap() + "\n").collect()
    }

    fn content(fs: &FaultFs) -> String {
        String::from_utf8(fs.content(Path::new(PATH))).unwrap()
    }

    #[tokio::test]
    async fn outputs_are_lines_in_order() {
        let fs = FaultFs::default();
        let mut file = open(&fs, true).unwrap();

        file.publish(&messages(1..=3)).await.unwrap();
        file.publish(&[]).await.unwrap();
        file.publish(&messages(4..=5)).await.unwrap();

        assert_eq!(content(&fs), text(1..=5));
    }

    #[tokio::test]
    async fn outputs_published_again_are_not_written_twice() {
        let fs = FaultFs::default();
        open(&fs, false).unwrap().publish(&messages(1..=5)).await.unwrap();

        let mut file = open(&fs, false).unwrap();
        file.publish(&messages(3..=7)).await.unwrap();
        file.publish(&messages(6..=8)).await.unwrap();

        assert_eq!(content(&fs), text(1..=8));
    }

    /// Method: cut the file at every byte of its last two lines and publish from the middle again.
    #[tokio::test]
    async fn line_that_was_cut_short_is_written_again() {
        let whole = text(1..=6);
        for cut in text(1..=4).len()..=whole.len() {
            let fs = FaultFs::default();
            open(&fs, false).unwrap();
            fs.overwrite(Path::new(PATH), &whole.as_bytes()[..cut]);

            open(&fs, false).unwrap().publish(&messages(2..=6)).await.unwrap();

            assert_eq!(content(&fs), whole, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn failed_write_confirms_nothing_and_the_next_publish_repairs_it() {
        for fail in [FaultFs::fail_next_write, FaultFs::fail_next_sync] {
            let fs = FaultFs::default();
            let mut file = open(&fs, true).unwrap();
            file.publish(&messages(1..=2)).await.unwrap();

            fail(&fs);
            let refused = file.publish(&messages(3..=9)).await.unwrap_err();
            file.publish(&messages(3..=9)).await.unwrap();

            fs.crash(&mut Rng(0));

            assert_eq!(refused.confirmed, 0);
            assert_eq!(content(&fs), text(1..=9));
        }
    }

    #[tokio::test]
    async fn error_tells_the_confirmed_portions() {
        let fs = FaultFs::default();
        let mut file = open(&fs, false).unwrap();
        let large = |number| {
            let padding = "x".repeat(WRITE_BYTES_MAX);
            OutputMessage { body: Bytes::from(format!(r#"{{"padding":"{padding}"}}"#)), ..message(number) }
        };
        let broken = OutputMessage { body: Bytes::from_static(b"{\n}"), ..message(3) };

        let refused = file.publish(&[large(1), large(2), broken]).await.unwrap_err();

        assert_eq!(refused.confirmed, 2);
    }

    #[tokio::test]
    async fn file_changed_by_somebody_else_is_opened_again() {
        let fs = FaultFs::default();
        let mut file = open(&fs, false).unwrap();
        file.publish(&messages(1..=3)).await.unwrap();

        fs.overwrite(Path::new(PATH), text(1..=2).as_bytes());
        assert!(file.publish(&messages(3..=4)).await.is_err());
        file.publish(&messages(3..=4)).await.unwrap();

        assert_eq!(content(&fs), text(1..=4));
    }

    #[tokio::test]
    async fn confirmed_outputs_survive_a_crash() {
        for seed in 0..300 {
            let mut rng = Rng(seed);
            let fs = FaultFs::default();
            let mut confirmed = 0;
            fs.fail_power_after(rng.below(30));
            if let Ok(mut file) = open(&fs, true) {
                while file.publish(&messages(confirmed + 1..=confirmed + 3)).await.is_ok() {
                    confirmed += 3;
                }
            }
            fs.crash(&mut rng);

            open(&fs, true).unwrap().publish(&messages(confirmed + 1..=confirmed + 3)).await.unwrap();

            assert_eq!(content(&fs), text(1..=confirmed + 3), "SEED={seed}");
        }
    }
}
