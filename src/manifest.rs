//! The manifest: what wrote the logs is recorded whenever it changes, so that a mix is known and never silent.

use std::collections::BTreeMap;

use orchestrator_kernel::cadence::Cadence;
use orchestrator_kernel::contracts::manifest::{Change, ChangeKind, Manifest, ManifestRecord, NO_TIME_ZONES};
use orchestrator_kernel::ids::{EngineMode, Seq, TsMs};
use orchestrator_kernel::ports::engine::EngineIdentity;
use orchestrator_kernel::ports::log::{
    AcquireError, AppendError, Log, ReadError, ReadLimit, RecordBatch, read_one,
};

use crate::config::{ClockMode, Config, SymbolsConfig};
use crate::service::VERSION;

/// Why the service does not start on these logs.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Going on would mix two configurations in logs that promise equal runs.
    #[error(
        "these logs were recorded with other settings or another engine: {}; go on with what they were recorded with, use \
         another service.data_dir, or accept the mix with --accept-changes",
        lines(changes)
    )]
    Mixed {
        /// What is different.
        changes: Vec<Change>,
    },
    /// The log of manifests cannot be taken over.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// Its last record cannot be read.
    #[error("cannot read the manifest of the logs")]
    Read(#[from] ReadError),
    /// The new manifest cannot be recorded.
    #[error("cannot record the manifest of this start")]
    Append(#[from] AppendError),
}

fn lines(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What outputs depend on under `config`, with this engine.
#[must_use]
pub fn of(config: &Config, engine: EngineIdentity) -> Manifest {
    Manifest {
        binary_version: VERSION.to_owned(),
        settings: settings(config),
        engine,
        tz_database: NO_TIME_ZONES.to_owned(),
    }
}

/// The settings that decide what is run and what comes out. Speed, addresses and limits of memory are not among them.
fn settings(config: &Config) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut set = |path: &str, value: String| {
        settings.insert(path.to_owned(), value);
    };
    let clock = match config.clock.mode {
        ClockMode::Wall => "wall",
        ClockMode::Recorded => "recorded",
    };
    set("clock.mode", clock.to_owned());
    match config.schedule.cadence {
        Cadence::Boundary { interval_ms, delay_ms } => {
            set("schedule.mode", "boundary".to_owned());
            set("schedule.interval", format!("{interval_ms}ms"));
            set("schedule.delay", format!("{delay_ms}ms"));
        }
        Cadence::Timer { interval_ms, align_ms } => {
            set("schedule.mode", "timer".to_owned());
            set("schedule.interval", format!("{interval_ms}ms"));
            set("schedule.align", format!("{align_ms}ms"));
        }
    }
    set("schedule.catch_up_max", config.schedule.catch_up_max.to_string());
    match &config.symbols {
        SymbolsConfig::List(list) => {
            let names: Vec<&str> = list.iter().map(|symbol| symbol.as_str()).collect();
            set("symbols.list", names.join(","));
        }
        SymbolsConfig::Discover { limit } => set("symbols.limit", limit.to_string()),
    }
    set("engine.mode", config.engine.mode.as_str().to_owned());
    set("engine.retry.max_attempts", config.engine.retry.max_attempts.to_string());
    if config.engine.mode == EngineMode::Hysteresis {
        let hysteresis = &config.engine.hysteresis;
        set("engine.hysteresis.min_persistence_updates", hysteresis.min_persistence_updates.to_string());
        set("engine.hysteresis.min_confidence_for_flip", hysteresis.min_confidence_for_flip.to_string());
        set("engine.hysteresis.decay_factor", hysteresis.decay_factor.to_string());
        set("engine.hysteresis.min_confidence_floor", hysteresis.min_confidence_floor.to_string());
        set("engine.hysteresis.update_interval_ms", hysteresis.update_interval_ms.to_string());
    }
    settings
}

/// What a start records, and how strictly.
pub struct Start {
    /// What holds from now on.
    pub manifest: Manifest,
    /// Time of the start.
    pub at_ms: TsMs,
    /// The last receipt and the last run record before it.
    pub tails: (Seq, Seq),
    /// Refuse changed decisions rather than report them: for logs that promise equal runs.
    pub strict: bool,
}

/// Compares `start` with what wrote the logs so far, and records it when it is different. Returns the changes.
///
/// # Errors
///
/// [`ManifestError`]; nothing was recorded then.
pub async fn record(log: &dyn Log, mut start: Start) -> Result<Vec<Change>, ManifestError> {
    let acquired = log.acquire().await?;
    let before = last(log).await?;
    if let Some(before) = &before
        && start.manifest.engine == EngineIdentity::default()
    {
        // One that has not said who it is may be the same: what is known stays known.
        start.manifest.engine = before.manifest.engine.clone();
    }
    let changes = before.as_ref().map(|before| before.manifest.changes(&start.manifest)).unwrap_or_default();
    let decided = changes.iter().any(|change| change.kind == ChangeKind::Decision);
    let (receipts, runs) = start.tails;
    // A start after which nothing was written has decided nothing.
    let binds =
        |before: &ManifestRecord| (before.receipts_tail, before.runs_tail) != (receipts.into(), runs.into());
    if start.strict && decided && before.as_ref().is_some_and(binds) {
        return Err(ManifestError::Mixed { changes });
    }
    if before.is_none_or(|before| before.manifest != start.manifest) {
        let (receipts_tail, runs_tail) = start.tails;
        let record = ManifestRecord {
            at_ms: start.at_ms,
            receipts_tail: receipts_tail.into(),
            runs_tail: runs_tail.into(),
            manifest: start.manifest,
        };
        let mut batch = RecordBatch::starting_at(acquired.tail.next());
        batch.push_with(|bytes| record.encode_to(bytes));
        log.append(acquired.epoch, &batch).await?;
    }
    Ok(changes)
}

async fn last(log: &dyn Log) -> Result<Option<ManifestRecord>, ReadError> {
    match log.stat().tail {
        Seq(0) => Ok(None),
        tail => read_one(log, tail).await?.map(|bytes| decode(tail, &bytes)).transpose(),
    }
}

fn decode(at: Seq, bytes: &[u8]) -> Result<ManifestRecord, ReadError> {
    ManifestRecord::decode(bytes).map_err(|error| ReadError::Corrupt { at, detail: error.to_string() })
}

/// Every manifest of the logs, oldest first.
///
/// # Errors
///
/// [`ReadError`].
pub async fn all(log: &dyn Log) -> Result<Vec<ManifestRecord>, ReadError> {
    let mut all = Vec::new();
    let mut next = Seq(1);
    loop {
        let batch = log.read(next, ReadLimit::default()).await?;
        if batch.is_empty() {
            return Ok(all);
        }
        for (at, bytes) in batch.iter() {
            all.push(decode(at, bytes)?);
        }
        next = batch.last().next();
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ports::log_memory::MemoryLog;

    use super::*;
    use crate::config::FlagSetting;
    use crate::config::Layers;

    fn config(settings: &[(&str, &str)]) -> Config {
        let flags = settings.iter().map(|(path, value)| FlagSetting {
            flag: "--set".to_owned(),
            path: (*path).to_owned(),
            value: (*value).to_owned(),
        });
        Config::load(&Layers { flags: flags.collect(), ..Layers::default() }).unwrap().config
    }

    fn start(settings: &[(&str, &str)], tail: u64, strict: bool) -> Start {
        let engine = EngineIdentity { name: "demo".to_owned(), ..EngineIdentity::default() };
        Start {
            manifest: of(&config(settings), engine),
            at_ms: TsMs(1),
            tails: (Seq(tail), Seq(tail)),
            strict,
        }
    }

    #[tokio::test]
    async fn only_what_is_different_is_recorded_and_each_change_is_told() {
        let log = MemoryLog::default();

        let first = record(&log, start(&[], 0, false)).await.unwrap();
        let same = record(&log, start(&[("http.listen", "127.0.0.1:1")], 5, false)).await.unwrap();
        let changed = record(&log, start(&[("schedule.interval", "2s")], 9, false)).await.unwrap();

        assert_eq!((first, same), (Vec::new(), Vec::new()));
        assert_eq!(changed[0].to_string(), r#"schedule.interval was "180000ms", is "2000ms""#);
        let recorded = all(&log).await.unwrap();
        let tails: Vec<u64> = recorded.iter().map(|record| record.receipts_tail.0).collect();
        assert_eq!(tails, [0, 9]);
    }

    #[tokio::test]
    async fn a_changed_decision_is_refused_where_runs_promise_to_be_equal() {
        let log = MemoryLog::default();
        record(&log, start(&[], 0, true)).await.unwrap();

        let refused = record(&log, start(&[("engine.mode", "hysteresis")], 5, true)).await.unwrap_err();

        assert!(refused.to_string().contains(r#"engine.mode was "truth", is "hysteresis""#), "{refused}");
        assert_eq!(all(&log).await.unwrap().len(), 1, "nothing was recorded");
        record(&log, start(&[], 7, true)).await.unwrap();
    }

    #[tokio::test]
    async fn a_start_that_wrote_nothing_binds_nobody_and_a_silent_engine_hides_no_change() {
        let log = MemoryLog::default();
        record(&log, start(&[], 3, true)).await.unwrap();

        record(&log, start(&[("schedule.interval", "2s")], 3, true)).await.unwrap();
        let mut silent = start(&[("schedule.interval", "2s")], 4, true);
        silent.manifest.engine = EngineIdentity::default();
        record(&log, silent).await.unwrap();
        let mut other = start(&[("schedule.interval", "2s")], 5, true);
        other.manifest.engine.name = "other".to_owned();
        let refused = record(&log, other).await.unwrap_err();

        assert!(refused.to_string().contains(r#"engine.name was "demo", is "other""#), "{refused}");
    }

    /// A log without a manifest is one that an older version wrote.
    #[tokio::test]
    async fn logs_without_a_manifest_get_one() {
        let log = MemoryLog::default();

        let changes = record(&log, start(&[], 1000, true)).await.unwrap();

        assert_eq!(changes, []);
        assert_eq!(all(&log).await.unwrap()[0].receipts_tail.0, 1000);
    }
}
