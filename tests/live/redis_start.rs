//! A start whose Redis goes away at one of its steps: whichever it is, the process ends with 69, which says "again
//! later", and not with a code that sends somebody to the disk or to the configuration.
//!
//! ```text
//! a whole start ──▶ the kinds of commands that it sends, by name and key
//! then a start for each kind: the way to the server ends in place of the first such command, or of its answer
//! ```

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::process::{PATIENCE, Service, eventually, root};
use crate::support::redis_server::RedisServer;
use crate::support::secrets::Secrets;

/// Exit code for what does not answer.
const UNAVAILABLE: i32 = 69;
/// Starts at a time, each with a server and a directory of its own.
const LANES: usize = 4;
/// A start sends at least so many kinds of commands.
const KINDS_MIN: usize = 20;
const TAKEOVER: &[&str] = &["--takeover"];
/// Behind these a log is read, which a start waits for for a minute before it gives up: the soak has the time.
const WAITS_BEHIND: [&str; 2] =
    ["HGET orch:{default}:checkpoint:runs", "HGET orch:{default}:checkpoint:receipts"];

/// Where the way to the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The command does not reach the server.
    Command,
    /// The server carries it out, and nobody has its answer.
    Answer,
}

/// A way to a server that ends for good, for all connections at once, at the first command of a kind.
struct Vanishing {
    port: u16,
    state: Arc<State>,
}

struct State {
    target: u16,
    /// Kinds of commands in the order of the first of each.
    seen: Mutex<Vec<String>>,
    end: Option<(String, Place)>,
    is_gone: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Vanishing {
    fn to(target: u16, end: Option<(String, Place)>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, open) = (Mutex::default(), Mutex::default());
        let state = Arc::new(State { target, seen, end, is_gone: AtomicBool::new(false), open });
        let carrying = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                // The first that comes later is let in and finds nobody there; the next ones are refused.
                if carrying.is_gone() {
                    return;
                }
                carry(client, &carrying);
            }
        });
        Self { port, state }
    }
}

impl Drop for Vanishing {
    fn drop(&mut self) {
        self.state.vanish();
        // Whoever listens still sees that it is over.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

impl State {
    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::SeqCst)
    }

    fn vanish(&self) {
        self.is_gone.store(true, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Notes a command; says where the way ends when it is the one.
    fn note(&self, kind: String) -> Option<Place> {
        let ends = self.end.as_ref().filter(|(end, _)| *end == kind).map(|(_, place)| *place);
        let mut seen = self.seen.lock().unwrap();
        if !seen.contains(&kind) {
            seen.push(kind);
        }
        ends
    }
}

fn carry(client: TcpStream, state: &Arc<State>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, state.target)) else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
        state.open.lock().unwrap().push(stream.try_clone().unwrap());
    }
    let is_awaited = Arc::new(AtomicBool::new(false));
    let (to_server, from_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let (watched, asked) = (Arc::clone(state), Arc::clone(&is_awaited));
    std::thread::spawn(move || carry_commands(from_client, to_server, &watched, &asked));
    let (mut from_server, mut to_client, state) = (server, client, Arc::clone(state));
    std::thread::spawn(move || {
        let mut bytes = [0; 64 << 10];
        while let Ok(length @ 1..) = from_server.read(&mut bytes) {
            if is_awaited.load(Ordering::SeqCst) {
                return state.vanish();
            }
            if to_client.write_all(&bytes[..length]).is_err() {
                return;
            }
        }
    });
}

fn carry_commands(mut from: TcpStream, mut to: TcpStream, state: &State, is_awaited: &AtomicBool) {
    let (mut bytes, mut waiting) = ([0; 64 << 10], VecDeque::new());
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        waiting.extend(&bytes[..length]);
        while let Some((kind, size)) = first_command(waiting.make_contiguous()) {
            match state.note(kind) {
                Some(Place::Command) => return state.vanish(),
                Some(Place::Answer) => is_awaited.store(true, Ordering::SeqCst),
                None => {}
            }
            let command: Vec<u8> = waiting.drain(..size).collect();
            if to.write_all(&command).is_err() {
                return;
            }
        }
    }
}

/// The kind of the command that `bytes` begin with, and its length; nothing when it is not all there yet.
fn first_command(bytes: &[u8]) -> Option<(String, usize)> {
    let mut at = 0;
    let number = |at: &mut usize| -> Option<usize> {
        let rest = bytes.get(*at..)?;
        let length = rest.windows(2).position(|pair| pair == b"\r\n")?;
        *at += length + 2;
        Some(std::str::from_utf8(&rest[1..length]).unwrap().parse().unwrap())
    };
    let mut words = Vec::new();
    for _ in 0..number(&mut at)? {
        let length = number(&mut at)?;
        words.push(String::from_utf8_lossy(bytes.get(at..at + length)?).into_owned());
        at += length + 2;
    }
    (at <= bytes.len()).then(|| (kind_of(&words), at))
}

/// A command by its name and what it is about: its key, script or second word; never a password.
fn kind_of(words: &[String]) -> String {
    let name = words[0].to_ascii_uppercase();
    let about = match name.as_str() {
        "AUTH" | "HELLO" => &[][..],
        "EVALSHA" | "CONFIG" => &[1, 3][..],
        _ => &[1][..],
    };
    let about = about.iter().filter_map(|at| words.get(*at)).map(|word| format!(" {word:.40}"));
    about.fold(name, |kind, word| kind + &word)
}

/// A configuration with the logs on that port, and everything else on this machine.
fn write_config(dir: &Path, port: u16) -> PathBuf {
    let url = Secrets::shared().as_service(&format!("redis://127.0.0.1:{port}/0"));
    let text = format!(
        "service.data_dir = {data:?}\nlog.format = \"json\"\nhttp.listen = \"127.0.0.1:0\"\nstorage.kind = \"redis\"\n\
         [redis]\nurl = {url:?}\nresponse_timeout = \"10s\"\n\
         [sources.feed]\nkind = \"http\"\n[schedule]\ninterval = \"1s\"\ndelay = \"100ms\"\n",
        data = dir.join("data"),
    );
    let path = dir.join("service.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// What a start came to: its exit code and what it said, or nothing when it is up.
fn start(config: &Path, arguments: &[&str]) -> Option<(i32, String)> {
    let stderr = config.with_extension("refused");
    let mut child = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .arg("run")
        .arg("--config")
        .arg(config)
        .args(arguments)
        .current_dir(root())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(std::fs::File::create(&stderr).unwrap()))
        .spawn()
        .unwrap();
    // A log on a server is waited for while it is read: that long, and some.
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let said = std::fs::read_to_string(&stderr).unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            return Some((status.code().expect("nobody kills it"), said));
        }
        if said.contains("\"running\"") {
            drop(child.kill());
            child.wait().unwrap();
            return None;
        }
        assert!(Instant::now() < deadline, "it neither starts nor ends:\n{said}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn receipts() -> String {
    let receipt = |number: u64| {
        format!(
            r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"TradeTick","source_id":"t","symbol":"BTCUSDT","exchange_ts_ms":null,"recv_ts_ms":{},"raw_payload":"{number}","normalized":{{"price":1.0,"quantity":1.0,"side":"buy"}}}}"#,
            1_768_002_660_000 + number
        )
    };
    (0..50).map(receipt).collect::<Vec<_>>().join("\n")
}

/// A server, and the directory of the host that wrote on it.
struct Site {
    redis: RedisServer,
    dir: tempfile::TempDir,
}

impl Site {
    /// Logs with receipts, runs and checkpoints; the server is down.
    async fn filled() -> Self {
        let mut site = Self { redis: RedisServer::start(), dir: tempfile::tempdir().unwrap() };
        let config = write_config(site.dir.path(), site.redis.port());
        let service = Service::start(&config, &[]).await;
        let posted = reqwest::Client::new()
            .post(format!("{}/api/v1/receipts", service.url))
            .header("content-type", "application/x-ndjson")
            .body(receipts())
            .send()
            .await
            .unwrap();
        assert_eq!(posted.status().as_u16(), 200);
        let ended = ["orch_runs_completed_total", "orch_runs_failed_total"];
        eventually("a run ends", async || {
            let ended = service.metric(ended[0]).await + service.metric(ended[1]).await;
            (0.0 < ended).then_some(())
        })
        .await;
        service.stop().await;
        site.redis.shut_down();
        site
    }

    /// The same on another server, in another directory: the host is the same.
    fn copy(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(self.dir.path().join("data")).arg(dir.path()).status();
        assert!(copied.unwrap().success());
        Self { redis: self.redis.copy(), dir }
    }

    /// A start over a way that ends at `end`; what it came to, and the way.
    fn start(&self, arguments: &[&str], end: Option<(String, Place)>) -> (Option<(i32, String)>, Vanishing) {
        let way = Vanishing::to(self.redis.port(), end);
        (start(&write_config(self.dir.path(), way.port), arguments), way)
    }

    /// The kinds of commands that a start sends.
    fn kinds(&self, arguments: &[&str]) -> Vec<String> {
        let (ended, way) = self.start(arguments, None);
        assert_eq!(ended, None, "it must come up");
        let seen = way.state.seen.lock().unwrap().clone();
        assert!(KINDS_MIN <= seen.len(), "{seen:?}");
        seen
    }

    /// Whether the start was under way when the server went away; then it has ended with 69 and named the server.
    fn ends_with_69(&self, arguments: &[&str], kind: &str, place: Place) -> bool {
        let (ended, way) = self.start(arguments, Some((kind.to_owned(), place)));
        // A command that is sent beside the start may come after it.
        let Some((code, said)) = ended else { return false };
        assert!(way.state.is_gone(), "it ended by itself: {said}");
        assert_eq!(code, UNAVAILABLE, "without {kind}, {place:?}, {arguments:?}:\n{said}");
        assert!(said.contains("redis"), "it names the server: {said}");
        true
    }
}

/// Starts for all of `steps`, some at a time; says how many of them ended with 69.
fn check_starts(site: &Site, steps: &[(&[&str], String, Place)]) -> usize {
    let (next, ended) = (Mutex::new(steps.iter()), Mutex::new(0));
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                let site = site.copy();
                let mut count = 0;
                loop {
                    let Some((arguments, kind, place)) = next.lock().unwrap().next() else { break };
                    count += usize::from(site.ends_with_69(arguments, kind, *place));
                }
                *ended.lock().unwrap() += count;
            });
        }
    });
    ended.into_inner().unwrap()
}

/// Method: a start for each kind of command, whose server ends in place of the command or, every other one, of its
/// answer; and a takeover for the kinds that only that sends.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_goes_away_at_any_step_of_a_start_ends_it_with_69() {
    let site = Site::filled().await;
    let kinds = site.copy().kinds(&[]);
    let mut further = site.copy().kinds(TAKEOVER);
    further.retain(|kind| !kinds.contains(kind));
    let places = [Place::Command, Place::Answer].into_iter().cycle();
    let none: &[&str] = &[];
    let quick = kinds.into_iter().filter(|kind| !WAITS_BEHIND.contains(&kind.as_str()));
    let plain = quick.map(|kind| (none, kind));
    let takeovers = further.into_iter().map(|kind| (TAKEOVER, kind));
    let steps: Vec<(&[&str], String, Place)> = plain
        .chain(takeovers)
        .zip(places)
        .map(|((arguments, kind), place)| (arguments, kind, place))
        .collect();

    let ended = check_starts(&site, &steps);

    println!("ended with 69 at {ended} of {} kinds of commands", steps.len());
    assert!(KINDS_MIN <= ended, "only {ended} of {} were under way", steps.len());
}

/// All of it: each kind in both places, and in a takeover too.
#[tokio::test(flavor = "multi_thread")]
async fn soak_of_starts_without_redis() {
    if std::env::var_os("ORCHESTRATOR_SOAK_MINUTES").is_none() {
        println!("SKIPPED: a soak runs with ops/test --soak MINUTES");
        return;
    }
    let site = Site::filled().await;
    let mut steps: Vec<(&[&str], String, Place)> = Vec::new();
    for arguments in [&[][..], TAKEOVER] {
        for kind in site.copy().kinds(arguments) {
            steps.extend([Place::Command, Place::Answer].map(|place| (arguments, kind.clone(), place)));
        }
    }

    let ended = check_starts(&site, &steps);

    println!("ended with 69 at {ended} of {} steps", steps.len());
    assert!(4 * KINDS_MIN <= ended, "only {ended} of {} were under way", steps.len());
}
