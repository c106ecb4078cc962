//! `orchestrator history`: the tables that are made from the trading plane's journal.

use std::ffi::OsString;

use clap::Subcommand;
use orchestrator_kernel::ports::history::HistoryError;
use orchestrator_kernel::ports::log::ReadError;
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_trading_plane::history::{HistoryTrouble, RebuiltHistory, rebuild_history};
use serde_json::{Value, json};

use super::{FromArgs, block_on, print_answer, print_complaint};
use crate::config::Config;
use crate::process::exit::ProcessExit;
use crate::process::explain::explain_error;
use crate::service::wiring::history::open_history;
use crate::service::wiring::reading::{LogsPlace, open_journal};

/// Commands on the history.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum HistoryCommand {
    /// Empty the tables of the configured database and make them again from the journal, equal row by row.
    Rebuild(FromArgs),
}

/// Carries out a command on the history and prints one JSON object.
#[must_use]
pub fn run_history(command: &HistoryCommand, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    let HistoryCommand::Rebuild(from) = command;
    match from.load_config_and_place(environment) {
        Ok((config, place)) => block_on(rebuild_tables(&config, &place)),
        Err(exit) => exit,
    }
}

async fn rebuild_tables(config: &Config, place: &LogsPlace) -> ProcessExit {
    let store = match open_history(config) {
        Ok(Some(store)) => store,
        Ok(None) => {
            print_complaint(&"trading.history.enabled is false: there is no history to rebuild");
            return ProcessExit::Config;
        }
        Err(error) => {
            print_complaint(&explain_error(&error));
            return error.to_exit();
        }
    };
    let journal = match open_journal(place).await {
        Ok(journal) => journal,
        Err(error) => {
            print_complaint(&explain_error(&error));
            return error.to_exit();
        }
    };
    let tail = JournalSeq::from(journal.log.stat().tail);
    let log = std::sync::Arc::clone(&journal.log);
    match rebuild_history(store, log, tail, config.trading.history.batch_records_max, |_| ()).await {
        Ok(rebuilt) => print_answer(&format!("{:#}\n", rebuild_report(&rebuilt))),
        Err(trouble) => {
            print_complaint(&explain_error(&trouble));
            exit_of_trouble(&trouble)
        }
    }
}

fn rebuild_report(rebuilt: &RebuiltHistory) -> Value {
    let skipped = rebuilt.skipped.iter().map(|(seq, detail)| json!({ "seq": seq, "detail": detail }));
    json!({ "projected": rebuilt.projected, "skipped": skipped.collect::<Vec<_>>() })
}

fn exit_of_trouble(trouble: &HistoryTrouble) -> ProcessExit {
    match trouble {
        HistoryTrouble::Store(HistoryError::Away(_) | HistoryError::Moved { .. }) => ProcessExit::Unavailable,
        HistoryTrouble::Store(HistoryError::Refused(_)) => ProcessExit::Config,
        HistoryTrouble::Store(HistoryError::Unfit(_)) => ProcessExit::Internal,
        HistoryTrouble::Journal(ReadError::Io(error)) => ProcessExit::of_storage(error),
        HistoryTrouble::Journal(ReadError::Corrupt { .. } | ReadError::Trimmed { .. })
        | HistoryTrouble::Broken(_)
        | HistoryTrouble::Ahead { .. }
        | HistoryTrouble::NoRecord(_) => ProcessExit::Data,
    }
}
