//! `orchestrator log archive` and `orchestrator log trim`: the old part of recorded logs, copied or removed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use orchestrator_engine_plane::retention::{Limits, LogStarts};
use orchestrator_kernel::engine::retention::{Policy, TrimBlocker};
use orchestrator_kernel::ids::{Seq, TsMs};
use orchestrator_kernel::ports::log::LogName;
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_kernel::trading::journal::retention::JournalBlocker;
use serde_json::{Value, json};

use super::{FromArgs, block_on, print_answer, print_complaint};
use crate::process::exit::ProcessExit;
use crate::process::explain::explain_error;
use crate::process::time::wall_now;
use crate::service::wiring::journal_trim::{JournalAsked, JournalHeld, TrimmedJournal};
use crate::service::wiring::reading::LogsPlace;
use crate::service::wiring::retention::{self, OfflineError, Trimmed};

/// Options of `log archive`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ArchiveArgs {
    /// Where the logs are.
    #[command(flatten)]
    pub from: FromArgs,
    /// Directory of the archive. What it holds already is not copied again.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Only records older than this, for example 7d.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub older_than: Option<Duration>,
}

/// Options of `log trim`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(group = ArgGroup::new("limit").required(true).args(["below", "older_than", "keep_bytes", "journal_below"]))]
pub struct TrimArgs {
    /// Where the logs are.
    #[command(flatten)]
    pub from: FromArgs,
    /// Remove receipts before this one; refused with code 1 when they are still needed.
    #[arg(long, value_name = "N")]
    pub below: Option<u64>,
    /// Remove what is older than this, for example 7d, as far as it is not needed.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub older_than: Option<Duration>,
    /// Keep about so many bytes of receipts, and what is needed.
    #[arg(long, value_name = "BYTES")]
    pub keep_bytes: Option<u64>,
    /// Remove records of the trading plane's journal before this one; refused with code 1 when they are still needed.
    #[arg(long, value_name = "N")]
    pub journal_below: Option<u64>,
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    pub dry_run: bool,
}

impl TrimArgs {
    fn trim_limits(&self) -> (Limits, JournalAsked) {
        let age_ms_max = self.older_than.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let by_age = Policy { age_ms_max, ..Policy::default() };
        let limits = Limits {
            receipts: Policy { bytes_max: self.keep_bytes, ..by_age },
            runs: by_age,
            quarantine: by_age,
            receipts_below: self.below.map(Seq),
        };
        (limits, JournalAsked { policy: by_age, below: self.journal_below.map(JournalSeq) })
    }
}

/// Copies the logs and prints one JSON object.
#[must_use]
pub fn log_archive(args: &ArchiveArgs, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    let (config, place) = match args.from.load_config_and_place(environment) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let before = args
        .older_than
        .map(|age| TsMs(wall_now().0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))));
    block_on(async {
        let archived = retention::archive_logs(&place, &config, &args.to, before).await;
        print_outcome(archived.map(|logs| {
            let logs = logs.into_iter().map(|log| {
                let value = json!({"first": log.first, "last": log.last, "copied": log.copied});
                (log.log.to_string(), value)
            });
            Value::Object(logs.collect())
        }))
    })
}

/// Trims the logs and prints one JSON object.
#[must_use]
pub fn log_trim(args: &TrimArgs, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    let (config, place) = match args.from.load_config_and_place(environment) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let dir = match &place {
        LogsPlace::DataDir(dir) => dir,
        LogsPlace::Archived { .. } => {
            print_complaint(&"log trim takes no --archive: it never touches an archive");
            return ProcessExit::Usage;
        }
        LogsPlace::Redis { .. } => {
            print_complaint(&format!(
                "{} is trimmed by its service alone, which holds the writer's claim; configure [retention] there",
                place.display_name()
            ));
            return ProcessExit::Usage;
        }
    };
    block_on(async {
        let trimmed = retention::trim_logs(dir, &config, args.trim_limits(), args.dry_run).await;
        print_outcome(trimmed.map(|trimmed| trim_report(&trimmed, args.dry_run)))
    })
}

fn trim_report(Trimmed { plan, before, after, journal }: &Trimmed, dry_run: bool) -> Value {
    let log = |start: fn(&LogStarts) -> Seq| {
        let (before, after, below) = (start(before), start(after), start(&plan.below));
        json!({"start": after, "removed": after.0 - before.0, "removable_below": below.max(before)})
    };
    let mut report = json!({
        "dry_run": dry_run,
        "receipts": log(|starts| starts.receipts),
        "runs": log(|starts| starts.runs),
        "quarantine": log(|starts| starts.quarantine),
        "held_by": held_json(&plan.held),
    });
    if let (Some(TrimmedJournal { before, after, below, held }), Value::Object(fields)) =
        (journal, &mut report)
    {
        let journal = json!({
            "start": after,
            "removed": after.0 - before.0,
            "removable_below": below.max(before),
            "held_by": journal_held_json(held),
        });
        fields.insert(LogName::Journal.to_string(), journal);
    }
    report
}

/// Who holds records of the journal that were to be trimmed; null when nobody does.
pub(super) fn journal_held_json(held: &JournalHeld) -> Value {
    match held {
        JournalHeld::No => Value::Null,
        JournalHeld::Work(first, JournalBlocker::Cycle(id)) => json!({"cycle": id, "record": first}),
        JournalHeld::Work(first, JournalBlocker::Command(id)) => json!({"command": id, "record": first}),
        JournalHeld::History(first) => json!({"history": null, "record": first}),
        JournalHeld::Events(first) => json!({"events": null, "record": first}),
        JournalHeld::HistoryAway(why) => json!({"history": why}),
    }
}

/// Who holds receipts that were to be trimmed; null when nobody does.
pub(super) fn held_json(held: &TrimBlocker) -> Value {
    match held {
        TrimBlocker::No => Value::Null,
        TrimBlocker::BySymbol(symbol, at) => json!({"symbol": symbol.as_str(), "ingest_seq": at.0}),
    }
}

fn print_outcome(done: Result<Value, OfflineError>) -> ProcessExit {
    match done {
        Ok(report) => print_answer(&format!("{report:#}\n")),
        Err(error) => {
            print_complaint(&explain_error(&error));
            error.to_exit()
        }
    }
}
