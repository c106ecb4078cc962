//! One cycle of eight no-op stages against a bare commit of the same bytes, and many of a thousand strategies.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::bed::Bed;
use super::support::{Bar, BareFile, Options, Outcome, Row, noise, per_second, percentile, runtime, scratch};

pub(super) fn measure_one(options: Options) -> Outcome<Vec<Row>> {
    let cycles: u64 = options.size(2000, 100);
    let dir = scratch()?;
    runtime()?.block_on(async {
        let mut bed = Bed::start(dir.path(), 1).await?;
        // What one cycle writes.
        bed.tick().await?;
        let before = bed.log.bytes.load(Ordering::Relaxed);
        bed.tick().await?;
        let payload = noise(usize::try_from(bed.log.bytes.load(Ordering::Relaxed) - before)?);
        let mut bare = BareFile::create(&dir.path().join("bare"), payload.len() as u64 * cycles)?;
        let (mut whole, mut commits) = (Vec::new(), Vec::new());
        let appends = bed.log.appends.load(Ordering::Relaxed);
        for _ in 0..cycles {
            let due = bed.tick().await?;
            whole.push(due.elapsed().as_secs_f64() * 1e3);
            let begin = Instant::now();
            bare.commit(&payload)?;
            commits.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        let waits = (bed.log.appends.load(Ordering::Relaxed) - appends) as f64 / cycles as f64;
        bed.rest().await?;
        bed.finish(cycles + 2).await?;
        let row = |percent: f64, bar: Bar, whole: &mut [f64], commits: &mut [f64]| Row {
            what: format!("a cycle of 8 no-op stages, {waits:.2} waits for the disk, p{percent}"),
            value: percentile(whole, percent),
            unit: "ms",
            baseline: "a bare commit of the same bytes",
            baseline_value: percentile(commits, percent),
            bar,
        };
        Ok(vec![
            row(50.0, Bar::None, &mut whole, &mut commits),
            row(95.0, Bar::RatioAtMost(2.5), &mut whole, &mut commits),
            row(95.0, Bar::Below(10.0), &mut whole, &mut commits),
        ])
    })
}

pub(super) fn measure_rate(options: Options) -> Outcome<Vec<Row>> {
    let (strategies, ticks): (u64, u64) = (options.size(1000, 100), options.size(10, 2));
    let dir = scratch()?;
    runtime()?.block_on(async {
        let mut bed = Bed::start(dir.path(), strategies).await?;
        bed.tick().await?;
        let (bytes, appends) = (&bed.log.bytes, &bed.log.appends);
        let before = (bytes.load(Ordering::Relaxed), appends.load(Ordering::Relaxed));
        let begin = Instant::now();
        for _ in 0..ticks {
            bed.tick().await?;
        }
        let took = begin.elapsed();
        let wrote = bed.log.bytes.load(Ordering::Relaxed) - before.0;
        let appended = bed.log.appends.load(Ordering::Relaxed) - before.1;
        bed.finish((ticks + 1) * strategies).await?;
        let payload = noise(usize::try_from(wrote / appended)?);
        let mut bare = BareFile::create(&dir.path().join("bare"), payload.len() as u64 * appended)?;
        let begin = Instant::now();
        for _ in 0..appended {
            bare.commit(&payload)?;
        }
        let bare_took = begin.elapsed();
        Ok(vec![Row {
            what: format!("cycles of {strategies} strategies, 8 no-op stages each"),
            value: per_second(ticks * strategies, took),
            unit: "cycles/s",
            baseline: "the same bytes in as many bare commits",
            baseline_value: per_second(ticks * strategies, bare_took),
            bar: Bar::AtLeast(2000.0),
        }])
    })
}
