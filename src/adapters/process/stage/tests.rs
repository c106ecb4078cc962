//! The pool with real processes: small Python workers that do what the stage's or hook's name says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::engine::engine_protocol::NeededOp;
use orchestrator_kernel::ports::stage::{HookBackend, HookRequest, StageBackend, StageRequest};
use orchestrator_kernel::ports::stage_conformance::{
    HookBackendProvider, StageBackendProvider, run, run_for_hooks, sample_question, sample_request,
};
use orchestrator_kernel::trading::gate::{HookAnswer, HookError};
use orchestrator_kernel::trading::ids::StageName;
use orchestrator_kernel::trading::journal::{StageError, StageErrorKind, StageOutput};
use orchestrator_kernel::trading::stage_protocol::{HOOK_OP, STAGE_OP};

use super::super::options::{WorkerPoolOptions, WorkerStartError};
use super::ProcessStages;

const PATIENCE: Duration = Duration::from_secs(60);

/// Data of a good answer is the worker's process and what it was asked.
const WORKER: &str = r#"
import json, os, sys, time

def say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()

say({"protocol": 1, "engine": {"name": "test", "version": "1", "code_hash": "c"}, "ops": ["stage", "hook"]})
for line in sys.stdin:
    request = json.loads(line)
    do = request.get("stage") or request.get("hook")
    answer = {"id": request["id"], "ok": True}
    if do == "ING": answer["data"] = {"echo": 1}
    if do == "FEAT": answer = {"id": request["id"], "ok": False, "error_detail": "no features"}
    if do == "allows": answer["decision"] = "allow"
    if do == "denies": answer.update(decision="deny", reasons=["not today"])
    if do == "narrows": answer.update(decision="modify", reasons=["too large"],
        patch=[{"decisionId": "d-1", "quantity": "2.5"}, {"decisionId": "d-2", "drop": True}])
    if do == "breaks": answer["ok"] = False
    if do == "pid": answer["data"] = {"pid": os.getpid(), "request": request}
    if do == "nap": time.sleep(0.5)
    while do == "waits" and not os.path.exists("go"): time.sleep(0.005)
    if do == "hang": time.sleep(1000)
    if do == "die": os._exit(3)
    if do == "garbage": print("debug: hello", flush=True); continue
    if do == "no_ok": del answer["ok"]
    if do == "wrong_id": answer["id"] += 1
    if do == "huge": answer["data"] = "x" * (100 << 20)
    if do == "bad_decision": answer["decisions"] = [{}]
    say(answer)
"#;

/// A pool, and the folder that its worker is in.
struct Pool {
    stages: ProcessStages,
    dir: tempfile::TempDir,
}

#[async_trait]
impl StageBackend for Pool {
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
        self.stages.call_stage(request).await
    }
}

#[async_trait]
impl HookBackend for Pool {
    async fn ask_hook(&self, request: HookRequest) -> Result<HookAnswer, HookError> {
        self.stages.ask_hook(request).await
    }
}

fn options(dir: &Path) -> WorkerPoolOptions {
    let needed = |op| NeededOp { op, setting: "trading.providers.test".to_owned() };
    WorkerPoolOptions {
        name: "test".to_owned(),
        subject: "the worker",
        guard: None,
        command: vec!["python3".to_owned(), "worker.py".to_owned()],
        env: BTreeMap::new(),
        working_dir: Some(dir.to_owned()),
        workers: 1,
        start_deadline: PATIENCE,
        restart_wait_max: PATIENCE,
        memory_max_bytes: None,
        output_bytes_max: 100_000,
        ops: vec![needed(STAGE_OP), needed(HOOK_OP)],
        respawn_backoff_min: Duration::from_millis(1),
        respawn_backoff_max: Duration::from_millis(50),
        shutdown_grace: Duration::from_secs(5),
    }
}

fn start_with(change: impl FnOnce(&mut WorkerPoolOptions), text: &str) -> Pool {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("worker.py"), text).unwrap();
    let mut options = options(dir.path());
    change(&mut options);
    Pool { stages: ProcessStages::start(options).unwrap(), dir }
}

fn start() -> Pool {
    start_with(|_| {}, WORKER)
}

fn request_of(stage: &str) -> StageRequest {
    let mut request = sample_request(0);
    request.stage.name = StageName::new(stage).unwrap();
    StageRequest { time_left: PATIENCE, ..request }
}

async fn pid_of_worker(pool: &Pool) -> i64 {
    let output = pool.call_stage(request_of("pid")).await.unwrap();
    serde_json::from_str::<serde_json::Value>(&output.data).unwrap()["pid"].as_i64().unwrap()
}

struct InWorkers;

#[async_trait]
impl StageBackendProvider for InWorkers {
    async fn fresh(&self) -> Arc<dyn StageBackend> {
        Arc::new(start())
    }
}

#[async_trait]
impl HookBackendProvider for InWorkers {
    async fn fresh(&self) -> Arc<dyn HookBackend> {
        Arc::new(start())
    }
}

#[tokio::test]
async fn stages_and_hooks_in_workers_keep_the_promises() {
    run(&InWorkers).await;
    run_for_hooks(&InWorkers).await;
}

/// T8: nothing of what it wrote counts, and the next question goes to a worker that is in step.
#[tokio::test]
async fn a_worker_that_dies_or_writes_no_answer_fails_its_stage_and_is_replaced() {
    use StageErrorKind::{Garbage, TooLarge, Unavailable};
    let pool = start();
    for (stage, kind, detail) in [
        ("die", Unavailable, "the worker exited with status 3"),
        ("garbage", Garbage, "the worker wrote something that is no answer"),
        ("no_ok", Garbage, "the worker wrote something that is no answer (ok is missing)"),
        ("wrong_id", Garbage, "the worker wrote answer"),
        ("huge", TooLarge, "the worker wrote a line of more than 100000 bytes"),
    ] {
        let before = pid_of_worker(&pool).await;

        let error = pool.call_stage(request_of(stage)).await.unwrap_err();

        assert_eq!(error.kind, kind, "{stage}: {error}");
        assert!(error.detail.starts_with(detail), "{stage}: {error}");
        assert_ne!(pid_of_worker(&pool).await, before, "{stage}");
        assert!(!Path::new(&format!("/proc/{before}")).exists(), "{stage}");
        assert!(matches!(pool.ask_hook(sample_question(stage)).await, Err(HookError::Failed(_))), "{stage}");
    }
}

/// T8, T12: whoever does not answer at all is gone, and the next question goes to another.
#[tokio::test]
async fn a_worker_that_is_late_is_replaced() {
    let pool = start();
    let before = pid_of_worker(&pool).await;

    let late = StageRequest { time_left: Duration::from_millis(200), ..request_of("hang") };
    let error = pool.call_stage(late).await.unwrap_err();

    assert_eq!(error, StageError::new(StageErrorKind::Timeout, "the worker gave no answer within 200ms"));
    let after = pid_of_worker(&pool).await;
    assert_ne!(after, before);
    let mut question = sample_question("hang");
    question.hook.budget = Duration::from_millis(50);
    assert_eq!(pool.ask_hook(question).await, Err(HookError::TimedOut));
    assert_ne!(pid_of_worker(&pool).await, after);
}

/// T8, T12: a late answer counts for nothing, and does not end a worker that is well. Method: the worker answers when
/// its caller has been told that it did not.
#[tokio::test]
async fn a_worker_that_answers_late_stays_and_what_it_said_meets_no_other_question() {
    let pool = start();
    let before = pid_of_worker(&pool).await;

    let late = StageRequest { time_left: Duration::from_secs(1), ..request_of("waits") };
    let error = pool.call_stage(late).await.unwrap_err();
    std::fs::write(pool.dir.path().join("go"), "").unwrap();

    assert_eq!(error, StageError::new(StageErrorKind::Timeout, "the worker gave no answer within 1s"));
    let answer = pool.call_stage(request_of("ING")).await.unwrap();
    assert_eq!(answer.data, r#"{"echo":1}"#, "its own answer");
    assert_eq!(pid_of_worker(&pool).await, before, "nobody was ended");
}

/// Method: a question waits behind a slow one for longer than it has; it would end the worker.
#[tokio::test]
async fn a_question_whose_time_is_over_before_its_turn_is_never_written() {
    let pool = start();
    let before = pid_of_worker(&pool).await;
    let overdue = StageRequest { time_left: Duration::from_millis(20), ..request_of("die") };

    let (slow, overdue) = tokio::join!(pool.call_stage(request_of("nap")), pool.call_stage(overdue));

    assert!(slow.is_ok(), "{slow:?}");
    assert_eq!(overdue.unwrap_err().kind, StageErrorKind::Timeout);
    assert_eq!(pid_of_worker(&pool).await, before);
}

/// An answer that is one and cannot be taken is no reason to end whoever gave it.
#[tokio::test]
async fn an_answer_that_cannot_be_taken_leaves_its_worker_alone() {
    let pool = start();
    let before = pid_of_worker(&pool).await;

    let garbage = pool.call_stage(request_of("bad_decision")).await.unwrap_err();
    let failed = pool.call_stage(request_of("FEAT")).await.unwrap_err();

    assert_eq!((garbage.kind, failed.kind), (StageErrorKind::Garbage, StageErrorKind::Provider));
    assert_eq!(pid_of_worker(&pool).await, before);
}

/// Method: the first worker does not offer hooks; then its file is another one's. Nobody restarts anything.
#[tokio::test]
async fn a_worker_that_does_not_start_is_unavailable_and_is_tried_again() {
    let without_hooks = WORKER.replace(r#"["stage", "hook"]"#, r#"["stage"]"#);
    let wait_max = |options: &mut WorkerPoolOptions| options.restart_wait_max = Duration::from_millis(200);
    let pool = start_with(wait_max, &without_hooks);

    let refused = pool.call_stage(request_of("ING")).await.unwrap_err();
    assert_eq!(refused.kind, StageErrorKind::Unavailable, "{refused}");
    assert!(matches!(pool.ask_hook(sample_question("allows")).await, Err(HookError::Failed(_))));
    let overdue = StageRequest { time_left: Duration::from_millis(20), ..request_of("ING") };
    assert_eq!(pool.call_stage(overdue).await.unwrap_err().kind, StageErrorKind::Timeout);

    std::fs::write(pool.dir.path().join("worker.py"), WORKER).unwrap();
    let mended = async { while pool.call_stage(request_of("ING")).await.is_err() {} };
    assert!(tokio::time::timeout(PATIENCE, mended).await.is_ok(), "the worker does not come up");
}

#[tokio::test]
async fn workers_of_no_command_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = ProcessStages::start(WorkerPoolOptions { command: Vec::new(), ..options(dir.path()) });
    assert!(matches!(refused, Err(WorkerStartError::Options { .. })));
}

#[tokio::test]
async fn after_the_shutdown_nobody_is_left_and_nothing_is_taken() {
    let pool = start();
    let pid = pid_of_worker(&pool).await;

    pool.stages.shut_down_workers().await;

    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    let refused = pool.call_stage(request_of("ING")).await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.detail.as_str()),
        (StageErrorKind::Unavailable, "the workers of test are shutting down")
    );
}
