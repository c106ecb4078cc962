//! Recorded logs as files for other tools: lines of JSON in the wire forms, or Parquet tables for notebooks.
//!
//! Everything is read once from front to back, with one batch and one group of rows in memory. The files get their
//! names when all of them are whole.

mod journal;
mod ndjson;
mod parquet;

use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use orchestrator_kernel::engine::contracts::orchestrator_event::BadAnswer;
use orchestrator_kernel::ports::log::Log;
use serde::Serialize;

use crate::offline::recorded::{LogError, Selection};
use crate::process::exit::ProcessExit;
use crate::process::files::{Compression, Finished};
use crate::service::wiring::reading::Recorded;

/// Format of the exported files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Lines of JSON: receipts, outputs, run records, quarantine, journal.
    #[default]
    Ndjson,
    /// Parquet tables: receipts, ended runs, journal.
    Parquet,
}

/// Selection of what is exported, and its destination.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The directory for the files; it is made when it is not there.
    pub to: PathBuf,
    /// What kind of files.
    pub format: ExportFormat,
    /// How lines of JSON are compressed. Tables are compressed inside.
    pub compression: Compression,
    /// Which part of the logs.
    pub selection: Selection,
    /// Whether files of the same names are replaced.
    pub force: bool,
}

/// Summary of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Receipts.
    pub receipts: u64,
    /// The first of them.
    pub first_ingest_seq: Option<u64>,
    /// The last of them.
    pub last_ingest_seq: Option<u64>,
    /// Whether line n of the receipts is `ingest_seq` n: nothing was left out, and nothing had been trimmed.
    pub line_is_ingest_seq: bool,
    /// Receipts with line breaks between their JSON tokens; these are spaces in the lines.
    pub receipts_with_line_breaks: u64,
    /// Run records.
    pub run_records: u64,
    /// Outputs of ended runs.
    pub outputs: u64,
    /// Items of the quarantine; only when nothing is left out, because they have no symbol and no `ingest_seq`.
    pub quarantined: u64,
    /// Records of the trading plane's journal; only where there is one, and when nothing is left out, as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal_records: Option<u64>,
    /// The files.
    pub files: Vec<PathBuf>,
}

impl Exported {
    /// Counts a receipt.
    fn note_receipt(&mut self, ingest_seq: u64) {
        self.receipts += 1;
        self.first_ingest_seq = self.first_ingest_seq.or(Some(ingest_seq));
        self.last_ingest_seq = Some(ingest_seq);
    }
}

/// Reason for which nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A file of that name is there.
    #[error("{} exists; name another directory with --to, or replace it with --force", .0.display())]
    Exists(PathBuf),
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or its directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A run's answer is no JSON.
    #[error(transparent)]
    Answer(#[from] BadAnswer),
    /// A stored receipt has no envelope.
    #[error("receipt {at} has no envelope: {detail}")]
    NoEnvelope {
        /// Its position.
        at: u64,
        /// What is wrong.
        detail: String,
    },
}

impl ExportError {
    /// How the process ends because of it.
    #[must_use]
    pub fn to_exit(&self) -> ProcessExit {
        match self {
            Self::Log(error) => error.to_exit(),
            Self::Exists(_) => ProcessExit::Different,
            Self::Write { .. } => ProcessExit::Io,
            Self::Answer(_) | Self::NoEnvelope { .. } => ProcessExit::Data,
        }
    }
}

/// Exports what is selected of `recorded`.
///
/// # Errors
///
/// [`ExportError`]; of a failed export no file is left.
pub async fn export_logs(
    recorded: &Recorded,
    journal: Option<&dyn Log>,
    options: &ExportOptions,
) -> Result<Exported, ExportError> {
    let journal = journal.filter(|_| options.selection.is_everything());
    let targets = target_files(options, journal.is_some());
    if let Some(existing) = targets.iter().find(|path| !options.force && path.exists()) {
        return Err(ExportError::Exists(existing.clone()));
    }
    std::fs::create_dir_all(&options.to).map_err(write_failed(&options.to))?;
    let range = options.selection.resolve_positions(recorded.receipts.as_ref()).await?;
    let (mut exported, mut files) = match options.format {
        ExportFormat::Ndjson => ndjson::write_files(recorded, options, &range, &targets).await?,
        ExportFormat::Parquet => parquet::write_tables(recorded, options, &range, &targets).await?,
    };
    if let (Some(journal), Some(target)) = (journal, targets.get(files.len())) {
        let (records, file) = match options.format {
            ExportFormat::Ndjson => journal::write_lines(journal, options, target).await?,
            ExportFormat::Parquet => journal::write_table(journal, target).await?,
        };
        exported.journal_records = Some(records);
        files.push(file);
    }
    for (file, target) in files.into_iter().zip(&targets) {
        exported.files.push(publish_file(file, target, options.force)?);
    }
    Ok(exported)
}

/// Writes a journal as lines, in the export form; an older file of that name is replaced. Returns how many records.
///
/// # Errors
///
/// [`ExportError`]; of a failed export no file is left.
pub async fn export_journal(journal: &dyn Log, target: &Path) -> Result<u64, ExportError> {
    let options = ExportOptions {
        to: target.parent().unwrap_or(Path::new(".")).to_owned(),
        format: ExportFormat::Ndjson,
        compression: Compression::None,
        selection: Selection::default(),
        force: true,
    };
    let (records, file) = journal::write_lines(journal, &options, target).await?;
    publish_file(file, target, true)?;
    Ok(records)
}

/// The files, in the order in which they are named. The journal's stands last.
fn target_files(options: &ExportOptions, has_journal: bool) -> Vec<PathBuf> {
    let names: &[&str] = match options.format {
        ExportFormat::Ndjson if options.selection.is_everything() => &ndjson::NAMES,
        // The quarantine stands last of these.
        ExportFormat::Ndjson => &ndjson::NAMES[..ndjson::NAMES.len() - 1],
        ExportFormat::Parquet => &parquet::NAMES,
    };
    let suffix = match options.format {
        ExportFormat::Ndjson => options.compression.name_suffix(),
        ExportFormat::Parquet => "",
    };
    let journal = match options.format {
        ExportFormat::Ndjson => journal::LINES_NAME,
        ExportFormat::Parquet => journal::TABLE_NAME,
    };
    let names = names.iter().chain(has_journal.then_some(&journal));
    names.map(|name| options.to.join(format!("{name}{suffix}"))).collect()
}

fn publish_file(file: Finished, target: &Path, force: bool) -> Result<PathBuf, ExportError> {
    file.publish(force).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => ExportError::Exists(target.to_owned()),
        _ => write_failed(target)(error),
    })
}

fn write_failed(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::Write { path, source }
}
