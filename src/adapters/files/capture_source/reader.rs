//! The reading thread: from the file to batches of items, no further ahead than the channel allows.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::source::{RawItem, SourceError};
use tokio::sync::{mpsc, oneshot};

use super::file::{self, CapturePlace, CaptureText, OpenCapture};
use super::known::{KnownLines, Likeness};
use super::lines::{CaptureLine, Lines, Next};
use super::pace::recorded_at;
use super::{CaptureOptions, CaptureSpeed, Resume, lost_error};

/// Batches that wait in the channel, read ahead of the source.
pub(super) const READ_AHEAD: usize = 2;
/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Lines that are skipped between two looks whether the source is still there.
const SKIPPED_PER_CHECK: u64 = 4096;

/// Consecutive items with the times that pace them.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) items: Vec<RawItem>,
    /// `recv_ts_ms` of each item as far as it has one; empty at [`Speed::Max`].
    pub(super) recorded: Vec<Option<TsMs>>,
}

/// Report of the thread to the source.
#[derive(Debug)]
pub(super) enum Message {
    Chunk(Chunk),
    /// Everything was read.
    Ended,
    /// Everything readable was read.
    Failed(SourceError),
}

/// Reason for which the thread stops before the end.
enum Stop {
    /// The source is gone.
    Unwanted,
    /// The line at this position is not the one that was read there.
    AnotherFile(u64),
    Failed(SourceError),
}

/// The source's ends of the channels.
pub(super) struct ReadingThread {
    /// Says whether the file could be opened.
    pub(super) opened: oneshot::Receiver<Result<(), SourceError>>,
    /// What was read. Without a last word the thread has panicked.
    pub(super) messages: mpsc::Receiver<Message>,
}

/// Starts the thread. It ends within one read or one poll interval after the receivers are dropped.
///
/// # Errors
///
/// [`SourceError::Lost`] when the system has no thread.
pub(super) fn start_thread(
    options: &CaptureOptions,
    resume: Resume,
    bytes_read: Arc<AtomicU64>,
) -> Result<ReadingThread, SourceError> {
    let (opened_sender, opened) = oneshot::channel();
    let (sender, messages) = mpsc::channel(READ_AHEAD);
    let thread_options = options.clone();
    let body = move || {
        let opened = file::open_capture(&thread_options.path, thread_options.follow, bytes_read);
        let (capture, answer) = match opened {
            Ok(capture) => (Some(capture), Ok(())),
            Err(error) => (None, Err(error)),
        };
        // A dropped receiver means that nobody waits for this source any more.
        if let (Ok(()), Some(capture)) = (opened_sender.send(answer), capture) {
            Reader::new(capture, &thread_options, resume, sender).run_thread();
        }
    };
    thread::Builder::new().name("capture".to_owned()).spawn(body).map_err(|error| {
        lost_error(format!("cannot start a thread to read {}: {error}", options.path.display()))
    })?;
    Ok(ReadingThread { opened, messages })
}

struct Reader {
    lines: Lines<Box<dyn CaptureText>>,
    place: CapturePlace,
    is_stream: bool,
    follow: bool,
    output: Output,
}

impl Reader {
    fn new(
        capture: OpenCapture,
        options: &CaptureOptions,
        resume: Resume,
        sender: mpsc::Sender<Message>,
    ) -> Self {
        let OpenCapture { text, place, is_stream } = capture;
        let lines = Lines::new(text, options.line_bytes_max);
        let output = Output::new(options, resume, !is_stream, sender);
        Self { lines, place, is_stream, follow: options.follow, output }
    }

    fn run_thread(mut self) {
        let last = match self.read_file() {
            Ok(()) => Message::Ended,
            Err(Stop::Failed(error)) => Message::Failed(error),
            Err(Stop::AnotherFile(position)) => {
                Message::Failed(self.place.is_another(position, self.output.resume))
            }
            Err(Stop::Unwanted) => return,
        };
        if self.output.sender.blocking_send(last).is_err() {
            tracing::debug!("capture source was dropped before it saw the end");
        }
    }

    fn read_file(&mut self) -> Result<(), Stop> {
        self.read_lines()?;
        let replaced = if self.follow { self.follow_growth()? } else { None };
        if let Some(line) = self.lines.take_unfinished() {
            self.output.take_line(&line)?;
        }
        self.output.send_chunk()?;
        match replaced {
            Some(error) => Err(Stop::Failed(error)),
            None => self.check_resume(),
        }
    }

    /// Takes every whole line that is there.
    fn read_lines(&mut self) -> Result<(), Stop> {
        loop {
            // Nobody knows when a stream goes on: what has come is handed over before it is waited for.
            if self.is_stream && !self.lines.has_line_here() {
                self.output.send_chunk()?;
            }
            match self.lines.next_line() {
                Ok(Next::Line(line)) => self.output.take_line(&line)?,
                Ok(Next::Exhausted) => return Ok(()),
                Err(error) => {
                    self.output.send_chunk()?;
                    return Err(Stop::Failed(self.place.read_failed(&error, self.output.position)));
                }
            }
        }
    }

    /// Reads what is appended, until the file is replaced: then what is left of it has been read.
    fn follow_growth(&mut self) -> Result<Option<SourceError>, Stop> {
        loop {
            self.output.send_chunk()?;
            if !self.lines.has_unfinished() {
                self.check_resume()?;
            }
            if self.output.sender.is_closed() {
                return Err(Stop::Unwanted);
            }
            thread::sleep(POLL);
            // Asked before the last read: what was appended before the replacement is then surely read.
            let replaced = self.place.check_still_same();
            match (self.read_lines(), replaced) {
                (Ok(()), None) => {}
                // A file that was cut says so twice, and this once with both sizes.
                (Ok(()) | Err(Stop::Failed(_)), Some(replaced)) => return Ok(Some(replaced)),
                (Err(stop), _) => return Err(stop),
            }
        }
    }

    fn check_resume(&self) -> Result<(), Stop> {
        let (position, resume) = (self.output.position, self.output.resume);
        if position < resume { Err(Stop::Failed(self.place.too_short(position, resume))) } else { Ok(()) }
    }
}

/// Collects lines into chunks and sends them.
struct Output {
    name: String,
    sender: mpsc::Sender<Message>,
    resume: u64,
    /// What is stored of the lines that are skipped.
    known: KnownLines,
    /// Whether the same text begins anew when it is opened again. A pipe's may, or goes on.
    begins_anew: bool,
    items_max: usize,
    bytes_max: usize,
    is_paced: bool,
    /// Items seen, those skipped included.
    position: u64,
    bytes: Vec<u8>,
    items: Vec<Waiting>,
}

/// An item of the chunk that is being collected.
struct Waiting {
    end: usize,
    oversized: Option<u64>,
    recorded: Option<TsMs>,
}

impl Output {
    fn new(
        options: &CaptureOptions,
        resume: Resume,
        begins_anew: bool,
        sender: mpsc::Sender<Message>,
    ) -> Self {
        Self {
            name: options.name.clone(),
            sender,
            resume: resume.position,
            known: resume.known,
            begins_anew,
            items_max: options.batch_items_max,
            bytes_max: options.batch_bytes_max,
            is_paced: options.speed != CaptureSpeed::Max,
            position: 0,
            bytes: Vec::new(),
            items: Vec::new(),
        }
    }

    fn take_line(&mut self, line: &CaptureLine<'_>) -> Result<(), Stop> {
        if line.oversized.is_none() && line.bytes.trim_ascii().is_empty() {
            return Ok(());
        }
        if self.position == 0 && !self.begins_anew && !self.known.begins_with(line) {
            self.number_on();
        }
        if self.position < self.resume {
            self.position += 1;
            return self.skip_known_line(line);
        }
        let is_full =
            self.items.len() >= self.items_max || self.bytes.len() + line.bytes.len() > self.bytes_max;
        if is_full {
            self.send_chunk()?;
        }
        self.position += 1;
        self.bytes.extend_from_slice(line.bytes);
        let recorded = if self.is_paced { recorded_at(line.bytes) } else { None };
        self.items.push(Waiting { end: self.bytes.len(), oversized: line.oversized, recorded });
        Ok(())
    }

    /// Passes over a line that the logs hold already, if it is that line.
    fn skip_known_line(&self, line: &CaptureLine<'_>) -> Result<(), Stop> {
        match self.known.compare_line(self.position, line) {
            Likeness::Same => {}
            Likeness::Longer => tracing::warn!(
                source = self.name,
                position = self.position,
                "this line was taken when the file ended in its middle: its beginning is in the quarantine, and the whole \
                 line is not read again"
            ),
            Likeness::Other => return Err(Stop::AnotherFile(self.position)),
        }
        let is_unwanted = self.position.is_multiple_of(SKIPPED_PER_CHECK) && self.sender.is_closed();
        if is_unwanted { Err(Stop::Unwanted) } else { Ok(()) }
    }

    /// Takes the text for a new one: what a pipe brings has no beginning to go back to, so none of it is skipped.
    fn number_on(&mut self) {
        if 0 < self.resume {
            tracing::info!(
                source = self.name,
                position = self.resume,
                "the source is no file and does not begin as it did before: nothing of it is skipped"
            );
        }
        self.position = self.resume;
    }

    /// Sends what was collected. All items share one allocation.
    fn send_chunk(&mut self) -> Result<(), Stop> {
        if self.items.is_empty() {
            return Ok(());
        }
        // The next chunk will be about as large.
        let next = (Vec::with_capacity(self.bytes.len()), Vec::with_capacity(self.items.len()));
        let bytes = Bytes::from(std::mem::replace(&mut self.bytes, next.0));
        let waiting = std::mem::replace(&mut self.items, next.1);
        let recorded =
            if self.is_paced { waiting.iter().map(|item| item.recorded).collect() } else { Vec::new() };
        let positions = self.position + 1 - waiting.len() as u64..;
        let mut start = 0;
        let items = positions.zip(waiting).map(|(position, item)| {
            let bytes = bytes.slice(std::mem::replace(&mut start, item.end)..item.end);
            RawItem { position: Some(position), bytes, oversized: item.oversized, topic: None }
        });
        let chunk = Chunk { items: items.collect(), recorded };
        self.sender.blocking_send(Message::Chunk(chunk)).map_err(|_| Stop::Unwanted)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};
    use std::sync::atomic::Ordering;

    use super::*;

    /// A text without end that counts what is taken of it.
    struct Endless(Arc<AtomicU64>);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(b'x');
            for end in buffer.iter_mut().skip(99).step_by(100) {
                *end = b'\n';
            }
            self.0.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            Ok(buffer.len())
        }
    }

    /// Method: from an endless text take some chunks. Whatever the thread's speed, it cannot be further than the bound.
    #[test]
    fn reading_ahead_is_bounded_and_ends_with_the_source() {
        let options = CaptureOptions { batch_items_max: 10, ..CaptureOptions::new("f", "/dev/null") };
        let capture = file::open_capture(&options.path, false, Arc::default()).unwrap();
        let (sender, mut chunks) = mpsc::channel(READ_AHEAD);
        let read = Arc::new(AtomicU64::new(0));
        let text = BufReader::with_capacity(1_000, Endless(Arc::clone(&read)));
        let capture = OpenCapture { text: Box::new(text), is_stream: false, ..capture };
        let reader = Reader::new(capture, &options, Resume::default(), sender);
        let thread = thread::spawn(move || reader.run_thread());

        for taken in 1..=200_u64 {
            let Some(Message::Chunk(chunk)) = chunks.blocking_recv() else { panic!("expected a chunk") };
            assert_eq!(chunk.items.len(), 10);
            // Taken, waiting in the channel, waiting to be sent, and one buffer of the text.
            let bound = (taken + READ_AHEAD as u64 + 1) * 1_000 + 1_000;
            assert!(read.load(Ordering::Relaxed) <= bound, "{} > {bound}", read.load(Ordering::Relaxed));
        }
        drop(chunks);
        thread.join().unwrap();
    }
}
