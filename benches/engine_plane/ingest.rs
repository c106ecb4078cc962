//! Durable ingest: receipts of 400 bytes from a source in memory through ingest, buffer and log, decoding included,
//! against a bare loop of write + fdatasync with the same bytes a commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use orchestrator::config::ClockMode;
use orchestrator_kernel::engine::cadence::Cadence;

use super::bed::{Bed, check_receipts, config};
use super::feed::{Feed, symbol, trade};
use super::medium::{Medium, Rig, bare_append};
use super::support::{
    Bar, BareFile, Options, Outcome, Row, ensure, median, noise, per_second, runtime, scratch,
};

/// Receipts that the source hands over together.
const SOURCE_BATCH: usize = 256;
/// Batches that are made before the clock runs, and handed over again and again.
const RING: u64 = 64;

/// One round of one variant.
struct Round {
    receipts_per_second: f64,
    bare_per_second: f64,
    /// Receipts in one group commit.
    group: f64,
}

pub(super) fn measure(options: Options) -> Outcome<Vec<Row>> {
    let batches = options.size(2048, 128);
    let rounds = match options.medium {
        Medium::Embedded => options.size(7, 2),
        Medium::Servers { .. } => options.size(3, 1),
    };
    let mut at_256 = Vec::new();
    let mut as_it_comes = Vec::new();
    for _ in 0..rounds {
        at_256.push(round(options.medium, batches, Some(SOURCE_BATCH))?);
        as_it_comes.push(round(options.medium, batches, None)?);
    }
    let baseline = match options.medium {
        Medium::Embedded => "write + fdatasync of the same bytes",
        Medium::Servers { .. } => "a bare client, same batches, same script",
    };
    Ok(vec![
        row("durable ingest, 256 receipts a commit", baseline, &at_256, Bar::RatioAtLeast(0.8)),
        // Here the bare loop decodes nothing, which is most of the work: a hard bar, and the one that stands.
        row("durable ingest, default settings", baseline, &as_it_comes, Bar::RatioAtLeast(0.8)),
    ])
}

fn row(what: &str, baseline: &'static str, rounds: &[Round], bar: Bar) -> Row {
    let of = |get: fn(&Round) -> f64| median(&mut rounds.iter().map(get).collect::<Vec<_>>());
    Row {
        what: format!("{what} (mean group {:.0})", of(|round| round.group)),
        value: of(|round| round.receipts_per_second),
        unit: "receipts/s",
        baseline,
        baseline_value: of(|round| round.bare_per_second),
        bar,
    }
}

/// The system, then the bare loop with as many bytes a commit as the system really had.
fn round(medium: Medium, batches: u64, group_max: Option<usize>) -> Outcome<Round> {
    let dir = scratch()?;
    let (rig, runtime) = (Rig::start(medium, false), runtime()?);
    let (took, bytes, flushes) =
        runtime.block_on(through_the_system(&rig, dir.path(), batches, group_max))?;
    let receipts = batches * SOURCE_BATCH as u64;
    let group = receipts as f64 / flushes as f64;
    if let Some(url) = rig.redis_url() {
        let each = usize::try_from(bytes / receipts)?;
        let bare = bare_append(&url, flushes, receipts / flushes, each);
        return Ok(Round {
            receipts_per_second: per_second(receipts, took),
            bare_per_second: runtime.block_on(bare)?,
            group,
        });
    }
    let payload = noise((bytes / flushes) as usize);
    let mut file = BareFile::create(&dir.path().join("bare"), payload.len() as u64 * flushes)?;
    let begin = Instant::now();
    for _ in 0..flushes {
        file.commit(&payload)?;
    }
    Ok(Round {
        receipts_per_second: per_second(receipts, took),
        bare_per_second: per_second(receipts, begin.elapsed()),
        group,
    })
}

/// Returns the time from the first batch asked for to the last one settled, the log's bytes and its group commits.
async fn through_the_system(
    rig: &Rig,
    dir: &std::path::Path,
    batches: u64,
    group_max: Option<usize>,
) -> Outcome<(Duration, u64, u64)> {
    let ring: Arc<Vec<Vec<Bytes>>> = Arc::new((0..RING).map(batch).collect());
    let feed = Feed::new(move |index| {
        let slot = usize::try_from(index % RING).unwrap_or_default();
        ring.get(slot).filter(|_| index < batches).cloned()
    });
    let hourly = Cadence::Boundary { interval_ms: 3_600_000, delay_ms: 0 };
    let mut config = config(dir, hourly, ClockMode::Wall);
    rig.apply(&mut config);
    let bed = Bed::start(config, Some(&feed), |_, settings| {
        settings.log_writer.limits.records = group_max.unwrap_or(settings.log_writer.limits.records);
        Ok(())
    })
    .await?;
    bed.finished(Duration::from_secs(120)).await?;
    let (first, last) = feed.span().ok_or("the source was never asked")?;
    let receipts = batches * SOURCE_BATCH as u64;
    ensure(feed.appended() == receipts && feed.other() == 0, || {
        format!("{} of {receipts} receipts were appended", feed.appended())
    })?;
    let stored = check_receipts(bed.receipts.as_ref()).await?;
    ensure(stored == receipts, || format!("{stored} of {receipts} receipts are in the log"))?;
    let (bytes, flushes) = (bed.receipts.stat().bytes, bed.counts.flushes());
    bed.stop().await?;
    Ok((last - first, bytes, flushes))
}

fn batch(slot: u64) -> Vec<Bytes> {
    let first = slot * SOURCE_BATCH as u64;
    let receipt = |number: u64| trade(&symbol(number % 100), 1_768_000_000_000, number);
    (first..first + SOURCE_BATCH as u64).map(receipt).collect()
}
