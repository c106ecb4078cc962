//! Memory of 10 000 symbols that had one run each, in a process of its own, against as many idle actors.

use std::process::{Command, ExitCode};
use std::time::Duration;

use orchestrator::config::ClockMode;
use orchestrator_kernel::engine::cadence::Cadence;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::bed::{Bed, check_runs, config};
use super::feed::{Feed, snapshot, symbol, trade};
use super::support::{Bar, Options, Outcome, Row, ensure, median, runtime, scratch, until};

/// The first argument of a process whose memory is measured.
pub(super) const CHILD: &str = "--memory-of";

const INTERVAL_MS: i64 = 1000;
/// Symbols that the source hands over together.
const PART: u64 = 250;

pub(super) fn measure(options: Options) -> Outcome<Vec<Row>> {
    let symbols = options.size(10_000, 500);
    let (mut system, mut actors) = (Vec::new(), Vec::new());
    for _ in 0..options.size(3, 1) {
        system.push(megabytes("system", symbols)?);
        actors.push(megabytes("actors", symbols)?);
    }
    Ok(vec![Row {
        what: format!("memory of {symbols} symbols, one run each"),
        value: median(&mut system),
        unit: "MB",
        baseline: "as many idle actors",
        baseline_value: median(&mut actors),
        bar: Bar::Below(300.0),
    }])
}

/// What a fresh process needs more for `what` than before it.
fn megabytes(what: &str, symbols: u64) -> Outcome<f64> {
    let output = Command::new(std::env::current_exe()?).args([CHILD, what, &symbols.to_string()]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure(output.status.success(), || {
        format!("the child failed: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    Ok(said.trim().parse()?)
}

/// The process whose memory is measured; prints the megabytes.
pub(super) fn child(arguments: &[String]) -> Outcome<ExitCode> {
    let [what, symbols] = arguments else { return Err("a child needs what and how many".into()) };
    let symbols = symbols.parse()?;
    let grown = match what.as_str() {
        "system" => runtime()?.block_on(system(symbols))?,
        "actors" => runtime()?.block_on(actors(symbols))?,
        other => return Err(format!("nothing is called {other}").into()),
    };
    println!("{grown}");
    Ok(ExitCode::SUCCESS)
}

fn resident_megabytes() -> Outcome<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split(' ').nth(1).ok_or("no resident pages")?.parse()?;
    Ok(pages * rustix::param::page_size() as f64 / 1e6)
}

async fn system(symbols: u64) -> Outcome<f64> {
    let dir = scratch()?;
    let before = resident_megabytes()?;
    let parts = symbols.div_ceil(PART);
    let feed = Feed::new(move |part| match part {
        part if part < parts => Some(
            (part * PART..symbols.min((part + 1) * PART))
                .map(|index| snapshot(&symbol(index), INTERVAL_MS - 1, INTERVAL_MS))
                .collect(),
        ),
        part if part == parts => Some(vec![trade(&symbol(0), INTERVAL_MS + 1, 0)]),
        _ => None,
    });
    let cadence = Cadence::Boundary { interval_ms: INTERVAL_MS, delay_ms: 0 };
    let bed =
        Bed::start(config(dir.path(), cadence, ClockMode::Recorded), Some(&feed), |_, _| Ok(())).await?;
    bed.finished(Duration::from_secs(120)).await?;
    let grown = resident_megabytes()? - before;
    let completed = check_runs(bed.runs.as_ref()).await?;
    ensure(completed == symbols, || format!("{completed} of {symbols} runs completed"))?;
    bed.stop().await?;
    Ok(grown)
}

struct Idle;

impl Actor for Idle {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _me: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

async fn actors(count: u64) -> Outcome<f64> {
    let before = resident_megabytes()?;
    let mut actors = Vec::new();
    for _ in 0..count {
        actors.push(Idle::spawn(None, Idle, ()).await?);
    }
    let grown = resident_megabytes()? - before;
    actors.iter().for_each(|(actor, _)| actor.stop(None));
    until("all actors have ended", Duration::from_secs(10), || {
        actors.iter().all(|(_, joined)| joined.is_finished())
    })
    .await?;
    Ok(grown)
}
