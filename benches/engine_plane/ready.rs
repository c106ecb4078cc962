//! Ready again after kill −9 with 10 M receipts: a victim process takes receipts in until it is killed in the middle,
//! then the same data directory is started again until the board says ready.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use orchestrator::config::ClockMode;
use orchestrator_kernel::engine::cadence::Cadence;

use super::bed::{Bed, check_receipts, config};
use super::feed::{Feed, symbol, trade};
use super::support::{Bar, Options, Outcome, Row, ensure, median, runtime, scratch, until};

/// The first argument of the process that is to be killed.
pub(super) const VICTIM: &str = "--victim";

const CADENCE: Cadence = Cadence::Timer { interval_ms: 1000, align_ms: 1000 };

pub(super) fn measure(options: Options) -> Outcome<Vec<Row>> {
    let target: u64 = options.size(10_000_000, 300_000);
    let dir = scratch()?;
    let data = dir.path().join("data");
    let acknowledged = kill_in_the_middle(&data, target)?;
    let warm = start(&data, acknowledged)?;
    let mut again = Vec::from([warm]);
    for _ in 0..options.size(4, 1) {
        again.push(start(&data, acknowledged)?);
    }
    forget(&data)?;
    let bare_cold = read_last_segment(&data)?;
    forget(&data)?;
    let cold = start(&data, acknowledged)?;
    let bare = read_last_segment(&data)?;
    runtime()?.block_on(check(&data, acknowledged))?;
    let row = |what: &str, took: f64, baseline_value: f64, bar: Bar| Row {
        what: format!("ready after kill −9 with {acknowledged} receipts, {what}"),
        value: took,
        unit: "ms",
        baseline: "sequential read of the last segment",
        baseline_value,
        bar,
    };
    Ok(vec![
        row("first start", warm, bare, Bar::Below(2000.0)),
        row("median of starts", median(&mut again), bare, Bar::Below(2000.0)),
        row("files not in memory", cold, bare_cold, Bar::None),
    ])
}

/// Starts a victim, kills it once `target` receipts are acknowledged, and returns how many it had acknowledged.
fn kill_in_the_middle(data: &Path, target: u64) -> Outcome<u64> {
    let mut command = Command::new(std::env::current_exe()?);
    // Bounded, should this process die before it: the disk is not ours to fill.
    let most = (target / 256 * 2).to_string();
    command.arg(VICTIM).arg(data).arg(most).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut victim = Killed(command.spawn()?);
    let lines = BufReader::new(victim.0.stdout.take().ok_or("the victim has no output")?).lines();
    let mut acknowledged = 0;
    for line in lines {
        acknowledged = line?.parse()?;
        if target <= acknowledged {
            break;
        }
    }
    ensure(target <= acknowledged, || format!("the victim ended by itself after {acknowledged}"))?;
    drop(victim);
    Ok(acknowledged)
}

/// A process that does not outlive this value.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // On Unix this is SIGKILL. It fails only when the process has ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The victim: takes in at most that many batches, and prints how many receipts are acknowledged.
pub(super) fn victim(arguments: &[String]) -> Outcome<ExitCode> {
    let [data, most] = arguments else { return Err("a victim needs a directory and a bound".into()) };
    let most: u64 = most.parse()?;
    runtime()?.block_on(async {
        let ring: Arc<Vec<Vec<Bytes>>> = Arc::new((0..64).map(batch).collect());
        let feed = Feed::new(move |index| {
            ring.get(usize::try_from(index % 64).unwrap_or_default()).filter(|_| index < most).cloned()
        });
        let bed =
            Bed::start(config(Path::new(data), CADENCE, ClockMode::Wall), Some(&feed), |_, _| Ok(())).await?;
        ready(&bed).await?;
        while bed.tree.board.current_status().ready && feed.appended() < most * 256 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            println!("{}", feed.appended());
        }
        Err(format!("the victim was not killed: {:?}", bed.tree.board.current_status()).into())
    })
}

async fn ready(bed: &Bed) -> Outcome<()> {
    until("the board says ready", Duration::from_secs(120), || bed.tree.board.current_status().ready).await
}

fn batch(slot: u64) -> Vec<Bytes> {
    let receipt = |number: u64| trade(&symbol(number % 100), 1_768_000_000_000, number);
    (slot * 256..(slot + 1) * 256).map(receipt).collect()
}

/// Milliseconds until the board says ready; the process then ends as in a crash.
fn start(data: &Path, acknowledged: u64) -> Outcome<f64> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let ended = Feed::new(|_| None);
        let begin = Instant::now();
        let bed = Bed::start(config(data, CADENCE, ClockMode::Wall), Some(&ended), |_, _| Ok(())).await?;
        ready(&bed).await?;
        let took = begin.elapsed().as_secs_f64() * 1e3;
        let tail = bed.receipts.stat().tail;
        ensure(acknowledged <= tail.0, || {
            format!("the log ends at {tail}, {acknowledged} receipts were acknowledged")
        })?;
        bed.kill().await?;
        Ok(took)
    })
}

/// Everything acknowledged is there, once and in order.
async fn check(data: &Path, acknowledged: u64) -> Outcome<()> {
    let bed = Bed::start(config(data, CADENCE, ClockMode::Wall), None, |_, _| Ok(())).await?;
    let stored = check_receipts(bed.receipts.as_ref()).await?;
    ensure(acknowledged <= stored, || format!("{stored} receipts, {acknowledged} were acknowledged"))?;
    bed.stop().await
}

/// Files of the receipt log in the order of their names, which is that of their records.
fn segments(data: &Path) -> Outcome<Vec<PathBuf>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(data.join("receipts"))? {
        let entry = entry?;
        // Beside the segments there are only the lock and a small file of notes.
        if entry.metadata()?.len() > 1 << 20 && entry.path().extension().is_none_or(|end| end != "tmp") {
            segments.push(entry.path());
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Milliseconds to read the segment that an opening has to check.
fn read_last_segment(data: &Path) -> Outcome<f64> {
    let last = segments(data)?.pop().ok_or("the log has no segment")?;
    let begin = Instant::now();
    let mut file = File::open(last)?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// Has the system drop its memory of the data directory's files.
fn forget(data: &Path) -> Outcome<()> {
    for part in ["receipts", "runs", "checkpoints"] {
        for entry in std::fs::read_dir(data.join(part))? {
            let file = File::open(entry?.path())?;
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}
