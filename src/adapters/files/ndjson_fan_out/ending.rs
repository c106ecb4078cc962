//! What an outputs file holds when it is opened: whether it is one at all, where its last whole line ends, what it
//! says.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;

use serde::Deserialize;

use super::super::fs::FsFile;
use super::OutputsFileError;

/// Lines whose message ids are remembered, so that outputs published again are not written twice.
pub(super) const RECENT_LINES: usize = 4096;
/// How much of the file's end is read for them.
const RECENT_BYTES_MAX: u64 = 16 << 20;
/// What every output begins with: the keys of an OrchestratorEvent stand in alphabetical order.
const FIRST_KEY: &[u8] = b"{\"attempt\":";
const SECOND_KEY: &[u8] = b",\"counts_by_event_type\":{";
/// Bytes that are enough for both keys and the number between them.
const HEAD_BYTES: usize = 64;

/// The end of an outputs file.
#[derive(Default)]
pub(super) struct Ending {
    /// The byte after the last whole line. What follows is a line that a crash cut short.
    pub(super) end: u64,
    /// The outputs of the last lines.
    pub(super) recent: RecentMessageIds,
    /// The last line; `None` in an empty file, or when it is too long to be read back.
    pub(super) last: Option<LineName>,
}

/// The part of an output that names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct LineName {
    /// The run.
    pub(super) run_id: String,
    /// Which of its outputs.
    pub(super) event_type: String,
}

impl LineName {
    fn of_line(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// What consumers deduplicate on.
    pub(super) fn message_id(&self) -> String {
        format!("{}:{}", self.run_id, self.event_type)
    }
}

impl Ending {
    /// Looks at a file of `size` bytes.
    ///
    /// A write that a crash cut short may lack its beginning as well as its end; what is missing then reads as zeros,
    /// which no JSON holds. It is told from somebody else's bytes by what stands around it: the first line and the last
    /// whole one must be outputs, and what follows must be the beginning of one, as far as it goes.
    ///
    /// # Errors
    ///
    /// [`OutputsFileError::NotOurs`]; nothing is changed.
    pub(super) fn of_file(file: &dyn FsFile, size: u64) -> Result<Self, OutputsFileError> {
        if size == 0 {
            return Ok(Self::default());
        }
        let start = size.saturating_sub(RECENT_BYTES_MAX);
        let mut window = read_range(file, start, size)?;
        let unbroken = window.iter().position(|byte| *byte == 0).unwrap_or(window.len());
        let end = end_of_last_line(file, start + unbroken as u64)?;
        let torn = read_range(file, end, size.min(end + FIRST_KEY.len() as u64))?;
        let torn = torn.split(|byte| *byte == 0).next().unwrap_or_default();
        if end == 0 {
            // Less than that could be anybody's.
            return match torn.starts_with(FIRST_KEY) {
                true => Ok(Self::default()),
                false => Err(not_ours("its first line is no output".to_owned())),
            };
        }
        if !is_output_head(&read_range(file, 0, size.min(HEAD_BYTES as u64))?) {
            return Err(not_ours("its first line is no output".to_owned()));
        }
        if !FIRST_KEY.starts_with(torn) {
            return Err(not_ours(format!("what stands behind byte {end} is no beginning of an output")));
        }
        window.truncate(usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX));
        let last = last_line(&window, 0 < start, end)?;
        Ok(Self { end, recent: RecentMessageIds::of_lines(&window), last })
    }
}

fn not_ours(why: String) -> OutputsFileError {
    OutputsFileError::NotOurs { why }
}

/// Whether a line begins as an output does.
fn is_output_head(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(FIRST_KEY) else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    0 < digits && rest.get(digits..).is_some_and(|rest| rest.starts_with(SECOND_KEY))
}

/// The name of the last line of `window`, which ends at byte `end` of the file; nothing when the line begins before it.
fn last_line(window: &[u8], is_part: bool, end: u64) -> Result<Option<LineName>, OutputsFileError> {
    let lines = window.strip_suffix(b"\n").unwrap_or(window);
    let (line, begins_before) = match lines.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => (lines.get(at + 1..).unwrap_or_default(), false),
        None => (lines, is_part),
    };
    match LineName::of_line(line).filter(|_| is_output_head(line)) {
        None if begins_before => Ok(None),
        None => Err(not_ours(format!("its last line, which ends at byte {end}, is no output"))),
        name => Ok(name),
    }
}

fn read_range(file: &dyn FsFile, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX)];
    let read = file.read_at(&mut bytes, from)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The byte after the last line break before `size`; 0 when there is none.
pub(super) fn end_of_last_line(file: &dyn FsFile, size: u64) -> io::Result<u64> {
    const PART: u64 = 64 << 10;
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(PART);
        let found = read_range(file, start, end)?.iter().rposition(|byte| *byte == b'\n');
        if let Some(at) = found {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Message ids of the last lines.
#[derive(Default)]
pub(super) struct RecentMessageIds {
    order: VecDeque<Arc<str>>,
    ids: HashSet<Arc<str>>,
}

impl RecentMessageIds {
    /// The ids of the last lines.
    fn of_lines(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n').rev();
        // A line that is cut by the window has no name and is passed over.
        let ids: Vec<String> = lines
            .take(RECENT_LINES + 1)
            .filter_map(LineName::of_line)
            .map(|name| name.message_id())
            .collect();
        let mut recent = Self::default();
        ids.into_iter().rev().for_each(|id| recent.add_id(id));
        recent
    }

    pub(super) fn contains_id(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    pub(super) fn add_id(&mut self, id: String) {
        let id: Arc<str> = id.into();
        if self.ids.insert(Arc::clone(&id)) {
            self.order.push_back(id);
        }
        if self.order.len() > RECENT_LINES
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}
