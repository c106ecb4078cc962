//! `consumer.py` while it runs: a plain AMQP client that is not ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::process::{eventually, root};
use super::subscriber::without_publish_time;

/// The process, and the file that it writes.
pub(crate) struct Consumer {
    process: Child,
    output: PathBuf,
}

impl Consumer {
    /// Returns when its queue is bound. It ends after `count` messages, repetitions not counted, or with its handle.
    pub(crate) fn start(amqp_url: &str, queue: &str, count: Option<usize>, dir: &Path) -> Self {
        let output = dir.join("consumer.jsonl");
        let count = count.map(|count| format!("--count={count}"));
        let mut process = Command::new("/usr/bin/python3")
            .arg(root().join("tests/live/consumer.py"))
            .args([amqp_url, "--exchange", "orchestrator.events", "--queue", queue, "--idle", "120"])
            .args(count)
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        stderr.read_line(&mut said).unwrap();
        if said.trim() != "ready" {
            drop(process.kill());
            stderr.read_to_string(&mut said).unwrap();
            panic!("the consumer did not start: {said}");
        }
        // Read on, so that it never waits for somebody who reads.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Self { process, output }
    }

    /// Per symbol, what came, without repetitions, in the order of the first arrivals, when it has ended; bodies as
    /// JSON without the time of publication.
    pub(crate) async fn received(mut self) -> BTreeMap<String, Vec<Value>> {
        let status = eventually("the consumer has all", async || self.process.try_wait().unwrap()).await;
        assert!(status.success(), "{status:?}");
        self.streams()
    }

    /// The same of what came so far. A message that came again must be what it was.
    pub(crate) fn streams(&self) -> BTreeMap<String, Vec<Value>> {
        let mut seen: BTreeMap<String, Value> = BTreeMap::new();
        let mut streams: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for mut message in self.messages() {
            // What the broker says about this delivery.
            message.as_object_mut().unwrap().remove("redelivered");
            message["headers"].as_object_mut().unwrap().remove("x-delivery-count");
            message["body"] = without_time(message["body"].as_str().unwrap().as_bytes());
            let id = message["message_id"].as_str().unwrap().to_owned();
            if let Some(known) = seen.get(&id) {
                assert_eq!(*known, message, "{id} came again with different content");
                continue;
            }
            seen.insert(id, message.clone());
            let symbol = message["headers"]["symbol"].as_str().unwrap().to_owned();
            streams.entry(symbol).or_default().push(message);
        }
        streams
    }

    /// The ids of what came so far.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        self.messages().map(|message| message["message_id"].as_str().unwrap().to_owned()).collect()
    }

    /// How many messages came so far, repetitions included, and how many of them the broker had sent before.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let redelivered = self.messages().filter(|message| message["redelivered"] == true).count();
        (self.messages().count(), redelivered)
    }

    /// Every whole line that it has written.
    fn messages(&self) -> impl Iterator<Item = Value> {
        let text = std::fs::read_to_string(&self.output).unwrap();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let lines: Vec<Value> =
            text[..whole].lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.into_iter()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A body without the one thing that may differ between two publications; its bytes otherwise as they are.
pub(crate) fn without_time(body: &[u8]) -> Value {
    Value::String(String::from_utf8(without_publish_time(body)).unwrap())
}
