//! A private rabbitmq-server: the shipped `ops/rabbitmq` on ports, in a directory and with an epmd of its own. It takes
//! some five seconds to start, so tests share one ([`RabbitServer::shared`]) and each takes a virtual host of it; only
//! tests that kill, freeze or alarm a broker start their own ([`RabbitServer::own`]).
//!
//! No broker outlives the test process however that ends: a shell beside it reads from a pipe that only this process
//! holds open, and ends the whole process group when the pipe closes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use super::ports::free_port;
use super::secrets::Secrets;

/// How long a server may take to start. Mostly 5 s; a busy machine takes longer.
const START_MAX: Duration = Duration::from_secs(90);
/// Virtual hosts of the shared server: more than there are tests. All are there from the start, because each would take
/// rabbitmqctl a second.
const VHOSTS_SHARED: usize = 80;
/// Virtual hosts of a test's own server: they cost some 40 ms of its start each.
const VHOSTS_OWN: usize = 4;

/// Starts epmd and the server, says the server's process group, and ends all when stdin closes. The directory goes too,
/// unless the word "keep" came: then its owner lives and removes it, or starts the server on it again.
const SUPERVISOR: &str = r#"
exec 2>"$2/console.log"
epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT" </dev/null >&2 &
epmd=$!
setsid "$1" </dev/null >&2 &
server=$!
echo "$server"
read -r word
kill -9 "$epmd" "-$server"
wait
[ "$word" = keep ] || rm -rf -- "$2"
"#;

/// A rabbitmq-server with the shipped settings, topology and users. Besides, it has virtual hosts of the tests in which
/// the shipped users have the same rights, and the user `inspector` with the password `any`, who may do everything:
/// whoever makes the faults, and the tests of the adapters.
pub(crate) struct RabbitServer {
    running: Option<Running>,
    dir: tempfile::TempDir,
    port: u16,
    dist_port: u16,
    epmd_port: u16,
    vhosts: usize,
    vhosts_used: AtomicUsize,
    are_queues_noted: bool,
}

/// The shell beside the server, and the group of the server itself.
struct Running {
    supervisor: Child,
    group: Pid,
}

impl RabbitServer {
    /// The server of all tests that do not break it; started by the first one that asks.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<RabbitServer> = OnceLock::new();
        SHARED.get_or_init(|| Self::with_vhosts(VHOSTS_SHARED))
    }

    /// Starts one that is ended with this handle.
    pub(crate) fn own() -> Self {
        Self::with_vhosts(VHOSTS_OWN)
    }

    fn with_vhosts(vhosts: usize) -> Self {
        let mut server = Self::on_free_ports(vhosts);
        server.write_configuration();
        server.start_again();
        server
    }

    fn on_free_ports(vhosts: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("orch-rabbit-").tempdir().unwrap();
        Self {
            running: None,
            dir,
            port: free_port(),
            dist_port: free_port(),
            epmd_port: free_port(),
            vhosts,
            vhosts_used: AtomicUsize::new(0),
            are_queues_noted: false,
        }
    }

    /// Starts it again on the same ports and directory after [`kill`](Self::kill).
    ///
    /// # Panics
    ///
    /// When it does not come up; the message holds what it printed.
    pub(crate) fn start_again(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let mut supervisor = self
            .command("sh")
            .args(["-c", SUPERVISOR, "sh"])
            .arg(scripts().join("rabbitmq-server"))
            .arg(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // An interrupt from the terminal ends the tests, and the supervisor must outlive them.
            .process_group(0)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let group = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        self.running = Some(Running { supervisor, group });
        let deadline = Instant::now() + START_MAX;
        while !self.answers() {
            if deadline < Instant::now() {
                let printed = std::fs::read_to_string(self.dir.path().join("console.log"));
                panic!("rabbitmq-server did not come up:\n{}", printed.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it answers the protocol header with a frame: it has started then.
    pub(crate) fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else { return false };
        let timeout = Some(Duration::from_secs(1));
        let mut kind = [0];
        stream.set_read_timeout(timeout).is_ok()
            && stream.write_all(b"AMQP\x00\x00\x09\x01").is_ok()
            && stream.read_exact(&mut kind).is_ok()
            && kind == [1]
    }

    /// The virtual host of the shipped topology, as it stands in a URL.
    pub(crate) const SHIPPED_VHOST: &'static str = "%2f";

    /// A virtual host that no other test has, with nothing in it.
    pub(crate) fn vhost(&self) -> String {
        let number = self.vhosts_used.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(number <= self.vhosts, "more tests than virtual hosts");
        format!("test{number}")
    }

    /// As the inspector, who may do everything. The service logs in as itself: [`Secrets::as_service`].
    pub(crate) fn url(&self, vhost: &str) -> String {
        format!("amqp://inspector:any@127.0.0.1:{}/{vhost}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its rabbitmq.conf.
    pub(crate) fn settings(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("rabbitmq.conf")).unwrap()
    }

    /// Runs rabbitmqctl and returns what it printed. Takes about a second.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = self.command(scripts().join("rabbitmqctl"));
        let output = command.arg("-q").args(arguments).stdin(Stdio::null()).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {printed}{complained}");
        printed
    }

    /// Closes every connection to a virtual host, as an operator would.
    pub(crate) fn close_connections(&self, vhost: &str) {
        let vhost = vhost.replace("%2f", "/");
        self.ctl(&["close_all_connections", "--vhost", &vhost, "closed by a test"]);
    }

    /// kill −9 of the server and its helpers. Does nothing when it is down.
    pub(crate) fn kill(&mut self) {
        // A test that fails already must end its server too: another panic would end every test of the binary.
        if !std::thread::panicking() {
            self.note_queues();
        }
        if let Some(Running { mut supervisor, group }) = self.running.take() {
            kill_process_group(group, Signal::KILL).unwrap();
            let mut stdin = supervisor.stdin.take().unwrap();
            stdin.write_all(b"keep\n").unwrap();
            drop(stdin);
            supervisor.wait().unwrap();
        }
    }

    /// Freezes it: connections stay, nothing is answered.
    pub(crate) fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Makes it believe that memory is short, or no longer: publishers are blocked while it is.
    pub(crate) fn set_memory_alarm(&mut self, is_on: bool) {
        let shipped = shipped_setting("vm_memory_high_watermark.absolute");
        self.ctl(&["set_vm_memory_high_watermark", "absolute", if is_on { "1MB" } else { &shipped }]);
    }

    /// Makes it believe that the disk is full, or no longer: publishers are blocked while it is.
    pub(crate) fn set_disk_alarm(&mut self, is_on: bool) {
        let shipped = shipped_setting("disk_free_limit.absolute");
        self.ctl(&["set_disk_free_limit", if is_on { "1000000GB" } else { &shipped }]);
    }

    /// Sets how large messages may be, for connections that are opened from now on.
    pub(crate) fn set_max_message_size(&self, bytes: usize) {
        let set = "application:set_env(rabbit, max_message_size, ";
        let keep = "persistent_term:put(max_message_size, ";
        self.ctl(&["eval", &format!("{set}{bytes}), {keep}{bytes}).")]);
    }

    /// Takes the names of its quorum queues from its disk while it is down, as if it had been killed too early.
    pub(crate) fn forget_queues(&self) {
        assert!(self.running.is_none(), "it runs");
        let node = format!("rabbit-{}@localhost", self.port);
        std::fs::remove_file(
            self.dir.path().join("mnesia").join(&node).join("quorum").join(&node).join("names.dets"),
        )
        .unwrap();
    }

    /// Lets the broker write down the names of its quorum queues, which it does only when none was declared for a
    /// while: one that it does not find at its start comes back empty and without a leader. What a subscriber declares
    /// is there before the first fault, so once is enough.
    pub(crate) fn note_queues(&mut self) {
        if self.running.is_some() && !std::mem::replace(&mut self.are_queues_noted, true) {
            self.ctl(&["eval", "dets:sync(ra_directory_reverse)."]);
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process_group(self.running.as_ref().expect("it runs").group, signal).unwrap();
    }

    /// A command with the settings that server and rabbitmqctl share.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let file = |name: &str| self.dir.path().join(name);
        let mut command = Command::new(program.as_ref());
        command
            .env("RABBITMQ_NODENAME", format!("rabbit-{}@localhost", self.port))
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("HOME", self.dir.path())
            .env("RABBITMQ_CONF_ENV_FILE", file("none"))
            .env("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", file("mnesia"))
            .env("RABBITMQ_LOG_BASE", file("log"))
            .env("RABBITMQ_PID_FILE", file("pid"))
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+sbwt none +sbwtdcpu none +sbwtdio none")
            // The script becomes the server itself instead of a shell around it.
            .env("RABBITMQ_ALLOW_INPUT", "true")
            .env("RABBITMQ_SERVER_START_ARGS", "-noinput")
            .env_remove("RABBITMQ_NODE_PORT");
        command
    }

    /// The files of `ops/rabbitmq` and the users of [`Secrets::shared`]; only addresses are other ones, and the virtual
    /// hosts of the tests come on top.
    fn write_configuration(&self) {
        let file = |name: &str| self.dir.path().join(name);
        let definitions = file("definitions.d");
        std::fs::create_dir(&definitions).unwrap();
        std::fs::copy(shipped().join("definitions.json"), definitions.join("10-topology.json")).unwrap();
        let users = Secrets::shared().file("rabbitmq_users.json");
        std::fs::write(definitions.join("20-users.json"), users).unwrap();
        std::fs::write(definitions.join("30-tests.json"), self.definitions_of_tests(users)).unwrap();
        std::fs::copy(shipped().join("enabled_plugins"), file("enabled_plugins")).unwrap();
        std::fs::write(file("advanced.config"), "[].\n").unwrap();
        let mut settings = std::fs::read_to_string(shipped().join("rabbitmq.conf")).unwrap();
        for (from, to) in [
            (
                "load_definitions = /etc/rabbitmq/definitions.d",
                format!("load_definitions = {}", definitions.display()),
            ),
            ("listeners.tcp.default = 5672", format!("listeners.tcp.default = 127.0.0.1:{}", self.port)),
            (
                "prometheus.tcp.port = 15692",
                format!("prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {}", free_port()),
            ),
        ] {
            assert!(settings.contains(from), "rabbitmq.conf does not hold {from}");
            settings = settings.replace(from, &to);
        }
        std::fs::write(file("rabbitmq.conf"), settings).unwrap();
    }

    /// The virtual hosts of the tests, in which the shipped `users` have the rights that they have in the shipped one.
    fn definitions_of_tests(&self, users: &str) -> String {
        let vhosts: Vec<String> = (1..=self.vhosts).map(|number| format!("test{number}")).collect();
        let shipped: serde_json::Value = serde_json::from_str(users).unwrap();
        let mut permissions = Vec::new();
        for vhost in &vhosts {
            for rights in shipped["permissions"].as_array().unwrap() {
                let mut rights = rights.clone();
                rights["vhost"] = json!(vhost);
                permissions.push(rights);
            }
        }
        for vhost in vhosts.iter().map(String::as_str).chain(["/"]) {
            permissions.push(
                json!({"user": "inspector", "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"}),
            );
        }
        json!({
            "users": [{"name": "inspector", "password": "any", "tags": ""}],
            "vhosts": vhosts.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
            "permissions": permissions,
        })
        .to_string()
    }
}

/// Where the shipped files are.
fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/rabbitmq")
}

/// A value of the shipped rabbitmq.conf.
fn shipped_setting(name: &str) -> String {
    let settings = std::fs::read_to_string(shipped().join("rabbitmq.conf")).unwrap();
    let line = settings.lines().find_map(|line| line.strip_prefix(name)).expect("it is set");
    line.trim_start_matches([' ', '=']).to_owned()
}

impl Drop for RabbitServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The scripts of the package itself: the commands in the path may change the user first and lose the settings.
fn scripts() -> PathBuf {
    let packages = std::fs::read_dir("/usr/lib/rabbitmq/lib").into_iter().flatten().flatten();
    let packaged = packages.map(|package| package.path().join("sbin"));
    let found = packaged
        .chain([PathBuf::from("/opt/rabbitmq/sbin")])
        .find(|sbin| sbin.join("rabbitmq-server").exists());
    found.expect("rabbitmq-server must be installed: ops/test does that")
}
