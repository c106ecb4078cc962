//! The bars of the trading plane: experiments that check their result and race a baseline in the same run.
//!
//! ```text
//! cargo bench -p orchestrator-trading-plane --bench trading                all of them
//! cargo bench -p orchestrator-trading-plane --bench trading -- cycle rate  some
//! … -- --quick            small sizes: does it work
//! … -- --strict           exit code 1 when a bar is missed
//! ```
//!
//! The journal is one preallocated file with one write and one fdatasync an append, so what is measured is the plane
//! and not a log's format. A wrong result ends the run with an error. A missed bar is reported: what a machine reaches
//! is its business, the ratio to the baseline is ours.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "measures real time on a real disk")]

mod bed;
mod cycles;
mod medium;
mod memory;
mod schedules;
#[path = "../../../../benches/engine_plane/support.rs"]
#[allow(dead_code, reason = "shared with the engine plane's bars, which need more of it")]
mod support;
mod verify;

use std::process::ExitCode;

use medium::Medium;
use support::{Options, Outcome, Row, TABLE_HEAD, machine};

/// One experiment.
type Experiment = fn(Options) -> Outcome<Vec<Row>>;

const EXPERIMENTS: [(&str, Experiment); 5] = [
    ("cycle", cycles::measure_one),
    ("rate", cycles::measure_rate),
    ("lag", schedules::measure),
    ("memory", memory::measure),
    ("verify", verify::measure),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Outcome<ExitCode> {
    if let [child, rest @ ..] = arguments
        && child == memory::CHILD
    {
        return memory::child(rest);
    }
    // Cargo gives --bench; `cargo test --all-targets` runs this binary without it.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run by `cargo bench -p orchestrator-trading-plane --bench trading`");
        return Ok(ExitCode::SUCCESS);
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let named: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = named.iter().find(|name| EXPERIMENTS.iter().all(|(known, _)| known != *name)) {
        let known = EXPERIMENTS.map(|(name, _)| name).join(" ");
        return Err(format!("no experiment {unknown}; there are {known}").into());
    }
    let quick = has("--quick");
    println!("{}{}\n", machine(), if quick { " (quick: figures mean little)" } else { "" });
    let mut rows = Vec::new();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|wanted| *wanted == name);
    for (name, measure) in EXPERIMENTS.into_iter().filter(|(name, _)| wanted(name)) {
        let options = Options { quick, medium: Medium::File };
        for row in measure(options).map_err(|error| format!("{name}: {error}"))? {
            println!("{name:<7} {row}");
            rows.push(row);
        }
    }
    println!("\n{TABLE_HEAD}");
    rows.iter().for_each(|row| println!("{}", row.markdown()));
    let missed = rows.iter().any(Row::is_miss);
    Ok(if missed && has("--strict") { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
