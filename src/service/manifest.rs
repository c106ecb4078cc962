//! The manifest: what wrote the logs is recorded whenever it changes, so that a mix is known and never silent.

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestrator_kernel::engine::cadence::Cadence;
use orchestrator_kernel::engine::contracts::manifest::{
    ChangeKind, ManifestChange, ManifestEntry, ManifestRecord, NO_TIME_ZONES, OutputManifest,
};
use orchestrator_kernel::ids::{EngineMode, Seq, TsMs};
use orchestrator_kernel::ports::engine::EngineIdentity;
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, Log, ReadError, ReadLimit, RecordBatch, read_one,
};
use orchestrator_kernel::trading::zone::ZONE_RULES_VERSION;
use orchestrator_runtime::act_log::ActLog;

use crate::config::{ClockMode, Config, SymbolsConfig};
use crate::process::version::VERSION;

/// Reason for which the service does not start on these logs.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Going on would mix two configurations in logs that promise equal runs.
    #[error(
        "these logs were recorded with other settings or another engine: {}; go on with what they were recorded with, use \
         another service.data_dir, or accept the mix with --accept-changes",
        change_lines(changes)
    )]
    Mixed {
        /// What is different.
        changes: Vec<ManifestChange>,
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

fn change_lines(changes: &[ManifestChange]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What outputs depend on under `config`, with this engine.
#[must_use]
pub fn manifest_of(config: &Config, engine: EngineIdentity) -> OutputManifest {
    OutputManifest {
        binary_version: VERSION.to_owned(),
        settings: deciding_settings(config),
        engine,
        tz_database: if config.trading.enabled { ZONE_RULES_VERSION } else { NO_TIME_ZONES }.to_owned(),
    }
}

/// The settings that decide what is run and what comes out. Speed, addresses and limits of memory are not among them.
fn deciding_settings(config: &Config) -> BTreeMap<String, String> {
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
    if config.trading.enabled {
        settings.extend(config.trading.deciding_settings());
    }
    settings
}

/// Manifest that a start records, and the strictness of its check.
pub struct Start {
    /// What holds from now on.
    pub manifest: OutputManifest,
    /// Time of the start.
    pub at_ms: TsMs,
    /// The last receipt before it.
    pub receipts_tail: Seq,
    /// The last run record before it.
    pub runs_tail: Seq,
    /// Refuse changed decisions rather than report them: for logs that promise equal runs.
    pub strict: bool,
}

/// Compares `start` with what wrote the logs so far, and records it when it is different. Returns the changes, and
/// where operators' acts are recorded from now on.
///
/// # Errors
///
/// [`ManifestError`]; nothing was recorded then.
pub async fn record_start(
    log: Arc<dyn Log>,
    mut start: Start,
) -> Result<(Vec<ManifestChange>, ActLog), ManifestError> {
    let Acquired { epoch, mut tail } = log.acquire().await?;
    let before = last_start(log.as_ref()).await?;
    if let Some(before) = &before
        && start.manifest.engine == EngineIdentity::default()
    {
        // One that has not said who it is may be the same: what is known stays known.
        start.manifest.engine = before.manifest.engine.clone();
    }
    let changes =
        before.as_ref().map(|before| before.manifest.changes_to(&start.manifest)).unwrap_or_default();
    let decided = changes.iter().any(|change| change.kind == ChangeKind::Decision);
    // A start after which nothing was written has decided nothing.
    let tails = (start.receipts_tail.into(), start.runs_tail.into());
    let binds = |before: &ManifestRecord| (before.receipts_tail, before.runs_tail) != tails;
    if start.strict && decided && before.as_ref().is_some_and(binds) {
        return Err(ManifestError::Mixed { changes });
    }
    if before.is_none_or(|before| before.manifest != start.manifest) {
        let record = ManifestRecord {
            at_ms: start.at_ms,
            receipts_tail: start.receipts_tail.into(),
            runs_tail: start.runs_tail.into(),
            manifest: start.manifest,
        };
        let mut batch = RecordBatch::starting_at(tail.next());
        batch.push_with(|bytes| record.encode_to(bytes));
        log.append(epoch, &batch).await?;
        tail = batch.last_seq();
    }
    Ok((changes, ActLog::new(log, Acquired { epoch, tail })))
}

/// The last start that was recorded: operators' acts may stand behind it.
async fn last_start(log: &dyn Log) -> Result<Option<ManifestRecord>, ReadError> {
    let mut at = log.stat().tail;
    while at > Seq(0) {
        let Some(bytes) = read_one(log, at).await? else { break };
        if let ManifestEntry::Start(record) = decode_entry(at, &bytes)? {
            return Ok(Some(record));
        }
        at = Seq(at.0 - 1);
    }
    Ok(None)
}

fn decode_entry(at: Seq, bytes: &[u8]) -> Result<ManifestEntry, ReadError> {
    ManifestEntry::decode(bytes).map_err(|error| ReadError::Corrupt { at, detail: error.to_string() })
}

/// Every start that changed something, oldest first.
///
/// # Errors
///
/// [`ReadError`].
pub async fn read_starts(log: &dyn Log) -> Result<Vec<ManifestRecord>, ReadError> {
    let start = |entry| match entry {
        ManifestEntry::Start(record) => Some(record),
        ManifestEntry::Operator(_) => None,
    };
    Ok(read_entries(log).await?.into_iter().filter_map(start).collect())
}

/// Every record of the manifest log, oldest first.
///
/// # Errors
///
/// [`ReadError`].
pub async fn read_entries(log: &dyn Log) -> Result<Vec<ManifestEntry>, ReadError> {
    let mut all = Vec::new();
    let mut next = Seq(1);
    loop {
        let batch = log.read(next, ReadLimit::default()).await?;
        if batch.is_empty() {
            return Ok(all);
        }
        for (at, bytes) in batch.iter() {
            all.push(decode_entry(at, bytes)?);
        }
        next = batch.last_seq().next();
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
            manifest: manifest_of(&config(settings), engine),
            at_ms: TsMs(1),
            receipts_tail: Seq(tail),
            runs_tail: Seq(tail),
            strict,
        }
    }

    #[tokio::test]
    async fn only_what_is_different_is_recorded_and_each_change_is_told() {
        let log = Arc::new(MemoryLog::default());

        let (first, _) = record_start(Arc::clone(&log) as _, start(&[], 0, false)).await.unwrap();
        let (same, _) =
            record_start(Arc::clone(&log) as _, start(&[("http.listen", "127.0.0.1:1")], 5, false))
                .await
                .unwrap();
        let (changed, _) =
            record_start(Arc::clone(&log) as _, start(&[("schedule.interval", "2s")], 9, false))
                .await
                .unwrap();

        assert_eq!((first, same), (Vec::new(), Vec::new()));
        assert_eq!(changed[0].to_string(), r#"schedule.interval was "180000ms", is "2000ms""#);
        let recorded = read_starts(log.as_ref()).await.unwrap();
        let tails: Vec<u64> = recorded.iter().map(|record| record.receipts_tail.0).collect();
        assert_eq!(tails, [0, 9]);
    }

    #[tokio::test]
    async fn a_changed_decision_is_refused_where_runs_promise_to_be_equal() {
        let log = Arc::new(MemoryLog::default());
        record_start(Arc::clone(&log) as _, start(&[], 0, true)).await.unwrap();

        let refused = record_start(Arc::clone(&log) as _, start(&[("engine.mode", "hysteresis")], 5, true))
            .await
            .map(drop)
            .unwrap_err();

        assert!(refused.to_string().contains(r#"engine.mode was "truth", is "hysteresis""#), "{refused}");
        assert_eq!(read_starts(log.as_ref()).await.unwrap().len(), 1, "nothing was recorded");
        record_start(Arc::clone(&log) as _, start(&[], 7, true)).await.unwrap();
    }

    #[tokio::test]
    async fn a_start_that_wrote_nothing_binds_nobody_and_a_silent_engine_hides_no_change() {
        let log = Arc::new(MemoryLog::default());
        record_start(Arc::clone(&log) as _, start(&[], 3, true)).await.unwrap();

        record_start(Arc::clone(&log) as _, start(&[("schedule.interval", "2s")], 3, true)).await.unwrap();
        let mut silent = start(&[("schedule.interval", "2s")], 4, true);
        silent.manifest.engine = EngineIdentity::default();
        record_start(Arc::clone(&log) as _, silent).await.unwrap();
        let mut other = start(&[("schedule.interval", "2s")], 5, true);
        other.manifest.engine.name = "other".to_owned();
        let refused = record_start(Arc::clone(&log) as _, other).await.map(drop).unwrap_err();

        assert!(refused.to_string().contains(r#"engine.name was "demo", is "other""#), "{refused}");
    }

    /// Logs that the engine plane wrote alone are continued by it whatever is set for a plane that is off.
    #[test]
    fn only_a_trading_plane_that_is_on_stands_in_the_manifest() {
        let of = |settings: &[(&str, &str)]| manifest_of(&config(settings), EngineIdentity::default());

        let alone = of(&[]);
        let off = of(&[("trading.dry_run", "true"), ("trading.risk.capital", "5"), ("trading.mode", "live")]);
        let on = of(&[("trading.enabled", "true")]);

        assert_eq!(off, alone);
        assert!(alone.settings.keys().all(|path| !path.starts_with("trading")));
        assert_eq!(alone.tz_database, NO_TIME_ZONES);
        for path in ["trading.mode", "trading.pipelines.canonical", "trading.strategies.momentum"] {
            assert!(on.settings.contains_key(path), "{path} is not in {:?}", on.settings.keys());
        }
        assert_eq!(on.tz_database, ZONE_RULES_VERSION);
    }

    /// A log without a manifest is one that an older version wrote.
    #[tokio::test]
    async fn logs_without_a_manifest_get_one() {
        let log = Arc::new(MemoryLog::default());

        let (changes, _) = record_start(Arc::clone(&log) as _, start(&[], 1000, true)).await.unwrap();

        assert_eq!(changes, []);
        assert_eq!(read_starts(log.as_ref()).await.unwrap()[0].receipts_tail.0, 1000);
    }
}
