//! A start whose Redis goes away at one of its steps: whichever it is, the process ends with 69, which says "again later",
//! and not with a code that sends somebody to the disk or to the configuration.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::process::{PATIENCE, Service, root};
use crate::support::redis_server::RedisServer;
use crate::support::secrets::Secrets;

/// Exit code for what does not answer.
const UNAVAILABLE: i32 = 69;
/// More answers than a start waits for.
const STEPS_MAX: usize = 400;

/// A way to a server that ends for good after so many answers, for all connections at once.
struct Vanishing {
    port: u16,
    state: Arc<State>,
}

struct State {
    target: u16,
    left: AtomicUsize,
    is_gone: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Vanishing {
    fn after(answers: usize, target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            target,
            left: AtomicUsize::new(answers),
            is_gone: AtomicBool::new(answers == 0),
            open: Mutex::default(),
        });
        let carrying = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                if carrying.is_gone.load(Ordering::SeqCst) {
                    // Whoever comes is let in and finds nobody there; the listener ends with the last of them.
                    drop(client);
                    continue;
                }
                carry(client, &carrying);
            }
        });
        Self { port, state }
    }

    fn is_gone(&self) -> bool {
        self.state.is_gone.load(Ordering::SeqCst)
    }
}

impl Drop for Vanishing {
    fn drop(&mut self) {
        self.state.vanish();
    }
}

impl State {
    fn vanish(&self) {
        self.is_gone.store(true, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn carry(client: TcpStream, state: &Arc<State>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, state.target)) else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
        state.open.lock().unwrap().push(stream.try_clone().unwrap());
    }
    let (mut to_server, mut from_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut bytes = [0; 16 << 10];
        while let Ok(length @ 1..) = from_client.read(&mut bytes) {
            if to_server.write_all(&bytes[..length]).is_err() {
                return;
            }
        }
    });
    let (mut from_server, mut to_client, state) = (server, client, Arc::clone(state));
    std::thread::spawn(move || {
        let mut bytes = [0; 64 << 10];
        while let Ok(length @ 1..) = from_server.read(&mut bytes) {
            let left =
                state.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if left.is_err() {
                return state.vanish();
            }
            if to_client.write_all(&bytes[..length]).is_err() {
                return;
            }
        }
    });
}

/// A configuration with the logs on that port, and everything else on this machine.
fn write_config(dir: &Path, redis: &RedisServer, port: u16) -> PathBuf {
    let url = Secrets::shared()
        .as_service(&redis.url_of_nobody().replace(&redis.port().to_string(), &port.to_string()));
    let text = format!(
        "service.data_dir = {data:?}\nlog.format = \"json\"\nhttp.listen = \"127.0.0.1:0\"\nstorage.kind = \"redis\"\n\
         [redis]\nurl = {url:?}\nresponse_timeout = \"500ms\"\n\
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

/// Method: logs with receipts, runs and checkpoints; then starts whose server ends after the first answer, the second, and
/// so on until one comes up. The same as a takeover.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_goes_away_at_any_step_of_a_start_ends_it_with_69() {
    let redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&write_config(dir.path(), &redis, redis.port()), &[]).await;
    let posted = reqwest::Client::new()
        .post(format!("{}/api/v1/receipts", service.url))
        .header("content-type", "application/x-ndjson")
        .body(receipts())
        .send()
        .await
        .unwrap();
    assert_eq!(posted.status().as_u16(), 200);
    crate::support::process::eventually("a run ends", async || {
        (0.0 < service.metric("orch_runs_completed_total").await
            || 0.0 < service.metric("orch_runs_failed_total").await)
            .then_some(())
    })
    .await;
    service.stop().await;

    for arguments in [&[][..], &["--takeover"]] {
        let mut steps = 0;
        loop {
            let way = Vanishing::after(steps, redis.port());
            let config = write_config(dir.path(), &redis, way.port);
            let Some((code, said)) = start(&config, arguments) else { break };
            assert!(way.is_gone(), "it ended by itself: {said}");
            assert_eq!(code, UNAVAILABLE, "after {steps} answers, {arguments:?}:\n{said}");
            assert!(said.contains("redis"), "it names the server: {said}");
            steps += 1;
            assert!(steps < STEPS_MAX, "it never starts");
        }
        println!("{arguments:?}: ended with 69 at each of {steps} answers");
        assert!(20 <= steps, "the start asks more than that: {steps}");
    }
}
