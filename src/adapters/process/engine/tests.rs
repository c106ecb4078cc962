//! The pool with real processes: small Python workers that misbehave when the inputs tell them to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::{EngineMode, Symbol, TsMs};
use orchestrator_kernel::ports::engine::{Engine, EngineAnswer, EngineCall, EngineError};
use serde_json::Value;
use tokio::time::Instant;

use super::super::options::{WorkerPoolOptions, WorkerStartError};
use super::{EngineStartError, ProcessEngine, ProcessEngineOptions};

/// Does what `inputs.do` says. Every answer names the process.
const WORKER: &str = r#"
import json, os, signal, subprocess, sys, time

def say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()

say({"protocol": 1, "engine": {"name": "test", "version": "1", "code_hash": "c"}})
for line in sys.stdin:
    request = json.loads(line)
    inputs = request["snapshot"]["inputs"]
    do, output = inputs.get("do"), {"pid": os.getpid(), "request": request}
    if do == "hang": time.sleep(1000)
    if do == "sleep": time.sleep(inputs["seconds"])
    if do == "exit": os._exit(3)
    if do == "signal": os.kill(os.getpid(), signal.SIGSEGV)
    if do == "garbage": print("debug: hello", flush=True); continue
    if do == "wrong_id": request["id"] += 1
    if do == "oversize": output["long"] = "x" * 200_000
    if do == "endless": sys.stdout.write("x" * 200_000); sys.stdout.flush(); time.sleep(1000)
    if do == "close": os.close(1); time.sleep(1000)
    if do == "memory": bytearray(1 << 31)
    if do == "stderr": print(("noise " * 50 + "\n") * 20_000, file=sys.stderr, flush=True)
    if do == "child": output["child"] = subprocess.Popen(["sleep", "1000"]).pid
    if do == "fail": say({"id": request["id"], "ok": False, "error_kind": inputs["kind"], "error_detail": "why"}); continue
    if do == "empty": say({"id": request["id"], "ok": True}); continue
    if request["op"] == "run":
        say({"id": request["id"], "ok": True, "regime_output": output})
    else:
        say({"id": request["id"], "ok": True, "hysteresis_decision": output, "state": {"was": request["state"]}})
    if do == "unasked": print("bye", flush=True)
"#;

/// A temporary directory with the worker in it.
struct Script {
    dir: tempfile::TempDir,
}

impl Script {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("worker.py"), text).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn options(&self) -> WorkerPoolOptions {
        WorkerPoolOptions {
            name: "engine".to_owned(),
            subject: "the engine",
            guard: None,
            command: vec!["python3".to_owned(), "worker.py".to_owned()],
            env: BTreeMap::new(),
            working_dir: Some(self.dir.path().to_owned()),
            workers: 1,
            start_deadline: Duration::from_secs(20),
            restart_wait_max: Duration::from_secs(20),
            memory_max_bytes: None,
            output_bytes_max: 100_000,
            ops: Vec::new(),
            respawn_backoff_min: Duration::from_millis(1),
            respawn_backoff_max: Duration::from_millis(50),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// The engine of these workers.
fn of_workers(workers: WorkerPoolOptions) -> ProcessEngineOptions {
    let hysteresis_config = r#"{ "min": 3 }"#.to_owned();
    let (deadline, mode) = (Duration::from_secs(20), EngineMode::Truth);
    ProcessEngineOptions { workers, deadline, mode, hysteresis_config }
}

async fn start(options: WorkerPoolOptions) -> ProcessEngine {
    ProcessEngine::start(of_workers(options)).await.unwrap()
}

async fn check_call(engine: &ProcessEngine, symbol: &str, inputs: &str) -> Result<Value, EngineError> {
    let call = EngineCall {
        symbol: Symbol::from(symbol),
        engine_timestamp_ms: TsMs(180_000),
        mode: EngineMode::Truth,
        inputs: inputs.to_owned(),
        state: None,
    };
    engine.call(&call).await.map(|answer| match answer {
        EngineAnswer::Truth { regime_output } => serde_json::from_str(&regime_output).unwrap(),
        EngineAnswer::Hysteresis { .. } => panic!("{answer:?}"),
    })
}

async fn pid_of_worker(engine: &ProcessEngine, symbol: &str) -> i64 {
    check_call(engine, symbol, "{}").await.unwrap()["pid"].as_i64().unwrap()
}

/// A process that is gone, or a zombie of somebody else: an orphan waits for the system's first process.
fn is_running(pid: i64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Two symbols that go to different workers.
async fn symbols_of_two_workers(engine: &ProcessEngine) -> (String, String) {
    let first = pid_of_worker(engine, "S0").await;
    for index in 1..100 {
        let symbol = format!("S{index}");
        if pid_of_worker(engine, &symbol).await != first {
            return ("S0".to_owned(), symbol);
        }
    }
    panic!("all symbols go to one worker");
}

#[tokio::test]
async fn both_entry_points_make_the_round_trip() {
    let script = Script::new(WORKER);
    let engine = start(script.options()).await;

    let output = check_call(&engine, "A\"é", "{\n\"price\" : 1.50}").await.unwrap();
    let call = EngineCall {
        symbol: Symbol::from("BTCUSDT"),
        engine_timestamp_ms: TsMs(180_000),
        mode: EngineMode::Hysteresis,
        inputs: "{}".to_owned(),
        state: Some(r#"{"n":1}"#.to_owned()),
    };
    let EngineAnswer::Hysteresis { decision, state } = engine.call(&call).await.unwrap() else { panic!() };

    assert_eq!(output["request"]["snapshot"]["symbol"], "A\"é");
    assert_eq!(output["request"]["snapshot"]["timestamp_ms"], 180_000);
    assert_eq!(output["request"]["snapshot"]["inputs"]["price"], 1.5);
    let decision: Value = serde_json::from_str(&decision).unwrap();
    assert_eq!(decision["request"]["op"], "run_with_hysteresis");
    assert_eq!(decision["request"]["config"]["min"], 3);
    assert_eq!(state, r#"{"was":{"n":1}}"#);
    assert_eq!(engine.identity().name, "test");
}

#[tokio::test]
async fn a_symbol_stays_with_its_worker_and_all_workers_get_symbols() {
    let script = Script::new(WORKER);
    let engine = start(WorkerPoolOptions { workers: 3, ..script.options() }).await;
    let mut pids = BTreeSet::new();

    for index in 0..30 {
        let symbol = format!("S{index}");
        let pid = pid_of_worker(&engine, &symbol).await;
        assert_eq!(pid_of_worker(&engine, &symbol).await, pid);
        pids.insert(pid);
    }

    assert_eq!(pids.len(), 3);
}

/// Method: a shell that introduces itself with the names of the environment that it was started with.
#[tokio::test]
async fn workers_get_only_the_given_environment_and_the_path() {
    let script = Script::new(
        r#"
names=$(tr '\0' '\n' < /proc/$$/environ | cut -d= -f1 | sort | tr '\n' ' ')
echo '{"protocol":1,"engine":{"name":"'"$names"'","version":"1","code_hash":"c"}}'
cat > /dev/null"#,
    );
    let command = vec!["sh".to_owned(), "worker.py".to_owned()];
    let env = BTreeMap::from([("PYTHONPATH".to_owned(), "/nowhere".to_owned())]);

    let engine = start(WorkerPoolOptions { command, env, ..script.options() }).await;

    assert_eq!(engine.identity().name, "PATH PYTHONPATH ");
}

#[tokio::test]
async fn what_the_engine_says_itself_leaves_its_worker_alone() {
    let script = Script::new(WORKER);
    let engine = start(script.options()).await;
    let pid = pid_of_worker(&engine, "A").await;

    let error =
        check_call(&engine, "A", r#"{"do":"fail","kind":"snapshot_build_failure"}"#).await.unwrap_err();
    let lacking = check_call(&engine, "A", r#"{"do":"empty"}"#).await.unwrap_err();

    assert_eq!(error, EngineError::from_engine(ErrorKind::SnapshotBuildFailure, "why"));
    let detail = "the engine's answer has nothing in regime_output";
    assert_eq!(lacking, EngineError::from_engine(ErrorKind::EngineFailure, detail));
    assert_eq!(pid_of_worker(&engine, "A").await, pid);
}

#[tokio::test]
async fn a_hanging_call_times_out_and_the_other_workers_answer_meanwhile() {
    let script = Script::new(WORKER);
    let deadline = Duration::from_secs(2);
    let workers = WorkerPoolOptions { workers: 2, ..script.options() };
    let engine =
        ProcessEngine::start(ProcessEngineOptions { deadline, ..of_workers(workers) }).await.unwrap();
    let (hanging, healthy) = symbols_of_two_workers(&engine).await;
    let before = pid_of_worker(&engine, &hanging).await;
    let started = Instant::now();

    let hang = async {
        let error = check_call(&engine, &hanging, r#"{"do":"hang"}"#).await.unwrap_err();
        (error, started.elapsed())
    };
    let others = async {
        for _ in 0..20 {
            pid_of_worker(&engine, &healthy).await;
        }
        started.elapsed()
    };
    let ((error, hung), answered) = tokio::join!(hang, others);

    assert_eq!((error.kind, error.said), (ErrorKind::EngineTimeout, false));
    assert!(hung >= deadline && answered < deadline, "{hung:?} {answered:?}");
    assert_ne!(pid_of_worker(&engine, &hanging).await, before);
    assert!(!is_running(before));
}

/// Method: three calls to one worker at once; the first hangs, so the others wait longer than the deadline.
#[tokio::test]
async fn a_call_that_waited_behind_a_hanging_one_has_its_whole_deadline() {
    let script = Script::new(WORKER);
    let deadline = Duration::from_secs(1);
    let options = ProcessEngineOptions { deadline, ..of_workers(script.options()) };
    let engine = ProcessEngine::start(options).await.unwrap();
    let sleep = r#"{"do":"sleep","seconds":0.3}"#;

    let (first, second, third) = tokio::join!(
        check_call(&engine, "A", r#"{"do":"hang"}"#),
        check_call(&engine, "B", sleep),
        check_call(&engine, "C", sleep),
    );

    assert_eq!(first.unwrap_err().kind, ErrorKind::EngineTimeout);
    assert!(second.is_ok() && third.is_ok(), "{second:?} {third:?}");
}

#[tokio::test]
async fn a_broken_worker_fails_its_call_with_the_reason_and_is_replaced() {
    let script = Script::new(WORKER);
    let engine = start(script.options()).await;
    let cases = [
        ("exit", "the engine exited with status 3"),
        ("signal", "the engine was killed by signal 11"),
        ("garbage", "the engine wrote something that is no answer"),
        ("wrong_id", "the engine wrote answer"),
        ("oversize", "the engine wrote a line of more than 100000 bytes"),
        ("endless", "the engine wrote a line of more than 100000 bytes"),
        ("close", "the engine closed its stdout"),
    ];
    for (misdeed, detail) in cases {
        let before = pid_of_worker(&engine, "A").await;

        let error = check_call(&engine, "A", &format!(r#"{{"do":"{misdeed}"}}"#)).await.unwrap_err();

        assert_eq!((error.kind, error.said), (ErrorKind::EngineFailure, false), "{misdeed}");
        assert!(error.detail.starts_with(detail), "{misdeed}: {}", error.detail);
        assert_ne!(pid_of_worker(&engine, "A").await, before, "{misdeed}");
        assert!(!Path::new(&format!("/proc/{before}")).exists(), "{misdeed}");
    }
}

#[tokio::test]
async fn a_worker_that_leaves_or_speaks_between_calls_is_replaced() {
    let script = Script::new(WORKER);
    let engine = start(script.options()).await;

    let talker = check_call(&engine, "A", r#"{"do":"unasked"}"#).await.unwrap()["pid"].as_i64().unwrap();
    wait_until("the talker is ended", || !is_running(talker)).await;
    let idle = pid_of_worker(&engine, "A").await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(idle).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_until("the killed worker is reaped", || !Path::new(&format!("/proc/{idle}")).exists()).await;

    assert_ne!(pid_of_worker(&engine, "A").await, idle);
}

#[tokio::test]
async fn noise_on_stderr_blocks_nothing() {
    let script = Script::new(WORKER);
    let engine = start(script.options()).await;

    let before = check_call(&engine, "A", r#"{"do":"stderr"}"#).await.unwrap();

    assert_eq!(before["pid"].as_i64().unwrap(), pid_of_worker(&engine, "A").await);
}

#[tokio::test]
async fn memory_beyond_the_limit_is_refused_to_the_worker() {
    let script = Script::new(WORKER);
    let memory_max_bytes = Some(1 << 30);
    let engine = start(WorkerPoolOptions { memory_max_bytes, ..script.options() }).await;

    let error = check_call(&engine, "A", r#"{"do":"memory"}"#).await.unwrap_err();

    assert_eq!(error.detail, "the engine exited with status 1"); // an uncaught MemoryError
    pid_of_worker(&engine, "A").await;
}

/// Method: drop calls before they were written, while in flight, and while queued, and look for a wrong answer after
/// each.
#[tokio::test]
async fn an_abandoned_call_leaves_its_worker_in_step() {
    let script = Script::new(WORKER);
    let engine = start(script.options()).await;
    let pid = pid_of_worker(&engine, "A").await;

    for after_ms in [0, 1, 5, 50, 250] {
        let after = Duration::from_millis(after_ms);
        let slow = check_call(&engine, "A", r#"{"do":"sleep","seconds":0.1,"old":1}"#);
        let queued = check_call(&engine, "A", r#"{"old":2}"#);
        let abandoned = tokio::time::timeout(after, async { tokio::join!(slow, queued) }).await;
        assert_eq!(abandoned.is_ok(), after_ms == 250);

        let output = check_call(&engine, "A", r#"{"new":1}"#).await.unwrap();

        assert_eq!(output["request"]["snapshot"]["inputs"], serde_json::json!({"new": 1}));
        assert_eq!(output["pid"].as_i64(), Some(pid));
    }
}

/// Method: the abandoned call would end the worker.
#[tokio::test]
async fn a_call_that_was_abandoned_in_the_queue_is_never_written() {
    let script = Script::new(WORKER);
    let engine = start(script.options()).await;
    let pid = pid_of_worker(&engine, "A").await;
    let slow = check_call(&engine, "A", r#"{"do":"sleep","seconds":0.2}"#);
    let abandoned =
        tokio::time::timeout(Duration::from_millis(50), check_call(&engine, "A", r#"{"do":"exit"}"#));

    let (finished, gone) = tokio::join!(slow, abandoned);

    assert!(finished.is_ok() && gone.is_err());
    assert_eq!(pid_of_worker(&engine, "A").await, pid);
}

/// Method: without the reset the last pause would be 12.8 s, longer than a call waits.
#[tokio::test]
async fn a_good_answer_makes_the_next_restart_quick_again() {
    let script = Script::new(WORKER);
    let engine = start(WorkerPoolOptions {
        respawn_backoff_min: Duration::from_millis(50),
        respawn_backoff_max: Duration::from_secs(60),
        restart_wait_max: Duration::from_secs(5),
        ..script.options()
    })
    .await;

    for _ in 0..9 {
        check_call(&engine, "A", r#"{"do":"exit"}"#).await.unwrap_err();
        pid_of_worker(&engine, "A").await;
    }
}

#[tokio::test]
async fn shutdown_leaves_no_process_and_refuses_calls() {
    let script = Script::new(WORKER);
    let engine = start(WorkerPoolOptions { workers: 2, ..script.options() }).await;
    let (first, second) = symbols_of_two_workers(&engine).await;
    let with_child = check_call(&engine, &first, r#"{"do":"child"}"#).await.unwrap();
    let pids = [with_child["pid"].as_i64().unwrap(), pid_of_worker(&engine, &second).await];
    let child = with_child["child"].as_i64().unwrap();
    assert!(is_running(child));

    let asked = Instant::now();
    engine.shut_down_workers().await;
    engine.shut_down_workers().await;

    assert!(
        asked.elapsed() < script.options().shutdown_grace,
        "the workers leave when their stdin is closed"
    );
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
    wait_until("the worker's own child is killed", || !is_running(child)).await;
    let error = check_call(&engine, &first, "{}").await.unwrap_err();
    assert_eq!((error.kind, error.said), (ErrorKind::Shutdown, false));
}

#[tokio::test]
async fn shutdown_lets_a_call_finish_within_the_grace_and_answers_the_others() {
    let script = Script::new(WORKER);
    let engine = start(script.options()).await;
    let sleep = check_call(&engine, "A", r#"{"do":"sleep","seconds":0.3}"#);
    let queued = check_call(&engine, "A", "{}");
    let shutdown = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        engine.shut_down_workers().await;
    };

    let (finished, refused, ()) = tokio::join!(sleep, queued, shutdown);

    assert!(finished.is_ok(), "{finished:?}");
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Shutdown);
}

#[tokio::test]
async fn shutdown_kills_what_does_not_leave_within_the_grace() {
    let script = Script::new(WORKER);
    let shutdown_grace = Duration::from_millis(50);
    let engine = start(WorkerPoolOptions { shutdown_grace, ..script.options() }).await;
    let pid = pid_of_worker(&engine, "A").await;
    let shutdown = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        engine.shut_down_workers().await;
    };

    let (hanging, ()) = tokio::join!(check_call(&engine, "A", r#"{"do":"hang"}"#), shutdown);

    assert_eq!(hanging.unwrap_err().kind, ErrorKind::Shutdown);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

/// Method: the worker hangs in an abandoned call whose deadline is far away.
#[tokio::test]
async fn a_dropped_pool_leaves_no_process() {
    let script = Script::new(WORKER);
    let shutdown_grace = Duration::from_millis(50);
    let engine = start(WorkerPoolOptions { shutdown_grace, ..script.options() }).await;
    let pid = pid_of_worker(&engine, "A").await;
    let hang = check_call(&engine, "A", r#"{"do":"hang"}"#);
    tokio::time::timeout(Duration::from_millis(50), hang).await.unwrap_err();

    drop(engine);

    wait_until("the worker is reaped", || !Path::new(&format!("/proc/{pid}")).exists()).await;
}

#[test]
fn a_dropped_runtime_leaves_no_process() {
    let script = Script::new(WORKER);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let engine = runtime.block_on(start(script.options()));
    let output = runtime.block_on(check_call(&engine, "A", r#"{"do":"child"}"#)).unwrap();

    drop(runtime);

    let pid = output["pid"].as_i64().unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while is_running(output["child"].as_i64().unwrap()) {
        assert!(std::time::Instant::now() < deadline, "the worker's own child is alive");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Method: the script is removed, so that the worker cannot start again, and put back.
#[tokio::test]
async fn calls_wait_for_a_restart_up_to_their_bound() {
    let script = Script::new(WORKER);
    let restart_wait_max = Duration::from_millis(500);
    let engine = start(WorkerPoolOptions { restart_wait_max, ..script.options() }).await;
    std::fs::remove_file(script.path("worker.py")).unwrap();
    check_call(&engine, "A", r#"{"do":"exit"}"#).await.unwrap_err();
    let asked = Instant::now();

    let refused = futures_util::future::join_all((0..200).map(|_| check_call(&engine, "A", "{}"))).await;

    let waited = asked.elapsed();
    assert!(refused.iter().all(|answer| answer.as_ref().unwrap_err().kind == ErrorKind::EngineUnavailable));
    assert!(restart_wait_max <= waited && waited < restart_wait_max * 3, "{waited:?}");
    std::fs::write(script.path("worker.py"), WORKER).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while check_call(&engine, "A", "{}").await.is_err() {
        assert!(Instant::now() < deadline, "the worker does not come back");
    }
}

#[tokio::test]
async fn another_engine_behind_the_same_command_is_refused_after_a_restart() {
    let script = Script::new(WORKER);
    let restart_wait_max = Duration::from_millis(500);
    let engine = start(WorkerPoolOptions { restart_wait_max, ..script.options() }).await;
    std::fs::write(script.path("worker.py"), WORKER.replace("\"version\": \"1\"", "\"version\": \"2\""))
        .unwrap();
    check_call(&engine, "A", r#"{"do":"exit"}"#).await.unwrap_err();

    let error = check_call(&engine, "A", "{}").await.unwrap_err();

    assert_eq!(error.kind, ErrorKind::EngineUnavailable);
    assert_eq!(engine.identity().version, "1");
}

async fn start_error(options: WorkerPoolOptions) -> WorkerStartError {
    match ProcessEngine::start(of_workers(options)).await {
        Err(EngineStartError::Workers(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the pool started"),
    }
}

/// Method: the version is the name of a file that only one of the workers can create.
#[tokio::test]
async fn workers_that_differ_are_refused() {
    let differing = WORKER.replace(
        "import json, os,",
        "import os\ntry: os.mkdir('first'); V = '1'\nexcept OSError: V = '2'\nimport json, os,",
    );
    let script = Script::new(&differing.replace("\"version\": \"1\"", "\"version\": V"));

    let error = start_error(WorkerPoolOptions { workers: 3, ..script.options() }).await;

    assert!(matches!(error, WorkerStartError::Identity { .. }), "{error}");
}

#[tokio::test]
async fn a_command_that_cannot_run_says_what_to_do() {
    let script = Script::new(WORKER);
    let command = vec!["no-such-engine".to_owned(), "--fast".to_owned()];

    let error = start_error(WorkerPoolOptions { command, ..script.options() }).await;

    assert!(matches!(error, WorkerStartError::Spawn { .. }));
    assert_eq!(
        error.to_string(),
        "cannot start worker command `no-such-engine --fast`: check that the program is installed, is in PATH and may be executed"
    );
}

#[tokio::test]
async fn a_worker_without_a_proper_hello_is_refused_with_its_stderr() {
    let cases = [
        ("import sys; sys.exit('no config')", "exited with status 1 instead", "stderr lines: no config"),
        ("print('hello')", "wrote a first line that is no hello", "(none)"),
        ("import time; time.sleep(1000)", "wrote no line for 2s", "(none)"),
        (
            "print('{\"protocol\":2,\"engine\":{\"name\":\"\",\"version\":\"\",\"code_hash\":\"\"}}')",
            "speaks protocol 2",
            "",
        ),
    ];
    for (text, problem, stderr) in cases {
        let script = Script::new(text);
        let start_deadline = Duration::from_secs(2);

        let error = start_error(WorkerPoolOptions { start_deadline, ..script.options() }).await.to_string();

        assert!(error.contains(problem) && error.contains(stderr), "{error}");
    }
}

#[tokio::test]
async fn options_out_of_their_range_are_refused() {
    let script = Script::new(WORKER);
    let good = script.options();
    let cases = [
        WorkerPoolOptions { command: Vec::new(), ..good.clone() },
        WorkerPoolOptions { workers: 0, ..good.clone() },
        WorkerPoolOptions { start_deadline: Duration::ZERO, ..good.clone() },
        WorkerPoolOptions { output_bytes_max: 0, ..good.clone() },
        WorkerPoolOptions { respawn_backoff_max: Duration::ZERO, ..good.clone() },
    ];
    for options in cases {
        assert!(matches!(start_error(options).await, WorkerStartError::Options { .. }));
    }
    let options = ProcessEngineOptions { deadline: Duration::ZERO, ..of_workers(good.clone()) };
    assert!(ProcessEngine::start(options).await.is_err());
    for text in ["{", "[]"] {
        let options = ProcessEngineOptions { hysteresis_config: text.to_owned(), ..of_workers(good.clone()) };
        let refused = ProcessEngine::start(options).await.err().unwrap();
        assert!(refused.to_string().contains("hysteresis_config must be a JSON object"), "{refused}");
    }
}
