//! A private redis-server: own port, own directory, ended with its handle. Starts in some 40 ms, so each test has one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::ports::free_port;
use super::small_disk::SmallDisk;

/// How long a server may take to start. Mostly 40 ms; a large append-only file or a busy machine takes longer.
const START_MAX: Duration = Duration::from_secs(30);

/// A redis-server process with the settings that the promises need, unless a test says otherwise.
pub(crate) struct RedisServer {
    child: Option<Child>,
    dir: tempfile::TempDir,
    port: u16,
    /// A configuration file, or none for the settings that the promises need.
    config: Option<PathBuf>,
    extra: Vec<String>,
    disk: Option<SmallDisk>,
}

impl RedisServer {
    /// Starts one that keeps its word: append-only file always synced, nothing evicted, a cut file refused.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// As [`start`](Self::start), with further command-line settings, for example `["--appendfsync", "everysec"]`;
    /// later ones win.
    pub(crate) fn with(extra: &[&str]) -> Self {
        Self::configured(None, extra)
    }

    /// Starts the server that `ops/redis` describes, on a port and in a directory of its own, with this ACL file.
    pub(crate) fn shipped(users: &Path) -> Self {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/redis/redis.conf");
        Self::configured(Some(config), &["--aclfile", users.to_str().unwrap()])
    }

    fn configured(config: Option<PathBuf>, extra: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("orch-redis-").tempdir().unwrap();
        let extra = extra.iter().map(|word| (*word).to_owned()).collect();
        let mut server = Self { child: None, dir, port: free_port(), config, extra, disk: None };
        server.start_again();
        server
    }

    /// As [`start`](Self::start), with its files on a file system of so many megabytes.
    pub(crate) fn on_small_disk(megabytes: u32) -> Self {
        let dir = tempfile::Builder::new().prefix("orch-redis-").tempdir().unwrap();
        let files = dir.path().join("disk");
        std::fs::create_dir(&files).unwrap();
        let disk = Some(SmallDisk::on(&files, megabytes));
        let extra = vec!["--dir".to_owned(), files.display().to_string()];
        let mut server = Self { child: None, dir, port: free_port(), config: None, extra, disk };
        server.start_again();
        server
    }

    /// The file system of [`on_small_disk`](Self::on_small_disk).
    pub(crate) fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("it is on a small disk")
    }

    /// Starts it again on the same port and directory after [`kill`](Self::kill) or [`shut_down`](Self::shut_down).
    ///
    /// # Panics
    ///
    /// When it does not come up; the message holds what it logged.
    pub(crate) fn start_again(&mut self) {
        self.try_start().unwrap_or_else(|log| panic!("redis-server did not come up:\n{log}"));
    }

    /// As [`start_again`](Self::start_again); the log is the error, for tests in which it must refuse to start.
    pub(crate) fn try_start(&mut self) -> Result<(), String> {
        assert!(self.child.is_none(), "it runs already");
        let log = self.dir.path().join("redis.log");
        let mut command = match &self.disk {
            Some(disk) => disk.command("redis-server"),
            None => Command::new("redis-server"),
        };
        match &self.config {
            Some(config) => command.arg(config),
            None => command
                .args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
                .args(["--aof-load-truncated", "no", "--maxmemory-policy", "noeviction"])
                .args(["--stream-node-max-bytes", "65536", "--stream-node-max-entries", "1000"])
                .args(["--notify-keyspace-events", "K$gxe", "--daemonize", "no", "--protected-mode", "no"]),
        };
        let child = command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .arg("--dir")
            .arg(self.dir.path())
            .arg("--logfile")
            .arg(&log)
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server must be installed: ops/test does that");
        self.child = Some(child);
        let deadline = Instant::now() + START_MAX;
        while !self.answers() {
            let ended = self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some());
            if ended || deadline < Instant::now() {
                self.kill();
                return Err(std::fs::read_to_string(log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        Ok(())
    }

    /// Changes a command-line setting for the next start.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.extra.extend([name.to_owned(), value.to_owned()]);
    }

    /// Whether it answers a PING with PONG: it has loaded its file then.
    pub(crate) fn answers(&self) -> bool {
        self.command(&["PING"]).is_some_and(|reply| reply.starts_with("+PONG"))
    }

    /// Sends one command over a connection of its own, as `redis-cli` would; the first bytes of the reply.
    pub(crate) fn command(&self, words: &[&str]) -> Option<String> {
        self.command_bytes(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())
    }

    /// As [`command`](Self::command), for words that are no text.
    pub(crate) fn command_bytes(&self, words: &[&[u8]]) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        stream.write_all(&request).ok()?;
        let mut reply = vec![0; 64 << 10];
        let length = stream.read(&mut reply).ok()?;
        Some(String::from_utf8_lossy(reply.get(..length)?).into_owned())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Where its append-only files are.
    pub(crate) fn aof_dir(&self) -> PathBuf {
        self.dir.path().join("appendonlydir")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// kill −9. Does nothing when it is down.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            child.wait().unwrap();
        }
    }

    /// Ends it in order.
    pub(crate) fn shut_down(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            child.wait().unwrap();
        }
    }

    /// Freezes it: connections stay, nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
