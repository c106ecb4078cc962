//! `orchestrator inspect`: what was known, what was decided, what came out.

use std::ffi::OsString;

use clap::{Args, Subcommand};
use orchestrator_kernel::ids::Symbol;

use super::{FromArgs, block_on, print_answer, print_complaint};
use crate::offline::inspect::{Question, answer_question as look, render_answer};
use crate::offline::recorded::Moment;
use crate::process::exit::ProcessExit;
use crate::process::explain::explain_error;
use crate::service::wiring::reading;

/// Subject of a look into the logs.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum InspectCommand {
    /// A run: its receipts, its answer, its outputs, and the runs before and after it.
    Run {
        /// The first digits of its run_id, enough to tell it from others.
        #[arg(value_name = "RUN_ID", value_parser = parse_run_id)]
        run_id: String,
        /// Where the logs are, and how it is shown.
        #[command(flatten)]
        place: InspectPlace,
    },
    /// A receipt, and which run took it.
    Seq {
        /// Its ingest_seq.
        seq: u64,
        /// Where the logs are, and how it is shown.
        #[command(flatten)]
        place: InspectPlace,
    },
    /// A cycle of the trading plane: why it fired, its gates and stages, its decisions, its orders, its result.
    Cycle {
        /// The first digits of its cycle id, enough to tell it from others.
        #[arg(value_name = "CYCLE_ID", value_parser = parse_cycle_id)]
        cycle_id: String,
        /// Where the logs are, and how it is shown.
        #[command(flatten)]
        place: InspectPlace,
    },
    /// A symbol at a time: its last run, and what no run had taken yet.
    Symbol {
        /// The symbol, as the receipts write it.
        #[arg(value_parser = parse_symbol)]
        symbol: String,
        /// When: 2026-01-02T09:30:00Z, or milliseconds since 1970.
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        at: Moment,
        /// Where the logs are, and how it is shown.
        #[command(flatten)]
        place: InspectPlace,
    },
}

/// Place of the logs, and the form of the answer.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct InspectPlace {
    /// Where the logs are.
    #[command(flatten)]
    pub from: FromArgs,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl InspectCommand {
    fn to_question(&self) -> (Question, &InspectPlace) {
        match self {
            Self::Run { run_id, place } => (Question::Run(run_id.clone()), place),
            Self::Cycle { cycle_id, place } => (Question::Cycle(cycle_id.clone()), place),
            Self::Seq { seq, place } => (Question::Seq(*seq), place),
            Self::Symbol { symbol, at, place } => {
                (Question::Symbol { symbol: symbol.clone(), at: at.0 }, place)
            }
        }
    }
}

/// Looks, and prints what is there.
#[must_use]
pub fn run_inspect(command: &InspectCommand, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    let (question, place) = command.to_question();
    let (_, logs) = match place.from.load_config_and_place(environment) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    block_on(async {
        let opened = reading::open_logs(&logs).await.and_then(|mut recorded| {
            // One that cannot be opened keeps nobody from the other logs.
            let is_asked = matches!(question, Question::Cycle(_));
            let journal = if is_asked { recorded.take_journal()? } else { None };
            Ok((recorded, journal))
        });
        let (recorded, journal) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                print_complaint(&explain_error(&error));
                return error.to_exit();
            }
        };
        match look(&recorded, journal.as_deref(), &question).await {
            // By way of a value the bytes of events and answers would change: serialised directly they do not.
            Ok(answer) if place.json => match serde_json::to_string(&answer) {
                Ok(json) => print_answer(&format!("{json}\n")),
                Err(error) => {
                    print_complaint(&error);
                    ProcessExit::Internal
                }
            },
            Ok(answer) => print_answer(&render_answer(&answer)),
            Err(error) => {
                print_complaint(&explain_error(&error));
                error.to_exit()
            }
        }
    })
}

fn parse_run_id(text: &str) -> Result<String, &'static str> {
    let is_id = !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { Ok(text.to_owned()) } else { Err("expected up to 64 hexadecimal digits") }
}

fn parse_cycle_id(text: &str) -> Result<String, &'static str> {
    let is_digit = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    let is_id = !text.is_empty() && text.len() <= 36 && text.bytes().all(is_digit);
    if is_id { Ok(text.to_owned()) } else { Err("expected up to 36 hexadecimal digits and dashes") }
}

fn parse_symbol(text: &str) -> Result<String, &'static str> {
    if Symbol::is_valid(text) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 128 bytes without control characters")
    }
}
