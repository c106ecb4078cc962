//! The bars of the engine plane: experiments that check their result and race a baseline in the same run.
//!
//! ```text
//! cargo bench --bench engine_plane                       all of them
//! cargo bench --bench engine_plane -- ingest tick        some
//! cargo bench --bench engine_plane -- --servers          on private servers: Redis always and everysec, RabbitMQ
//! cargo bench --bench engine_plane -- --quick            small sizes: does it work
//! cargo bench --bench engine_plane -- --strict           exit code 1 when a bar is missed
//! ```
//!
//! A wrong result ends the run with an error. A missed bar is reported: what a machine reaches is its business, the
//! ratio to the baseline is ours.

mod bed;
mod cut;
mod feed;
mod ingest;
mod medium;
mod memory;
mod ready;
mod replay;
mod runs;
mod servers;
mod support;
mod tick;

use std::process::ExitCode;

use medium::Medium;
use support::{Options, Outcome, Row, TABLE_HEAD, machine};

/// One experiment.
type Experiment = fn(Options) -> Outcome<Vec<Row>>;

/// Those that differ on servers; the others measure what is the same there.
const ON_SERVERS: [&str; 4] = ["ingest", "tick", "runs", "replay"];

const EXPERIMENTS: [(&str, Experiment); 7] = [
    ("ingest", ingest::measure),
    ("tick", tick::measure),
    ("runs", runs::measure),
    ("cut", cut::measure),
    ("ready", ready::measure),
    ("memory", memory::measure),
    ("replay", replay::measure),
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
    match arguments {
        [child, rest @ ..] if child == ready::VICTIM => return ready::victim(rest),
        [child, rest @ ..] if child == memory::CHILD => return memory::child(rest),
        [..] => {}
    }
    // Cargo gives --bench; `cargo test --all-targets` runs this binary without it.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run by `cargo bench --bench engine_plane`");
        return Ok(ExitCode::SUCCESS);
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let named: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = named.iter().find(|name| EXPERIMENTS.iter().all(|(known, _)| known != *name)) {
        return Err(format!(
            "no experiment {unknown}; there are {}",
            EXPERIMENTS.map(|(name, _)| name).join(" ")
        )
        .into());
    }
    let on_servers = has("--servers");
    let media: &[Medium] = if on_servers {
        &[Medium::Servers { appendfsync: "always" }, Medium::Servers { appendfsync: "everysec" }]
    } else {
        &[Medium::Embedded]
    };
    let quick = has("--quick");
    println!("{}{}\n", machine(), if quick { " (quick: figures mean little)" } else { "" });
    let mut rows = Vec::new();
    let wanted = |name: &str| {
        (named.is_empty() || named.iter().any(|wanted| *wanted == name))
            && (!on_servers || ON_SERVERS.contains(&name))
    };
    for &medium in media {
        for (name, measure) in EXPERIMENTS.into_iter().filter(|(name, _)| wanted(name)) {
            for mut row in measure(Options { quick, medium }).map_err(|error| format!("{name}: {error}"))? {
                row.what.insert_str(0, medium.word());
                println!("{name:<7} {row}");
                rows.push(row);
            }
        }
    }
    println!("\n{TABLE_HEAD}");
    rows.iter().for_each(|row| println!("{}", row.markdown()));
    let missed = rows.iter().any(Row::is_miss);
    Ok(if missed && has("--strict") { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
