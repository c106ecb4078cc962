//! `orchestrator verify` on what a service has left behind when it was stopped: everything that was recorded follows
//! from the logs, and the outputs are those.

#![allow(dead_code, reason = "two test binaries share this file, and each uses a part of it")]

use std::path::Path;
use std::process::{Command, Stdio};

use super::process::root;

/// The logs and the engine that the configuration of the service names, which must be stopped.
pub(crate) fn verify(config: &Path) {
    check(&["--config".as_ref(), config.as_os_str()]);
}

/// The logs on this server with the archive in the data directory of their service, and the built-in engine.
pub(crate) fn verify_on_server(redis_url: &str, data: &Path) {
    check(&["--from".as_ref(), redis_url.as_ref(), "--archive".as_ref(), data.as_os_str()]);
}

fn check(arguments: &[&std::ffi::OsStr]) {
    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .arg("verify")
        .args(arguments)
        .current_dir(root())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert_eq!(
        output.status.code(),
        Some(0),
        "verify finds a difference, or cannot tell:\n{}",
        said.concat()
    );
}
