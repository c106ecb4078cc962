//! A service put together by the real wiring, with an experiment's source in place of the configured one.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use orchestrator::adapters::files::DataDir;
use orchestrator::config::{ClockMode, Config, SymbolsConfig};
use orchestrator::process::version::BUILD;
use orchestrator::service::wiring;
use orchestrator::service::wiring::trading::TradingParts;
use orchestrator::telemetry::metrics::Metrics;
use orchestrator_actors::tree::{Ports, Settings, StopOutcome, Tree};
use orchestrator_kernel::engine::cadence::Cadence;
use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{Seq, TsMs};
use orchestrator_kernel::input_time::InputTimes;
use orchestrator_kernel::ports::engine::{Engine, EngineAnswer, EngineCall, EngineError, EngineIdentity};
use orchestrator_kernel::ports::fan_out::{FanOut, OutputMessage, PublishError};
use orchestrator_kernel::ports::log::{Log, ReadLimit};
use orchestrator_kernel::ports::observer::{Observation, Observer};

use super::feed::Feed;
use super::support::{Outcome, ensure, until};

/// A running tree and the logs below it.
pub(crate) struct Bed {
    pub(crate) tree: Tree,
    pub(crate) receipts: Arc<dyn Log>,
    pub(crate) runs: Arc<dyn Log>,
    pub(crate) counts: Arc<Counts>,
    /// Where it is on, ready to be joined with the tree.
    #[allow(dead_code, reason = "the trading plane's bars start it")]
    pub(crate) trading: Option<TradingParts>,
    _data_dir: Arc<DataDir>,
}

impl Bed {
    /// Starts the service in `config.service.data_dir`; `change` may replace any port or setting before.
    pub(crate) async fn start(
        mut config: Config,
        feed: Option<&Feed>,
        change: impl FnOnce(&mut Ports, &mut Settings) -> Outcome<()>,
    ) -> Outcome<Self> {
        config.sources.clear();
        let mut counts = None;
        let wired = wiring::wire_service(&config, wiring::StartOptions::default(), |clock| {
            let metrics = Metrics::new(Arc::clone(clock), TsMs(wall_us() / 1000), BUILD);
            let made = Arc::new(Counts { metrics, flushes: AtomicU64::new(0), completed: AtomicU64::new(0) });
            counts = Some(Arc::clone(&made));
            made as Arc<dyn Observer>
        })
        .await?;
        let (mut ports, mut settings) = (wired.ports, wired.settings);
        // Made-up recordings begin at 0.
        settings.engine_plane.ingest.input_times = InputTimes::ANY;
        ports.sources.extend(feed.map(|feed| Arc::new(feed.clone()) as _));
        change(&mut ports, &mut settings)?;
        let (receipts, runs) = (Arc::clone(&ports.receipts), Arc::clone(&ports.runs));
        let tree = Tree::start(ports, &settings).await?;
        let counts = counts.ok_or("the wiring made no observer")?;
        let trading = wired.trading;
        Ok(Self { tree, receipts, runs, counts, trading, _data_dir: wired.data_dir })
    }

    /// Waits until every source has ended and every output is confirmed.
    pub(crate) async fn finished(&self, patience: Duration) -> Outcome<()> {
        tokio::time::timeout(patience, self.tree.sources_ended()).await?;
        until("all outputs are confirmed", patience, || self.tree.flow.waiting_outputs() == 0).await
    }

    /// Stops in order, and waits until the logs are closed, so that they can be opened again.
    pub(crate) async fn stop(self) -> Outcome<()> {
        let Self { tree, receipts, runs, .. } = self;
        let stopped = tree.stop(Duration::from_secs(30)).await;
        ensure(stopped == StopOutcome::Clean, || format!("the stop was not clean: {stopped:?}"))?;
        released(receipts, runs).await
    }

    /// Ends as a crash would, and waits until the logs are closed.
    pub(crate) async fn kill(self) -> Outcome<()> {
        let Self { tree, receipts, runs, .. } = self;
        tree.kill().await;
        released(receipts, runs).await
    }
}

async fn released(receipts: Arc<dyn Log>, runs: Arc<dyn Log>) -> Outcome<()> {
    until("the logs are closed", Duration::from_secs(10), || {
        Arc::strong_count(&receipts) == 1 && Arc::strong_count(&runs) == 1
    })
    .await
}

/// The defaults, with a data directory, a schedule and a clock; symbols as they come.
pub(crate) fn config(dir: &Path, cadence: Cadence, clock: ClockMode) -> Config {
    let mut config = Config::default();
    config.service.data_dir = dir.to_owned();
    config.schedule.cadence = cadence;
    config.symbols = SymbolsConfig::Discover { limit: 10_000 };
    config.clock.mode = clock;
    config
}

/// Counts what the experiments divide by, beside the metrics that the service keeps anyway.
pub(crate) struct Counts {
    metrics: Metrics,
    flushes: AtomicU64,
    completed: AtomicU64,
}

impl Counts {
    /// Group commits of the receipt log.
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Runs whose completion is durable.
    pub(crate) fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }
}

impl Observer for Counts {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::ReceiptsFlushed { .. } = observation {
            self.flushes.fetch_add(1, Ordering::Relaxed);
        }
        if let Observation::RunEnded { error: None, .. } = observation {
            self.completed.fetch_add(1, Ordering::Relaxed);
        }
        self.metrics.observe(observation);
    }
}

/// An engine that costs nothing: where engine time is excluded, this is how.
pub(crate) struct ConstantEngine;

#[async_trait]
impl Engine for ConstantEngine {
    fn identity(&self) -> EngineIdentity {
        EngineIdentity { name: "constant".to_owned(), version: "1".to_owned(), code_hash: String::new() }
    }

    async fn call(&self, call: &EngineCall) -> Result<EngineAnswer, EngineError> {
        let regime_output = format!(
            r#"{{"confidence":0.5,"drivers":["Market price against VWAP","Flow CVD slope"],"invalidations":[],"permissions":["CHOP_BALANCED"],"regime":"CHOP_BALANCED","symbol":"{}","timestamp":{}}}"#,
            call.symbol, call.engine_timestamp_ms
        );
        Ok(EngineAnswer::Truth { regime_output })
    }
}

/// Messages that were confirmed together.
pub(crate) struct Confirmed {
    pub(crate) at: Instant,
    /// The same by the wall clock, in microseconds.
    pub(crate) wall_us: i64,
    pub(crate) messages: Vec<OutputMessage>,
}

/// The configured fan-out, and a note of when it confirmed what.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<Confirmed>>>);

impl Recorder {
    /// Puts itself before the one configured fan-out.
    pub(crate) fn watch(&self, ports: &Ports) -> Outcome<()> {
        let mut fan_outs = ports.fan_outs.try_lock()?;
        let inner = fan_outs.pop().ok_or("no fan-out is configured")?;
        fan_outs.push(Box::new(Watched { inner, recorder: self.clone() }));
        Ok(())
    }

    /// What was confirmed since the last call.
    pub(crate) fn take(&self) -> Vec<Confirmed> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Watched {
    inner: Box<dyn FanOut>,
    recorder: Recorder,
}

#[async_trait]
impl FanOut for Watched {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn publish(&mut self, messages: &[OutputMessage]) -> Result<(), PublishError> {
        self.inner.publish(messages).await?;
        let confirmed = Confirmed { at: Instant::now(), wall_us: wall_us(), messages: messages.to_vec() };
        self.recorder.0.lock().unwrap_or_else(PoisonError::into_inner).push(confirmed);
        Ok(())
    }
}

/// The wall clock in microseconds.
pub(crate) fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Shows every record of `log`, and fails unless they are 1, 2, 3 … to the tail.
pub(crate) async fn each_record(
    log: &dyn Log,
    mut take: impl FnMut(Seq, &[u8]) -> Outcome<()>,
) -> Outcome<()> {
    let tail = log.stat().tail;
    let mut next = Seq(1);
    while next <= tail {
        let batch = log.read(next, ReadLimit::default()).await?;
        ensure(!batch.is_empty(), || format!("nothing at {next} of {tail}"))?;
        for (seq, payload) in batch.iter() {
            ensure(seq == next, || format!("{seq} where {next} belongs"))?;
            take(seq, payload)?;
            next = seq.next();
        }
    }
    Ok(())
}

/// Reads the whole receipt log: every number and every position of the feed once, in order. Returns how many.
pub(crate) async fn check_receipts(log: &dyn Log) -> Outcome<u64> {
    let mut count = 0;
    each_record(log, |seq, payload| {
        let record = ReceiptRecord::decode(payload)?;
        count += 1;
        ensure(record.ingest_seq.0 == seq.0 && record.position == count, || {
            format!("receipt {seq} says {} and position {}", record.ingest_seq, record.position)
        })
    })
    .await?;
    Ok(count)
}

/// Reads the whole run log; fails unless every run has completed, the cuts of a symbol tile the log and its outputs
/// are numbered without gap. Returns how many runs completed.
pub(crate) async fn check_runs(log: &dyn Log) -> Outcome<u64> {
    let mut lanes = std::collections::BTreeMap::new();
    let mut completed = 0;
    each_record(log, |_, payload| {
        let RunRecord { facts, status } = RunRecord::decode(payload)?;
        match status {
            RunStatus::Started { .. } => return Ok(()),
            RunStatus::Completed { .. } => completed += 1,
            RunStatus::Failed { error_kind, error_detail, .. } => {
                return Err(format!("run {} failed: {error_kind} {error_detail}", facts.run_id).into());
            }
        }
        let lane: &mut (u64, u64) = lanes.entry(facts.symbol.clone()).or_insert((facts.cut.start.0, 1));
        ensure(*lane == (facts.cut.start.0, facts.symbol_seq), || {
            format!("run {} of {} does not follow its predecessor", facts.run_id, facts.symbol)
        })?;
        *lane = (facts.cut.end.0 + 1, facts.symbol_seq + 2);
        Ok(())
    })
    .await?;
    Ok(completed)
}
