//! A private redis-server: the shipped `ops/redis` on a port and in a directory of its own, ended with its handle.
//! Starts in some 40 ms, so each test has one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::deviations::{REDIS, REDIS_INSPECTOR};
use super::ports::free_port;
use super::secrets::Secrets;
use super::small_disk::SmallDisk;

/// How long a server may take to start. Mostly 40 ms; a large append-only file or a busy machine takes longer.
const START_MAX: Duration = Duration::from_secs(30);

/// A redis-server process with the shipped settings and users, unless a test names what is otherwise.
pub(crate) struct RedisServer {
    child: Option<Child>,
    dir: tempfile::TempDir,
    port: u16,
    /// Where its append-only files are, and those of nothing else.
    data: PathBuf,
    deviations: Vec<String>,
    disk: Option<SmallDisk>,
}

impl RedisServer {
    /// Starts the server that `ops/redis` describes, with the users of [`Secrets::shared`] and the inspector.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// As [`start`](Self::start), with settings that are others, for example `["--appendfsync", "everysec"]`.
    ///
    /// # Panics
    ///
    /// When `deviations.rs` does not list one.
    pub(crate) fn with(deviations: &[&str]) -> Self {
        let mut server = Self::stopped();
        for pair in deviations.chunks(2) {
            server.set(pair[0], pair[1]);
        }
        server.start_again();
        server
    }

    /// As [`start`](Self::start), with its files on a file system of so many megabytes.
    pub(crate) fn on_small_disk(megabytes: u32) -> Self {
        let mut server = Self::stopped();
        server.data = server.dir.path().join("disk");
        std::fs::create_dir(&server.data).unwrap();
        server.disk = Some(SmallDisk::on(&server.data, megabytes));
        server.start_again();
        server
    }

    /// Starts a server of its own that begins with the files of this one, which must be down.
    pub(crate) fn copy(&self) -> Self {
        assert!(self.child.is_none(), "its files change while it runs");
        let mut copy = Self::stopped();
        std::fs::create_dir(copy.aof_dir()).unwrap();
        for entry in std::fs::read_dir(self.aof_dir()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.aof_dir().join(entry.file_name())).unwrap();
        }
        copy.start_again();
        copy
    }

    fn stopped() -> Self {
        let dir = tempfile::Builder::new().prefix("orch-redis-").tempdir().unwrap();
        let data = dir.path().to_owned();
        let users = format!("{}{REDIS_INSPECTOR}\n", Secrets::shared().file("redis_users.acl"));
        std::fs::write(dir.path().join("users.acl"), users).unwrap();
        Self { child: None, dir, port: free_port(), data, deviations: Vec::new(), disk: None }
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
        let child = command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/redis/redis.conf"))
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .arg("--dir")
            .arg(&self.data)
            .arg("--logfile")
            .arg(&log)
            .arg("--aclfile")
            .arg(self.dir.path().join("users.acl"))
            .args(&self.deviations)
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

    /// Changes a setting for the next start.
    ///
    /// # Panics
    ///
    /// When `deviations.rs` does not list it.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        let is_listed = REDIS.iter().any(|(listed, _why)| *listed == name);
        assert!(is_listed, "{name}: name it in support/deviations.rs, with the reason");
        self.deviations.extend([name.to_owned(), value.to_owned()]);
    }

    /// The lines of its ACL file.
    pub(crate) fn users(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("users.acl")).unwrap()
    }

    /// Replaces the users for the next start: the lines of an ACL file.
    pub(crate) fn set_users(&self, users: &str) {
        std::fs::write(self.dir.path().join("users.acl"), users).unwrap();
    }

    /// Whether it answers a PING with PONG: it has loaded its file then.
    pub(crate) fn answers(&self) -> bool {
        self.command(&["PING"]).is_some_and(|reply| reply.starts_with("+PONG"))
    }

    /// Sends one command as the inspector, over a connection of its own, as `redis-cli` would; the first bytes of the
    /// reply.
    pub(crate) fn command(&self, words: &[&str]) -> Option<String> {
        self.command_bytes(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())
    }

    /// As [`command`](Self::command), for words that are no text.
    pub(crate) fn command_bytes(&self, words: &[&[u8]]) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        let login: [&[u8]; 3] = [b"AUTH", b"inspector", b"any"];
        stream.write_all(&request(&login)).ok()?;
        let mut reply = vec![0; 64 << 10];
        let length = stream.read(&mut reply).ok()?;
        let said = reply.get(..length)?;
        if !said.starts_with(b"+OK") {
            return Some(String::from_utf8_lossy(said).into_owned());
        }
        stream.write_all(&request(words)).ok()?;
        let length = stream.read(&mut reply).ok()?;
        Some(String::from_utf8_lossy(reply.get(..length)?).into_owned())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// As the inspector, who may do everything. The service logs in as itself: [`Secrets::as_service`].
    pub(crate) fn url(&self) -> String {
        self.url_of("inspector", "any")
    }

    pub(crate) fn url_of(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}/0", self.port)
    }

    /// As somebody who does not log in.
    pub(crate) fn url_of_nobody(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Where its append-only files are.
    pub(crate) fn aof_dir(&self) -> PathBuf {
        self.data.join("appendonlydir")
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

/// A command as it stands on the wire.
fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    request
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
