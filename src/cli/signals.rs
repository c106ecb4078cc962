//! Signals: which ones stop the service in order, and which ones it outlives.
//!
//! | signal | what happens |
//! |---|---|
//! | TERM, INT, QUIT, HUP | an ordered stop; a second one ends the process at once |
//! | HUP that was ignored at the start (`nohup`) | stays ignored |
//! | USR1, USR2 | a line in the log, nothing else: no signal reloads anything |
//! | XFSZ | the write beyond the file-size limit fails instead, as on a full disk |

use std::io;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::process::exit::ProcessExit;
use crate::telemetry::logs;

/// Signals that ask for an ordered stop, received from its creation on.
pub(super) struct StopSignals(Vec<(&'static str, Signal)>);

impl StopSignals {
    /// Begins to receive; from here on none of them ends the process by itself.
    ///
    /// # Errors
    ///
    /// The system does not let them be handled.
    pub(super) fn listen() -> io::Result<Self> {
        let mut stopping = vec![
            ("SIGTERM", signal(SignalKind::terminate())?),
            ("SIGINT", signal(SignalKind::interrupt())?),
            ("SIGQUIT", signal(SignalKind::quit())?),
        ];
        if !is_ignored(Number::HUP) {
            stopping.push(("SIGHUP", signal(SignalKind::hangup())?));
        }
        for (name, kind) in
            [("SIGUSR1", SignalKind::user_defined1()), ("SIGUSR2", SignalKind::user_defined2())]
        {
            tokio::spawn(note_each(name, signal(kind)?));
        }
        Ok(Self(stopping))
    }

    /// Waits for the first one. A second one ends the process at once: nothing acknowledged is lost by that.
    pub(super) async fn asked_to_stop(mut self) {
        let signal = self.next_signal().await;
        tracing::info!(signal, "asked to stop");
        tokio::spawn(async move {
            let signal = self.next_signal().await;
            tracing::warn!(signal, "second signal: ending at once");
            logs::finish_logging();
            std::process::exit(i32::from(ProcessExit::Unavailable.code()));
        });
    }

    async fn next_signal(&mut self) -> &'static str {
        std::future::poll_fn(|context| {
            for (name, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

async fn note_each(name: &'static str, mut signals: Signal) {
    while signals.recv().await.is_some() {
        tracing::warn!(
            signal = name,
            "signal ignored: nothing is reloaded by signals, restart to apply changes"
        );
    }
}

/// Turns the signal of a write beyond the file-size limit (`ulimit -f`) into an error of that write, for the whole
/// process. Without it the process dies without a word.
///
/// # Errors
///
/// The system does not let the signal be handled.
pub fn outlive_file_size_limit() -> io::Result<()> {
    // A handler stays for the life of the process; this runtime is only needed to install it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _context = runtime.enter();
    signal(SignalKind::from_raw(Number::XFSZ.as_raw())).map(drop)
}

/// Tells from the kernel's list of ignored signals; an unreadable one counts as not ignored.
fn is_ignored(signal: Number) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal.as_raw() - 1) & 1 == 1
}
