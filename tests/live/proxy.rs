//! The fault proxy itself: each fault on a server that echoes.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use crate::support::ports::free_port;
use crate::support::process::PATIENCE;
use crate::support::proxy::Direction::{ToClient, ToServer};
use crate::support::proxy::{Fault, FaultProxy, Reach};

/// How long something that must not come is waited for.
const SILENCE: Duration = Duration::from_millis(60);

/// A server that echoes, and at the end of what it reads says `bye` and closes.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut chunk = vec![0; 64 << 10];
                loop {
                    let length = stream.read(&mut chunk).await?;
                    if length == 0 {
                        return stream.write_all(b"bye").await;
                    }
                    stream.write_all(&chunk[..length]).await?;
                }
            });
        }
    });
    port
}

async fn connect(proxy: &FaultProxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap()
}

/// Sends and expects the echo; how long it took.
async fn check_echo(stream: &mut TcpStream, text: &[u8]) -> Duration {
    let start = Instant::now();
    stream.write_all(text).await.unwrap();
    let mut echoed = vec![0; text.len()];
    timeout(PATIENCE, stream.read_exact(&mut echoed)).await.expect("an echo in time").unwrap();
    assert_eq!(echoed, text);
    start.elapsed()
}

/// What comes until the connection ends, and how it ended.
async fn to_end(stream: &mut TcpStream) -> (Vec<u8>, Result<(), ErrorKind>) {
    let mut text = Vec::new();
    let mut chunk = vec![0; 4096];
    loop {
        match timeout(PATIENCE, stream.read(&mut chunk)).await.expect("an end in time") {
            Ok(0) => return (text, Ok(())),
            Ok(length) => text.extend_from_slice(&chunk[..length]),
            Err(error) => return (text, Err(error.kind())),
        }
    }
}

async fn check_reset(stream: &mut TcpStream) {
    assert_eq!(to_end(stream).await, (Vec::new(), Err(ErrorKind::ConnectionReset)));
}

/// A new connection is reset, perhaps before its client is told that it is there.
async fn check_new_is_reset(proxy: &FaultProxy) {
    match TcpStream::connect(("127.0.0.1", proxy.port())).await {
        Ok(mut stream) => check_reset(&mut stream).await,
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

async fn check_silent(stream: &mut TcpStream) {
    let mut byte = [0];
    assert!(timeout(SILENCE, stream.read(&mut byte)).await.is_err(), "nothing is answered");
}

#[tokio::test]
async fn without_a_fault_everything_passes_both_ways_to_its_end() {
    let proxy = FaultProxy::to(echo().await);
    let mut stream = connect(&proxy).await;

    // More than the proxy and the sockets hold, so that both directions have to move together.
    let large: Vec<u8> = (0..16u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (mut read, mut write) = stream.split();
    let mut echoed = vec![0; large.len()];
    let (sent, received) = tokio::join!(write.write_all(&large), read.read_exact(&mut echoed));
    sent.unwrap();
    received.unwrap();
    assert!(echoed == large);

    stream.shutdown().await.unwrap();
    assert_eq!(to_end(&mut stream).await, (b"bye".to_vec(), Ok(())));
}

#[tokio::test]
async fn a_target_that_is_down_resets() {
    let proxy = FaultProxy::to(free_port());

    check_new_is_reset(&proxy).await;
}

/// Also: a fault reaches the connections that it was put on and no others.
#[tokio::test]
async fn latency_delays_each_direction_and_keeps_the_rate() {
    let latency = Duration::from_millis(50);
    let proxy = FaultProxy::to(echo().await);
    let mut old = connect(&proxy).await;
    check_echo(&mut old, b"before").await;

    proxy.put(Fault::Latency(latency), Reach::New);
    let mut new = connect(&proxy).await;
    assert!(check_echo(&mut new, b"a").await >= 2 * latency);
    assert!(check_echo(&mut old, b"a").await < 2 * latency, "it was there before the fault");

    // 100 messages, one after the other on their way, take hardly longer than one.
    let start = Instant::now();
    for _ in 0..100 {
        new.write_all(&[7; 100]).await.unwrap();
        tokio::task::yield_now().await;
    }
    new.read_exact(&mut [0; 10_000]).await.unwrap();
    assert!(start.elapsed() < 20 * latency, "{:?}", start.elapsed());

    proxy.heal();
    assert!(check_echo(&mut new, b"a").await < latency);
}

#[tokio::test]
async fn a_throttled_line_passes_so_many_bytes_a_second() {
    let proxy = FaultProxy::to(echo().await);
    let mut stream = connect(&proxy).await;
    check_echo(&mut stream, b"before").await;

    proxy.put(Fault::Throttle(300_000), Reach::Existing);
    let took = check_echo(&mut stream, &[1; 60_000]).await;
    assert!(took >= Duration::from_millis(200), "{took:?}");

    // What still waits when it heals passes at once.
    proxy.put(Fault::Throttle(10), Reach::Existing);
    stream.write_all(&[1; 10_000]).await.unwrap();
    check_silent(&mut stream).await;
    proxy.heal();
    timeout(PATIENCE, stream.read_exact(&mut [0; 10_000])).await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_stalled_line_keeps_everything_and_delivers_it_afterwards() {
    let proxy = FaultProxy::to(echo().await);
    let mut stream = connect(&proxy).await;
    check_echo(&mut stream, b"before").await;

    proxy.put(Fault::Stall, Reach::All);
    stream.write_all(b"late").await.unwrap();
    check_silent(&mut stream).await;
    let mut new = connect(&proxy).await;
    new.write_all(b"too").await.unwrap();
    check_silent(&mut new).await;
    proxy.heal();

    stream.read_exact(&mut [0; 4]).await.unwrap();
    new.read_exact(&mut [0; 3]).await.unwrap();
    check_echo(&mut stream, b"after").await;
}

#[tokio::test]
async fn a_black_hole_swallows_and_resets_who_lost_something_when_it_heals() {
    let proxy = FaultProxy::to(echo().await);
    let mut lost = connect(&proxy).await;
    check_echo(&mut lost, b"before").await;
    let mut idle = connect(&proxy).await;
    check_echo(&mut idle, b"before").await;

    proxy.put(Fault::BlackHole, Reach::All);
    lost.write_all(&vec![0; 8 << 20]).await.unwrap();
    check_silent(&mut lost).await;
    let mut new = connect(&proxy).await;
    new.write_all(b"hello").await.unwrap();
    check_silent(&mut new).await;
    proxy.heal();

    check_reset(&mut lost).await;
    check_reset(&mut new).await;
    check_echo(&mut idle, b"it lost nothing").await;
}

#[tokio::test]
async fn a_black_hole_hides_the_end_of_the_other_side() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::to(listener.local_addr().unwrap().port());
    let mut client = connect(&proxy).await;
    let (mut server, _) = listener.accept().await.unwrap();
    client.write_all(b"a").await.unwrap();
    server.read_exact(&mut [0]).await.unwrap();

    proxy.put(Fault::BlackHole, Reach::Existing);
    drop(client);
    check_silent(&mut server).await;
    proxy.heal();

    check_reset(&mut server).await;
}

#[tokio::test]
async fn a_reset_meets_the_connections_of_its_reach_on_both_sides() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::to(listener.local_addr().unwrap().port());
    let mut client = connect(&proxy).await;
    let (mut server, _) = listener.accept().await.unwrap();

    proxy.put(Fault::Reset, Reach::Existing);
    check_reset(&mut client).await;
    check_reset(&mut server).await;

    let proxy = FaultProxy::to(echo().await);
    let mut old = connect(&proxy).await;
    check_echo(&mut old, b"before").await;
    proxy.put(Fault::Reset, Reach::New);
    check_new_is_reset(&proxy).await;
    check_echo(&mut old, b"it was there before").await;
}

#[tokio::test]
async fn a_half_close_ends_one_direction_only() {
    let proxy = FaultProxy::to(echo().await);
    let mut stream = connect(&proxy).await;
    check_echo(&mut stream, b"before").await;
    proxy.put(Fault::HalfClose(ToServer), Reach::Existing);
    assert_eq!(
        to_end(&mut stream).await,
        (b"bye".to_vec(), Ok(())),
        "the server saw the end, its answer came"
    );

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::to(listener.local_addr().unwrap().port());
    let mut client = connect(&proxy).await;
    let (mut server, _) = listener.accept().await.unwrap();
    proxy.put(Fault::HalfClose(ToClient), Reach::Existing);
    assert_eq!(to_end(&mut client).await, (Vec::new(), Ok(())));
    client.write_all(b"still").await.unwrap();
    server.read_exact(&mut [0; 5]).await.unwrap();
}

#[tokio::test]
async fn a_cut_lets_exactly_so_many_bytes_pass() {
    let proxy = FaultProxy::to(echo().await);
    for (direction, bytes) in [(ToServer, 5), (ToClient, 5), (ToClient, 0)] {
        let mut stream = connect(&proxy).await;
        check_echo(&mut stream, b"before").await;

        proxy.put(Fault::CutAfter(direction, bytes), Reach::Existing);
        stream.write_all(b"0123456789").await.unwrap();

        let (text, end) = to_end(&mut stream).await;
        assert_eq!(end, Err(ErrorKind::ConnectionReset), "{direction:?}");
        match direction {
            ToClient => assert_eq!(text, b"0123456789"[..bytes as usize]),
            // Their echo may be overtaken by the reset.
            ToServer => assert!(b"01234".starts_with(&text), "{text:?}"),
        }
    }
}

#[tokio::test]
async fn refused_connections_find_nobody_and_the_others_go_on() {
    let proxy = FaultProxy::to(echo().await);
    let mut old = connect(&proxy).await;
    check_echo(&mut old, b"before").await;

    proxy.put(Fault::Refuse, Reach::All);
    let refused = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    check_echo(&mut old, b"still").await;
    proxy.heal();

    check_echo(&mut connect(&proxy).await, b"again").await;
}
