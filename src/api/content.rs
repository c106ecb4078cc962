//! Which bodies of receipts are taken.

use axum::http::{HeaderMap, header};

use super::problem::{Problem, ProblemKind};

/// What a body claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `application/json`: one value, over several lines if it likes; if it is not that, lines.
    Json,
    /// `application/x-ndjson`: one receipt a line.
    Lines,
}

impl Form {
    /// Reads the content type; its parameters do not matter.
    ///
    /// There is no guess for other or missing types: a web page can make its visitor's browser send those to a
    /// service on loopback without asking, but not these two.
    ///
    /// # Errors
    ///
    /// The problem, naming the types that are taken.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let kind = value.split(';').next().unwrap_or("").trim();
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
