//! `orchestrator verify` on what a service has left behind when it was stopped: everything that was recorded follows
//! from the logs, and the outputs are those.

#![allow(dead_code, reason = "two test binaries share this file, and each uses a part of it")]

use std::path::Path;
use std::process::{Command, Stdio};

use super::process::root;

/// The logs and the engine that the configuration of a service names, which was started with these arguments and must
/// be stopped.
pub(crate) fn verify(config: &Path, args: &[String]) {
    verify_by(Command::new(env!("CARGO_BIN_EXE_orchestrator")), config, args);
}

/// As [`verify`], by this command for the binary.
pub(crate) fn verify_by(mut binary: Command, config: &Path, args: &[String]) {
    let settings = args.windows(2).filter(|pair| pair[0] == "--set").flatten();
    let output = binary
        .arg("verify")
        .arg("--config")
        .arg(config)
        .args(settings)
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
