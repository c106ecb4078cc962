//! One cycle of eight no-op stages against a bare commit of the same bytes, and many of a thousand strategies.

use std::time::Instant;

use super::bare::{BareCommits, CommitShape};
use super::bed::Bed;
use super::medium::Medium;
use super::support::{Bar, Options, Outcome, Row, per_second, percentile, runtime, scratch};

pub(super) fn measure_one(options: Options) -> Outcome<Vec<Row>> {
    let cycles: u64 = options.size(2000, 100);
    let dir = scratch()?;
    runtime()?.block_on(async {
        let mut bed = Bed::start(options.medium, dir.path(), 1).await?;
        bed.tick().await?;
        let before = bed.log().appended();
        bed.tick().await?;
        let shape = CommitShape::of(bed.log().appended_since(before))?;
        let mut bare = BareCommits::create(&bed.journal.rig, dir.path(), &shape, cycles).await?;
        let (mut whole, mut commits) = (Vec::new(), Vec::new());
        let before = bed.log().appended();
        for _ in 0..cycles {
            let due = bed.tick().await?;
            whole.push(due.elapsed().as_secs_f64() * 1e3);
            commits.push(bare.commit(&shape).await?);
        }
        let waits = bed.log().appended_since(before).appends as f64 / cycles as f64;
        bed.rest().await?;
        bed.finish(cycles + 2).await?;
        let row = |percent: f64, bar: Bar, whole: &mut [f64], commits: &mut [f64]| Row {
            what: format!("a cycle of 8 no-op stages, {waits:.2} waits for the disk, p{percent}"),
            value: percentile(whole, percent),
            unit: "ms",
            baseline: bare.words(),
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
        let mut bed = Bed::start(options.medium, dir.path(), strategies).await?;
        bed.tick().await?;
        let before = bed.log().appended();
        let begin = Instant::now();
        for _ in 0..ticks {
            bed.tick().await?;
        }
        let took = begin.elapsed();
        let wrote = bed.log().appended_since(before);
        let shape = CommitShape::mean_of(wrote)?;
        let mut bare = BareCommits::create(&bed.journal.rig, dir.path(), &shape, wrote.appends).await?;
        let begin = Instant::now();
        for _ in 0..wrote.appends {
            bare.commit(&shape).await?;
        }
        let bare_took = begin.elapsed();
        bed.finish((ticks + 1) * strategies).await?;
        Ok(vec![Row {
            what: format!("cycles of {strategies} strategies, 8 no-op stages each"),
            value: per_second(ticks * strategies, took),
            unit: "cycles/s",
            baseline: "the same bytes in as many bare commits",
            baseline_value: per_second(ticks * strategies, bare_took),
            bar: match options.medium {
                Medium::Embedded => Bar::AtLeast(2000.0),
                Medium::Servers { .. } => Bar::None,
            },
        }])
    })
}
