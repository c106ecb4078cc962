//! Standard error behind a thread of its own: a reader that stops reading, or a file that fails, costs lines and
//! nothing else.
//!
//! ```text
//! any thread ── try_send ──▶ [at most LINES_MAX lines, BYTES_MAX bytes] ──▶ thread `log-writer` ── write ──▶ fd 2
//!                  │ full                                                            │ fails
//!                  └──────────────────────────── dropped, counted ◀──────────────────┘
//! ```
//!
//! `tracing-appender` was tried: it does not count what a failing writer loses, and tells a writer that does not end in
//! time with `println!`, which panics when standard output is gone.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for standard error.
const LINES_MAX: usize = 4096;
/// Their bytes.
const BYTES_MAX: usize = 4 << 20;
/// Shortest time between two lines that tell how many were dropped.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The sending side: takes formatted lines and never blocks.
#[derive(Clone)]
pub(super) struct LineSender {
    lines: SyncSender<Box<[u8]>>,
    waiting_bytes: Arc<AtomicUsize>,
    dropped: Counter,
}

/// The end of the writer's thread, to be waited for once.
pub(super) struct WriterEnd {
    /// Asks the thread to write what waits and to end.
    ask: SyncSender<Box<[u8]>>,
    ended: Mutex<Option<Receiver<()>>>,
}

/// Starts the thread that writes to standard error. `dropped` counts the lines that were not written.
///
/// # Errors
///
/// The system gives no descriptor or no thread.
pub(super) fn start_writer(dropped: Counter) -> io::Result<(LineSender, WriterEnd)> {
    // A descriptor of its own: the thread may block in a write, and must not hold the standard library's lock then.
    start_with(File::from(io::stderr().as_fd().try_clone_to_owned()?), dropped)
}

fn start_with(file: impl Write + Send + 'static, dropped: Counter) -> io::Result<(LineSender, WriterEnd)> {
    let (lines, waiting) = sync_channel(LINES_MAX);
    let (end, ended) = sync_channel(1);
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let writer =
        LineWriter { file, waiting, waiting_bytes: Arc::clone(&waiting_bytes), dropped: dropped.clone() };
    thread::Builder::new().name("log-writer".to_owned()).spawn(move || {
        writer.write_lines();
        // Nobody waits when the process ends otherwise.
        end.send(()).unwrap_or_default();
    })?;
    let sender = LineSender { lines: lines.clone(), waiting_bytes, dropped };
    Ok((sender, WriterEnd { ask: lines, ended: Mutex::new(Some(ended)) }))
}

impl WriterEnd {
    /// Waits until every line that was sent before is written, at most for `patience`: a reader that never reads must
    /// not keep the process. Later calls return at once.
    pub(super) fn finish_writing(&self, patience: Duration) {
        let Some(ended) = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let deadline = Instant::now() + patience;
        // An empty line is the request to end. The queue may be full of lines that nobody reads.
        while let Err(TrySendError::Full(_)) = self.ask.try_send(Box::default()) {
            if deadline <= Instant::now() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        match ended.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(()) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {}
        }
    }
}

impl LineSender {
    /// Puts a whole line, its end included, into the queue; drops it when there is no room.
    pub(super) fn send_line(&self, line: &[u8]) {
        let before = self.waiting_bytes.fetch_add(line.len(), Ordering::Relaxed);
        let has_room = before + line.len() <= BYTES_MAX;
        if !has_room || self.lines.try_send(line.into()).is_err() {
            self.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.dropped.inc();
        }
    }
}

/// One formatted line on its way to the queue; the subscriber writes it whole.
pub(super) struct OneLine<'a>(&'a LineSender);

impl Write for OneLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            self.0.send_line(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineSender {
    type Writer = OneLine<'a>;

    fn make_writer(&'a self) -> OneLine<'a> {
        OneLine(self)
    }
}

/// The thread's side.
struct LineWriter<W> {
    file: W,
    waiting: Receiver<Box<[u8]>>,
    waiting_bytes: Arc<AtomicUsize>,
    dropped: Counter,
}

impl<W: Write> LineWriter<W> {
    fn write_lines(mut self) {
        let mut told = Told::default();
        while let Ok(line) = self.waiting.recv() {
            let is_end = line.is_empty();
            let works = is_end || self.write_line(&line);
            // Told once there is surely room for the line that tells it; the count is in the metrics all the time.
            let has_room = self.waiting_bytes.load(Ordering::Relaxed) == 0;
            if works && (has_room || is_end) {
                told.tell_dropped(self.dropped.get(), is_end);
            }
            if is_end {
                while let Ok(line) = self.waiting.try_recv() {
                    self.write_line(&line);
                }
                return;
            }
        }
    }

    fn write_line(&mut self, line: &[u8]) -> bool {
        self.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        let is_written = self.file.write_all(line).is_ok();
        if !is_written {
            self.dropped.inc();
        }
        is_written
    }
}

/// Dropped lines that were told of.
#[derive(Default)]
struct Told {
    lines: u64,
    at: Option<Instant>,
}

impl Told {
    /// Logs how many were dropped since it was last told; not too often, but for the last time.
    fn tell_dropped(&mut self, dropped: u64, is_last: bool) {
        let is_due = is_last || self.at.is_none_or(|at| REPORT_EVERY <= at.elapsed());
        if self.lines < dropped && is_due {
            let lines = dropped - self.lines;
            tracing::warn!(lines, "log lines were dropped: standard error was not read or failed");
            *self = Self { lines: dropped, at: Some(Instant::now()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A reader that reads nothing until it is told to.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map(|()| bytes.len()).map_err(io::Error::other)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn write_line(sender: &LineSender, line: &[u8]) {
        sender.make_writer().write_all(line).unwrap();
    }

    #[test]
    fn lines_are_written_in_order_and_all_of_them_by_the_end() {
        let written = Written::default();
        let (sender, end) = start_with(written.clone(), Counter::default()).unwrap();

        for line in 0..1000 {
            write_line(&sender, format!("{line}\n").as_bytes());
        }
        end.finish_writing(PATIENCE);
        end.finish_writing(PATIENCE);

        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(text.lines().map(|line| line.parse::<usize>().unwrap()).eq(0..1000));
        assert_eq!(sender.dropped.get(), 0);
    }

    #[test]
    fn a_reader_that_never_reads_costs_lines_and_holds_nobody_up() {
        let (_never_read, reader) = sync_channel(0);
        let (sender, end) = start_with(Stuck(reader), Counter::default()).unwrap();

        for _ in 0..=3 * LINES_MAX {
            write_line(&sender, b"line\n");
        }
        let since = Instant::now();
        end.finish_writing(Duration::from_millis(50));

        assert!(since.elapsed() < PATIENCE);
        let (dropped, sent) = (sender.dropped.get(), 3 * LINES_MAX as u64 + 1);
        // Besides those that wait, one is in the writer's hands.
        assert!((sent - LINES_MAX as u64 - 1..=sent - LINES_MAX as u64).contains(&dropped), "{dropped}");
    }

    #[test]
    fn waiting_bytes_are_bounded_whatever_the_length_of_a_line() {
        let (_never_read, reader) = sync_channel(0);
        let (sender, _end) = start_with(Stuck(reader), Counter::default()).unwrap();

        for _ in 0..32 {
            write_line(&sender, &vec![b'x'; 1 << 20]);
        }

        assert!(sender.waiting_bytes.load(Ordering::Relaxed) <= BYTES_MAX);
        assert!(32 - 5 <= sender.dropped.get(), "{}", sender.dropped.get());
    }

    #[test]
    fn lines_that_a_failing_file_loses_are_counted() {
        let (gone, reader) = sync_channel(0);
        drop(gone);
        let (sender, end) = start_with(Stuck(reader), Counter::default()).unwrap();

        write_line(&sender, b"one\n");
        write_line(&sender, b"two\n");
        end.finish_writing(PATIENCE);

        assert_eq!(sender.dropped.get(), 2);
    }
}
