//! The paper services as a process of their own, and a plain HTTP client of them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::process::{PATIENCE, root};

/// A running `orchestrator paper`.
pub(crate) struct Paper {
    child: Child,
    /// What it said at its start.
    pub(crate) said: String,
    /// Where the Signal Service is.
    pub(crate) signals: String,
    /// Where the Execution Gateway is.
    pub(crate) gateway: String,
    /// Follows no redirect, and waits as long as a test does.
    pub(crate) client: reqwest::Client,
}

impl Paper {
    /// Starts it on free ports and waits until it says where it listens.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[])
    }

    /// As [`start`](Self::start), with these variables in its environment.
    pub(crate) fn start_with(args: &[&str], environment: &[(&str, &str)]) -> Self {
        orchestrator::process::tls::install_crypto();
        let mut child = paper_command(args, environment).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = String::new();
        let mut url_of = |service: &str| loop {
            let Some(line) = lines.next() else {
                let mut stderr = String::new();
                drop(child.stderr.take().unwrap().read_to_string(&mut stderr));
                panic!("it ended before it was up:\n{said}\n{stderr}");
            };
            let line = line.unwrap();
            said.push_str(&line);
            said.push('\n');
            if let Some((_, url)) = line.split_once(service) {
                break url.trim().to_owned();
            }
        };
        let (signals, gateway) = (url_of("Signal Service"), url_of("Execution Gateway"));
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self { child, said, signals, gateway, client }
    }

    /// Status and body of a GET of the gateway.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer_of(self.client.get(format!("{}{path}", self.gateway))).await
    }

    /// Status and body of a POST to the gateway.
    pub(crate) async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        answer_of(self.client.post(format!("{}{path}", self.gateway)).body(body.to_owned())).await
    }

    /// Asks for signals.
    pub(crate) async fn signals(&self, body: &str) -> (u16, Value) {
        let url = format!("{}/api/v1/signals/generate", self.signals);
        answer_of(self.client.post(url).body(body.to_owned())).await
    }

    /// Places an order; an error when there is no answer, or no whole one.
    pub(crate) async fn submit(&self, body: &str) -> reqwest::Result<(u16, Vec<u8>)> {
        let url = format!("{}/api/v1/orders", self.gateway);
        let response = self.client.post(url).body(body.to_owned()).send().await?;
        Ok((response.status().as_u16(), response.bytes().await?.to_vec()))
    }

    /// Switches a fault on.
    pub(crate) async fn set_fault(&self, rule: &str) {
        let (status, listed) = self.post("/paper/faults", rule).await;
        assert_eq!(status, 201, "{rule}: {listed}");
    }

    /// The ledger.
    pub(crate) async fn ledger(&self) -> Value {
        self.get("/ledger").await.1
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    pub(crate) fn stop(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        // Already ended in most tests; a failing one must not leave it behind.
        if let Ok(None) = self.child.try_wait() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// The command, on free ports.
pub(crate) fn paper_command(args: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
    command
        .args(["paper", "--signals", "127.0.0.1:0", "--gateway", "127.0.0.1:0"])
        .args(args)
        .current_dir(root())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn answer_of(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}
