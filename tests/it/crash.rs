//! kill −9 at random points of the recorded day, posted over HTTP: nothing lost, nothing twice, the same outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use orchestrator_kernel::engine::contracts::engine_run::RunStatus;
use orchestrator_kernel::engine::run_id::RunId;
use orchestrator_kernel::random::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::capture::config;
use crate::support::{
    PATIENCE, Service, checked_receipts, message_id, outputs, recorded_lines, recording, run_records, seed,
};

/// Kills while a day is posted: a part of a campaign by default, all of it in a soak.
const KILLS: usize = 20;
const KILLS_IN_SOAK: usize = 50;
const LINES_PER_POST: usize = 500;

/// Posts `batch`, whose first line has position `first`, as an idempotent producer.
async fn post(client: &reqwest::Client, url: &str, batch: &[Vec<u8>], first: usize) -> Result<(), String> {
    let response = client
        .post(format!("{url}/api/v1/receipts"))
        .header("content-type", "application/x-ndjson")
        .header("orchestrator-producer", "crash-test")
        .header("orchestrator-sequence", first)
        .body(batch.join(&b'\n'))
        .send()
        .await
        .map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.text().await.map_err(|error| error.to_string())?;
    if status.as_u16() == 200 { Ok(()) } else { Err(format!("{status}: {body}")) }
}

/// Posts what follows the first `acknowledged` lines; returns how many are acknowledged then.
async fn post_next(
    client: &reqwest::Client,
    url: &str,
    lines: &[Vec<u8>],
    acknowledged: usize,
) -> Result<usize, String> {
    let end = lines.len().min(acknowledged + LINES_PER_POST);
    if acknowledged < end {
        post(client, url, &lines[acknowledged..end], acknowledged + 1).await?;
    }
    Ok(end)
}

/// A consumer of server-sent events that resumes by `Last-Event-ID` and deduplicates on the message id.
#[derive(Default)]
struct Consumer {
    last_id: Option<String>,
    events: Vec<(String, String)>,
    seen: BTreeMap<String, String>,
}

impl Consumer {
    fn take(&mut self, id: String, data: String) {
        let message = message_id(&data);
        self.last_id = Some(id);
        match self.seen.get(&message) {
            Some(before) => assert_eq!(*before, data, "a repeated message must be equal"),
            None => {
                self.seen.insert(message.clone(), data.clone());
                self.events.push((message, data));
            }
        }
    }

    /// Follows the stream until it breaks; what was received is sent through the channel.
    fn follow(&self, url: &str) -> (JoinHandle<()>, mpsc::UnboundedReceiver<(String, String)>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut request = reqwest::Client::new().get(format!("{url}/api/v1/events?from=earliest"));
        if let Some(id) = &self.last_id {
            request = reqwest::Client::new().get(format!("{url}/api/v1/events")).header("last-event-id", id);
        }
        let following = tokio::spawn(async move {
            let Ok(response) = request.send().await else { return };
            let mut stream = response.bytes_stream();
            let mut text = String::new();
            while let Some(Ok(chunk)) = stream.next().await {
                text.push_str(std::str::from_utf8(&chunk).unwrap());
                while let Some(end) = text.find("\n\n") {
                    let event: String = text.drain(..end + 2).collect();
                    let field = |name: &str| {
                        event
                            .lines()
                            .find_map(|line| line.strip_prefix(name))
                            .map(|value| value.trim_start().to_owned())
                    };
                    if let (Some(id), Some(data)) = (field("id:"), field("data:"))
                        && sender.send((id, data)).is_err()
                    {
                        return;
                    }
                }
            }
        });
        (following, receiver)
    }

    fn drain(&mut self, received: &mut mpsc::UnboundedReceiver<(String, String)>) {
        while let Ok((id, data)) = received.try_recv() {
            self.take(id, data);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_repeat_nothing_and_change_no_output() {
    let Some(recording) = recording() else { return };
    check_kills(&recording, seed(), KILLS).await;
}

/// The same with other seeds for as long as `ops/test --soak MINUTES` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_of_kills() {
    let Ok(minutes) = std::env::var("ORCHESTRATOR_SOAK_MINUTES") else {
        println!("SKIPPED: a soak runs with ops/test --soak MINUTES");
        return;
    };
    let Some(recording) = recording() else { return };
    let end = Instant::now() + Duration::from_secs(60 * minutes.parse::<u64>().unwrap());
    let mut seeds = seed()..;
    while Instant::now() < end {
        check_kills(&recording, seeds.next().unwrap(), KILLS_IN_SOAK).await;
    }
}

/// Method: the day posted without interruption, then the same day with kills at moments that the seed chooses.
async fn check_kills(recording: &Path, seed: u64, kills: usize) {
    println!("SEED={seed}");
    let mut dice = Rng::new(seed);
    let lines = Arc::new(recorded_lines(recording));
    let dir = tempfile::tempdir().unwrap();
    let source = "[sources.http]\nkind = \"http\"";

    // The day without interruption.
    let calm = dir.path().join("calm");
    let path = write_config(&calm, source);
    let service = Service::start(&path, &[]).await;
    let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
    let mut acknowledged = 0;
    while acknowledged < lines.len() {
        acknowledged = post_next(&client, &service.url, &lines, acknowledged).await.unwrap();
    }
    service.stop().await;
    let expected = outputs(&calm);
    assert_eq!(expected.len(), 44 * 2 + 2 * 2);

    // The same day with kills.
    let rough = dir.path().join("rough");
    let path = write_config(&rough, source);
    let mut consumer = Consumer::default();
    let mut acknowledged = 0;
    let per_life = lines.len() / LINES_PER_POST * 2 / kills;
    for _ in 0..kills {
        let service = Service::start(&path, &[]).await;
        let (following, mut received) = consumer.follow(&service.url);
        for _ in 0..dice.next_index(per_life) {
            acknowledged = post_next(&client, &service.url, &lines, acknowledged).await.unwrap();
        }
        // In the middle of a batch: it may be stored or not, and is sent again either way.
        let in_flight = tokio::spawn({
            let (client, url, lines) = (client.clone(), service.url.clone(), Arc::clone(&lines));
            async move { post_next(&client, &url, &lines, acknowledged).await }
        });
        tokio::time::sleep(Duration::from_micros(dice.next_below(30_000))).await;
        service.kill();
        acknowledged = in_flight.await.unwrap().unwrap_or(acknowledged);
        following.await.unwrap();
        consumer.drain(&mut received);
    }
    let service = Service::start(&path, &[]).await;
    let (following, mut received) = consumer.follow(&service.url);
    while acknowledged < lines.len() {
        acknowledged = post_next(&client, &service.url, &lines, acknowledged).await.unwrap();
    }
    service.stop().await;
    following.await.unwrap();
    consumer.drain(&mut received);

    let stored = checked_receipts(&rough).await;
    assert_eq!(stored.len(), lines.len(), "every acknowledged receipt once");
    assert!(stored == *lines, "in order, byte for byte");
    check_one_terminal_record_a_run(&rough).await;
    let events: Vec<String> = consumer.events.into_iter().map(|(_, data)| data).collect();
    assert_eq!(events.len(), expected.len());
    assert_eq!(
        per_symbol(&events),
        per_symbol(&expected),
        "OUT-1: the outputs of an uninterrupted run, in order"
    );
}

fn write_config(data: &Path, source: &str) -> std::path::PathBuf {
    std::fs::create_dir_all(data).unwrap();
    let path = data.join("config.toml");
    std::fs::write(&path, config(source, "truth", data, 2, 2)).unwrap();
    path
}

fn per_symbol(events: &[String]) -> BTreeMap<String, Vec<&String>> {
    let mut symbols: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for event in events {
        let fields: serde_json::Value = serde_json::from_str(event).unwrap();
        symbols.entry(fields["symbol"].as_str().unwrap().to_owned()).or_default().push(event);
    }
    symbols
}

async fn check_one_terminal_record_a_run(data: &Path) {
    let mut started: BTreeSet<RunId> = BTreeSet::new();
    let mut ended: BTreeSet<RunId> = BTreeSet::new();
    for record in run_records(data).await {
        match record.status {
            RunStatus::Started { .. } => {
                assert!(!ended.contains(&record.facts.run_id), "RUN-2: started again after its end");
                started.insert(record.facts.run_id);
            }
            RunStatus::Completed { .. } | RunStatus::Failed { .. } => {
                assert!(ended.insert(record.facts.run_id), "RUN-2: one terminal record a run");
            }
        }
    }
    assert_eq!(started, ended, "RUN-4: every run ends");
}
