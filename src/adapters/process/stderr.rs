//! A worker's stderr goes into our log: bounded lines, a bounded number a second.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use orchestrator_kernel::error::{ERROR_DETAIL_BYTES_MAX, bounded_detail};
use tokio::io::AsyncReadExt;
use tokio::process::ChildStderr;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// Lines that are kept to explain a failed start.
const KEPT_LINES: usize = 5;
/// Lines logged in one second; further ones are counted, and the count is logged.
const LOGGED_LINES_PER_SECOND: u32 = 50;
const WINDOW: Duration = Duration::from_secs(1);
/// How long the end of the pipe is awaited after the process is gone.
const DRAIN: Duration = Duration::from_millis(200);

/// Reads one worker's stderr until its end. The pipe is always drained, so a chatty worker never blocks on it.
pub(super) struct StderrLog {
    last: Arc<Mutex<VecDeque<String>>>,
    task: JoinHandle<()>,
}

impl StderrLog {
    pub(super) fn start_reading(mut stderr: ChildStderr, pool: &str, worker: usize) -> Self {
        let of = WorkerName { pool: pool.to_owned(), worker };
        let last = Arc::new(Mutex::new(VecDeque::with_capacity(KEPT_LINES)));
        let kept = Arc::clone(&last);
        let task = tokio::spawn(async move {
            let mut splitter = Splitter::default();
            let mut limiter = Limiter::new(Instant::now());
            let mut bytes = [0; 4096];
            loop {
                match stderr.read(&mut bytes).await {
                    Ok(0) | Err(_) => break, // the end, or a pipe that cannot be read: nothing more to log
                    Ok(count) => {
                        splitter.push_bytes(&bytes[..count], |line| log_line(&of, &kept, &mut limiter, line))
                    }
                }
            }
            splitter.flush_rest(|line| log_line(&of, &kept, &mut limiter, line));
            limiter.report_suppressed(&of);
        });
        Self { last, task }
    }

    /// Waits shortly for the end of the pipe, then stops reading: a process that left the group could hold it open.
    pub(super) async fn finish_reading(&mut self) {
        if !self.task.is_finished() && timeout(DRAIN, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }

    /// The last lines, for an error message; `(none)` without any.
    pub(super) fn last_lines(&self) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.is_empty() {
            true => "(none)".to_owned(),
            false => last.iter().map(String::as_str).collect::<Vec<_>>().join(" | "),
        }
    }
}

impl Drop for StderrLog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A worker in log lines.
struct WorkerName {
    pool: String,
    worker: usize,
}

fn log_line(of: &WorkerName, kept: &Mutex<VecDeque<String>>, limiter: &mut Limiter, line: &[u8]) {
    let line = bounded_detail(&String::from_utf8_lossy(line));
    if limiter.allows_line(Instant::now(), of) {
        tracing::info!(pool = of.pool, worker = of.worker, line, "worker wrote to stderr");
    }
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() == KEPT_LINES {
        kept.pop_front();
    }
    kept.push_back(line);
}

/// Cuts bytes into lines; what goes beyond the limit of a line is dropped.
#[derive(Default)]
struct Splitter {
    line: Vec<u8>,
}

impl Splitter {
    fn push_bytes(&mut self, bytes: &[u8], mut log: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let contents = piece.strip_suffix(b"\n").unwrap_or(piece);
            // One byte more than is logged, so that the log shows that the line was cut.
            let room = (ERROR_DETAIL_BYTES_MAX + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&contents[..contents.len().min(room)]);
            if piece.len() > contents.len() {
                log(&self.line);
                self.line.clear();
            }
        }
    }

    fn flush_rest(self, mut log: impl FnMut(&[u8])) {
        if !self.line.is_empty() {
            log(&self.line);
        }
    }
}

/// A fixed number of lines in each window.
struct Limiter {
    window_start: Instant,
    logged: u32,
    suppressed: u64,
}

impl Limiter {
    fn new(now: Instant) -> Self {
        Self { window_start: now, logged: 0, suppressed: 0 }
    }

    fn allows_line(&mut self, now: Instant, of: &WorkerName) -> bool {
        if now.duration_since(self.window_start) >= WINDOW {
            self.report_suppressed(of);
            *self = Self::new(now);
        }
        if self.logged < LOGGED_LINES_PER_SECOND {
            self.logged += 1;
            return true;
        }
        self.suppressed += 1;
        false
    }

    fn report_suppressed(&self, of: &WorkerName) {
        if self.suppressed > 0 {
            tracing::info!(
                pool = of.pool,
                worker = of.worker,
                suppressed = self.suppressed,
                "worker wrote more to stderr than is logged"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_across_reads_and_bounded() {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();

        splitter.push_bytes(b"one\ntw", |line| lines.push(line.to_vec()));
        splitter.push_bytes(b"o\n\n", |line| lines.push(line.to_vec()));
        splitter.push_bytes(&[b'x'; 2000], |line| lines.push(line.to_vec()));
        splitter.flush_rest(|line| lines.push(line.to_vec()));

        let expected: [&[u8]; 4] = [b"one", b"two", b"", &[b'x'; ERROR_DETAIL_BYTES_MAX + 1]];
        assert_eq!(lines, expected);
    }

    #[test]
    fn lines_beyond_the_rate_are_counted_until_the_next_window() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let of = WorkerName { pool: "test".to_owned(), worker: 0 };

        let allowed = (0..1000).filter(|_| limiter.allows_line(start, &of)).count();

        assert_eq!((allowed, limiter.suppressed), (50, 950));
        assert!(limiter.allows_line(start + WINDOW, &of));
        assert_eq!(limiter.suppressed, 0);
    }
}
