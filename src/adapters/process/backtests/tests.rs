//! Jobs with a shell script in the program's place.

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// A runner whose program is this script.
fn runner(dir: &Path, script: &str) -> ProcessBacktestsOptions {
    let program = dir.join("program.sh");
    // Written by another process: one that we wrote could be busy in a child that another test just forks.
    let written = std::process::Command::new("sh")
        .args(["-c", "printf '%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\""])
        .arg(&program)
        .arg(format!("#!/bin/sh\n{script}"))
        .status();
    assert!(written.unwrap().success());
    let captures = dir.join("captures");
    fs::create_dir_all(&captures).unwrap();
    fs::write(captures.join("day.jsonl"), "").unwrap();
    ProcessBacktestsOptions {
        program,
        guard: None,
        config_args: vec!["--config".to_owned(), "my.toml".to_owned()],
        captures,
        jobs: dir.join("jobs"),
        queue_max: 2,
        kept_max: 3,
        time_max: PATIENCE,
    }
}

fn request() -> BacktestRequest {
    BacktestRequest::parse(r#"{"capture": "day.jsonl", "set": {"trading.risk.capital": "5"}}"#).unwrap()
}

async fn ended(runner: &ProcessBacktests, id: CommandId) -> BacktestJob {
    let wait = async {
        loop {
            match runner.find_job(id).filter(BacktestJob::is_over) {
                Some(job) => return job,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(PATIENCE, wait).await.expect("the job does not end")
}

/// Method: a program that writes its arguments down and makes a report.
#[tokio::test]
async fn a_job_is_a_backtest_with_our_configuration_in_a_directory_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        "echo \"$@\"; mkdir -p $9; echo '{\"trading\": {\"started\": 7}}' > $9/report.json; echo last line";
    let out_is_ninth = script.replace("$9", "\"$OUT\"");
    let script = format!("for a; do test \"$p\" = --out && OUT=\"$a\"; p=\"$a\"; done; {out_is_ninth}");
    let options = runner(dir.path(), &script);
    let runner = ProcessBacktests::start(options.clone());
    let id = CommandId::derive("a");

    runner.check_request(&request()).unwrap();
    runner.begin_job(id, request());
    runner.begin_job(id, request());
    let job = ended(&runner, id).await;

    assert_eq!(
        (job.state, job.exit, job.detail.as_str()),
        (BacktestJobState::Completed, Some(0), "last line")
    );
    assert_eq!(job.cycles, Some(serde_json::json!({"started": 7})));
    assert_eq!(runner.list_jobs().len(), 1, "the same job is one");
    let said = fs::read_to_string(options.jobs.join(id.to_string()).join("said.txt")).unwrap();
    for part in ["backtest --trading", "--config my.toml --set trading.risk.capital=5", "captures/day.jsonl"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let none = BacktestRequest { capture: "other".to_owned(), ..request() };
    assert_eq!(runner.check_request(&none), Err(BacktestRefused::NoCapture("other".to_owned())));
}

#[tokio::test]
async fn one_runs_at_a_time_a_bounded_number_waits_and_the_oldest_results_go() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        runner(dir.path(), &format!("while ! test -e {}/go; do sleep 0.02; done", dir.path().display()));
    let runner = ProcessBacktests::start(options.clone());
    let ids: Vec<CommandId> = ["a", "b", "c", "d"].map(CommandId::derive).into();
    runner.begin_job(ids[0], request());
    let runs = async {
        while runner.find_job(ids[0]).is_none_or(|job| job.state != BacktestJobState::Running) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, runs).await.expect("the first does not run");

    runner.begin_job(ids[1], request());
    runner.begin_job(ids[2], request());

    assert_eq!(runner.check_request(&request()), Err(BacktestRefused::QueueFull { waiting: 2 }));
    assert_eq!(runner.find_job(ids[2]).unwrap().state, BacktestJobState::Queued);
    fs::write(dir.path().join("go"), "").unwrap();
    ended(&runner, ids[2]).await;
    runner.begin_job(ids[3], request());
    ended(&runner, ids[3]).await;
    let forgotten = async {
        while options.jobs.join(ids[0].to_string()).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, forgotten).await.expect("the oldest stays");
    assert_eq!(runner.list_jobs().iter().map(|job| job.id).collect::<Vec<_>>(), [ids[3], ids[2], ids[1]]);
}

/// Method: a program that hangs, under a runner whose time is short; then one under a runner that goes away.
#[tokio::test]
async fn a_job_that_hangs_ends_with_its_time_and_one_that_a_stop_interrupts_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let options = runner(dir.path(), "exec sleep 1000");
    let short = ProcessBacktestsOptions { time_max: Duration::from_millis(50), ..options.clone() };
    let first = ProcessBacktests::start(short);
    let (hangs, interrupted) = (CommandId::derive("hangs"), CommandId::derive("interrupted"));
    first.begin_job(hangs, request());
    let job = ended(&first, hangs).await;
    assert!(job.state == BacktestJobState::Failed && job.detail.contains("ended after"), "{job:?}");
    drop(first);

    let second = ProcessBacktests::start(options.clone());
    second.begin_job(interrupted, request());
    let kept = options.jobs.join(interrupted.to_string()).join(JOB);
    let written = async {
        while !kept.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, written).await.expect("it does not run");
    drop(second);

    let third = ProcessBacktests::start(options);
    let job = third.find_job(interrupted).unwrap();
    assert!(job.state == BacktestJobState::Failed && job.detail.contains("stopped"), "{job:?}");
    assert_eq!(third.list_jobs().len(), 2);
}
