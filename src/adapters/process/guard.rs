//! Binds a worker to the life of the service: a kill -9 of the service ends workers that hang, too.
//!
//! ```text
//! service ── thread `worker-spawner` ── fork, exec ──▶ orchestrator engine-worker PID -- COMMAND
//!                                                        sets "kill me when my parent's thread ends", exec ──▶ COMMAND
//! ```
//!
//! A worker that waits for a call leaves by itself when its stdin closes; one that hangs in code does not look. The
//! setting has to be made inside the new process and survives `exec`, so a second program makes it: the crate forbids
//! `unsafe`, which a hook between fork and exec would need.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command as StdCommand;
use std::sync::LazyLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};
use tokio::process::{Child, Command};

/// The hidden command of the binary that [`become_worker`] serves.
pub const COMMAND: &str = "engine-worker";
/// Exit code for a command that is not there or may not be executed, as shells have it.
pub const NOT_EXECUTED: u8 = 127;

/// The running binary, also after the file was replaced by an upgrade: the kernel keeps this link for the new process.
#[must_use]
pub fn this_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// Becomes `command`, which is killed as soon as the process `parent` is gone, with at most `memory_max` bytes of
/// address space. Returns only when that fails.
#[must_use]
pub fn become_worker(parent: i32, memory_max: Option<u64>, command: &[OsString]) -> io::Error {
    let Some((program, arguments)) = command.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no command is given");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // Whoever died before the line above sends no signal.
    if getppid().map(Pid::as_raw_nonzero).is_none_or(|pid| pid.get() != parent) {
        return io::Error::other("the service that asked for this worker is gone");
    }
    if memory_max.is_some() {
        let limit = Rlimit { current: memory_max, maximum: memory_max };
        if let Err(error) = setrlimit(Resource::As, limit) {
            return io::Error::new(error.kind(), format!("the memory cannot be limited: {error}"));
        }
    }
    StdCommand::new(program).args(arguments).exec()
}

type Job = Box<dyn FnOnce() + Send>;

/// Starts `command` on a thread that lives as long as the process: the kernel kills a bound worker when the *thread*
/// that started it ends, and threads of the runtime may.
pub(super) fn spawn_on_lasting_thread(mut command: Command) -> io::Result<Child> {
    static SPAWNER: LazyLock<SyncSender<Job>> = LazyLock::new(|| {
        let (jobs, waiting) = sync_channel::<Job>(0);
        let run = move || waiting.into_iter().for_each(|job| job());
        if let Err(error) = thread::Builder::new().name("worker-spawner".to_owned()).spawn(run) {
            tracing::error!(%error, "no thread can be started for workers");
        }
        jobs
    });
    let gone = || io::Error::other("the thread that starts workers is gone");
    let runtime = tokio::runtime::Handle::current();
    let (answer, answered) = sync_channel(1);
    let job = move || {
        let _context = runtime.enter();
        // Whoever asked waits for the answer.
        answer.send(command.spawn()).unwrap_or_default();
    };
    SPAWNER.send(Box::new(job)).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}
