//! Memory of a thousand strategies that had one cycle each, in a process of its own, against as many idle actors.

use std::process::{Command, ExitCode};

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::bed::Bed;
use super::journal::Journal;
use super::medium::Medium;
use super::support::{Bar, Options, Outcome, Row, ensure, median, runtime, scratch};

/// The first argument of a process whose memory is measured.
pub(super) const CHILD: &str = "--memory-of";

pub(super) fn measure(options: Options) -> Outcome<Vec<Row>> {
    let strategies = options.size(1000, 100);
    let (mut plane, mut actors) = (Vec::new(), Vec::new());
    for _ in 0..options.size(3, 1) {
        plane.push(measure_child("plane", strategies)?);
        actors.push(measure_child("actors", strategies)?);
    }
    Ok(vec![Row {
        what: format!("memory of {strategies} strategies, one cycle each"),
        value: median(&mut plane),
        unit: "MB",
        baseline: "as many idle actors",
        baseline_value: median(&mut actors),
        bar: Bar::Below(50.0),
    }])
}

/// Megabytes that a fresh process needs more for `what` than before it.
fn measure_child(what: &str, count: u64) -> Outcome<f64> {
    let output = Command::new(std::env::current_exe()?).args([CHILD, what, &count.to_string()]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure(output.status.success(), || {
        format!("the child failed: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    Ok(said.trim().parse()?)
}

/// The process whose memory is measured; prints the megabytes.
pub(super) fn child(arguments: &[String]) -> Outcome<ExitCode> {
    let [what, count] = arguments else { return Err("a child needs what and how many".into()) };
    let count = count.parse()?;
    let grown = match what.as_str() {
        "plane" => runtime()?.block_on(grow_plane(count))?,
        "actors" => runtime()?.block_on(grow_actors(count))?,
        other => return Err(format!("nothing is called {other}").into()),
    };
    println!("{grown}");
    Ok(ExitCode::SUCCESS)
}

fn resident_megabytes() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no resident memory")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}

/// The journal is open before: only the plane is measured.
async fn grow_plane(strategies: u64) -> Outcome<f64> {
    let dir = scratch()?;
    let journal = Journal::open(Medium::Embedded, dir.path()).await?;
    let before = resident_megabytes()?;
    let mut bed = Bed::on(journal, strategies).await?;
    bed.tick().await?;
    let grown = resident_megabytes()? - before;
    bed.finish(strategies).await?;
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

async fn grow_actors(count: u64) -> Outcome<f64> {
    let before = resident_megabytes()?;
    let mut actors = Vec::new();
    for _ in 0..count {
        actors.push(Idle::spawn(None, Idle, ()).await?);
    }
    let grown = resident_megabytes()? - before;
    actors.iter().for_each(|(actor, _)| actor.stop(None));
    Ok(grown)
}
