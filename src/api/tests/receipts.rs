//! `POST /api/v1/receipts` and `GET /api/v1/producers/{id}`.

use std::time::Duration;

use serde_json::json;

use super::fakes::Mood;
use super::*;

const LIMITED: HttpLimits = HttpLimits {
    connections_max: 8,
    header_timeout: DEADLINE,
    write_timeout: DEADLINE,
    request_timeout: Duration::from_millis(300),
    drain_timeout: DEADLINE,
    body_bytes_max: 64,
    body_bytes_in_flight_max: 64,
    lines_max: 3,
    subscribers_max: 1,
    heartbeat: DEADLINE,
};

async fn limited() -> Service {
    Setup { limits: LIMITED, ..Setup::default() }.start().await
}

#[tokio::test]
async fn lines_reach_the_intake_byte_for_byte_and_every_fate_is_counted() {
    let service = Service::start().await;

    let answer = service.post("{\"a\": 1.50 }\r\n\nnonsense\n{\"é\":\"\u{1f600}\\n\"}", None).await;

    assert_eq!(answer.status, 200);
    let expected = json!({
        "appended": 2, "duplicate": 0, "quarantined": 1, "errors": [{"line": 3, "reason": "no object"}],
    });
    assert_eq!(answer.json(), expected);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(service.intake.bytes(), ["{\"a\": 1.50 }", "nonsense", "{\"é\":\"\u{1f600}\\n\"}"]);
    for (origin, item) in service.intake.stored() {
        assert_eq!((origin.as_str(), item.position, item.oversized), ("http", None, None));
    }
}

#[tokio::test]
async fn a_single_json_object_may_span_lines() {
    let service = Service::start().await;
    let request = service.client.post(service.url("/api/v1/receipts")).body("{\n \"a\": 1\n}\n");

    let response = request.header("content-type", "application/json; charset=utf-8").send().await.unwrap();

    assert_eq!(Answer::of(response).await.json()["appended"], 1);
    assert_eq!(service.intake.bytes(), ["{\n \"a\": 1\n}"]);
}

/// A body of these bytes with this header, as one receipt a line.
async fn post_with(service: &Service, name: &'static str, value: &str, body: Vec<u8>) -> Answer {
    let request = service.client.post(service.url("/api/v1/receipts")).body(body);
    let typed =
        if name == "content-type" { request } else { request.header("content-type", "application/x-ndjson") };
    Answer::of(typed.header(name, value).send().await.unwrap()).await
}

#[tokio::test]
async fn a_compressed_body_is_unpacked_and_counts_as_large_as_it_becomes() {
    let service = Service::start().await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, b"{\"a\":1}\n{\"b\":2}\n").unwrap();
    let zstd = zstd::encode_all(&b"{\"c\":3}"[..], 3).unwrap();
    let bomb = zstd::encode_all(&vec![b'\n'; 2 << 20][..], 3).unwrap();

    let answer = post_with(&service, "content-encoding", "gzip", gzip.finish().unwrap()).await;
    assert_eq!(answer.json()["appended"], 2, "{}", answer.text);
    assert_eq!(post_with(&service, "content-encoding", "zstd", zstd).await.json()["appended"], 1);
    post_with(&service, "content-encoding", "zstd", bomb).await.problem(413, "body_too_large");
    post_with(&service, "content-encoding", "gzip", b"{}".to_vec()).await.problem(400, "body_unreadable");

    assert_eq!(service.intake.bytes(), ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]);
}

/// A mistake of the whole body is one refusal; nothing of it is settled line by line.
#[tokio::test]
async fn a_body_that_is_no_utf_8_text_is_refused_as_a_whole_and_told_what_is_taken() {
    let service = Service::start().await;
    let text = "{\"a\":1}\n".repeat(20);
    let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let gzip = b"\x1f\x8b\x08\0\0\n\n\n".to_vec();

    for (name, value, body) in [
        ("content-encoding", "br", text.clone().into_bytes()),
        ("content-encoding", "identity", gzip),
        ("content-encoding", "identity", utf_16.clone()),
        ("content-encoding", "identity", b"PAR1\n\n".to_vec()),
    ] {
        let answer = post_with(&service, name, value, body).await;
        answer.problem(415, "unsupported_content_type");
        assert_eq!(answer.header("accept-encoding"), "gzip, zstd, identity");
    }
    for charset in ["application/json; charset=utf-16", "application/x-ndjson;charset=\"ISO-8859-1\""] {
        let answer = post_with(&service, "content-type", charset, text.clone().into_bytes()).await;
        assert!(answer.problem(415, "unsupported_content_type").contains("UTF-8"), "{}", answer.text);
    }
    assert!(service.intake.stored().is_empty());
}

#[tokio::test]
async fn a_byte_order_mark_before_a_body_is_framing() {
    let service = Service::start().await;

    let answer = service.post("\u{feff}{\"a\":1}\n{\"b\":2}", None).await;

    assert_eq!(answer.json()["appended"], 2, "{}", answer.text);
    assert_eq!(service.intake.bytes(), ["{\"a\":1}", "{\"b\":2}"]);
}

#[tokio::test]
async fn at_most_a_hundred_errors_are_named_and_all_are_counted() {
    let service = Service::start().await;

    let answer = service.post("x\n".repeat(150), None).await.json();

    assert_eq!(answer["quarantined"], 150);
    assert_eq!(answer["errors"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn a_repeated_request_is_recognised_line_by_line_and_a_gap_names_the_next_position() {
    let service = Service::start().await;
    assert_eq!(service.get("/api/v1/producers/p").await.json(), json!({"producer": "p", "settled": 0}));

    assert_eq!(service.post("{1}\n\n{2}\n", Some(1)).await.json()["appended"], 2);
    let again = service.post("{2}\n{3}\n", Some(2)).await.json();
    let gap = service.post("{9}\n", Some(9)).await;

    assert_eq!((&again["duplicate"], &again["appended"]), (&json!(1), &json!(1)));
    gap.problem(409, "sequence_gap");
    assert_eq!(gap.json()["expected"], 4);
    assert_eq!(service.intake.bytes(), ["{1}", "{2}", "{3}"]);
    let numbered =
        service.intake.stored().into_iter().map(|(origin, item)| (origin.to_string(), item.position));
    let expected = [1, 2, 3].map(|position| ("http:p".to_owned(), Some(position)));
    assert_eq!(numbered.collect::<Vec<_>>(), expected);
    assert_eq!(service.get("/api/v1/producers/p").await.json()["settled"], 3);
}

#[tokio::test]
async fn headers_of_a_producer_that_cannot_be_used_are_refused_by_name() {
    let service = Service::start().await;
    let cases = [
        (vec![("orchestrator-producer", "p")], "Orchestrator-Sequence"),
        (vec![("orchestrator-sequence", "1")], "Orchestrator-Producer"),
        (vec![("orchestrator-producer", "a b"), ("orchestrator-sequence", "1")], "Orchestrator-Producer"),
        (vec![("orchestrator-producer", "p"), ("orchestrator-sequence", "0")], "Orchestrator-Sequence"),
        (vec![("orchestrator-producer", "p"), ("orchestrator-sequence", "+1")], "Orchestrator-Sequence"),
        (vec![("orchestrator-producer", "p"), ("orchestrator-sequence", "")], "Orchestrator-Sequence"),
        (
            vec![("orchestrator-producer", "p"), ("orchestrator-sequence", "18446744073709551615")],
            "Orchestrator-Sequence",
        ),
        (
            vec![
                ("orchestrator-producer", "p"),
                ("orchestrator-producer", "q"),
                ("orchestrator-sequence", "1"),
            ],
            "Orchestrator-Producer",
        ),
    ];
    for (headers, named) in cases {
        let mut request = service.client.post(service.url("/api/v1/receipts")).body("{}");
        request = request.header("content-type", "application/json");
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }

        let answer = Answer::of(request.send().await.unwrap()).await;

        assert!(answer.problem(400, "bad_header").starts_with(named), "{headers:?}: {}", answer.text);
        assert_eq!(answer.json()["header"], named);
    }
    assert!(service.intake.stored().is_empty());
    service.get("/api/v1/producers/a%20b").await.problem(400, "bad_parameter");
    service.get("/api/v1/producers/%ff").await.problem(400, "bad_parameter");
}

#[tokio::test]
async fn refusals_keep_their_status_and_say_when_to_come_again() {
    let service = limited().await;
    let cases = [
        (Mood::Refuses, 503, "refused", "1"),
        (Mood::IsBusy, 429, "busy", "2"),
        (Mood::IsClosed, 503, "refused", "2"),
        (Mood::Hangs, 503, "outcome_unknown", "1"),
    ];
    for (mood, status, word, seconds) in cases {
        service.intake.set(mood);

        let answer = service.post("{}", None).await;

        answer.problem(status, word);
        assert_eq!(answer.header("retry-after"), seconds, "{mood:?}");
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_taken_is_refused_and_the_limit_is_named() {
    let service = limited().await;

    service.post("", None).await.problem(400, "empty_body");
    service.post("\r\n \n", None).await.problem(400, "empty_body");
    let lines = service.post("{}\n{}\n{}\n{}", None).await;
    assert!(lines.problem(413, "too_many_lines").contains("lines_max is 3"));
    let large = service.post("x".repeat(65), None).await;
    assert!(large.problem(413, "body_too_large").contains("body_bytes_max is 64"));
    assert_eq!(large.json()["limit"], 64);
    let chunks = futures_util::stream::iter((0..9).map(|_| Ok::<_, std::io::Error>("12345678")));
    service.post(reqwest::Body::wrap_stream(chunks), None).await.problem(413, "body_too_large");
    for kind in ["text/plain", ""] {
        let request =
            service.client.post(service.url("/api/v1/receipts")).body("{}").header("content-type", kind);
        Answer::of(request.send().await.unwrap()).await.problem(415, "unsupported_content_type");
    }

    assert!(service.intake.stored().is_empty());
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_taken_and_a_long_line_goes_to_the_quarantine() {
    let service = limited().await;
    let body = format!("{{{}\n{{}}", "x".repeat(60));
    assert_eq!(body.len(), 64);

    let answer = service.post(body, None).await.json();

    assert_eq!((&answer["appended"], &answer["quarantined"]), (&json!(1), &json!(1)));
    assert_eq!(answer["errors"][0], json!({"line": 1, "reason": "61 bytes"}));
    let kept = &service.intake.stored()[0].1;
    assert_eq!((kept.bytes.len(), kept.oversized), (61, None), "as it came");
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_or_stops_stores_nothing() {
    let service = limited().await;
    let head = "POST /api/v1/receipts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";

    let answer = service.raw(head.as_bytes(), |_| false).await;

    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"type\":\"body_timeout\""), "{answer}");
    assert!(service.intake.stored().is_empty());
}

/// Method: a request that hangs holds the whole budget of body bytes.
#[tokio::test]
async fn bodies_beyond_the_bytes_of_all_requests_are_turned_away() {
    let limits = HttpLimits { request_timeout: DEADLINE, ..LIMITED };
    let service = Setup { limits, ..Setup::default() }.start().await;
    service.intake.set(Mood::Hangs);
    let (client, url) = (service.client.clone(), service.url("/api/v1/receipts"));
    let first = tokio::spawn(async move {
        client.post(url).header("content-type", "application/json").body("x".repeat(64)).send().await
    });

    until("the budget is used up", async || service.post("{}", None).await.status == 429).await;

    first.abort();
    service.intake.set(Mood::Works);
    until("the budget is free again", async || service.post("{}", None).await.status == 200).await;
}

#[tokio::test]
async fn without_an_intake_or_a_buffer_the_answer_says_so() {
    let service = Setup { has_intake: false, ..Setup::default() }.start().await;
    service.post("{}", None).await.problem(404, "intake_not_configured");

    let service = Setup { has_buffer: false, ..Setup::default() }.start().await;
    let answer = service.get("/api/v1/producers/p").await;
    answer.problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), "1");
}
