//! What an engine says is compared; where it says nothing, nobody can tell.

use std::fs;

use orchestrator::adapters::files::log::{EmbeddedLog, EmbeddedLogOptions};
use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{Log, RecordBatch};

use super::check_said;
use super::made_up::{MadeUp, Said};
use crate::capture::HttpEngine;
use crate::support::{forget_high_water, records};

/// The made-up market through the fault engine, which had no fault then. Its faults are no part of its identity.
fn recorded() -> MadeUp {
    MadeUp::record(
        r#"
        [engine]
        kind = "process"
        mode = "truth"
        [engine.process]
        command = ["python3", "engines/examples/fault_engine.py"]
        workers = 2
        start_deadline = "60s"
        restart_wait_max = "60s"
        [engine.process.respawn]
        min = "10ms"
        max = "50ms"
        "#,
    )
}

fn with_faults(made: &MadeUp, command: &[&str], faults: &str, more: &[&str]) -> Said {
    let faults = format!("engine.process.env.ORCHESTRATOR_FAULTS={faults}");
    made.orchestrator(command, &[&["--set", &faults], more].concat())
}

/// Method: the engine of the record dies, is out of memory, or speaks out of turn, in all its calls or in those of one
/// symbol, between runs that are answered.
#[test]
fn an_engine_that_does_not_answer_is_no_difference_and_its_run_is_named() {
    let made = recorded();
    let memory = ["--set", "engine.process.memory_max_bytes=256MiB"];
    check_said(&with_faults(&made, &["verify"], "", &[]), 0, &["equal ("]);

    for (faults, more, why) in [
        ("--exit-symbol *", &[][..], "the engine exited with status 3"),
        ("--exit-symbol BBB", &[], "the engine exited with status 3"),
        ("--torn-symbol BBB", &[], "the engine exited with status 3"),
        ("--memory-abort-symbol BBB", &memory, "the engine was killed by signal 6"),
        ("--garbage-symbol BBB", &[], "the engine wrote something that is no answer"),
        ("--wrong-id-symbol BBB", &[], "the engine wrote answer 999999999 to request"),
    ] {
        let said = with_faults(&made, &["verify"], faults, more);
        check_said(&said, 2, &["cannot tell (", "the engine gives no answer to run record", ", run ", why]);
        assert!(!said.stdout.contains("difference"), "{faults}: {said:?}");
        assert!(faults.contains('*') || said.stdout.contains(" of BBB: "), "{faults}: {said:?}");
    }

    let from = made.data.to_str().unwrap();
    let compared = with_faults(&made, &["diff", from, "--engine"], "--exit-symbol BBB", &[]);
    assert_eq!(compared.code, 2, "{compared:?}");
    assert!(compared.stderr.contains("the engine gives no answer to run record"), "{compared:?}");
    let replayed = with_faults(&made, &["replay"], "--exit-symbol BBB", &[]);
    let honest = fs::read_to_string(made.outputs()).unwrap();
    assert_eq!(replayed.code, 69, "{replayed:?}");
    assert!(honest.starts_with(&replayed.stdout), "nothing is written behind the run that is missing");
}

/// Method: two deaths at first, then answers.
#[test]
fn an_engine_that_answers_when_it_is_asked_again_is_equal() {
    let made = recorded();
    let counter = made.data.with_file_name("calls");

    let faults = format!("--exit-first 2 --counter-file {}", counter.display());
    let said = with_faults(&made, &["verify"], &faults, &[]);

    check_said(&said, 0, &["equal ("]);
    assert!(2 < fs::metadata(counter).unwrap().len());
}

#[test]
fn an_error_that_the_engine_says_itself_is_different() {
    let made = recorded();

    for (faults, kind) in [
        ("--fail-symbol BBB", "(engine_failure: BBB fails as asked)"),
        ("--snapshot-fail-symbol BBB", "(snapshot_build_failure: BBB has no snapshot, as asked)"),
        ("--nan-symbol BBB", "(engine_failure: "),
    ] {
        let said = with_faults(&made, &["verify"], faults, &[]);
        let sentence = format!("status was recorded as completed, but the engine now gives failed {kind}");
        check_said(&said, 1, &["different in ", "first difference (answers): run record", &sentence]);
    }

    let from = made.data.to_str().unwrap();
    let compared =
        with_faults(&made, &["diff", from, "--engine", "--json"], "--snapshot-fail-symbol BBB", &[]);
    assert_eq!(compared.code, 1, "{compared:?}");
    assert!(compared.stdout.contains("\"(snapshot_build_failure)\""), "{compared:?}");
}

/// Writes the run log again; the ends of its first two runs count one attempt more.
async fn forge_attempts(made: &MadeUp) {
    let dir = made.data.join("runs");
    let payloads = records(&dir).await;
    fs::remove_dir_all(&dir).unwrap();
    forget_high_water(&made.data);
    let log = EmbeddedLog::open(&dir, EmbeddedLogOptions::new("runs")).unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    let mut batch = RecordBatch::starting_at(Seq(1));
    for (payload, at) in payloads.iter().zip(1..) {
        let mut record = RunRecord::decode(payload).unwrap();
        if let (4 | 5, RunStatus::Completed { attempts, .. }) = (at, &mut record.status) {
            *attempts += 1;
        }
        batch.push_with(|out| record.encode_to(out));
    }
    log.append(epoch, &batch).await.unwrap();
}

/// Method: no engine is needed to see what is wrong with the run that it does not answer, and with the one behind it.
#[tokio::test]
async fn what_the_logs_contradict_stands_though_the_engine_does_not_answer() {
    let made = recorded();
    forge_attempts(&made).await;

    let said = with_faults(&made, &["verify"], "--exit-symbol *", &[]);

    let attempts = "attempts was recorded as 2, but must be 1";
    check_said(&said, 1, &["different in 2 places", "run record 4, run ", "run record 5, run ", attempts]);
    check_said(&said, 1, &["the engine gives no answer to run record 4"]);
}

#[test]
fn an_engine_behind_http_that_refuses_the_token_is_no_difference() {
    let made = MadeUp::record(
        "[engine]\nkind = \"process\"\nmode = \"truth\"\n[engine.process]\nstart_deadline = \"60s\"\n\
         command = [\"python3\", \"engines/standin_engine.py\"]",
    );
    let engine = HttpEngine::start(Some("the-right-one"));
    let url = format!("engine.http.url={}", engine.url);
    let with_token = |token: &str| {
        let token = format!("engine.http.token={token}");
        made.verify(&["--set", "engine.kind=http", "--set", &url, "--set", &token])
    };

    check_said(&with_token("the-right-one"), 0, &["equal ("]);
    let refused = with_token("canary");

    let why = "the engine answered with status 401 Unauthorized";
    check_said(&refused, 2, &["cannot tell (", "the engine gives no answer to run record", why]);
    assert!(!format!("{refused:?}").contains("canary"), "{refused:?}");
}
