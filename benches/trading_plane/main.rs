//! The bars of the trading plane: experiments that check their result and race a baseline in the same run.
//!
//! ```text
//! cargo bench --bench trading_plane                       all of them, on files
//! cargo bench --bench trading_plane -- cycle rate         some
//! cargo bench --bench trading_plane -- --servers          on private servers: Redis always
//! cargo bench --bench trading_plane -- --quick            small sizes: does it work
//! cargo bench --bench trading_plane -- --strict           exit code 1 when a bar is missed
//! ```
//!
//! The journal is the one that a service has, put together by the real wiring. A wrong result ends the run with an
//! error. A missed bar is reported: what a machine reaches is its business, the ratio to the baseline is ours.

mod bare;
mod bed;
mod cycles;
#[path = "../engine_plane/bed.rs"]
#[allow(dead_code, reason = "shared with the engine plane's bars, which need more of it")]
mod engine_bed;
#[path = "../engine_plane/feed.rs"]
#[allow(dead_code, reason = "shared with the engine plane's bars, which need more of it")]
mod feed;
mod isolation;
mod journal;
#[path = "../engine_plane/medium.rs"]
#[allow(dead_code, reason = "shared with the engine plane's bars, which need more of it")]
mod medium;
mod memory;
mod schedules;
#[path = "../engine_plane/servers.rs"]
mod servers;
#[path = "../engine_plane/support.rs"]
#[allow(dead_code, reason = "shared with the engine plane's bars, which need more of it")]
mod support;
mod verify;

use std::process::ExitCode;

use medium::Medium;
use support::{Options, Outcome, Row, TABLE_HEAD, machine};

/// One experiment.
type Experiment = fn(Options) -> Outcome<Vec<Row>>;

/// Those that differ on servers; the others measure what is the same there.
const ON_SERVERS: [&str; 2] = ["cycle", "rate"];

const EXPERIMENTS: [(&str, Experiment); 6] = [
    ("cycle", cycles::measure_one),
    ("rate", cycles::measure_rate),
    ("lag", schedules::measure),
    ("memory", memory::measure),
    ("verify", verify::measure),
    ("isolation", isolation::measure),
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
        println!("run by `cargo bench --bench trading_plane`");
        return Ok(ExitCode::SUCCESS);
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let named: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = named.iter().find(|name| EXPERIMENTS.iter().all(|(known, _)| known != *name)) {
        let known = EXPERIMENTS.map(|(name, _)| name).join(" ");
        return Err(format!("no experiment {unknown}; there are {known}").into());
    }
    let (quick, on_servers) = (has("--quick"), has("--servers"));
    let medium = if on_servers { Medium::Servers { appendfsync: "always" } } else { Medium::Embedded };
    println!("{}{}\n", machine(), if quick { " (quick: figures mean little)" } else { "" });
    let wanted = |name: &str| {
        (named.is_empty() || named.iter().any(|wanted| *wanted == name))
            && (!on_servers || ON_SERVERS.contains(&name))
    };
    let mut rows = Vec::new();
    for (name, measure) in EXPERIMENTS.into_iter().filter(|(name, _)| wanted(name)) {
        for mut row in measure(Options { quick, medium }).map_err(|error| format!("{name}: {error}"))? {
            row.what.insert_str(0, medium.word());
            println!("{name:<9} {row}");
            rows.push(row);
        }
    }
    println!("\n{TABLE_HEAD}");
    rows.iter().for_each(|row| println!("{}", row.markdown()));
    let missed = rows.iter().any(Row::is_miss);
    Ok(if missed && has("--strict") { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
