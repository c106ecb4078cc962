//! One HTTP request of a command to a running service.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, iter};

use reqwest::header::{CONNECTION, CONTENT_TYPE};
use reqwest::redirect::Policy;
use reqwest::{Client, retry};
use tokio::time::timeout;

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
    /// Bytes of the answer's body that are read.
    pub(super) answer_bytes_max: usize,
}

/// Answer of HTTP: status and body.
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Asks, and reads the answer to its end.
///
/// The process must have installed a TLS provider of `rustls` before, although none is used.
///
/// # Errors
///
/// No answer of HTTP within the time.
pub(super) async fn ask_http(question: &Ask<'_>) -> io::Result<HttpAnswer> {
    match timeout(question.timeout, exchange_once(question)).await {
        Ok(answer) => answer.map_err(|error| what_happened(&error)),
        Err(_) => Err(ErrorKind::TimedOut.into()),
    }
}

/// Asks the named service itself, once: no proxy of the environment, no redirection, no second try.
async fn exchange_once(question: &Ask<'_>) -> reqwest::Result<HttpAnswer> {
    let Ask { url, json, answer_bytes_max, .. } = *question;
    let client = Client::builder()
        .http1_only()
        .no_proxy()
        .redirect(Policy::none())
        .retry(retry::never())
        // Without TLS no certificates are needed, and a small container may have none.
        .tls_certs_only([])
        .build()?;
    let request = match json {
        None => client.get(url.to_string()),
        Some(json) => {
            client.post(url.to_string()).header(CONTENT_TYPE, "application/json").body(json.to_owned())
        }
    };
    let mut response = request.header(CONNECTION, "close").send().await?;
    let mut body = Vec::new();
    while body.len() < answer_bytes_max
        && let Some(piece) = response.chunk().await?
    {
        body.extend_from_slice(&piece);
    }
    body.truncate(answer_bytes_max);
    let status = response.status().as_u16();
    Ok(HttpAnswer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

/// The innermost cause: the outer ones name the address, which the commands do themselves.
fn what_happened(error: &reqwest::Error) -> io::Error {
    let causes = || iter::successors(Some(error as &(dyn Error + 'static)), |error| (*error).source());
    let is_no_http = |error: &hyper::Error| error.is_parse() || error.is_incomplete_message();
    if causes().filter_map(|cause| cause.downcast_ref()).any(is_no_http) {
        return ErrorKind::InvalidData.into();
    }
    io::Error::other(causes().last().map_or_else(String::new, ToString::to_string))
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
