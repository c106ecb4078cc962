//! A thousand schedules that are due at one instant: how late the last ones begin, beside as many bare timers.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::bed::Bed;
use super::support::{Bar, Options, Outcome, Row, ensure, percentile, runtime, scratch};

pub(super) fn measure(options: Options) -> Outcome<Vec<Row>> {
    let (schedules, ticks): (u64, u64) = (options.size(1000, 100), options.size(10, 2));
    let dir = scratch()?;
    runtime()?.block_on(async {
        let mut bed = Bed::start(options.medium, dir.path(), schedules).await?;
        let (mut lags, mut timers) = (Vec::new(), Vec::new());
        for _ in 0..ticks {
            let due = bed.tick().await?;
            let called =
                std::mem::take(&mut *bed.stages.first_called.lock().unwrap_or_else(PoisonError::into_inner));
            ensure(called.len() as u64 == schedules, || format!("{} of {schedules} began", called.len()))?;
            lags.extend(called.iter().map(|at| at.duration_since(due).as_secs_f64() * 1e3));
            timers.extend(bare_timers(schedules).await?);
        }
        bed.finish(ticks * schedules).await?;
        Ok(vec![Row {
            what: format!("{schedules} schedules at one instant, p95 lag to the first stage"),
            value: percentile(&mut lags, 95.0),
            unit: "ms",
            baseline: "as many timers of the runtime",
            baseline_value: percentile(&mut timers, 95.0),
            bar: Bar::Below(100.0),
        }])
    })
}

async fn bare_timers(count: u64) -> Outcome<Vec<f64>> {
    let due = Instant::now() + Duration::from_millis(20);
    let timers: Vec<_> = (0..count)
        .map(|_| {
            tokio::spawn(async move {
                tokio::time::sleep_until(due.into()).await;
                due.elapsed().as_secs_f64() * 1e3
            })
        })
        .collect();
    let mut lags = Vec::new();
    for timer in timers {
        lags.push(timer.await?);
    }
    Ok(lags)
}
