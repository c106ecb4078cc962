//! `GET /api/v1/events`.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::{LogIdentity, Seq};
use orchestrator_kernel::ports::log::RecordBatch;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;

use super::super::event_stream::{EventStream, Filter, Outputs};
use super::super::position::Position;
use super::fakes::{End, record};
use super::*;

/// One frame of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) id: String,
    pub(super) event: String,
    pub(super) data: String,
    comment: String,
}

/// A subscriber that understands server-sent events.
pub(super) struct Subscriber {
    response: reqwest::Response,
    text: String,
}

impl Subscriber {
    async fn open(service: &Service, query: &str, last_event_id: Option<&str>) -> Self {
        Self::open_at(service, &format!("/api/v1/events{query}"), last_event_id).await
    }

    pub(super) async fn open_at(service: &Service, path: &str, last_event_id: Option<&str>) -> Self {
        let mut request = service.client.get(service.url(path));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let mut subscriber = Self { response, text: String::new() };
        assert!(subscriber.frame().await.is_some_and(|greeting| greeting.data.is_empty()));
        subscriber
    }

    /// The next frame; `None` when the stream has ended.
    pub(super) async fn frame(&mut self) -> Option<Frame> {
        while !self.text.contains("\n\n") {
            let chunk =
                tokio::time::timeout(DEADLINE, self.response.chunk()).await.expect("silence").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        let (text, rest) = self.text.split_once("\n\n").unwrap();
        let mut frame = Frame::default();
        for line in text.lines() {
            let (field, value) = line.split_once(": ").unwrap();
            match field {
                "id" => frame.id = value.to_owned(),
                "event" => frame.event = value.to_owned(),
                "data" => frame.data.push_str(value),
                "" => frame.comment = value.to_owned(),
                _ => assert_eq!(field, "retry"),
            }
        }
        self.text = rest.to_owned();
        Some(frame)
    }

    /// The next frame that is an event; heartbeats do not count.
    pub(super) async fn event(&mut self) -> Frame {
        let next = async {
            loop {
                let frame = self.frame().await.expect("the stream ended");
                if !frame.data.is_empty() {
                    return frame;
                }
            }
        };
        tokio::time::timeout(DEADLINE, next).await.expect("only heartbeats come")
    }

    async fn ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.push(self.event().await.id);
        }
        ids
    }
}

/// Three runs of two records: outputs of the records 2, 4 and 6.
const ALL: [&str; 7] = ["2.0", "2.1", "4.0", "4.1", "4.2", "6.0", "6.1"];

async fn with_three_runs() -> Service {
    let service = Service::start().await;
    service.runs.run("A", End::Truth).await;
    service.runs.run("B", End::Hysteresis).await;
    service.runs.run("A", End::Failed).await;
    service
}

#[tokio::test]
async fn from_earliest_every_output_comes_in_order_with_its_wire_form() {
    let service = with_three_runs().await;
    let mut subscriber = Subscriber::open(&service, "?from=earliest", None).await;

    let first = subscriber.event().await;
    let second = subscriber.event().await;

    assert_eq!((first.id.as_str(), first.event.as_str()), ("2.0", "EngineRunStarted"));
    assert_eq!((second.id.as_str(), second.event.as_str()), ("2.1", "EngineRunCompleted"));
    let wire: serde_json::Value = serde_json::from_str(&second.data).unwrap();
    assert_eq!(wire["payload"]["regime_output"]["regime"], 1);
    assert_eq!((&wire["symbol"], &wire["published_ts_ms"]), (&"A".into(), &1_700_000_000_123_i64.into()));
    assert_eq!(subscriber.ids(5).await, ALL[2..]);
}

/// Method: connect again after each id, by header and by parameter, in the middle of a run too.
#[tokio::test]
async fn a_subscriber_goes_on_right_behind_its_last_event() {
    let service = with_three_runs().await;

    for (index, id) in ALL.iter().enumerate().take(ALL.len() - 1) {
        let mut by_header = Subscriber::open(&service, "?from=earliest", Some(id)).await;
        let mut by_parameter = Subscriber::open(&service, &format!("?from={id}"), None).await;

        assert_eq!(by_header.ids(ALL.len() - index - 1).await, ALL[index + 1..], "behind {id}");
        assert_eq!(by_parameter.event().await.id, ALL[index + 1]);
    }
    assert_eq!(Subscriber::open(&service, "?from=2", None).await.event().await.id, "4.0");
    assert_eq!(Subscriber::open(&service, "?from=0", None).await.event().await.id, "2.0");
}

#[tokio::test]
async fn a_subscriber_at_the_tail_gets_what_is_committed_without_a_read() {
    let service = with_three_runs().await;
    let mut latest = Subscriber::open(&service, "", None).await;
    let mut behind = Subscriber::open(&service, "?from=6.0", None).await;
    assert_eq!(behind.event().await.id, "6.1");
    let reads = service.runs.reads();

    for id in ["8.0", "10.0", "12.0"] {
        service.runs.run("C", End::Truth).await;
        assert_eq!(latest.ids(2).await[0], id);
        assert_eq!(behind.ids(2).await[0], id);
    }

    assert_eq!(service.runs.reads(), reads);
}

#[tokio::test]
async fn commits_that_were_missed_are_read_from_the_log() {
    let service = Service::start().await;
    let mut subscriber = Subscriber::open(&service, "?from=latest", None).await;

    for _ in 0..500 {
        service.runs.run("A", End::Truth).await;
    }

    let expected: Vec<_> =
        (1..=500).flat_map(|run| [format!("{}.0", 2 * run), format!("{}.1", 2 * run)]).collect();
    assert_eq!(subscriber.ids(1000).await, expected);
}

#[tokio::test]
async fn filters_keep_symbols_and_types_and_a_heartbeat_tells_how_far_it_looked() {
    let limits = HttpLimits { heartbeat: Duration::from_millis(20), ..HttpLimits::default() };
    let service = Setup { limits, ..Setup::default() }.start().await;
    service.runs.run("A", End::Truth).await;
    service.runs.run("B", End::Hysteresis).await;
    service.runs.run("C", End::Failed).await;

    let mut symbols = Subscriber::open(&service, "?from=earliest&symbol=A&symbol=C", None).await;
    assert_eq!(symbols.ids(4).await, ["2.0", "2.1", "6.0", "6.1"]);

    let query = "?from=earliest&event_type=HysteresisDecisionPublished&event_type=EngineRunFailed";
    assert_eq!(Subscriber::open(&service, query, None).await.ids(2).await, ["4.1", "6.1"]);

    let mut both =
        Subscriber::open(&service, "?from=earliest&symbol=B&event_type=EngineRunCompleted", None).await;
    assert_eq!(both.event().await.id, "4.2");
    let heartbeat = both.frame().await.unwrap();
    assert_eq!((heartbeat.comment.as_str(), heartbeat.id.as_str()), ("heartbeat", "6"));
}

#[tokio::test]
async fn a_heartbeat_does_not_skip_the_rest_of_a_run() {
    let limits = HttpLimits { heartbeat: Duration::from_millis(20), ..HttpLimits::default() };
    let service = Setup { limits, ..Setup::default() }.start().await;

    let response = service.client.get(service.url("/api/v1/events")).send().await.unwrap();
    let mut subscriber = Subscriber { response, text: String::new() };

    assert_eq!(subscriber.frame().await.unwrap().id, "0");
    assert_eq!(subscriber.frame().await.unwrap().id, "0");
    service.runs.run("A", End::Truth).await;
    assert_eq!(Subscriber::open(&service, "", Some("0")).await.ids(2).await, ["2.0", "2.1"]);
}

#[tokio::test]
async fn under_a_driven_clock_no_publish_time_is_claimed() {
    let mut setup = Setup::default();
    setup.clock.is_driven = true;
    let service = setup.start().await;
    service.runs.run("A", End::Truth).await;

    let event = Subscriber::open(&service, "?from=earliest", None).await.event().await;

    assert!(event.data.contains("\"published_ts_ms\":null"), "{}", event.data);
}

#[tokio::test]
async fn a_position_that_was_trimmed_is_gone_and_one_ahead_is_refused() {
    let service = with_three_runs().await;
    service.runs.trim(5).await;

    for id in ["2.1", "3", "4.2", "0"] {
        let answer = service.get(&format!("/api/v1/events?from={id}")).await;
        assert!(answer.problem(410, "position_trimmed").contains("from=earliest"), "{id}");
        assert_eq!(answer.json()["first_available"], "5.0");
    }
    let ahead = service.get("/api/v1/events?from=7").await;
    ahead.problem(409, "position_ahead");
    assert_eq!(ahead.json()["tail"], "6");

    assert_eq!(Subscriber::open(&service, "?from=earliest", None).await.event().await.id, "6.0");
    assert_eq!(Subscriber::open(&service, "?from=4", None).await.event().await.id, "6.0");
}

#[tokio::test]
async fn an_id_of_another_log_is_refused_whatever_its_number() {
    let service = with_three_runs().await;
    *service.runs.identity.lock().unwrap() = Some(LogIdentity(0x1f));

    let response = service.client.get(service.url("/api/v1/events")).send().await.unwrap();
    let greeting = Subscriber { response, text: String::new() }.frame().await.unwrap();
    assert_eq!(greeting.id, "000000000000001f-6");
    let first = Subscriber::open(&service, "?from=earliest", None).await.event().await.id;
    assert_eq!(first, "000000000000001f-2.0");
    assert_eq!(Subscriber::open(&service, "", Some(&first)).await.event().await.id, "000000000000001f-2.1");
    // One that was saved before ids named their log.
    assert_eq!(Subscriber::open(&service, "?from=2.0", None).await.event().await.id, "000000000000001f-2.1");

    *service.runs.identity.lock().unwrap() = Some(LogIdentity(0x2e));
    for number in ["0", "2.0", "6.1", "99"] {
        let id = format!("000000000000001f-{number}");
        let answer = service.get(&format!("/api/v1/events?from={id}")).await;
        assert!(answer.problem(409, "position_of_another_log").contains("from=earliest"), "{id}");
        assert_eq!(answer.json()["log"], "000000000000002e");
    }
}

#[tokio::test]
async fn requests_that_cannot_be_meant_are_refused() {
    let service = Service::start().await;

    for query in ["from=x", "from=", "event_type=EngineRunStart", "symbols=A", "from=%ff"] {
        service.get(&format!("/api/v1/events?{query}")).await.problem(400, "bad_parameter");
    }
    let request = service.client.get(service.url("/api/v1/events")).header("last-event-id", "x");
    let answer = Answer::of(request.send().await.unwrap()).await;
    assert!(answer.problem(400, "bad_header").starts_with("Last-Event-ID"));
}

#[tokio::test]
async fn a_record_that_cannot_be_read_ends_the_stream_after_what_stands_before_it() {
    let service = Service::start().await;
    let mut batch = RecordBatch::starting_at(Seq(1));
    batch.push_with(|bytes| record("A", End::Truth).encode_to(bytes));
    batch.push(b"nonsense");
    service.runs.commit_batch(batch).await;

    let mut subscriber = Subscriber::open(&service, "?from=earliest", None).await;

    assert_eq!(subscriber.ids(2).await, ["1.0", "1.1"]);
    assert!(subscriber.frame().await.unwrap().comment.contains("cannot read on"));
    assert_eq!(subscriber.frame().await, None);
}

#[tokio::test]
async fn beyond_the_places_a_subscriber_is_turned_away_until_one_is_free() {
    let limits = HttpLimits { subscribers_max: 1, ..HttpLimits::default() };
    let service = Setup { limits, ..Setup::default() }.start().await;
    let first = Subscriber::open(&service, "", None).await;

    let answer = service.get("/api/v1/events").await;

    answer.problem(503, "too_many_subscribers");
    assert_eq!(answer.header("retry-after"), "5");
    assert_eq!(service.get("/health").await.json()["subscribers"], 1);
    drop(first);
    until("the place is free", async || service.get("/health").await.json()["subscribers"] == 0).await;
}

#[tokio::test]
async fn the_shutdown_ends_streams_cleanly() {
    let service = Service::start().await;
    let mut subscriber = Subscriber::open(&service, "", None).await;

    service.shutdown.cancel();

    assert_eq!(subscriber.frame().await, None);
    tokio::time::timeout(DEADLINE, service.server).await.expect("the server ends").unwrap();
}

/// Method: 64 MB of outputs for a subscriber that reads nothing. Only what fits into the buffers of the connection is
/// read from the log, and after the write timeout the place is free again.
#[tokio::test]
async fn a_subscriber_that_stops_reading_holds_little_and_is_disconnected() {
    let limits = HttpLimits { write_timeout: Duration::from_millis(300), ..HttpLimits::default() };
    let service = Setup { limits, ..Setup::default() }.start().await;
    let runs: Vec<_> = (0..1000).map(|_| record("A", End::Large(64 << 10))).collect();
    service.runs.commit(&runs).await;
    service.runs.run("A", End::Truth).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(service.address).await.unwrap();

    stream.write_all(b"GET /api/v1/events?from=earliest HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();

    let subscribers = async || service.get("/health").await.json()["subscribers"].as_u64().unwrap();
    until("it has begun", async || service.runs.reads() > 0).await;
    until("it is disconnected", async || subscribers().await == 0).await;
    let read_bytes = service.runs.reads() * (256 << 10);
    assert!(read_bytes < 16 << 20, "{read_bytes} bytes were read for a subscriber that took none");
    drop(stream);
}

/// Method: one commit of 12 MB, which the stream takes from the announcement and not from a bounded read.
#[tokio::test]
async fn a_chunk_is_bounded_whatever_the_commit() {
    let service = Service::start().await;
    let runs: Vec<_> = (0..200).map(|_| record("A", End::Large(64 << 10))).collect();
    service.runs.commit(&runs).await;
    let outputs = Outputs {
        runs: Arc::clone(&service.runs) as _,
        committed: service.runs.committed.subscribe(),
        clock: Arc::new(Setup::default().clock),
        shutdown: service.shutdown.clone(),
    };
    let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
    let from = Position::After(Seq(0));
    let mut stream = EventStream::new(outputs, from, Filter::default(), DEADLINE, place);

    let mut total = 0;
    while total < 200 * (64 << 10) {
        let chunk = stream.next_chunk().await.unwrap();
        assert!(chunk.len() < 256 << 10, "a chunk of {} bytes", chunk.len());
        total += chunk.len();
    }

    assert_eq!(service.runs.reads(), 0);
}

/// Method: trim the log under a subscriber that has read up to the end of a batch.
#[tokio::test]
async fn a_subscriber_overtaken_by_the_trimming_is_told() {
    let service = Service::start().await;
    let runs: Vec<_> = (0..200).map(|_| record("A", End::Large(64 << 10))).collect();
    service.runs.commit(&runs).await;
    service.runs.run("A", End::Truth).await;
    let mut subscriber = Subscriber::open(&service, "?from=earliest", None).await;
    service.runs.trim(200).await;

    let mut last = subscriber.frame().await.unwrap();
    while let Some(frame) = subscriber.frame().await {
        last = frame;
    }

    assert!(last.comment.ends_with("was removed, the first one there is 200"), "{last:?}");
}

/// Method: a subscriber that reads nothing beside one that reads everything.
#[tokio::test]
async fn a_slow_subscriber_slows_no_other() {
    let service = Arc::new(Service::start().await);
    let runs: Vec<_> = (0..200).map(|_| record("A", End::Large(64 << 10))).collect();
    service.runs.commit(&runs).await;
    let slow = Subscriber::open(&service, "?from=earliest", None).await;

    let mut quick = Subscriber::open(&service, "?from=earliest", None).await;

    assert_eq!(quick.ids(400).await.last().unwrap(), "200.1");
    drop(slow);
}
