//! One HTTP request of a command to a running service.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// An address of plain HTTP: `http://host[:port][/path]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    authority: String,
    path: String,
}

impl FromStr for HttpUrl {
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

impl HttpUrl {
    /// A path at this address.
    pub(super) fn at_address(address: SocketAddr, path: &str) -> Self {
        Self { authority: address.to_string(), path: path.to_owned() }
    }

    /// Another path at the same address.
    pub(super) fn with_path(&self, path: &str) -> Self {
        Self { authority: self.authority.clone(), path: path.to_owned() }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// A question to a service.
pub(super) struct Ask<'a> {
    pub(super) url: &'a HttpUrl,
    /// What is posted; without it the question is a GET.
    pub(super) json: Option<&'a str>,
    /// Time for the answer.
    pub(super) timeout: Duration,
    /// Bytes of the answer that are read.
    pub(super) answer_bytes_max: u64,
}

/// Answer of HTTP: status and body.
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Asks, and reads the answer to its end.
///
/// # Errors
///
/// No answer of HTTP within the time.
pub(super) fn ask_http(question: &Ask<'_>) -> io::Result<HttpAnswer> {
    let Ask { url, json, timeout, answer_bytes_max } = *question;
    let begun = Instant::now();
    // A read timeout counts from each read: a peer that trickles bytes must not stretch the whole.
    let left = || match timeout.saturating_sub(begun.elapsed()) {
        Duration::ZERO => Err(io::Error::from(ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let address = url.authority.to_socket_addrs()?.next().ok_or(ErrorKind::HostUnreachable)?;
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    let HttpUrl { authority, path } = url;
    let head = |method: &str, more: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{more}\r\n")
    };
    let request = match json {
        None => head("GET", ""),
        Some(json) => {
            let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", json.len());
            head("POST", &more) + json
        }
    };
    stream.write_all(request.as_bytes())?;
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    while (received.len() as u64) < answer_bytes_max {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => received.extend_from_slice(&piece[..length]),
            // How a read timeout shows on Unix.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
    parse_answer(&String::from_utf8_lossy(&received)).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// The status and the body as it is; chunked ones are shown with their chunk sizes.
fn parse_answer(answer: &str) -> Option<HttpAnswer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(HttpAnswer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_plain_http() {
        let url: HttpUrl = "http://[::1]:81".parse().unwrap();
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("[::1]:81", "/"));
        let url: HttpUrl = "http://localhost/a/b".parse().unwrap();
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("localhost:80", "/a/b"));
        for bad in
            ["https://x/", "x:80", "http://", "http:///x", "http://a@x/", "http://a/ b", "http://a/\r\nX: y"]
        {
            assert!(bad.parse::<HttpUrl>().is_err(), "{bad}");
        }
    }
}
