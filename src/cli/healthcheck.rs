//! `orchestrator healthcheck`: one HTTP request, so that a container needs neither shell nor curl.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::HealthcheckArgs;
use super::exit::Exit;
use super::output::{complain, print};

/// Bytes of the answer that are shown.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// An address of plain HTTP: `http://host[:port][/path]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    authority: String,
    path: String,
}

impl FromStr for Url {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected http://host[:port][/path]";
        let rest = text.strip_prefix("http://").ok_or(EXPECTED)?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_clean = |part: &str| part.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !is_clean(host) || !is_clean(path) || host.contains('@') {
            return Err(EXPECTED);
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { host.to_owned() } else { format!("{host}:80") };
        Ok(Self { authority, path: if path.is_empty() { "/".to_owned() } else { path.to_owned() } })
    }
}

/// Asks the service and says what it answered: [`Exit::Ok`] for status 200, else [`Exit::Unavailable`].
#[must_use]
pub fn healthcheck(args: &HealthcheckArgs) -> Exit {
    match ask(&args.url, args.timeout) {
        Ok(Answer { status: 200, body }) => print(&format!("{}\n", body.trim_end())),
        Ok(Answer { status, body }) => {
            complain(&format!("not ready: status {status}: {}", body.trim_end()));
            Exit::Unavailable
        }
        Err(error) => {
            complain(&format!("cannot ask http://{}{}: {error}", args.url.authority, args.url.path));
            Exit::Unavailable
        }
    }
}

struct Answer {
    status: u16,
    body: String,
}

fn ask(url: &Url, timeout: Duration) -> io::Result<Answer> {
    let begun = Instant::now();
    // A read timeout counts from each read: a peer that trickles bytes must not stretch the whole.
    let left = || match timeout.saturating_sub(begun.elapsed()) {
        Duration::ZERO => Err(io::Error::from(ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let address = url.authority.to_socket_addrs()?.next().ok_or(ErrorKind::HostUnreachable)?;
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    let Url { authority, path } = url;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    while (received.len() as u64) < ANSWER_BYTES_MAX {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => received.extend_from_slice(&piece[..length]),
            // How a read timeout shows on Unix.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
    parse(&String::from_utf8_lossy(&received)).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// The status and the body as it is; chunked ones are shown with their chunk sizes.
fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Asks a server that reads one request and answers `pieces`, with a pause before each.
    fn check_ask(pieces: &'static [&'static str], pause: Duration) -> Exit {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap()).parse().unwrap();
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let length = peer.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            for piece in pieces {
                std::thread::sleep(pause);
                if peer.write_all(piece.as_bytes()).is_err() {
                    break;
                }
            }
        });
        let exit = healthcheck(&HealthcheckArgs { url, timeout: Duration::from_millis(500) });
        server.join().unwrap();
        exit
    }

    #[test]
    fn only_status_200_is_ready() {
        for (answer, exit) in [
            (&["HTTP/1.1 200 OK\r\n\r\nready"][..], Exit::Ok),
            (&["HTTP/1.1 503 Service Unavailable\r\n\r\nno"], Exit::Unavailable),
            (&["HTTP/1.1 2000 OK\r\n\r\n"], Exit::Unavailable),
            (&["SSH-2.0-OpenSSH"], Exit::Unavailable),
            (&[], Exit::Unavailable),
        ] {
            assert_eq!(check_ask(answer, Duration::ZERO), exit, "{answer:?}");
        }
    }

    #[test]
    fn a_server_that_trickles_is_given_up_in_time() {
        let begun = Instant::now();

        let exit = check_ask(&["H"; 100], Duration::from_millis(50));

        assert_eq!(exit, Exit::Unavailable);
        assert!(begun.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn nobody_there_is_unavailable() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = format!("http://{free}").parse().unwrap();

        assert_eq!(healthcheck(&HealthcheckArgs { url, timeout: Duration::from_secs(1) }), Exit::Unavailable);
    }

    #[test]
    fn urls_are_plain_http() {
        let url: Url = "http://[::1]:81".parse().unwrap();
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("[::1]:81", "/"));
        let url: Url = "http://localhost/a/b".parse().unwrap();
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("localhost:80", "/a/b"));
        for bad in
            ["https://x/", "x:80", "http://", "http:///x", "http://a@x/", "http://a/ b", "http://a/\r\nX: y"]
        {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }
}
