//! Requests that a page of another site can make its visitor's browser send: none of them commands.
//!
//! Nothing here asks who is calling, and the listener is on loopback, where every browser of the machine is. A page can
//! send a form's content types, or none, to any address without asking; `application/json` it cannot. A page whose name
//! was made to lead to this machine can, as to its own site: its `Origin` is then a name that is not this machine's.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

use super::refusal::ControlError;
use crate::api::content::BodyForm;

/// Lets a command's head pass.
///
/// # Errors
///
/// 403 for a page of another site, 415 for another content type or encoding.
pub(super) fn check_command_head(headers: &HeaderMap) -> Result<(), ControlError> {
    check_origin(headers)?;
    match BodyForm::from_headers(headers) {
        Ok(BodyForm::Json) => {}
        Ok(BodyForm::Lines) | Err(_) => {
            return Err(ControlError::unsupported_type("Content-Type must be application/json, in UTF-8"));
        }
    }
    let encoding = headers.get(header::CONTENT_ENCODING);
    match encoding.is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        true => Ok(()),
        false => Err(ControlError::unsupported_type("the body must come without Content-Encoding")),
    }
}

fn check_origin(headers: &HeaderMap) -> Result<(), ControlError> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let is_own_site = text("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"));
    let is_own_page = text("origin").is_none_or(|origin| {
        let host = text("host").unwrap_or_default();
        let page = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        page.is_some_and(|page| page.eq_ignore_ascii_case(host)) && is_this_machine(host)
    });
    match is_own_site && is_own_page {
        true => Ok(()),
        false => Err(ControlError::forbidden("a page of another site may not command")),
    }
}

/// Whether a `Host` is this machine by an address or name that nobody else can give out.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn passes(pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("127.0.0.1:8003"));
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        check_command_head(&headers).is_ok()
    }

    #[test]
    fn a_program_and_an_own_page_pass_and_no_page_of_another_site() {
        assert!(passes(&[]));
        assert!(passes(&[("origin", "http://127.0.0.1:8003"), ("sec-fetch-site", "same-origin")]));
        assert!(passes(&[("host", "[::1]:8003"), ("origin", "http://[::1]:8003")]));
        assert!(passes(&[("host", "LOCALHOST"), ("origin", "http://localhost")]));
        for (host, origin) in [
            ("127.0.0.1:8003", "http://evil.example"),
            ("127.0.0.1:8003", "http://127.0.0.1:9090"),
            ("127.0.0.1:8003", "null"),
            ("127.0.0.1:8003", ""),
            ("evil.example:8003", "http://evil.example:8003"),
            ("127.0.0.1.evil.example", "http://127.0.0.1.evil.example"),
            ("", "http://"),
        ] {
            assert!(!passes(&[("host", host), ("origin", origin)]), "{origin} at {host}");
        }
        assert!(!passes(&[("sec-fetch-site", "cross-site")]) && !passes(&[("sec-fetch-site", "same-site")]));
    }

    #[test]
    fn only_plain_json_passes() {
        assert!(passes(&[("content-type", "application/json; charset=utf-8")]));
        for kind in [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/x-ndjson",
            "application/json; charset=latin1",
        ] {
            assert!(!passes(&[("content-type", kind)]), "{kind}");
        }
        assert!(passes(&[("content-encoding", "identity")]) && !passes(&[("content-encoding", "gzip")]));
    }
}
