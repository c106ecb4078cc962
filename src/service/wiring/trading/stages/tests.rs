//! Providers as configured against a real plane: what comes too late, what is no answer, and gates that deny, hang or
//! widen. Each over HTTP and in a worker process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use orchestrator_kernel::ports::stage::StageBackend;
use orchestrator_kernel::ports::stage_conformance::sample_request;
use orchestrator_kernel::trading::cycle::{CycleErrorCode, CycleStatus};
use orchestrator_kernel::trading::journal::{
    CycleEnded, JournalFact, OrderIntended, StageErrorKind, StageOutcome, StageOutput,
};
use orchestrator_trading_plane::command::{CommandAnswer, TradingCommand};
use orchestrator_trading_plane::plane::TradingPlane;
use orchestrator_trading_plane::testkit::{
    PlaneRig, TestStages, origin, pipeline_name, start_agent, strategy_name, trading_settings,
};
use rust_decimal::Decimal;
use tokio::net::TcpListener;

use super::*;
use crate::config::{Config, ConfigBase, Layers};

/// Answers as the file `answer` says; `hang`, `die` and `huge` are words of ours.
const WORKER: &str = r#"
import json, os, sys, time

def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()

say(json.dumps({"protocol": 1, "engine": {"name": "t", "version": "1", "code_hash": "c"}}))
for line in sys.stdin:
    id = json.loads(line)["id"]
    with open("answer") as file: answer = file.read()
    if answer == "hang": time.sleep(1000)
    if answer == "die": os._exit(3)
    if answer == "huge": answer = '{"ok":true,"data":"' + "x" * (100 << 20) + '"}'
    say(answer.replace("{", '{"id":%d,' % id, 1))
"#;

/// Answers a POST as the file `answer` says.
async fn serve(State(dir): State<PathBuf>, _question: Bytes) -> Response {
    let answer = std::fs::read_to_string(dir.join("answer")).unwrap();
    match answer.as_str() {
        "hang" => std::future::pending().await,
        // A body that breaks off.
        "die" => {
            let broken =
                futures_util::stream::iter([Ok(Bytes::from("{")), Err(std::io::Error::other("dead"))]);
            axum::body::Body::from_stream(broken).into_response()
        }
        "huge" => format!(r#"{{"ok":true,"data":"{}"}}"#, "x".repeat(100 << 20)).into_response(),
        _ => ([(axum::http::header::CONTENT_TYPE, "application/json")], answer).into_response(),
    }
}

/// A provider that answers what its folder says, over HTTP or in a worker.
struct TestProvider {
    dir: tempfile::TempDir,
    /// Its section of the configuration.
    section: String,
}

const KINDS: [StageProvider; 2] = [StageProvider::Http, StageProvider::Worker];

impl TestProvider {
    async fn start(kind: StageProvider) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let dir = tempfile::tempdir().unwrap();
        let section = if kind == StageProvider::Http {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let state = dir.path().to_owned();
            let app = axum::Router::new().fallback(serve).with_state(state);
            tokio::spawn(async move { axum::serve(listener, app).await });
            format!(
                "kind = \"http\"\nurl = \"{url}\"\noutput_bytes_max = \"100KiB\"\nconnect_timeout = \"1m\"\n"
            )
        } else {
            std::fs::write(dir.path().join("worker.py"), WORKER).unwrap();
            let (command, place) = ("[\"python3\", \"worker.py\"]", dir.path().display());
            format!(
                "kind = \"worker\"\ncommand = {command}\nworkers = 1\nworking_dir = \"{place}\"\n\
                 output_bytes_max = \"100KiB\"\nstart_deadline = \"1m\"\nrestart_wait_max = \"1m\"\n\
                 memory_max_bytes = \"0B\"\nrespawn.min = \"1ms\"\n"
            )
        };
        let provider = Self { dir, section };
        provider.answer(r#"{"ok":true}"#);
        provider
    }

    /// Lets it answer so from now on. Replaced whole, so that no half of it is read.
    fn answer(&self, answer: &str) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, answer).unwrap();
        std::fs::rename(new, self.dir.path().join("answer")).unwrap();
    }
}

/// Budgets that no busy machine exceeds, and this much more.
fn config_of(more: &str) -> TradingConfig {
    let stages =
        ["ING", "FEAT", "SIG", "RISK", "EXEC", "PORT", "ANA", "GOV"].map(|stage| format!("{stage} = \"5m\""));
    let text = format!(
        "[trading]\nenabled = true\ncycle_budget = \"30m\"\nstage_budgets = {{{}}}\n{more}",
        stages.join(", ")
    );
    let layers =
        Layers { base: ConfigBase::None, environment: Vec::<(OsString, OsString)>::new(), flags: Vec::new() };
    Config::load_text(&text, "test.toml", &layers)
        .unwrap_or_else(|error| panic!("{text}\n{error}"))
        .config
        .trading
}

/// A plane with the configured pipelines and backends; what is built in does as the rig's stages are told.
struct Planes {
    rig: PlaneRig,
    plane: TradingPlane,
    workers: StageWorkers,
    cycles: u32,
}

impl Planes {
    async fn start(config: &TradingConfig) -> Self {
        let mut settings = trading_settings();
        settings.schedules.clear();
        for (name, pipeline) in &config.pipelines {
            let ageless = orchestrator_kernel::trading::pipeline::Pipeline {
                stale_after: None,
                ..pipeline.pipeline.clone()
            };
            settings.pipelines.insert(name.clone(), ageless);
        }
        let mut rig = PlaneRig::new(settings);
        let built_in = Arc::clone(&rig.stages) as Arc<dyn StageBackend>;
        let StageBackends { stages, hooks, workers } = open_backends(config, (built_in, None), None).unwrap();
        rig.backends = Some((stages, hooks));
        let plane = rig.start().await;
        start_agent(plane.handle(), "start").await.unwrap();
        Self { rig, plane, workers, cycles: 0 }
    }

    /// Runs one cycle of strategy `a` to its end.
    async fn run_cycle(&mut self) -> CycleEnded {
        self.cycles += 1;
        let command = TradingCommand::RunCycle {
            pipeline: pipeline_name("canonical"),
            strategies: vec![strategy_name("a")],
            trigger_event: None,
        };
        let handle = self.plane.handle();
        let begun = handle.execute_command(command, origin(&format!("run {}", self.cycles))).await;
        let Ok(CommandAnswer::CycleBegun { cycle_id }) = begun else { panic!("{begun:?}") };
        let ended = tokio::time::timeout(Duration::from_secs(300), handle.wait_for_cycle(cycle_id)).await;
        ended.expect("the cycle ends").expect("it is shown").state.ended().expect("its end").clone()
    }

    /// What the last cycle's stage of this name ended with.
    async fn last_outcome(&self, stage: &str) -> Option<StageOutcome> {
        let facts = self.rig.facts(|fact| matches!(fact, JournalFact::StageEnded(_))).await;
        facts.into_iter().rev().find_map(|fact| match fact {
            JournalFact::StageEnded(ended) if ended.name.as_str() == stage => Some(ended.outcome),
            _ => None,
        })
    }

    async fn last_intent(&self) -> Option<OrderIntended> {
        let facts = self.rig.facts(|fact| matches!(fact, JournalFact::OrderIntended(_))).await;
        facts.into_iter().rev().find_map(|fact| match fact {
            JournalFact::OrderIntended(intent) => Some(*intent),
            _ => None,
        })
    }

    async fn end(self) {
        self.plane.kill().await;
        self.workers.shut_down_workers().await;
        self.rig.audited().await;
    }
}

/// FEAT is this provider's, once, within `budget`.
fn config_of_features(provider: &TestProvider, budget: &str) -> TradingConfig {
    config_of(&format!(
        "[trading.providers.p]\n{}[trading.pipelines.canonical.stage.FEAT]\nprovider = \"p\"\nbudget = \"{budget}\"\n\
         attempts_max = 1\n",
        provider.section
    ))
}

/// T8: a stage whose provider answers too late, dies, writes garbage or 100 MB; the next cycle finds it in order again.
#[tokio::test]
async fn a_provider_that_is_late_dies_or_writes_no_answer_fails_its_cycle_and_no_other() {
    use StageErrorKind::{Garbage, Provider, Timeout, TooLarge, Unavailable};
    for kind in KINDS {
        let provider = TestProvider::start(kind).await;
        let mut planes = Planes::start(&config_of_features(&provider, "5m")).await;
        let good = r#"{"ok":true,"data":{"moves":{}}}"#;
        for (answer, expected) in [
            ("die", Unavailable),
            ("{garbage", Garbage),
            (r#"{"data":{}}"#, Garbage),
            ("huge", TooLarge),
            (r#"{"ok":false,"error_detail":"no model"}"#, Provider),
            (r#"{"ok":true,"decisions":[{}]}"#, Garbage),
        ] {
            provider.answer(answer);
            let ended = planes.run_cycle().await;

            assert_eq!((ended.status, ended.counts.intents), (CycleStatus::Failed, 0), "{kind:?} {answer}");
            assert_eq!(ended.errors[0].code, CycleErrorCode::StageFailed);
            let Some(StageOutcome::Failed(error)) = planes.last_outcome("FEAT").await else {
                panic!("{answer}")
            };
            assert_eq!(error.kind, expected, "{kind:?} {answer}: {error}");

            provider.answer(good);
            let ended = planes.run_cycle().await;
            assert_eq!((ended.status, ended.counts.intents), (CycleStatus::Ok, 1), "{kind:?} after {answer}");
        }
        let done = StageOutput { data: r#"{"moves":{}}"#.to_owned(), ..StageOutput::default() };
        assert_eq!(planes.last_outcome("FEAT").await, Some(StageOutcome::Done(done)));
        planes.end().await;

        let mut planes = Planes::start(&config_of_features(&provider, "200ms")).await;
        provider.answer("hang");
        let ended = planes.run_cycle().await;
        assert_eq!((ended.status, ended.counts.intents), (CycleStatus::Failed, 0), "{kind:?}");
        assert_eq!(ended.errors[0].code, CycleErrorCode::Timeout);
        let Some(StageOutcome::Failed(error)) = planes.last_outcome("FEAT").await else { panic!("{kind:?}") };
        assert_eq!(error.kind, Timeout);
        assert_eq!(planes.rig.stages.count_calls("SIG/a"), 0, "nothing of it counts");
        planes.end().await;
    }
}

/// Before RISK this provider is asked, with this weight.
fn config_of_hook(provider: &TestProvider, mode: &str, budget: &str) -> TradingConfig {
    config_of(&format!(
        "[trading.providers.p]\n{}[trading.pipelines.canonical.hook.compliance]\nstage = \"RISK\"\nmode = \"{mode}\"\n\
         provider = \"p\"\nbudget = \"{budget}\"\n",
        provider.section
    ))
}

fn modifying(patch: &str) -> String {
    format!(r#"{{"ok":true,"decision":"modify","reasons":["house rule"],"patch":[{patch}]}}"#)
}

/// T12: a HARD gate that hangs, denies, widens by its patch, or says what cannot be understood, denies each time.
#[tokio::test]
async fn a_hard_gate_that_hangs_denies_widens_or_breaks_blocks_its_cycle() {
    let denies = r#"{"ok":true,"decision":"deny","reasons":["not today"]}"#.to_owned();
    let cases = [
        (denies, "E_HOOK_DENIED: not today"),
        (modifying(r#"{"decisionId":"d-a","quantity":"11"}"#), "the patch of d-a does not narrow"),
        (modifying(r#"{"decisionId":"d-a","quantity":"-1"}"#), "the patch of d-a does not narrow"),
        (modifying(r#"{"decisionId":"stranger","drop":true}"#), "the patch of stranger does not narrow"),
        (modifying(r#"{"decisionId":"d-a","quantity":"5","side":"SELL"}"#), "E_HOOK_FAILED"),
        (r#"{"ok":true}"#.to_owned(), "E_HOOK_FAILED"),
        (r#"{"ok":true,"decision":"maybe"}"#.to_owned(), "E_HOOK_FAILED"),
        ("die".to_owned(), "E_HOOK_FAILED"),
        ("huge".to_owned(), "E_HOOK_FAILED"),
    ];
    for kind in KINDS {
        let provider = TestProvider::start(kind).await;
        let mut planes = Planes::start(&config_of_hook(&provider, "HARD", "5m")).await;
        for (answer, said) in &cases {
            provider.answer(answer);
            let ended = planes.run_cycle().await;

            assert_eq!((ended.status, ended.counts.intents), (CycleStatus::Blocked, 0), "{kind:?} {answer}");
            assert!(ended.reason.to_line().contains(said), "{kind:?} {answer}: {}", ended.reason.to_line());
        }
        assert_eq!(planes.rig.stages.count_calls("RISK"), 0);
        provider.answer(&modifying(r#"{"decisionId":"d-a","quantity":"4"}"#));
        let ended = planes.run_cycle().await;
        assert_eq!((ended.status, ended.counts.intents), (CycleStatus::Ok, 1), "{kind:?}");
        assert_eq!(planes.last_intent().await.unwrap().quantity, Decimal::from(4));
        planes.end().await;

        let mut planes = Planes::start(&config_of_hook(&provider, "HARD", "50ms")).await;
        provider.answer("hang");
        let ended = planes.run_cycle().await;
        assert_eq!((ended.status, ended.counts.intents), (CycleStatus::Blocked, 0), "{kind:?}");
        assert!(ended.reason.to_line().contains("E_HOOK_TIMEOUT"), "{}", ended.reason.to_line());
        planes.end().await;
    }
}

/// What a SOFT gate says is recorded; the cycle goes on, and a patch that widens is not applied.
#[tokio::test]
async fn a_soft_gate_is_recorded_and_stops_nothing() {
    let provider = TestProvider::start(StageProvider::Http).await;
    let mut planes = Planes::start(&config_of_hook(&provider, "SOFT", "5m")).await;
    for answer in [
        r#"{"ok":true,"decision":"deny"}"#.to_owned(),
        modifying(r#"{"decisionId":"d-a","quantity":"11"}"#),
        "die".to_owned(),
    ] {
        provider.answer(&answer);
        let ended = planes.run_cycle().await;

        assert_eq!((ended.status, ended.counts.intents), (CycleStatus::Ok, 1), "{answer}");
        assert_eq!(planes.last_intent().await.unwrap().quantity, Decimal::TEN);
    }
    planes.end().await;
}

/// Each stage is sent to its own provider, by pipeline and stage; what is not configured so any more is nobody's.
#[tokio::test]
async fn a_stage_goes_to_the_provider_that_its_pipeline_names() {
    let fixed = |name: &str| {
        format!(
            "[trading.providers.{name}]\nkind = \"fixed\"\nanswer = '{{\"data\":{{\"by\":\"{name}\"}}}}'\n"
        )
    };
    let config = config_of(&format!(
        "{}{}[trading.pipelines.canonical.stage.ING]\nprovider = \"one\"\n[trading.pipelines.mine]\nstages = [\"ING\", \"LEARN\"]\n\
         [trading.pipelines.mine.stage.ING]\nprovider = \"other\"\n[trading.pipelines.mine.stage.LEARN]\nprovider = \"one\"\n",
        fixed("one"),
        fixed("other")
    ));
    let stages = Arc::new(TestStages::default());
    let backends = open_backends(&config, (stages.clone(), None), None).unwrap();

    let ask = async |pipeline: &str, stage: &str, kind: StageProvider| {
        let mut request = sample_request(0);
        Arc::make_mut(&mut request.started).pipeline =
            config.pipelines[&pipeline_name(pipeline)].pipeline.clone();
        request.stage.name = StageName::new(stage).unwrap();
        request.stage.provider = kind;
        backends.stages.call_stage(request).await.map(|output| output.data)
    };
    assert_eq!(ask("canonical", "ING", StageProvider::Fixed).await.as_deref(), Ok(r#"{"by":"one"}"#));
    assert_eq!(ask("mine", "ING", StageProvider::Fixed).await.as_deref(), Ok(r#"{"by":"other"}"#));
    assert_eq!(ask("mine", "LEARN", StageProvider::Fixed).await.as_deref(), Ok(r#"{"by":"one"}"#));
    assert_eq!(ask("mine", "ING", StageProvider::BuiltIn).await.as_deref(), Ok("{}"));
    assert_eq!(stages.count_calls("ING"), 1);
    for (stage, kind) in
        [("ING", StageProvider::Http), ("FEAT", StageProvider::Fixed), ("ING", StageProvider::Event)]
    {
        let refused = ask("mine", stage, kind).await.unwrap_err();
        assert_eq!(refused.kind, StageErrorKind::Unavailable, "{stage} {kind:?}: {refused}");
    }
}

/// Nothing waits for a worker: the plane runs, its stage fails, and once the worker starts its cycles are good.
#[tokio::test]
async fn a_worker_that_does_not_start_fails_its_stage_until_it_does() {
    let provider = TestProvider::start(StageProvider::Worker).await;
    let worker = provider.dir.path().join("worker.py");
    std::fs::remove_file(&worker).unwrap();
    let mut planes = Planes::start(&config_of_features(&provider, "1s")).await;

    let ended = planes.run_cycle().await;
    assert_eq!((ended.status, ended.counts.intents), (CycleStatus::Failed, 0));
    std::fs::write(&worker, WORKER).unwrap();

    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while planes.run_cycle().await.status != CycleStatus::Ok {
        assert!(tokio::time::Instant::now() < deadline, "the worker does not come up");
    }
    planes.end().await;
}

/// A provider that no stage and no hook names is not started, so nothing is wrong with it.
#[tokio::test]
async fn only_providers_that_are_named_are_started() {
    let section = "[trading.providers.learner]\nkind = \"worker\"\ncommand = [\"no-such-program\"]\n";
    let off = "[trading.pipelines.canonical.stage.FEAT]\nprovider = \"learner\"\nenabled = false\n";
    let on = off.replace("enabled = false\n", "");
    for (more, needed) in [("", 0), (off, 0), (on.as_str(), 1)] {
        let config = config_of(&format!("{section}{more}"));
        let backends = open_backends(&config, (Arc::new(TestStages::default()), None), None).unwrap();
        assert_eq!((needed_ops(&config).len(), backends.workers.0.len()), (needed, needed), "{more}");
    }
}

/// The worker of the examples, in a whole cycle: it decides, judges and answers for a hook.
#[tokio::test]
async fn the_example_of_a_stage_worker_trades() {
    let engines = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines");
    let worker = engines.join("examples/stage_worker.py");
    let config = config_of(&format!(
        "[trading.providers.example]\nkind = \"worker\"\ncommand = [\"python3\", \"{}\"]\nworkers = 1\nstart_deadline = \"1m\"\n\
         env = {{PYTHONPATH = \"{}\"}}\n[trading.pipelines.canonical.stage.SIG]\nprovider = \"example\"\n\
         [trading.pipelines.canonical.stage.RISK]\nprovider = \"example\"\n[trading.pipelines.canonical.hook.compliance]\n\
         stage = \"RISK\"\nmode = \"HARD\"\nprovider = \"example\"\nbudget = \"5m\"\n",
        worker.display(),
        engines.display()
    ));
    let mut planes = Planes::start(&config).await;
    let prices = StageOutput { data: r#"{"prices":{"AAPL":"150"}}"#.to_owned(), ..StageOutput::default() };
    planes.rig.stages.always("ING", orchestrator_trading_plane::testkit::OnStage::Answer(Ok(prices)));

    let ended = planes.run_cycle().await;

    assert_eq!(
        (ended.status, ended.counts.decisions, ended.counts.intents),
        (CycleStatus::Ok, 1, 1),
        "{ended:?}"
    );
    let intent = planes.last_intent().await.unwrap();
    assert_eq!(
        (intent.symbol.as_str(), intent.quantity, intent.price),
        ("AAPL", Decimal::from(5), Decimal::from(150))
    );
    planes.end().await;
}
