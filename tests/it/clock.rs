//! The wall clock is stepped under the running service, by libfaketime; monotonic time goes on as it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use orchestrator_actors::testkit::check_logs;
use tokio::task::JoinHandle;

use crate::support::stepped_clock::SteppedClock;
use crate::support::{Service, checked_receipts, eventually, records, run_records};

const SYMBOLS: [&str; 2] = ["BTCUSDT", "ETHUSDT"];
const CATCH_UP_MAX: u32 = 5;
/// How soon a clock that is behind must be said (RELIABILITY §6).
const NOTICED_MAX: Duration = Duration::from_secs(2);
/// How long it is watched that no run happens; three would be due.
const MUTE: Duration = Duration::from_secs(3);

/// A producer whose clock is that of the service: two trades every 100 ms, a snapshot of each symbol with each second.
struct Producer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Vec<u8>>>,
}

impl Producer {
    fn start(url: &str, clock: &Arc<SteppedClock>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (url, clock, stopped) = (format!("{url}/api/v1/receipts"), Arc::clone(clock), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let client = reqwest::Client::new();
            let (mut acknowledged, mut second) = (Vec::new(), 0);
            while !stopped.load(Ordering::Relaxed) {
                let now = clock.now_ms();
                let mut batch: Vec<Vec<u8>> =
                    SYMBOLS.iter().map(|symbol| receipt("TradeTick", symbol, now, "{}")).collect();
                if now.div_euclid(1000) != second {
                    second = now.div_euclid(1000);
                    let inputs = format!(
                        r#"{{"timestamp_ms":{},"market":{{"price":101.0,"vwap":100.0,"atr":2.0}}}}"#,
                        second * 1000
                    );
                    batch
                        .extend(SYMBOLS.iter().map(|symbol| receipt("SnapshotInputs", symbol, now, &inputs)));
                }
                let post = client.post(&url).header("content-type", "application/x-ndjson");
                let answer = post.body(batch.join(&b'\n')).send().await.unwrap();
                assert_eq!(answer.status(), 200, "receipts are taken whatever the clock does");
                acknowledged.extend(batch);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            acknowledged
        });
        Self { stop, task }
    }

    /// Ends it; what was answered with 200, in order.
    async fn stop(self) -> Vec<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

fn receipt(event_type: &str, symbol: &str, now: i64, normalized: &str) -> Vec<u8> {
    format!(
        r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"{event_type}","source_id":"t","symbol":"{symbol}","exchange_ts_ms":null,"recv_ts_ms":{now},"raw_payload":"","normalized":{normalized}}}"#
    )
    .into_bytes()
}

/// A service under a clock of its own, and a producer with the same.
struct Rig {
    dir: tempfile::TempDir,
    clock: Arc<SteppedClock>,
    service: Service,
    producer: Producer,
}

impl Rig {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        let text = format!(
            "[service]\ndata_dir = {:?}\n[sources.http]\nkind = \"http\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
             [schedule]\ninterval = \"1s\"\ndelay = \"400ms\"\ncatch_up_max = {CATCH_UP_MAX}\n\
             [symbols]\ndiscover = false\nlist = {SYMBOLS:?}\n[log]\nformat = \"json\"\n",
            dir.path().join("data")
        );
        std::fs::write(&config, text).unwrap();
        let clock = SteppedClock::new(dir.path());
        let service = Service::spawn(clock.command(&config), &config).await;
        let producer = Producer::start(&service.url, &clock);
        Self { dir, clock, service, producer }
    }

    async fn ticks(&self) -> f64 {
        self.service.metric("orch_schedule_ticks_total").await
    }

    async fn missed(&self) -> f64 {
        self.service.metric("orch_schedule_runs_skipped_total{reason=\"missed\"}").await
    }

    /// Waits until so many runs more have completed.
    async fn completes(&self, more: f64) {
        let completed = async || self.service.metric("orch_runs_completed_total").await;
        let enough = completed().await + more;
        eventually("runs complete", async || (enough <= completed().await).then_some(())).await;
    }

    /// Steps the clock to where it is behind the logs, and after a while to where it is not. That is said in time, and
    /// until it is over. Returns how soon.
    async fn is_behind_from_to(&self, behind: i64, right: i64) -> Duration {
        let readiness = self.service.watch_readiness().await;
        let fault = Instant::now();
        self.clock.step(behind);
        eventually("it is said", async || {
            let (status, said) = self.service.get("/readyz").await;
            (status == 503 && said.contains("clock_behind")).then_some(())
        })
        .await;
        self.stays_mute().await;
        let healed = Instant::now();
        self.catches_up(right).await;
        readiness.end().lost_once("clock_behind", fault, NOTICED_MAX, healed)
    }

    /// No tick fires while the clock is behind, and receipts are taken.
    async fn stays_mute(&self) {
        let (ticks, stored) = (self.ticks().await, self.service.metric("orch_buffer_records").await);
        tokio::time::sleep(MUTE).await;
        assert_eq!(self.ticks().await, ticks, "no tick comes twice");
        assert!(stored < self.service.metric("orch_buffer_records").await, "receipts go on");
    }

    /// Steps the clock to where the logs are no longer ahead: ready, and runs go on.
    async fn catches_up(&self, ahead: i64) {
        self.clock.step(ahead);
        eventually("it is ready", async || (self.service.get("/readyz").await.0 == 200).then_some(())).await;
        self.completes(2.0 * SYMBOLS.len() as f64).await;
    }

    /// Stops everything; then every acknowledged receipt is stored in order, time never decreases (LOG-5), no tick was
    /// run twice, cuts tile (RUN-2, RUN-3, CUT-1), and all follows from the logs (REP-1).
    async fn finish(self) {
        let acknowledged = self.producer.stop().await;
        self.service.stop().await;
        let data = self.dir.path().join("data");
        assert!(checked_receipts(&data).await == acknowledged, "byte for byte, in order");
        let runs = run_records(&data).await;
        check_logs(&records(&data.join("receipts")).await, &runs);
        let mut ticks: Vec<_> = runs
            .iter()
            .filter(|run| run.is_terminal())
            .map(|run| (run.facts.symbol.clone(), run.facts.engine_timestamp_ms))
            .collect();
        let all = ticks.len();
        ticks.sort();
        ticks.dedup();
        assert_eq!(ticks.len(), all, "no tick twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_stepped_back_an_hour_makes_no_tick_twice_and_is_said_until_it_is_right() {
    let rig = Rig::start().await;
    rig.completes(4.0).await;

    let noticed = rig.is_behind_from_to(-3600, 0).await;

    rig.finish().await;
    println!("an hour back: said after {noticed:.1?}");
}

/// Method: two hours ahead, which is taken for the truth; then right again, which is behind; then the time comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_stepped_two_hours_ahead_makes_no_burst_and_its_correction_is_said() {
    const AHEAD: i64 = 7200;
    let rig = Rig::start().await;
    rig.completes(4.0).await;

    let readiness = rig.service.watch_readiness().await;
    let (ticks, since) = (rig.ticks().await, Instant::now());
    rig.clock.step(AHEAD);
    eventually("ticks are counted as missed", async || (0.0 < rig.missed().await).then_some(())).await;
    let (burst, allowed) =
        (rig.ticks().await - ticks, f64::from(CATCH_UP_MAX) + since.elapsed().as_secs_f64() + 1.0);
    assert!(burst <= allowed, "{burst} ticks, at most {allowed} are to be made up");
    let missed = rig.missed().await / SYMBOLS.len() as f64;
    let left_out = AHEAD as f64 - f64::from(CATCH_UP_MAX);
    assert!((left_out - missed).abs() <= 2.0, "{missed} ticks are counted, {left_out} were left out");
    // Nobody can know yet that it is wrong.
    rig.completes(4.0).await;

    readiness.end().never_lost();
    let noticed = rig.is_behind_from_to(0, AHEAD + 1).await;

    rig.finish().await;
    println!("two hours ahead: {burst} ticks at once, {missed} missed; corrected: said after {noticed:.1?}");
}
