//! A private PostgreSQL: Debian's server on a port and in a directory of its own, ended with its handle.
//!
//! The server refuses to run as root, so that root's tests run it as `postgres`,
//! the user that Debian's package brings.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use super::ports::free_port;

/// How long a server may take to start, also after a kill, on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);
/// The password of its superuser. What it holds is made up, and it listens on loopback only.
const PASSWORD: &str = "of-the-tests-only";

/// A PostgreSQL process.
pub(crate) struct PostgresServer {
    child: Option<Child>,
    dir: tempfile::TempDir,
    port: u16,
}

impl PostgresServer {
    /// Makes a cluster and starts its server.
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("orch-postgres-").tempdir().unwrap();
        let server = Self { child: None, dir, port: free_port() };
        server.give_away(server.dir.path());
        let password = server.dir.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        server.give_away(&password);
        let made = server
            .command("initdb")
            .args(["--username", "postgres", "--auth", "scram-sha-256", "--encoding", "UTF8"])
            .args(["--locale", "C", "--no-sync", "--pwfile"])
            .arg(&password)
            .arg("--pgdata")
            .arg(server.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut server = server;
        server.start_again();
        server
    }

    /// Starts it again on the same port and directory after [`kill`](Self::kill).
    ///
    /// # Panics
    ///
    /// When it does not come up; the message holds what it logged.
    pub(crate) fn start_again(&mut self) {
        let deadline = Instant::now() + START_MAX;
        // What a kill left behind, its shared memory, is gone a moment later.
        while !self.try_start(deadline) {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            assert!(Instant::now() < deadline, "postgres did not come up:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn try_start(&mut self, deadline: Instant) -> bool {
        assert!(self.child.is_none(), "it runs already");
        let log = std::fs::File::create(self.log()).unwrap();
        let child = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", self.dir.path().display()))
            // A kill of the process loses nothing all the same.
            .args(["-c", "fsync=off"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        while Instant::now() < deadline {
            if self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some()) {
                self.child = None;
                return false;
            }
            let says_ready = std::fs::read_to_string(self.log())
                .is_ok_and(|log| log.contains("database system is ready to accept connections"));
            if says_ready && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Ends it and its sessions as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.signal_all(Signal::KILL);
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    /// Freezes it and its sessions: connections stand, and nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal_all(Signal::CONT);
    }

    /// The address of a database, for a user and password.
    pub(crate) fn url(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// The address of a database, for the superuser.
    pub(crate) fn admin_url(&self, database: &str) -> String {
        self.url("postgres", PASSWORD, database)
    }

    /// Carries statements out in a database, as the superuser.
    pub(crate) async fn execute(&self, database: &str, sql: &str) {
        let options: PgConnectOptions = self.admin_url(database).parse().unwrap();
        let mut connection = options.connect().await.unwrap();
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
        connection.close().await.unwrap();
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("postgres.log")
    }

    /// A command of the server's package, as a user that it accepts. It does not outlive the thread that starts it.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if is_root() {
            command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
        }
        command.arg(binaries().join(name)).current_dir(self.dir.path()).env("LC_ALL", "C");
        command
    }

    /// Gives a file to the user that the server runs as.
    fn give_away(&self, path: &Path) {
        if is_root() {
            let done = Command::new("chown").arg("postgres:postgres").arg(path).status().unwrap();
            assert!(
                done.success(),
                "the user postgres comes with the package postgresql: ops/test installs it"
            );
        }
    }

    /// Its first process and those that it started, each of which has a session of its own.
    fn signal_all(&self, signal: Signal) {
        let Some(child) = &self.child else { return };
        let first = child.id();
        // First the one that starts the others, so that none is missed.
        for id in std::iter::once(first).chain(children_of(first)) {
            if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
                kill_process(pid, signal).ok();
            }
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.resume();
        self.kill();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Debian's package keeps each version's programs in a folder of its own.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = versions.expect("postgresql must be installed: ops/test does that");
    let mut folders: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            path.join("bin/initdb").exists().then(|| (version, path.join("bin")))
        })
        .collect();
    folders.sort();
    folders.pop().expect("postgresql must be installed: ops/test does that").1
}

fn children_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |id: &u32| {
        // The name stands in brackets and may hold anything; the parent is the second word behind it.
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
        behind.split_whitespace().nth(1) == Some(parent.to_string().as_str())
    };
    ids.filter(is_child).collect()
}
