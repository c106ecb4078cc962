//! A service that trades, as a stranger sets it up, asks it over HTTP, and looks at what it left behind.

#![allow(dead_code, reason = "two test binaries share this file, and each uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::process::{Service, eventually, orchestrator};
use super::stepped_clock::SteppedClock;

/// A strategy that a stage of others decides for, on a market that never closes.
pub(crate) const STRATEGY: &str = "[trading.strategies.mine]\nkind = \"mine\"\nsymbols = [\"AAPL\"]\n\
                                   status = \"active\"\n";

/// Where a service that trades keeps everything, and how it is configured.
pub(crate) struct TradingPlace {
    dir: tempfile::TempDir,
    /// Its configuration.
    pub(crate) config: PathBuf,
    /// The wall clock that it sees; nothing: the true one.
    clock: Option<Arc<SteppedClock>>,
}

impl TradingPlace {
    /// A place with these sections beside those that every test has; its kill switch is a file that says trading.
    pub(crate) fn new(trading: &str) -> Self {
        let place = Self::unswitched("", trading);
        place.switch(&["init", "--operator", "ops"]);
        place
    }

    /// As [`new`](Self::new), under a clock that shows this moment.
    pub(crate) fn at(moment_ms: i64, trading: &str) -> (Self, Arc<SteppedClock>) {
        let mut place = Self::new(trading);
        let clock = SteppedClock::new(place.dir.path());
        clock.jump_to(moment_ms);
        place.clock = Some(Arc::clone(&clock));
        (place, clock)
    }

    /// A place with these sections of the service; nobody has said that trading is allowed. Budgets, and the lease of
    /// the kill switch unless `service` has one, are those that a busy machine does not exceed.
    pub(crate) fn unswitched(service: &str, trading: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("service.toml");
        let budgets = ["ING", "FEAT", "SIG", "RISK", "EXEC", "PORT", "ANA", "GOV"]
            .map(|stage| format!("{stage} = \"1m\""))
            .join(", ");
        let lease = match service.contains("[kill_switch]") {
            true => "",
            false => "[kill_switch]\nread_timeout = \"5s\"\nlease = \"30s\"\n",
        };
        let text = format!(
            "[service]\ndata_dir = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n\
             [sources.http]\nkind = \"http\"\n{service}\n{lease}[trading]\nenabled = true\ncalendar = \"24-7\"\n\
             cycle_budget = \"10m\"\nstage_budgets = {{{budgets}}}\n{trading}",
            dir.path().join("data")
        );
        std::fs::write(&config, text).unwrap();
        Self { dir, config, clock: None }
    }

    /// Puts another text in the place of a part of the configuration.
    pub(crate) fn reconfigure(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{from:?} is not in {text}");
        std::fs::write(&self.config, text.replace(from, to)).unwrap();
    }

    /// A file or folder of its own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the service keeps its logs.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Runs a command of the kill switch.
    pub(crate) fn switch(&self, words: &[&str]) {
        self.run(&[&["kill-switch"], words].concat(), 0);
    }

    /// Runs a command with the place's configuration, which has to end with `code`. What it printed.
    pub(crate) fn run(&self, words: &[&str], code: i32) -> String {
        let output = orchestrator(&[words, &["--config", self.config.to_str().unwrap()]].concat());
        let [out, err] = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
        assert_eq!(output.status.code(), Some(code), "{words:?}\n{out}\n{err}");
        out
    }

    /// Starts the service, and waits until its trading plane runs.
    pub(crate) async fn start(&self) -> TradingService {
        let service = match &self.clock {
            Some(clock) => Service::spawn(clock.command(&self.config), &self.config).await,
            None => Service::start(&self.config, &[]).await,
        };
        let service = TradingService { service, client: reqwest::Client::new() };
        eventually("the trading plane runs", async || {
            (service.service.get("/api/v1/agent/status").await.0 == 200).then_some(())
        })
        .await;
        service
    }

    /// Starts the service and its agent.
    pub(crate) async fn start_trading(&self) -> TradingService {
        let service = self.start().await;
        service.done("agent/start", &json!({})).await;
        service
    }

    /// Every record of the stopped service's journal, audited before: the chain and every rule hold.
    pub(crate) fn journal(&self) -> Journal {
        let verified = self.run(&["verify"], 0);
        assert!(verified.contains("journal: records 1 to "), "{verified}");
        self.exported()
    }

    /// As [`journal`](Self::journal), without the audit.
    pub(crate) fn exported(&self) -> Journal {
        let to = tempfile::tempdir_in(self.dir.path()).unwrap();
        let to = to.path().join("export");
        self.run(&["export", "--to", to.to_str().unwrap()], 0);
        let text = std::fs::read_to_string(to.join("journal.jsonl")).unwrap();
        Journal(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// What `inspect cycle` tells a person.
    pub(crate) fn inspect(&self, cycle: &str) -> String {
        self.run(&["inspect", "cycle", cycle], 0)
    }
}

/// A service that trades.
pub(crate) struct TradingService {
    pub(crate) service: Service,
    client: reqwest::Client,
}

impl TradingService {
    /// Sends a command; its status and body.
    pub(crate) async fn post(&self, path: &str, body: &Value, key: Option<&str>) -> (u16, Value) {
        let answer = send(&self.client, &self.service.url, path, body, key).await;
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Sends a command that has to be done; its answer.
    pub(crate) async fn done(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body, None).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Sends a command and does not wait for its answer, which may never come.
    pub(crate) fn post_unheard(&self, path: &str, body: &Value, key: &str) {
        let (client, url) = (self.client.clone(), self.service.url.clone());
        let (path, body, key) = (path.to_owned(), body.clone(), key.to_owned());
        tokio::spawn(async move { drop(send(&client, &url, &path, &body, Some(&key)).await) });
    }

    /// Runs a cycle to its end. Its result.
    pub(crate) async fn run_cycle(&self, pipeline: &str) -> Value {
        self.done("cycles", &json!({ "pipeline": pipeline })).await
    }

    /// A page.
    pub(crate) async fn page(&self, path: &str) -> Value {
        let (status, body) = self.service.get(&format!("/api/v1/{path}")).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The last cycles of a pipeline, newest first.
    pub(crate) async fn cycles(&self, pipeline: &str) -> Vec<Value> {
        let page = self.page("cycles?limit=1000").await;
        let cycles = page["cycles"].as_array().unwrap();
        cycles.iter().filter(|cycle| cycle["type"] == pipeline).cloned().collect()
    }

    /// Waits until so many cycles of a pipeline have ended, and returns all of them, oldest first.
    pub(crate) async fn ended_cycles(&self, pipeline: &str, at_least: usize) -> Vec<Value> {
        let what = format!("{at_least} cycles of {pipeline} end");
        eventually(&what, async || {
            let mut cycles = self.cycles(pipeline).await;
            cycles.reverse();
            let ended = cycles.iter().filter(|cycle| !cycle["completedAt"].is_null()).count();
            (at_least <= ended).then_some(cycles)
        })
        .await
    }

    /// The agent's status, as it is shown.
    pub(crate) async fn agent(&self) -> Value {
        self.page("agent/status").await
    }

    pub(crate) async fn metric(&self, series: &str) -> f64 {
        self.service.metric(series).await
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(self) {
        self.service.kill();
    }

    /// Asks it to stop, and expects a clean end.
    pub(crate) async fn stop(self) {
        self.service.stop_unverified().await;
    }
}

async fn send(
    client: &reqwest::Client,
    url: &str,
    path: &str,
    body: &Value,
    key: Option<&str>,
) -> reqwest::Result<(u16, Value)> {
    let request = client.post(format!("{url}/api/v1/{path}"));
    let request = request.header("content-type", "application/json").header("orchestrator-operator", "ops");
    let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
    let answer = request.body(body.to_string()).send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

/// The records of a journal, as they are exported.
pub(crate) struct Journal(pub(crate) Vec<Value>);

impl Journal {
    /// What the records of this kind say, in order.
    pub(crate) fn facts(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|record| record["kind"] == kind).map(|record| &record["fact"]).collect()
    }

    /// The facts of one cycle.
    pub(crate) fn of_cycle(&self, kind: &str, cycle: &str) -> Vec<&Value> {
        self.facts(kind).into_iter().filter(|fact| fact["cycle_id"] == cycle).collect()
    }

    /// Fires of a schedule that were skipped for this reason.
    pub(crate) fn skipped(&self, schedule: &str, reason: &str) -> u64 {
        let skipped = self.facts("schedule_skipped").into_iter();
        let of_reason = skipped.filter(|fact| fact["schedule"] == schedule && fact["reason"] == reason);
        of_reason.map(|fact| fact["fires"].as_u64().unwrap()).sum()
    }

    /// Milliseconds that the fires of a schedule were planned for that led to a cycle.
    pub(crate) fn fired(&self, schedule: &str) -> Vec<i64> {
        let fired = self.facts("schedule_fired").into_iter().filter(|fact| fact["schedule"] == schedule);
        fired.map(|fact| fact["planned_ts_ms"].as_i64().unwrap()).collect()
    }

    /// Checks what holds whatever happened: each cycle begins once and ends once, each decision of a cycle has at most
    /// one intent, and the fires of each schedule are numbered without gap.
    pub(crate) fn check_accounts(&self) {
        let mut intents = std::collections::BTreeSet::new();
        for intent in self.facts("order_intended") {
            let of = (intent["cycle_id"].to_string(), intent["decision_id"].to_string());
            assert!(intents.insert(of), "an intent twice: {intent}");
        }
        for kind in ["cycle_started", "cycle_ended"] {
            let mut seen = std::collections::BTreeSet::new();
            for fact in self.facts(kind) {
                assert!(seen.insert(fact["cycle_id"].to_string()), "{kind} twice: {fact}");
            }
        }
        let began = self.facts("cycle_started").len();
        assert_eq!(began, self.facts("cycle_ended").len(), "every cycle that began has ended");
    }
}

/// Milliseconds of a moment as RFC 3339 has it.
pub(crate) fn moment(text: &str) -> i64 {
    orchestrator_kernel::rfc3339::moment_of_people(text).unwrap().0
}

/// A file that is named in a configuration.
pub(crate) fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}
