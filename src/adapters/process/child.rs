//! One worker process: started in its own process group, spoken to line by line, ended without a trace.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use orchestrator_kernel::engine::engine_protocol::{Hello, OutOfStep, PROTOCOL};
use orchestrator_kernel::ports::engine::EngineIdentity;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process_group, prlimit, waitid,
};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use super::guard;
use super::lines::{LineError, LineReader};
use super::options::{WorkerPoolOptions, WorkerStartError};
use super::stderr::StderrLog;

/// How long a process whose pipe broke may take to be gone by itself, so that its own exit status can be told.
const EXIT_WAIT: Duration = Duration::from_millis(500);
/// How long a killed process may take to be gone. Only one that hangs in the kernel takes longer.
const REAP_WAIT: Duration = Duration::from_secs(5);
/// How long dropping a live worker may block until the killed process is reaped.
const DROP_WAIT: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(1);

/// Reason for which a worker cannot be used any more.
#[derive(Debug)]
pub(super) enum Broken {
    /// It closed its pipe: it is gone or leaving.
    Closed,
    /// A pipe failed.
    Pipe(io::Error),
    /// A line longer than `output_bytes_max`.
    TooLong,
    /// It wrote though nothing was asked, so its next line could not be told from an answer.
    Unasked,
    /// Something that is no answer, or the answer to something else.
    OutOfStep(OutOfStep),
    /// No answer within this time.
    Deadline(Duration),
    /// The pool is shutting down and the grace of the call is over.
    ShuttingDown,
}

impl From<LineError> for Broken {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Closed => Self::Closed,
            LineError::TooLong => Self::TooLong,
            LineError::Io(error) => Self::Pipe(error),
        }
    }
}

/// A live worker process. Dropping it kills its process group and reaps it.
pub(super) struct WorkerProcess {
    child: Child,
    /// Also the id of the process group. Ours as long as the process is not reaped.
    pid: Pid,
    reaped: bool,
    stdin: Option<ChildStdin>,
    answers: LineReader<ChildStdout>,
    stderr: StderrLog,
}

impl WorkerProcess {
    /// Starts the process and waits for its hello line.
    pub(super) async fn start(
        options: &WorkerPoolOptions,
        worker: usize,
    ) -> Result<(Self, EngineIdentity), WorkerStartError> {
        let mut process = Self::spawn(options, worker)?;
        match process.read_hello(options).await {
            Ok(identity) => Ok((process, identity)),
            Err(error) => {
                process.kill_and_reap().await;
                Err(error)
            }
        }
    }

    fn spawn(options: &WorkerPoolOptions, worker: usize) -> Result<Self, WorkerStartError> {
        let spawn_error = |source| WorkerStartError::Spawn { command: options.command_line(), source };
        let Some((program, arguments)) = options.command.split_first() else {
            return Err(WorkerStartError::Options { problem: "command is empty" });
        };
        let mut command = match &options.guard {
            None => Command::new(program),
            Some(guard) => {
                let mut command = Command::new(guard);
                command.args([guard::COMMAND, &std::process::id().to_string()]);
                if let Some(bytes) = options.memory_max_bytes {
                    command.args(["--memory-max", &bytes.to_string()]);
                }
                command.args(["--", program]);
                command
            }
        };
        command.args(arguments).env_clear().envs(&options.env);
        if let (Some(path), false) = (std::env::var_os("PATH"), options.env.contains_key("PATH")) {
            command.env("PATH", path);
        }
        if let Some(dir) = &options.working_dir {
            command.current_dir(dir);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child = guard::spawn_on_lasting_thread(command).map_err(spawn_error)?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let parts = (pid, child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(pid), Some(stdin), Some(stdout), Some(stderr)) = parts else {
            return Err(spawn_error(io::Error::other("the process has no id or no pipes")));
        };
        let process = Self {
            child,
            pid,
            reaped: false,
            stdin: Some(stdin),
            answers: LineReader::new(stdout, options.output_bytes_max),
            stderr: StderrLog::start_reading(stderr, &options.name, worker),
        };
        process.limit_memory(options)?;
        Ok(process)
    }

    /// Without a guard the limit comes from outside, a moment after the start. The guard itself may need more than it.
    fn limit_memory(&self, options: &WorkerPoolOptions) -> Result<(), WorkerStartError> {
        let (Some(bytes), None) = (options.memory_max_bytes, &options.guard) else { return Ok(()) };
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        match prlimit(Some(self.pid), Resource::As, limit) {
            Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(()), // already gone: the hello tells why
            Err(error) => {
                Err(WorkerStartError::MemoryLimit { command: options.command_line(), source: error.into() })
            }
        }
    }

    async fn read_hello(&mut self, options: &WorkerPoolOptions) -> Result<EngineIdentity, WorkerStartError> {
        let line = match timeout(options.start_deadline, self.answers.next_line()).await {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => {
                let problem = match error {
                    LineError::Closed => match self.wait_for_exit().await {
                        WorkerEnd::Exited(status)
                            if options.guard.is_some()
                                && status.code() == Some(guard::NOT_EXECUTED.into()) =>
                        {
                            return Err(self.not_executed(options));
                        }
                        end => end.to_string(),
                    },
                    LineError::TooLong => format!("wrote more than {} bytes", options.output_bytes_max),
                    LineError::Io(error) => format!("has a broken pipe ({error})"),
                };
                return Err(self.no_hello(options, problem).await);
            }
            Err(_) => {
                let problem = format!("wrote no line for {:?}", options.start_deadline);
                return Err(self.no_hello(options, problem).await);
            }
        };
        match serde_json::from_slice::<Hello>(&line) {
            Ok(hello) if hello.protocol == PROTOCOL => match hello.check_ops(&options.ops) {
                Ok(()) => Ok(hello.engine),
                Err(source) => {
                    self.kill_and_reap().await;
                    let (command, stderr) = (options.command_line(), self.stderr.last_lines());
                    Err(WorkerStartError::Contract { command, stderr, source })
                }
            },
            Ok(hello) => Err(WorkerStartError::Protocol {
                command: options.command_line(),
                found: hello.protocol,
                known: PROTOCOL,
            }),
            Err(error) => {
                Err(self.no_hello(options, format!("wrote a first line that is no hello ({error})")).await)
            }
        }
    }

    /// The guard could not become the command; it said why in its last line.
    fn not_executed(&self, options: &WorkerPoolOptions) -> WorkerStartError {
        let source = io::Error::other(self.stderr.last_lines());
        WorkerStartError::Spawn { command: options.command_line(), source }
    }

    async fn no_hello(&mut self, options: &WorkerPoolOptions, problem: String) -> WorkerStartError {
        self.kill_and_reap().await;
        let stderr = self.stderr.last_lines();
        WorkerStartError::NoHello { command: options.command_line(), problem, stderr }
    }

    /// Writes one request line and reads one line. When the future is dropped before its end, the process has to be
    /// ended: its next line would answer this request.
    pub(super) async fn exchange_line(&mut self, request: &[u8]) -> Result<Vec<u8>, Broken> {
        let Some(stdin) = &mut self.stdin else { return Err(Broken::Closed) };
        match stdin.write_all(request).await {
            Ok(()) => Ok(self.answers.next_line().await?),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Broken::Closed),
            Err(error) => Err(Broken::Pipe(error)),
        }
    }

    /// Returns when a worker that was asked nothing writes or leaves. Can be dropped at any time.
    pub(super) async fn wait_for_unasked(&mut self) -> Broken {
        match self.answers.next_line().await {
            Ok(_) => Broken::Unasked,
            Err(error) => error.into(),
        }
    }

    /// Waits shortly for the process to end by itself and says how it did.
    pub(super) async fn wait_for_exit(&mut self) -> WorkerEnd {
        match timeout(EXIT_WAIT, self.wait_until_exited()).await {
            Ok(()) => self.kill_and_reap().await.map_or(WorkerEnd::Unknown, WorkerEnd::Exited),
            Err(_) => WorkerEnd::ClosedStdout,
        }
    }

    /// Returns when the process is a zombie or gone. It is not reaped: its id stays ours, so the group can be killed.
    async fn wait_until_exited(&self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while let Ok(None) = waitid(WaitId::Pid(self.pid), options) {
            sleep(POLL).await;
        }
    }

    /// Closes stdin, which asks the worker to leave, waits up to `grace`, and kills what is left.
    pub(super) async fn close_gracefully(mut self, grace: Duration) {
        self.stdin = None;
        if timeout(grace, self.wait_until_exited()).await.is_err() {
            tracing::warn!(pid = self.pid.as_raw_nonzero(), "worker did not leave when its stdin was closed");
        }
        self.kill_and_reap().await;
    }

    /// Kills the whole process group, reaps the process and returns its exit status.
    pub(super) async fn kill_and_reap(&mut self) -> Option<ExitStatus> {
        if self.reaped {
            return None;
        }
        self.kill_group();
        let reaped = timeout(REAP_WAIT, self.child.wait()).await;
        self.stderr.finish_reading().await;
        match reaped {
            Ok(Ok(status)) => {
                self.reaped = true;
                Some(status)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, pid = self.pid.as_raw_nonzero(), "cannot reap worker");
                None
            }
            Err(_) => {
                tracing::error!(pid = self.pid.as_raw_nonzero(), "killed worker does not end");
                None
            }
        }
    }

    /// Must not be called after the process was reaped: its id may be another one's then.
    fn kill_group(&self) {
        match kill_process_group(self.pid, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                tracing::error!(%error, pid = self.pid.as_raw_nonzero(), "cannot kill worker");
            }
        }
    }
}

impl Drop for WorkerProcess {
    /// The way out when the task is dropped with its runtime: nobody else would reap the process.
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.kill_group();
        let mut waited = Duration::ZERO;
        while waited < DROP_WAIT && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(POLL);
            waited += POLL;
        }
    }
}

/// End of a worker that nobody ended, as the text that follows the pool's subject.
pub(super) enum WorkerEnd {
    Exited(ExitStatus),
    /// It is gone; its status could not be had.
    Unknown,
    /// It is still there.
    ClosedStdout,
}

impl fmt::Display for WorkerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "exited with status {code}"),
                (None, Some(signal)) => write!(f, "was killed by signal {signal}"),
                (None, None) => f.write_str("ended"),
            },
            Self::Unknown => f.write_str("ended"),
            Self::ClosedStdout => f.write_str("closed its stdout"),
        }
    }
}
