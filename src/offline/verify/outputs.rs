//! The outputs, compared line by line with what the run log says was published: one file, or several that were rotated.
//!
//! ```text
//!  run log     1 ·········· B-1 │ B ················ cursor │ ········ tail
//!  files                        │ first line, without gap … │ may be there
//!              not compared: in files that are not named
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::contracts::orchestrator_event::events;
use orchestrator_kernel::engine::divergence::{Check, Divergence, DivergencePlace};
use orchestrator_kernel::ids::RunSeq;
use orchestrator_kernel::ports::fan_out::OutputMessage;
use orchestrator_kernel::ports::log::{Log, ReadError};
use serde_json::Value;

use super::published::{RecentEvents, is_equal, time_of};
use super::text::shorten_value;
use crate::offline::replay::Pages;

/// Lines that are remembered to recognise a repetition. The publisher repeats what a second of publishing may hold.
const RECENT_LINES: usize = 1 << 18;
/// What is read of a file at once.
const READ_BYTES: usize = 1 << 20;

/// A line without its end.
#[derive(Clone, Debug)]
struct Line {
    place: LinePlace,
    bytes: Vec<u8>,
    /// An expected output did not match it: it was missing, or this line is wrong.
    suspect: bool,
}

/// Place of a line: file and number.
#[derive(Clone, Debug)]
struct LinePlace {
    file: Arc<str>,
    number: u64,
}

/// The files in the course of a comparison.
pub(super) struct OutputsFiles {
    /// Those that were not begun.
    waiting: VecDeque<(Arc<str>, File)>,
    reader: BufReader<File>,
    /// The last line that was read.
    at: LinePlace,
    ahead: VecDeque<Line>,
    /// The output that the first line is, when it is not the first of the run log.
    begins: Option<Begin>,
    /// The end of the file lacks its line end: a crash cut it short.
    torn: Option<u64>,
    recent: RecentEvents,
    /// Whether no line may tell when it was published: a recorded clock does not know it.
    is_time_null: bool,
    /// Whether it was reported that the file ends too early.
    ended: bool,
    /// Lines that were as expected.
    pub(super) equal: u64,
    /// Lines that repeat an earlier one.
    pub(super) repeated: u64,
}

/// The output that the first line of the files is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    /// Its run record.
    pub(super) run_seq: RunSeq,
    index: u32,
}

impl OutputsFiles {
    /// Opens the files, oldest first; nothing when the only one is not there. `is_time_null`: they were written under a
    /// recorded clock.
    ///
    /// # Errors
    ///
    /// One of them cannot be opened; its name is in the message.
    pub(super) fn open_files(paths: &[PathBuf], is_time_null: bool) -> io::Result<Option<Self>> {
        let mut waiting = VecDeque::new();
        for path in paths {
            match open_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && paths.len() == 1 => return Ok(None),
                file => waiting.push_back((Arc::from(path.display().to_string()), file?)),
            }
        }
        let Some((file, first)) = waiting.pop_front() else { return Ok(None) };
        Ok(Some(Self {
            waiting,
            reader: BufReader::with_capacity(READ_BYTES, first),
            at: LinePlace { file, number: 0 },
            ahead: VecDeque::new(),
            begins: None,
            torn: None,
            recent: RecentEvents::new(RECENT_LINES),
            is_time_null,
            ended: false,
            equal: 0,
            repeated: 0,
        }))
    }

    /// Whether there is no whole line in them.
    pub(super) fn is_empty(&mut self) -> io::Result<bool> {
        self.read_lines_ahead(1)?;
        Ok(self.ahead.is_empty())
    }

    /// Looks up which output of the records from `from` on the first line is, and compares nothing before it; where it
    /// is none, everything is compared. Returns where the comparison begins when that is not the beginning of the log.
    ///
    /// # Errors
    ///
    /// The files, or the run log, cannot be read.
    pub(super) async fn begin_in(
        &mut self,
        runs: &Arc<dyn Log>,
        from: RunSeq,
    ) -> Result<Option<Begin>, ReadError> {
        self.read_lines_ahead(1)?;
        let first = self.ahead.front().and_then(|line| message_id(&line.bytes));
        let Some(first) = first else { return Ok(None) };
        let mut pages = Pages::read_ahead(Arc::clone(runs), from.into(), None);
        let mut is_beginning = from <= RunSeq(1);
        while let Some(page) = pages.next_page().await? {
            for (at, payload) in page.iter() {
                // What is wrong with a record is told where it is replayed.
                let Ok(record) = RunRecord::decode(payload) else { return Ok(None) };
                let Ok(messages) = events(at.into(), &record, None) else { return Ok(None) };
                if let Some(found) = messages.iter().find(|message| message.message_id() == first) {
                    let begin = Begin { run_seq: found.run_seq, index: found.index };
                    self.begins = Some(begin).filter(|_| !is_beginning || 0 < begin.index);
                    return Ok(self.begins);
                }
                is_beginning &= messages.is_empty();
            }
        }
        Ok(None)
    }

    /// What a crash cut short at the end, in bytes.
    pub(super) const fn torn_bytes(&self) -> Option<u64> {
        self.torn
    }

    /// Compares the next output of the run log. `published`: the cursor says that it is there; later ones may be.
    pub(super) fn expect_output(
        &mut self,
        message: &OutputMessage,
        published: bool,
        found: &mut Vec<Divergence>,
    ) -> io::Result<()> {
        if self.begins.is_some_and(|begin| (message.run_seq, message.index) < (begin.run_seq, begin.index)) {
            return Ok(());
        }
        let id = message.message_id();
        loop {
            self.read_lines_ahead(2)?;
            let Some(line) = self.ahead.front() else {
                if published && !self.ended {
                    self.ended = true;
                    found.push(self.ends_early(&id));
                }
                return Ok(());
            };
            if is_equal(&line.bytes, &message.body) {
                found.extend(self.check_time(line));
                self.recent.remember_event(&message.body);
                self.ahead.pop_front();
                self.equal += 1;
                return Ok(());
            }
            if self.is_repetition() {
                found.extend(self.check_time(line));
                self.ahead.pop_front();
                self.repeated += 1;
                continue;
            }
            let next_fits = self.ahead.get(1).is_some_and(|next| is_equal(&next.bytes, &message.body));
            if next_fits || self.ahead.front().is_some_and(|line| line.suspect) {
                let Some(extra) = self.ahead.pop_front() else { return Ok(()) };
                if !extra.suspect {
                    found.push(field_divergence(
                        &extra.place,
                        "line",
                        shorten_value(&extra.bytes),
                        id.clone(),
                    ));
                }
                continue;
            }
            self.note_mismatch(&id, message, found);
            return Ok(());
        }
    }

    /// The line in front is neither the expected output nor an earlier one.
    fn note_mismatch(&mut self, id: &str, message: &OutputMessage, found: &mut Vec<Divergence>) {
        let Some(line) = self.ahead.front_mut() else { return };
        let place = line.place.clone();
        let other = message_id(&line.bytes).filter(|other| other != id);
        match other {
            // It may belong to a later output: then this one is missing. What comes next will tell.
            Some(other) => {
                line.suspect = true;
                found.push(field_divergence(&place, "message_id", other, id.to_owned()));
            }
            None => {
                let (field, recorded, replayed) = first_difference(&line.bytes, &message.body);
                self.ahead.pop_front();
                self.recent.remember_event(&message.body);
                found.push(field_divergence(&place, field, recorded, replayed));
            }
        }
    }

    /// Takes what is left after the last output of the run log: only repetitions may be.
    pub(super) fn take_rest(&mut self, found: &mut Vec<Divergence>) -> io::Result<()> {
        let mut more = 0;
        loop {
            self.read_lines_ahead(1)?;
            if self.ahead.is_empty() {
                return Ok(());
            }
            let repeated = self.is_repetition();
            let Some(line) = self.ahead.pop_front() else { return Ok(()) };
            if repeated {
                found.extend(self.check_time(&line));
                self.repeated += 1;
            } else if !line.suspect {
                more += 1;
                if more == 1 {
                    let nothing = "nothing: the run log ends before".to_owned();
                    found.push(field_divergence(&line.place, "line", shorten_value(&line.bytes), nothing));
                }
            }
        }
    }

    fn is_repetition(&self) -> bool {
        self.ahead.front().is_some_and(|line| self.recent.has_event(&line.bytes))
    }

    /// Reads ahead up to `count` lines.
    fn read_lines_ahead(&mut self, count: usize) -> io::Result<()> {
        while self.ahead.len() < count && self.torn.is_none() {
            let mut bytes = Vec::new();
            if self.reader.read_until(b'\n', &mut bytes)? == 0 {
                let Some((file, next)) = self.waiting.pop_front() else { return Ok(()) };
                self.reader = BufReader::with_capacity(READ_BYTES, next);
                self.at = LinePlace { file, number: 0 };
                continue;
            }
            let is_last_file = self.waiting.is_empty();
            if bytes.pop_if(|last| *last == b'\n').is_none() && is_last_file {
                self.torn = Some(bytes.len() as u64);
                return Ok(());
            }
            self.at.number += 1;
            self.ahead.push_back(Line { place: self.at.clone(), bytes, suspect: false });
        }
        Ok(())
    }

    /// A time of publication where there must be none.
    fn check_time(&self, line: &Line) -> Option<Divergence> {
        let time = time_of(&line.bytes).filter(|time| self.is_time_null && *time != b"null")?;
        let null = "null: the clock is recorded".to_owned();
        Some(field_divergence(&line.place, "published_ts_ms", shorten_value(time), null))
    }

    fn ends_early(&self, id: &str) -> Divergence {
        let recorded = match self.torn {
            Some(bytes) => format!("a line of {bytes} bytes without its end"),
            None => "the end of the file".to_owned(),
        };
        let place = LinePlace { number: self.at.number + 1, ..self.at.clone() };
        field_divergence(&place, "line", recorded, id.to_owned())
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    File::open(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn field_divergence(
    place: &LinePlace,
    field: &'static str,
    recorded: String,
    replayed: String,
) -> Divergence {
    let place = DivergencePlace::Other(format!("{} line {}", place.file, place.number));
    Divergence { check: Check::Outputs, place, field, recorded, replayed }
}

/// `{run_id}:{event_type}` of a line, if it has them.
fn message_id(line: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Event {
        run_id: String,
        event_type: String,
    }
    let event: Event = serde_json::from_slice(line).ok()?;
    Some(format!("{}:{}", event.run_id, event.event_type))
}

/// The fields of an event, for naming the one that differs.
const FIELDS: [&str; 14] = [
    "attempt",
    "counts_by_event_type",
    "cut_end_ingest_seq",
    "cut_kind",
    "cut_start_ingest_seq",
    "engine_mode",
    "engine_timestamp_ms",
    "event_type",
    "payload",
    "published_ts_ms",
    "run_id",
    "schema",
    "schema_version",
    "symbol",
];

/// The first field that differs, or the line as a whole.
fn first_difference(line: &[u8], body: &[u8]) -> (&'static str, String, String) {
    let whole = || ("line", shorten_value(line), shorten_value(body));
    let (Ok(recorded), Ok(replayed)) =
        (serde_json::from_slice::<Value>(line), serde_json::from_slice::<Value>(body))
    else {
        return whole();
    };
    let differs =
        |field: &&&str| **field != "published_ts_ms" && recorded.get(**field) != replayed.get(**field);
    match FIELDS.iter().find(differs) {
        Some(field) => {
            let text = |event: &Value| {
                event
                    .get(*field)
                    .map_or_else(|| "nothing".to_owned(), |value| shorten_value(value.to_string().as_bytes()))
            };
            (field, text(&recorded), text(&replayed))
        }
        None => whole(),
    }
}
