//! The recorded market day, verified through the Python process worker.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::check_said;
use super::made_up::Said;
use crate::capture::{config, file_source};
use crate::support::{recording, root};

fn orchestrator(args: &[&str], config: &Path, more: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(args)
        .arg("--config")
        .arg(config)
        .args(more)
        .current_dir(root())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .unwrap();
    Said {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Method: the recording once through the service, then verified in both ways of getting the state, and replayed.
fn check_mode(mode: &str) {
    let Some(recording) = recording() else { return };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let path = dir.path().join("service.toml");
    fs::write(&path, config(&file_source(&recording), mode, &data, 2, 2)).unwrap();
    let ran = orchestrator(&["run", "--once"], &path, &[]);
    assert_eq!(ran.code, 0, "{ran:?}");

    for args in [&[][..], &["--recompute-state"]] {
        let said = orchestrator(&["verify"], &path, args);
        check_said(&said, 0, &["equal (168651 receipts, 92 run records, 46 runs ended, 44 answers"]);
    }
    let replayed = orchestrator(&["replay"], &path, &[]);
    assert_eq!(replayed.code, 0, "{replayed:?}");
    let outputs = fs::read_to_string(data.join("outputs/orchestrator_events.jsonl")).unwrap();
    assert!(
        replayed.stdout == outputs,
        "the recorded clock gives no time of publication: equal to the last byte"
    );
}

#[test]
fn the_recording_verifies_in_truth_mode() {
    check_mode("truth");
}

#[test]
fn the_recording_verifies_in_hysteresis_mode() {
    check_mode("hysteresis");
}
