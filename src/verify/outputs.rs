//! The outputs file, compared line by line with what the run log says was published.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use orchestrator_kernel::divergence::{Check, Divergence, Place};
use orchestrator_kernel::ports::fan_out::OutputMessage;
use serde_json::Value;

use super::published::{Recent, is_equal, time_of};
use super::text::shortened;

/// Lines that are remembered to recognise a repetition. The publisher repeats what a second of publishing may hold.
const RECENT_LINES: usize = 1 << 18;

/// A line without its end.
#[derive(Clone, Debug)]
struct Line {
    number: u64,
    bytes: Vec<u8>,
    /// An expected output did not match it: it was missing, or this line is wrong.
    suspect: bool,
}

/// The file in the course of a comparison.
pub(super) struct OutputsFile {
    name: String,
    reader: BufReader<File>,
    number: u64,
    ahead: VecDeque<Line>,
    /// The end of the file lacks its line end: a crash cut it short.
    torn: Option<u64>,
    recent: Recent,
    /// Whether no line may tell when it was published: a recorded clock does not know it.
    is_time_null: bool,
    /// Whether it was reported that the file ends too early.
    ended: bool,
    /// Lines that were as expected.
    pub(super) equal: u64,
    /// Lines that repeat an earlier one.
    pub(super) repeated: u64,
}

impl OutputsFile {
    /// Opens the file; nothing when there is none. `is_time_null`: it was written under a recorded clock.
    pub(super) fn open(path: &Path, is_time_null: bool) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        Ok(Some(Self {
            name: path.display().to_string(),
            reader: BufReader::with_capacity(1 << 20, file),
            number: 0,
            ahead: VecDeque::new(),
            torn: None,
            recent: Recent::new(RECENT_LINES),
            is_time_null,
            ended: false,
            equal: 0,
            repeated: 0,
        }))
    }

    /// What a crash cut short at the end, in bytes.
    pub(super) const fn torn(&self) -> Option<u64> {
        self.torn
    }

    /// Compares the next output of the run log. `published`: the cursor says that it is there; later ones may be.
    pub(super) fn expect(
        &mut self,
        message: &OutputMessage,
        published: bool,
        found: &mut Vec<Divergence>,
    ) -> io::Result<()> {
        let id = message.message_id();
        loop {
            self.fill(2)?;
            let Some(line) = self.ahead.front() else {
                if published && !self.ended {
                    self.ended = true;
                    found.push(self.ends_early(&id));
                }
                return Ok(());
            };
            if is_equal(&line.bytes, &message.body) {
                found.extend(self.check_time(line));
                self.recent.remember(&message.body);
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
                    found.push(self.differs(extra.number, "line", shortened(&extra.bytes), id.clone()));
                }
                continue;
            }
            self.mismatch(&id, message, found);
            return Ok(());
        }
    }

    /// The line in front is neither the expected output nor an earlier one.
    fn mismatch(&mut self, id: &str, message: &OutputMessage, found: &mut Vec<Divergence>) {
        let Some(line) = self.ahead.front_mut() else { return };
        let number = line.number;
        let other = message_id(&line.bytes).filter(|other| other != id);
        match other {
            // It may belong to a later output: then this one is missing. What comes next will tell.
            Some(other) => {
                line.suspect = true;
                found.push(self.differs(number, "message_id", other, id.to_owned()));
            }
            None => {
                let (field, recorded, replayed) = first_difference(&line.bytes, &message.body);
                self.ahead.pop_front();
                self.recent.remember(&message.body);
                found.push(self.differs(number, field, recorded, replayed));
            }
        }
    }

    /// Takes what is left after the last output of the run log: only repetitions may be.
    pub(super) fn finish(&mut self, found: &mut Vec<Divergence>) -> io::Result<()> {
        let mut more = 0;
        loop {
            self.fill(1)?;
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
                    found.push(self.differs(line.number, "line", shortened(&line.bytes), nothing));
                }
            }
        }
    }

    fn is_repetition(&self) -> bool {
        self.ahead.front().is_some_and(|line| self.recent.holds(&line.bytes))
    }

    /// Reads ahead up to `count` lines.
    fn fill(&mut self, count: usize) -> io::Result<()> {
        while self.ahead.len() < count && self.torn.is_none() {
            let mut bytes = Vec::new();
            if self.reader.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(());
            }
            if bytes.pop_if(|last| *last == b'\n').is_none() {
                self.torn = Some(bytes.len() as u64);
                return Ok(());
            }
            self.number += 1;
            self.ahead.push_back(Line { number: self.number, bytes, suspect: false });
        }
        Ok(())
    }

    /// A time of publication where there must be none.
    fn check_time(&self, line: &Line) -> Option<Divergence> {
        let time = time_of(&line.bytes).filter(|time| self.is_time_null && *time != b"null")?;
        Some(self.differs(
            line.number,
            "published_ts_ms",
            shortened(time),
            "null: the clock is recorded".to_owned(),
        ))
    }

    fn ends_early(&self, id: &str) -> Divergence {
        let recorded = match self.torn {
            Some(bytes) => format!("a line of {bytes} bytes without its end"),
            None => "the end of the file".to_owned(),
        };
        self.differs(self.number + 1, "line", recorded, id.to_owned())
    }

    fn differs(&self, number: u64, field: &'static str, recorded: String, replayed: String) -> Divergence {
        let place = Place::Other(format!("{} line {number}", self.name));
        Divergence { check: Check::Outputs, place, field, recorded, replayed }
    }
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
    let whole = || ("line", shortened(line), shortened(body));
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
                    .map_or_else(|| "nothing".to_owned(), |value| shortened(value.to_string().as_bytes()))
            };
            (field, text(&recorded), text(&replayed))
        }
        None => whole(),
    }
}
