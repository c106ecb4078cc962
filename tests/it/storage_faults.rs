//! The disk below the embedded logs while it misbehaves. `strace` is attached to the running service, lets one system
//! call fail or wait, and is taken away again; so a fault has a beginning and an end.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::faults::{RECEIPTS_PER_POST, post_receipts};
use crate::support::{PATIENCE, ReadinessWatch, Service, eventually, records};

/// A fault of the service's system calls, as long as this lives.
struct Injection(Child);

impl Injection {
    /// Returns when it holds for every thread.
    async fn into(service: &Service, call: &str, fault: &str) -> Self {
        let pid = service.pid().to_string();
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:{fault}"), "-p", &pid])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut injection = Self(strace);
        eventually("strace is attached (as root, or with kernel.yama.ptrace_scope = 0)", async || {
            let ended = injection.0.try_wait().unwrap();
            assert!(ended.is_none(), "strace ended: {ended:?}");
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            threads.flatten().all(|thread| is_traced(&thread.path())).then_some(())
        })
        .await;
        injection
    }

    /// Ends the fault.
    fn end(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        // Ended in order in most tests; a failing one must not leave it behind.
        if let Ok(None) = self.0.try_wait() {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}

/// A thread that ends meanwhile has no status.
fn is_traced(thread: &Path) -> bool {
    let status = std::fs::read_to_string(thread.join("status")).unwrap_or_default();
    !status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() == "0"))
}

/// A service with segments of this size, in MiB, and nothing but HTTP before it.
fn config(dir: &Path, segment: u32) -> PathBuf {
    let path = dir.join("config.toml");
    let text = format!(
        "[service]\ndata_dir = {:?}\n[buffer]\nsegment_bytes = \"{segment}MiB\"\nbatch_bytes_max = \"512KiB\"\n\
         [sources.http]\nkind = \"http\"\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n",
        dir.join("data")
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(PATIENCE).build().unwrap()
}

/// The last position of the producer that is durable.
async fn settled(service: &Service) -> u64 {
    let (_, said) = service.get("/api/v1/producers/disk").await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    said["settled"].as_u64().unwrap_or(0)
}

/// Room for a segment is asked for before anything is written into it, so its want is found out in time: nothing is
/// acknowledged or dropped, and the service goes on by itself.
#[tokio::test]
async fn no_room_for_a_segment_holds_receipts_back_until_there_is_some() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), 1);
    let service = Service::start(&config, &[]).await;
    let client = client();
    let mut acknowledged = 0;
    let fault = Injection::into(&service, "fallocate", "error=ENOSPC").await;
    let readiness = ReadinessWatch::begin(&service.url);

    let refused = loop {
        let response = post_receipts(&client, &service.url, acknowledged + 1).await;
        if response.status() != 200 {
            break response;
        }
        acknowledged += RECEIPTS_PER_POST;
        assert!(acknowledged < 100_000, "it never wanted another segment");
    };
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let (status, body) = service.get("/readyz").await;
    assert!(status == 503 && body.contains("buffer_append_failing"), "{body}");
    let full = Instant::now();
    assert_eq!(settled(&service).await, acknowledged, "nothing of it is stored");
    // Nobody posts any more: only the service itself can find out whether there is room, and there is none.
    tokio::time::sleep(Duration::from_secs(3)).await;

    let healed = Instant::now();
    fault.end();
    eventually("it takes receipts again", async || {
        (post_receipts(&client, &service.url, acknowledged + 1).await.status() == 200).then_some(())
    })
    .await;
    acknowledged += RECEIPTS_PER_POST;
    eventually("it is ready again", async || (service.get("/readyz").await.0 == 200).then_some(())).await;
    readiness.end().lost_once("buffer_append_failing", full, Duration::ZERO, healed);
    assert_eq!(settled(&service).await, acknowledged, "nothing lost, nothing twice");
    service.stop().await;
    assert_eq!(records(&dir.path().join("data/receipts")).await.len() as u64, acknowledged);
}

/// A write into room that was granted must not fail for want of it. When it does all the same, the file system does not
/// keep its word, and what it holds is not known: as after a failed sync, nothing is acknowledged any more.
#[tokio::test]
async fn a_write_that_finds_no_room_ends_the_process_and_the_next_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), 1);
    let mut service = Service::start(&config, &[]).await;
    let client = client();
    let first = post_receipts(&client, &service.url, 1).await;
    assert_eq!(first.status(), 200);

    let fault = Injection::into(&service, "pwrite64", "error=ENOSPC").await;
    let refused = client
        .post(format!("{}/api/v1/receipts", service.url))
        .header("content-type", "application/x-ndjson")
        .body("{}")
        .send()
        .await;
    assert!(refused.is_err() || refused.unwrap().status() != 200);
    let status = service.ended().await;
    assert_eq!(status.code(), Some(74), "{}", service.log());
    drop(fault);

    let service = Service::start(&config, &[]).await;
    assert_eq!(settled(&service).await, RECEIPTS_PER_POST, "what was acknowledged is there");
    let second = post_receipts(&client, &service.url, RECEIPTS_PER_POST + 1).await;
    assert_eq!(second.status(), 200);
    service.stop().await;
    assert_eq!(records(&dir.path().join("data/receipts")).await.len() as u64, 2 * RECEIPTS_PER_POST);
}

/// LOG-2. Method: every fdatasync waits for 1.5 s before it begins. Segments are large, so that no other sync than the
/// one of the receipts is on their way.
#[tokio::test]
async fn nothing_is_acknowledged_before_a_slow_sync_has_returned() {
    const DELAY: Duration = Duration::from_millis(1500);
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), 64);
    let service = Service::start(&config, &[]).await;
    let client = client();
    assert_eq!(post_receipts(&client, &service.url, 1).await.status(), 200);
    let mut acknowledged = RECEIPTS_PER_POST;
    let fault = Injection::into(&service, "fdatasync", &format!("delay_enter={}", DELAY.as_micros())).await;
    let readiness = ReadinessWatch::begin(&service.url);

    for _ in 0..2 {
        let begun = Instant::now();
        let posted = tokio::spawn({
            let (client, url) = (client.clone(), service.url.clone());
            async move { post_receipts(&client, &url, acknowledged + 1).await.status() }
        });
        while begun.elapsed() < DELAY {
            assert!(!posted.is_finished(), "acknowledged after {:?}", begun.elapsed());
            let durable = settled(&service).await;
            assert!(durable == acknowledged || DELAY <= begun.elapsed(), "said to be durable too early");
        }
        assert_eq!(posted.await.unwrap(), 200);
        acknowledged += RECEIPTS_PER_POST;
    }
    readiness.end().never_lost();
    fault.end();

    let begun = Instant::now();
    assert_eq!(post_receipts(&client, &service.url, acknowledged + 1).await.status(), 200);
    assert!(begun.elapsed() < DELAY, "the delay was the fault's: {:?}", begun.elapsed());
    service.stop().await;
}
