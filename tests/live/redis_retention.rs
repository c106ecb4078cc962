//! Retention of logs on a server: what moved to the archive is let go by age while the service runs, and what is left
//! goes on.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::process::root;
use crate::support::redis_server::RedisServer;

fn orchestrator(args: &[&str], url: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(args)
        .current_dir(root())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs([
            ("ORCHESTRATOR__STORAGE__KIND", "redis"),
            ("ORCHESTRATOR__REDIS__URL", url),
            ("ORCHESTRATOR__REDIS__ARCHIVE_ABOVE", "1MiB"),
            ("ORCHESTRATOR__REDIS__ARCHIVE_KEEP", "64KiB"),
            ("ORCHESTRATOR__BUFFER__SEGMENT_BYTES", "1MiB"),
            ("ORCHESTRATOR__BUFFER__BATCH_BYTES_MAX", "512KiB"),
            ("ORCHESTRATOR__RETENTION__RECEIPTS_AGE_MAX", "1s"),
            ("ORCHESTRATOR__RETENTION__CHECK_EVERY", "1s"),
        ])
        .output()
        .unwrap()
}

fn demo(data: &str, url: &str) -> Output {
    orchestrator(&["demo", "--for", "6s", "--rate", "4000", "--data", data], url)
}

fn stat(data: &str, url: &str) -> Value {
    let output = orchestrator(&["log", "stat", "--from", url, "--archive", data], url);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {value:#}"))
}

/// Method: two runs of the demo on one server; the second without the checkpoints that only save time. Then the base is
/// taken away.
#[tokio::test(flavor = "multi_thread")]
async fn the_archive_of_a_server_is_trimmed_by_age_and_the_log_goes_on_from_its_base() {
    let redis = RedisServer::start();
    let url = redis.url();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();

    let first_run = demo(data, &url);
    assert!(first_run.status.success(), "{}", String::from_utf8_lossy(&first_run.stderr));
    let before = stat(data, &url);
    for name in ["receipts", "runs"] {
        redis.command(&["DEL", &format!("orch:{{default}}:checkpoint:{name}")]).unwrap();
    }
    let second_run = demo(data, &url);
    assert!(second_run.status.success(), "{}", String::from_utf8_lossy(&second_run.stderr));

    let after = stat(data, &url);
    let (first, from) = (number(&after, "/receipts/log/first"), number(&after, "/base/receipts_from"));
    assert!(1 < first && first <= from, "{after:#}");
    assert!(number(&before, "/receipts/log/last") < number(&after, "/receipts/log/last"));
    assert_eq!(number(&after, "/receipts/archive/first"), first, "only the archive was trimmed");
    let ended = number(&after, "/runs/completed") + number(&after, "/runs/failed");
    assert!(ended > 0 && number(&after, "/base/runs_from") > 1);

    let by_hand = orchestrator(&["log", "trim", "--from", &url, "--older-than", "1s"], &url);
    assert_eq!(by_hand.status.code(), Some(2), "{}", String::from_utf8_lossy(&by_hand.stderr));
    redis.command(&["DEL", "orch:{default}:checkpoint:base"]).unwrap();
    let lost = demo(data, &url);
    let said = String::from_utf8_lossy(&lost.stderr).into_owned();
    assert_eq!(lost.status.code(), Some(65), "{said}");
    assert!(said.contains("the base"), "{said}");
    assert!(Path::new(data).join("archive/receipts").is_dir());
}
