//! Doors to what reads requests, for the fuzz targets.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use bytes::Bytes;
use orchestrator_kernel::ports::source::RawItem;

use super::content::BodyForm;
use super::lines;
use super::position::Position;
use super::producers::ProducerSequence;

/// The items of a body with their lines, numbered from `first` on; `None` when they are too many, one is too long, or
/// the numbers do not fit.
pub fn items(
    body: &Bytes,
    as_json: bool,
    first: Option<u64>,
    items_max: usize,
    item_bytes_max: usize,
) -> Option<(Vec<RawItem>, Vec<u64>)> {
    let form = if as_json { BodyForm::Json } else { BodyForm::Lines };
    let mut found = lines::split_body(body, form, items_max, item_bytes_max).ok()?;
    if let Some(first) = first {
        found.number_from(first)?;
    }
    Some((found.items, found.lines))
}

/// Whether a content type means one JSON value; `None` when it is not taken.
pub fn content_type(value: &[u8]) -> Option<bool> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_bytes(value).ok()?);
    BodyForm::from_headers(&headers).ok().map(|form| form == BodyForm::Json)
}

/// What the headers of a numbering producer say: name and first position, nothing, or the problem as it is told.
/// `None` when HTTP itself refuses the value.
pub fn numbered(producer: &[&[u8]], sequence: &[&[u8]]) -> Option<Result<Option<(String, u64)>, String>> {
    let mut headers = HeaderMap::new();
    let lines = [("orchestrator-producer", producer), ("orchestrator-sequence", sequence)];
    for (name, values) in lines {
        for value in values {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).ok()?);
        }
    }
    let found = ProducerSequence::from_headers(&headers).map_err(|problem| format!("{problem:?}"));
    Some(found.map(|numbered| numbered.map(|numbered| (numbered.producer, numbered.first))))
}

/// A position as it is written, and where a stream goes on behind it.
pub fn position(text: &str) -> Option<(String, u64, u64)> {
    let position: Position = text.parse().ok()?;
    let (run_seq, seen) = position.next_record();
    Some((position.to_string(), run_seq.0, seen))
}
