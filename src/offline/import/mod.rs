//! Recordings of other systems as RawMarketEvents: one line in, one or more events out, nothing changed in between.

mod binance;
mod event;
mod number;
mod table;

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;

use bytes::Bytes;
use clap::ValueEnum;
use orchestrator_kernel::engine::contracts::raw_market_event::{Names, decode};
use serde::Serialize;

use crate::process::exit::ProcessExit;
use crate::process::files::{Compression, NewFile, open_text};

use binance::Frames;
use event::Event;
use table::Table;

pub use number::Unit;
pub use table::{BarTime, Rows, TableOptions};

/// Longest line, or record of a table, in bytes.
const LINE_BYTES_MAX: usize = 16 << 20;
/// Refused lines that are reported one by one.
const REPORTED_MAX: usize = 10;

/// Options of an import.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The recording: plain, gzip or zstd.
    pub input: PathBuf,
    /// The file of events. Its name says how it is compressed.
    pub output: PathBuf,
    /// What the recording is.
    pub format: RecordingFormat,
    /// `source_id` of the events.
    pub source_id: String,
    /// Symbol of what names none.
    pub symbol: Option<String>,
    /// What becomes of a line that cannot be read.
    pub on_error: OnError,
    /// Whether an output of that name is replaced.
    pub force: bool,
}

/// Format of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordingFormat {
    /// `<recv_ns> <json>` a line.
    Binance,
    /// A table.
    Table(TableOptions),
}

/// Treatment of a line that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// Nothing is imported at all.
    #[default]
    Stop,
    /// It is left out and counted.
    Skip,
}

/// Summary of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Lines read, without empty ones.
    pub lines: u64,
    /// Events written.
    pub events: u64,
    /// Lines left out.
    pub skipped: u64,
    /// Events by type.
    pub by_event_type: BTreeMap<String, u64>,
    /// The first `recv_ts_ms`.
    pub first_recv_ts_ms: Option<i64>,
    /// The last `recv_ts_ms`.
    pub last_recv_ts_ms: Option<i64>,
    /// Events with a `recv_ts_ms` before that of the event above. A recorded clock does not go back for them.
    pub backwards: u64,
    /// The first lines that were left out.
    pub errors: Vec<String>,
}

/// Problem of a line, with its column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {detail}")]
struct Problem {
    /// Counted from 1, in a table with its meaning.
    column: String,
    detail: String,
}

/// The mapping is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadMap(String);

/// Reason for which nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The recording cannot be read.
    #[error("cannot read {}, after line {line}", path.display())]
    Read {
        /// The recording.
        path: PathBuf,
        /// Lines read before.
        line: u64,
        /// What the system or the decompressor said.
        #[source]
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is a file of that name.
    #[error("{} exists; name another file with --out, or replace it with --force", .0.display())]
    Exists(PathBuf),
    /// A line cannot be imported.
    #[error("{}, line {line}, {what}; leave such lines out with --on-error skip", path.display())]
    Line {
        /// The recording.
        path: PathBuf,
        /// Its line.
        line: u64,
        /// Column and reason.
        what: String,
    },
    /// The mapping.
    #[error(transparent)]
    Map(#[from] BadMap),
}

impl ImportError {
    /// How the process ends because of it.
    #[must_use]
    pub fn to_exit(&self) -> ProcessExit {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => ProcessExit::Unavailable,
            Self::Read { source, .. } if source.raw_os_error().is_none() => ProcessExit::Data,
            Self::Read { .. } | Self::Write { .. } => ProcessExit::Io,
            Self::Exists(_) => ProcessExit::Different,
            Self::Line { .. } => ProcessExit::Data,
            Self::Map(_) => ProcessExit::Usage,
        }
    }
}

/// Takes an event; the problem that the event is none.
type Take<'t> = &'t mut dyn FnMut(&Event<'_>) -> Result<(), Problem>;

/// Imports a recording as a whole.
///
/// # Errors
///
/// [`ImportError`]; there is no output then, or the old one.
pub fn import_recording(options: &ImportOptions) -> Result<Imported, ImportError> {
    if !options.force && options.output.exists() {
        return Err(ImportError::Exists(options.output.clone()));
    }
    let symbol = options.symbol.as_deref();
    let mut converter = match &options.format {
        RecordingFormat::Binance => Converter::Frames(Frames { source_id: &options.source_id, symbol }),
        RecordingFormat::Table(table) => Converter::Table(Table::new(table, &options.source_id, symbol)?),
    };
    let reading = |line, source| ImportError::Read { path: options.input.clone(), line, source };
    let writing = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => ImportError::Exists(options.output.clone()),
        _ => ImportError::Write { path: options.output.clone(), source },
    };
    let mut input = Records { text: open_text(&options.input).map_err(|error| reading(0, error))?, line: 0 };
    let file = NewFile::create(&options.output, Compression::of_name(&options.output)).map_err(writing)?;
    let mut output = Output {
        file,
        names: Names::default(),
        event: Vec::new(),
        failed: None,
        imported: Imported::default(),
    };
    loop {
        let (first_line, record) = match input.next_record(&converter) {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(error) => return Err(reading(input.line, error)),
        };
        output.imported.lines += 1;
        let problem = match record {
            Ok(text) => converter.convert_line(&text, &mut output),
            Err(problem) => Err(problem),
        };
        if let Some(error) = output.failed.take() {
            return Err(writing(error));
        }
        if let Err(problem) = problem {
            output.note_problem(first_line, &problem, options)?;
        }
    }
    output.file.finish().and_then(|file| file.publish(options.force)).map_err(writing)?;
    Ok(output.imported)
}

/// Converter of lines into events.
enum Converter<'a> {
    Frames(Frames<'a>),
    Table(Table<'a>),
}

impl Converter<'_> {
    fn convert_line(&mut self, text: &str, output: &mut Output) -> Result<(), Problem> {
        let mut take = |event: &Event<'_>| output.write_event(event);
        match self {
            Self::Frames(frames) => frames.take_line(text, &mut take),
            Self::Table(table) => table.take_line(text, &mut take),
        }
    }

    fn is_whole(&self, text: &str) -> bool {
        match self {
            Self::Frames(_) => true,
            Self::Table(_) => Table::is_whole(text),
        }
    }
}

/// The records of the input: lines, in a table also several of them.
struct Records {
    text: Box<dyn BufRead>,
    line: u64,
}

impl Records {
    /// The next record that is not empty, with the number of its first line.
    fn next_record(
        &mut self,
        converter: &Converter<'_>,
    ) -> io::Result<Option<(u64, Result<String, Problem>)>> {
        let mut record = Vec::new();
        let mut first_line = self.line + 1;
        loop {
            let room = (LINE_BYTES_MAX + 1).saturating_sub(record.len());
            let read = (&mut self.text).take(room as u64).read_until(b'\n', &mut record)?;
            self.line += u64::from(read != 0);
            if read == 0 && record.is_empty() {
                return Ok(None);
            }
            if LINE_BYTES_MAX < record.len() {
                self.text.skip_until(b'\n')?;
                let detail = format!("is longer than {LINE_BYTES_MAX} bytes");
                return Ok(Some((first_line, Err(Problem { column: "1".to_owned(), detail }))));
            }
            if record.iter().all(u8::is_ascii_whitespace) {
                record.clear();
                first_line = self.line + 1;
                continue;
            }
            match std::str::from_utf8(&record) {
                Ok(text) if read != 0 && !converter.is_whole(text) => {}
                Ok(text) => {
                    let text = text.strip_suffix('\n').unwrap_or(text);
                    return Ok(Some((first_line, Ok(text.strip_suffix('\r').unwrap_or(text).to_owned()))));
                }
                Err(error) => {
                    let column = (error.valid_up_to() + 1).to_string();
                    return Ok(Some((
                        first_line,
                        Err(Problem { column, detail: "is not UTF-8".to_owned() }),
                    )));
                }
            }
        }
    }
}

/// Output file of events: each is checked as the service checks it.
struct Output {
    file: NewFile,
    names: Names,
    event: Vec<u8>,
    failed: Option<io::Error>,
    imported: Imported,
}

impl Output {
    fn write_event(&mut self, event: &Event<'_>) -> Result<(), Problem> {
        let refused = |detail: String| Problem { column: "1".to_owned(), detail };
        self.event.clear();
        serde_json::to_writer(&mut self.event, event).map_err(|error| refused(error.to_string()))?;
        decode(Bytes::copy_from_slice(&self.event), &mut self.names)
            .map_err(|error| refused(error.to_string()))?;
        self.event.push(b'\n');
        if let Err(error) = self.file.write_all(&self.event) {
            self.failed = Some(error);
            return Err(refused("the output cannot be written".to_owned()));
        }
        let imported = &mut self.imported;
        imported.events += 1;
        match imported.by_event_type.get_mut(event.event_type) {
            Some(count) => *count += 1,
            None => drop(imported.by_event_type.insert(event.event_type.to_owned(), 1)),
        }
        let before = imported.last_recv_ts_ms.replace(event.recv_ts_ms);
        imported.backwards += u64::from(before.is_some_and(|before| event.recv_ts_ms < before));
        imported.first_recv_ts_ms = imported.first_recv_ts_ms.or(Some(event.recv_ts_ms));
        Ok(())
    }

    fn note_problem(
        &mut self,
        line: u64,
        problem: &Problem,
        options: &ImportOptions,
    ) -> Result<(), ImportError> {
        match options.on_error {
            OnError::Stop => {
                Err(ImportError::Line { path: options.input.clone(), line, what: problem.to_string() })
            }
            OnError::Skip => {
                self.imported.skipped += 1;
                if self.imported.errors.len() < REPORTED_MAX {
                    self.imported.errors.push(format!("line {line}, {problem}"));
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
