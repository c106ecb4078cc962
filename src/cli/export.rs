//! `orchestrator export`: recorded logs as files for other tools.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::{FromArgs, block_on, print_answer, print_complaint};
use crate::offline::export::{ExportFormat, ExportOptions, export_logs};
use crate::offline::recorded::Selection;
use crate::process::exit::ProcessExit;
use crate::process::explain::explain_error;
use crate::process::files::Compression;
use crate::service::wiring::reading;

/// Options of `export`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ExportArgs {
    /// Where the logs are.
    #[command(flatten)]
    pub from: FromArgs,
    /// Directory for the files; it is made when it is not there.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Lines of JSON in the wire forms, or Parquet tables of receipts, ended runs and the journal.
    #[arg(long, value_enum, default_value_t)]
    pub format: ExportFormat,
    /// Compression of the lines; tables are compressed inside.
    #[arg(long, value_enum, default_value_t)]
    pub compress: Compression,
    /// Which part.
    #[command(flatten)]
    pub selection: Selection,
    /// Replace files of the same names.
    #[arg(long)]
    pub force: bool,
}

/// Exports, and prints what as one JSON object.
#[must_use]
pub fn run_export(args: &ExportArgs, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    let (_, place) = match args.from.load_config_and_place(environment) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    if args.format == ExportFormat::Parquet && args.compress != Compression::None {
        print_complaint(&"--compress is for lines of JSON; Parquet tables are compressed inside");
        return ProcessExit::Usage;
    }
    let options = ExportOptions {
        to: args.to.clone(),
        format: args.format,
        compression: args.compress,
        selection: args.selection.clone(),
        force: args.force,
    };
    block_on(async {
        let mut recorded = match reading::open_logs(&place).await {
            Ok(recorded) => recorded,
            Err(error) => {
                print_complaint(&explain_error(&error));
                return error.to_exit();
            }
        };
        let journal = match recorded.take_journal() {
            Ok(journal) => journal,
            Err(error) => {
                print_complaint(&explain_error(&error));
                return error.to_exit();
            }
        };
        match export_logs(&recorded, journal.as_deref(), &options).await {
            Ok(exported) => print_answer(&format!("{:#}\n", serde_json::json!(exported))),
            Err(error) => {
                print_complaint(&explain_error(&error));
                error.to_exit()
            }
        }
    })
}
