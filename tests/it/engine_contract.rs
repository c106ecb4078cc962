//! An engine that cannot answer what the configuration asks is found at start, not by every run failing.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Service, root};

/// An engine without hysteresis, as the kit serves it.
const TRUTH_ONLY: &str =
    "import sys\nsys.path.insert(0, 'engines')\ndef run(snapshot): return {'regime': 'X'}\n";

fn config(dir: &Path, mode: &str, engine: &str) -> std::path::PathBuf {
    let path = dir.join(format!("{mode}.toml"));
    let text = format!(
        "[service]\ndata_dir = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n\
         [engine]\nmode = \"{mode}\"\n{engine}",
        dir.join(mode)
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn check_refused(config: &Path) {
    let ended = Command::new("timeout")
        .args(["-s", "KILL", "60", env!("CARGO_BIN_EXE_orchestrator"), "run", "--config"])
        .arg(config)
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(78), "{said}");
    assert!(said.contains("does not offer run_with_hysteresis, only [run]"), "{said}");
    assert!(said.contains("engine.mode"), "{said}");
}

/// Behind the pool and behind HTTP alike; the same engine serves `truth`.
#[tokio::test]
async fn an_engine_of_another_contract_is_found_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let serve = "from orchestrator_engine import serve\nserve(name='t', version='1', run=run, sources=['engines/standin_engine.py'])\n";
    let worker = format!(
        "kind = \"process\"\n[engine.process]\nworkers = 1\nstart_deadline = \"60s\"\n\
         command = [\"python3\", \"-c\", \"\"\"{TRUTH_ONLY}{serve}\"\"\"]\n"
    );
    check_refused(&config(dir.path(), "hysteresis", &worker));
    Service::start(&config(dir.path(), "truth", &worker), &[]).await.stop_unverified().await;

    let dir = tempfile::tempdir().unwrap();
    let server = Server::start();
    let http =
        format!("kind = \"http\"\n[engine.http]\nconnect_timeout = \"30s\"\nurl = \"{}\"\n", server.url);
    check_refused(&config(dir.path(), "hysteresis", &http));
    Service::start(&config(dir.path(), "truth", &http), &[]).await.stop_unverified().await;
    drop(server);
    // One that is not there yet may be the right one.
    let later = http.replace("30s", "100ms");
    Service::start(&config(dir.path(), "hysteresis", &later), &[]).await.stop_unverified().await;
}

/// That engine behind HTTP; ended with its handle.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start() -> Self {
        let serve = "from orchestrator_engine.http import serve_http\n\
                     serve_http('127.0.0.1', 0, name='t', version='1', run=run, sources=['engines/standin_engine.py'])\n";
        let mut process = Command::new("python3")
            .args(["-c", &format!("{TRUTH_ONLY}{serve}")])
            .current_dir(root())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        Self { process, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
