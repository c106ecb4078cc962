//! Connections: their bounds and their end.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::super::server::limit_write_stalls;
use super::fakes::Mood;
use super::*;

const GET: &[u8] = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";

async fn with(limits: HttpLimits) -> Service {
    Setup { limits, ..Setup::default() }.start().await
}

#[tokio::test]
async fn a_head_that_never_ends_and_an_idle_connection_are_closed() {
    let service =
        with(HttpLimits { header_timeout: Duration::from_millis(100), ..HttpLimits::default() }).await;

    assert_eq!(service.raw(b"", |_| false).await, "");
    assert_eq!(service.raw(b"GET /livez HT", |_| false).await, "");
    let answered = service.raw(GET, |_| false).await;

    assert!(answered.starts_with("HTTP/1.1 200 "), "{answered}");
}

#[tokio::test]
async fn a_head_beyond_its_bounds_is_refused() {
    let service = Service::start().await;
    let long = format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(33_000));
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200));

    for head in [long, many] {
        let answer = service.raw(head.as_bytes(), |text| text.contains("\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}

#[tokio::test]
async fn beyond_the_bound_only_probes_are_answered_until_a_connection_has_ended() {
    let service = with(HttpLimits { connections_max: 1, ..HttpLimits::default() }).await;
    let mut first = TcpStream::connect(service.address).await.unwrap();
    first.write_all(GET).await.unwrap();
    first.readable().await.unwrap();
    let index: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let ask = async |question: &[u8]| service.raw(question, |text| text.contains("\r\n\r\n")).await;

    assert!(ask(GET).await.starts_with("HTTP/1.1 200 "), "a probe has a slot of its own");
    assert!(ask(index).await.starts_with("HTTP/1.1 503 "), "and nothing else has");
    drop(first);

    until("there is a slot again", async || ask(index).await.starts_with("HTTP/1.1 200 ")).await;
}

#[tokio::test]
async fn a_request_in_progress_is_answered_after_the_shutdown_began() {
    let service = Service::start().await;
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    let head = b"POST /api/v1/receipts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.unwrap();
    // The server asks for the body once the request is being handled.
    stream.readable().await.unwrap();

    service.shutdown.cancel();
    until("new connections are refused", async || TcpStream::connect(service.address).await.is_err()).await;
    stream.write_all(b"{}").await.unwrap();

    let mut answer = String::new();
    tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("closed").unwrap();
    assert!(answer.contains("\"appended\":1"), "{answer}");
    tokio::time::timeout(DEADLINE, service.server).await.expect("the server ends").unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off_after_the_drain_time() {
    let service =
        with(HttpLimits { drain_timeout: Duration::from_millis(50), ..HttpLimits::default() }).await;
    service.intake.set(Mood::Hangs);
    let (client, url) = (service.client.clone(), service.url("/api/v1/receipts"));
    let request = client.post(url).header("content-type", "application/json").body("{}");
    let request = tokio::spawn(request.send());
    until("the request is handled", async || service.intake.waiting() == 1).await;

    service.shutdown.cancel();

    tokio::time::timeout(DEADLINE, service.server).await.expect("the server ends").unwrap();
    assert!(request.await.unwrap().is_err());
}

/// A connection with a write timeout of 200 ms, and its peer.
async fn limited_pair() -> (impl AsyncWriteExt + Unpin, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (limit_write_stalls(listener.accept().await.unwrap().0, Duration::from_millis(200)), peer)
}

#[tokio::test]
async fn a_peer_that_accepts_nothing_fails_the_write() {
    let (mut stream, peer) = limited_pair().await;

    let written = tokio::time::timeout(DEADLINE, stream.write_all(&vec![0; 64 << 20])).await;

    assert_eq!(written.expect("no end").unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    drop(peer);
}

/// Method: the peer takes the bytes in pauses that together are longer than the timeout.
#[tokio::test]
async fn a_slow_peer_that_goes_on_is_waited_for() {
    let (mut stream, mut peer) = limited_pair().await;
    let reading = tokio::spawn(async move {
        let (mut piece, mut total) = (vec![0; 8 << 20], 0);
        while total < 64 << 20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            total += peer.read_exact(&mut piece).await.unwrap();
        }
    });

    stream.write_all(&vec![0; 64 << 20]).await.unwrap();

    reading.await.unwrap();
}
