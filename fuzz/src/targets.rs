//! What hostile bytes must not do to a decoder: one target each, called by the fuzzer and by the default suite.
//!
//! A target panics when a promise is broken. "Does not panic" is the least of them: what is accepted has the same
//! meaning when it is written and read again, what is refused is refused for a reason that another reader of the same
//! bytes shares, and the reason is one bounded line that names a place.

mod json;
mod stored;
mod text;
mod trading;

/// Looks at one input.
pub(crate) type Target = fn(&[u8]);

/// Every target by name; `fuzz/corpus/<name>` holds its inputs.
pub(crate) const TARGETS: [(&str, Target); 22] = [
    ("canonical_json", json::canonical_json),
    ("capture_lines", text::capture_lines),
    ("checkpoints", stored::checkpoints),
    ("config", text::config),
    ("cron_pattern", trading::cron_pattern),
    ("engine_answer", json::engine_answer),
    ("engine_request", json::engine_request),
    ("http_body", text::http_body),
    ("http_headers", text::http_headers),
    ("journal_checkpoints", trading::journal_checkpoints),
    ("journal_record", trading::journal_record),
    ("kill_switch", json::kill_switch),
    ("market_calendar", trading::market_calendar),
    ("quarantine_record", stored::quarantine_record),
    ("raw_market_event", json::raw_market_event),
    ("receipt_record", stored::receipt_record),
    ("redis_answer", stored::redis_answer),
    ("redis_stored", stored::redis_stored),
    ("run_record", stored::run_record),
    ("segment", stored::segment),
    ("stage_answer", json::stage_answer),
    ("worker_lines", text::worker_lines),
];

/// Bytes that the text of an error may have.
const ERROR_BYTES_MAX: usize = 600;

/// An error's text goes to logs, answers and the quarantine: one line, bounded, not empty.
fn check_error(text: &str) {
    check_line(text);
    assert!(text.len() <= ERROR_BYTES_MAX, "{} bytes of error: {text:.80}", text.len());
}

fn check_line(text: &str) {
    assert!(!text.is_empty(), "an error without text");
    assert!(!text.contains(char::is_control), "not one line: {text:?}");
}

/// The first byte as a choice, and the rest.
fn choice(input: &[u8]) -> (u8, &[u8]) {
    input.split_first().map_or((0, input), |(first, rest)| (*first, rest))
}

/// How every reader of lines must cut: `\n` or `\r\n` ends a line, the last one needs no end.
fn lines_of(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
        .map(|line| match line.strip_suffix(b"\n") {
            Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
            None => line,
        })
        .collect()
}
