//! The directory of a backtest: what is written there, and what is removed again.

use std::io;
use std::path::{Path, PathBuf};

use orchestrator_kernel::ports::log::Log;
use tempfile::TempDir;

use super::{BacktestArgs, Refused, ReportFormat};
use crate::cli::print_complaint;
use crate::offline::backtest::{BacktestReport, render_page};
use crate::offline::export::{ExportError, export_journal};
use crate::process::exit::ProcessExit;

/// Name of the outputs file, as the service calls it.
const OUTPUTS: &str = "orchestrator_events.jsonl";
/// Name of the file of the journal's records, in their export form.
const JOURNAL: &str = "journal.jsonl";

/// Directories of a backtest: the report's, and those of the logs and of unfinished outputs.
pub(super) struct BacktestPlace {
    out: PathBuf,
    /// The outputs until they are complete: beside the logs, so that nothing of a failure is taken for a result.
    pub(super) partial: PathBuf,
    pub(super) data: PathBuf,
    keeps_logs: bool,
}

impl BacktestPlace {
    /// Makes it; `logs` gets the directory of logs that are not kept.
    pub(super) fn make_dirs(args: &BacktestArgs, logs: &mut Option<TempDir>) -> Result<Self, Refused> {
        let failed = |what: &Path, error: io::Error| {
            Refused::complain_because(ProcessExit::Io, &format!("cannot make {}: {error}", what.display()))
        };
        std::fs::create_dir_all(&args.out).map_err(|error| failed(&args.out, error))?;
        // The service's own paths start at the data directory.
        let out = std::path::absolute(&args.out).map_err(|error| failed(&args.out, error))?;
        let data = if args.keep_logs {
            let data = out.join("data");
            if data.exists() {
                let data = args.out.join("data");
                return Err(Refused::complain_because(
                    ProcessExit::Usage,
                    &format!("{} exists; remove it or name another directory with --out", data.display()),
                ));
            }
            data
        } else {
            let dir = TempDir::with_prefix_in(".data-", &out).map_err(|error| failed(&out, error))?;
            logs.insert(dir).path().to_owned()
        };
        let partial = data.join("outputs").join(OUTPUTS);
        Ok(Self { out, partial, data, keeps_logs: args.keep_logs })
    }

    /// Puts the outputs and the report into their places; returns their paths.
    pub(super) fn write_report(
        &self,
        report: &BacktestReport,
        formats: &[ReportFormat],
    ) -> io::Result<Vec<PathBuf>> {
        let outputs = self.out.join(OUTPUTS);
        if self.keeps_logs {
            // Kept logs are whole, so that they can be verified.
            std::fs::copy(&self.partial, &outputs)?;
        } else {
            std::fs::rename(&self.partial, &outputs)?;
        }
        let mut files = vec![outputs];
        for (format, name) in [(ReportFormat::Html, "report.html"), (ReportFormat::Json, "report.json")] {
            let path = self.out.join(name);
            if formats.contains(&format) {
                let text = match format {
                    ReportFormat::Html => render_page(report),
                    ReportFormat::Json => format!("{}\n", serde_json::to_string_pretty(report)?),
                };
                std::fs::write(&path, text)?;
                files.push(path);
            } else {
                // One of an earlier backtest would be taken for this one's.
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(files)
    }
}

impl BacktestPlace {
    /// Writes the journal's records, if there is a journal; one of an earlier backtest would be taken for this one's.
    pub(super) async fn write_journal(
        &self,
        journal: Option<&dyn Log>,
    ) -> Result<Option<PathBuf>, ExportError> {
        let path = self.out.join(JOURNAL);
        match journal {
            Some(journal) => {
                export_journal(journal, &path).await?;
                Ok(Some(path))
            }
            None => match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    Err(ExportError::Write { path, source })
                }
                Ok(()) | Err(_) => Ok(None),
            },
        }
    }
}

/// Removes the logs that were not to be kept; the exit code when that fails.
pub(super) fn remove_logs(logs: Option<TempDir>) -> Option<ProcessExit> {
    let path = logs.as_ref().map(|logs| logs.path().to_owned())?;
    let error = logs?.close().err()?;
    print_complaint(&format!("cannot remove {}: {error}; nothing needs it any more", path.display()));
    Some(ProcessExit::Io)
}
