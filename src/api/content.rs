//! Which bodies of receipts are taken.

use axum::http::{HeaderMap, header};

use super::problem::{Problem, ProblemKind};

/// Form of a body, as its content type claims it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyForm {
    /// `application/json`: one value, over several lines if it likes; if it is not that, lines.
    Json,
    /// `application/x-ndjson`: one receipt a line.
    Lines,
}

impl BodyForm {
    /// Reads the content type. Of its parameters only a `charset` matters: receipts are UTF-8.
    ///
    /// There is no guess for other or missing types: a web page can make its visitor's browser send those to a
    /// service on loopback without asking, but not these two.
    ///
    /// # Errors
    ///
    /// The problem, naming the types that are taken.
    pub(super) fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let (kind, parameters) = value.split_once(';').unwrap_or((value, ""));
        let kind = kind.trim();
        if let Some(charset) = foreign_charset(parameters) {
            let detail = format!("receipts are UTF-8, the body is declared as {charset:.40}");
            return Err(Problem::new(ProblemKind::UnsupportedContentType, detail));
        }
        if kind.eq_ignore_ascii_case("application/json") {
            Ok(Self::Json)
        } else if kind.eq_ignore_ascii_case("application/x-ndjson") {
            Ok(Self::Lines)
        } else {
            Err(Problem::new(
                ProblemKind::UnsupportedContentType,
                "Content-Type must be application/json or application/x-ndjson",
            ))
        }
    }
}

/// The declared `charset`, when a text in it is not UTF-8 as it is.
fn foreign_charset(parameters: &str) -> Option<&str> {
    let charset = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    })?;
    let is_utf8 = ["utf-8", "utf8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known));
    (!is_utf8).then_some(charset)
}
