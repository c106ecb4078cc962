//! Texts of lines: captures, workers, bodies, headers, configuration.

use std::ffi::OsString;

use bytes::Bytes;
use orchestrator::adapters::files::capture_source;
use orchestrator::adapters::process;
use orchestrator::api::testkit as api;
use orchestrator::config::{Config, FlagSetting, Layers, Origin, render_settings};

use super::{check_error, check_line, choice, lines_of};

/// A recording is cut into lines by the one rule, however it is read; of a line that is too long the size is told.
pub(super) fn capture_lines(input: &[u8]) {
    let (kind, text) = choice(input);
    let (read_bytes, bytes_max) = (1 + usize::from(kind % 16), 1 + usize::from(kind / 16));
    let found = capture_source::testkit::lines(text, read_bytes, bytes_max).expect("memory can be read");
    let expected = lines_of(text);
    assert_eq!(found.len(), expected.len());
    for ((bytes, oversized), line) in found.iter().zip(expected) {
        assert_eq!(*oversized, (bytes_max < line.len()).then_some(line.len() as u64));
        match oversized {
            None => assert_eq!(bytes, line, "LOG-4"),
            Some(_) => assert!(line.starts_with(bytes) && bytes_max <= bytes.len()),
        }
    }
}

/// A worker's lines are cut the same way in whatever pieces they come; one that is too long is not held.
pub(super) fn worker_lines(input: &[u8]) {
    let (kind, stream) = choice(input);
    let (first_piece, bytes_max) = (usize::from(kind % 16), usize::from(kind / 16));
    let (found, is_too_long) = process::testkit::lines(stream, first_piece, bytes_max);
    let whole: Vec<&[u8]> = stream.split_inclusive(|byte| *byte == b'\n').collect();
    let lines: Vec<&[u8]> = whole.iter().filter_map(|line| line.strip_suffix(b"\n")).collect();
    let good = lines.iter().take_while(|line| line.len() <= bytes_max).count();
    assert_eq!(found, &lines[..good]);
    let rest_max = whole.get(good).map_or(0, |line| line.strip_suffix(b"\n").unwrap_or(line).len());
    assert_eq!(is_too_long, bytes_max < rest_max, "the line after the last good one has {rest_max} bytes");
}

/// A body gives the lines that are not blank, as they came, with their numbers; or the one value that it is.
pub(super) fn http_body(input: &[u8]) {
    let (kind, rest) = choice(input);
    let (limits, body) = choice(rest);
    let (items_max, bytes_max) = (1 + usize::from(limits % 16), 1 + usize::from(limits / 4));
    let (as_json, first) = (kind.is_multiple_of(2), (kind % 3 == 0).then_some(u64::MAX - u64::from(kind)));
    let body = Bytes::copy_from_slice(body);
    let is_value = |text: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    let expected: Vec<(u64, &[u8])> = match as_json && body.trim_ascii().contains(&b'\n') && is_value(&body) {
        true => vec![(1, body.trim_ascii())],
        false => (1..).zip(lines_of(&body)).filter(|(_, line)| !line.trim_ascii().is_empty()).collect(),
    };
    let Some((items, lines)) = api::items(&body, as_json, first, items_max, bytes_max) else {
        let overflows = first.is_some_and(|first| first.checked_add(expected.len() as u64).is_none());
        let is_long = expected.iter().any(|(_, line)| bytes_max < line.len());
        return assert!(items_max < expected.len() || is_long || overflows, "refused for nothing");
    };
    assert!(expected.len() <= items_max);
    assert_eq!(lines, expected.iter().map(|(line, _)| *line).collect::<Vec<_>>());
    assert_eq!(items.len(), expected.len());
    for ((item, (_, line)), index) in items.iter().zip(&expected).zip(0_u64..) {
        assert_eq!((&item.bytes[..], item.oversized), (*line, None), "LOG-4");
        assert_eq!(item.position, first.map(|first| first + index));
    }
}

/// Names, numbers and positions in headers are taken as they are written, or refused by name.
pub(super) fn http_headers(input: &[u8]) {
    let values: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let value = |index: usize| values.get(index).copied().unwrap_or_default();
    let sequences = values.get(1..2.max(values.len().min(3))).unwrap_or_default();
    match api::numbered(&values[..1], sequences) {
        None => {}
        Some(Ok(None)) => panic!("a header was not seen"),
        Some(Ok(Some((producer, first)))) => {
            assert_eq!((producer.as_bytes(), sequences.len()), (value(0), 1));
            let digits = value(1);
            assert!(0 < first && digits.iter().all(u8::is_ascii_digit));
            let shown = first.to_string();
            assert!(digits.ends_with(shown.as_bytes()), "{shown}");
            assert!(digits[..digits.len() - shown.len()].iter().all(|digit| *digit == b'0'));
        }
        Some(Err(problem)) => {
            check_error(&problem);
            assert!(problem.contains("Orchestrator-"), "the problem names no header: {problem}");
        }
    }
    let text = String::from_utf8_lossy(value(0));
    if let Some((shown, run_seq, seen)) = api::position(&text) {
        assert_eq!(api::position(&shown), Some((shown.clone(), run_seq, seen)));
        assert!(text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
    }
    if let Some(is_json) = api::content_type(value(0)) {
        let kind = if is_json { "application/json" } else { "application/x-ndjson" };
        assert!(text.trim_start().to_ascii_lowercase().starts_with(kind), "{text:?}");
    }
}

/// What stands between the file and the settings of flags and environment in an input.
const LAYERS: &str = "\n%%\n";

/// A configuration is refused with the place of every violation, or the shown one loads as the same.
pub(super) fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (file, settings) = text.split_once(LAYERS).unwrap_or((text, ""));
    let mut layers = Layers::default();
    for (name, value) in settings.lines().filter_map(|line| line.split_once('=')) {
        if name.to_ascii_uppercase().ends_with("_FILE") {
            continue; // An input names no file of this machine.
        }
        // Variables of the specifications have flat names.
        let is_variable = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
        match name.starts_with("ORCHESTRATOR__") || name.bytes().all(is_variable) {
            true => layers.environment.push((OsString::from(name), OsString::from(value))),
            false => layers.flags.push(FlagSetting {
                flag: "--set".to_owned(),
                path: name.to_owned(),
                value: value.to_owned(),
            }),
        }
    }
    match Config::load_text(file, "input.toml", &layers) {
        Ok(loaded) => {
            let shown = render_settings(&loaded.settings, false);
            // Where a secret is hidden, the shown configuration is another one.
            if !shown.contains("***") {
                let again = Config::load_text(&shown, "shown.toml", &Layers::default());
                let again = again.unwrap_or_else(|error| panic!("{error}\n{shown}"));
                // Of a URL, what may be a secret is left out: then another one is loaded, which is shown alike.
                if !(text.contains("://") && text.contains(['?', '#', '@'])) {
                    assert_eq!(again.config, loaded.config);
                }
                assert_eq!(render_settings(&again.settings, false), shown);
            }
        }
        Err(refused) => {
            assert!(!refused.violations.is_empty());
            for violation in &refused.violations {
                let line = violation.to_string();
                check_line(&line);
                // A key may be "": the line of the file is its place.
                let has_place = !violation.path.is_empty() || matches!(violation.origin, Origin::File { .. });
                assert!(has_place && !violation.what.is_empty(), "no place: {line}");
                assert!(line.len() <= 6 * text.len() + 1000, "{} bytes", line.len());
            }
        }
    }
}
