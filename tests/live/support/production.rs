//! The deployment of docker-compose.yml, started by hand: `config/production.toml` itself on the shipped servers, as
//! the shipped users. What is otherwise stands in `deviations.rs`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::deviations::PRODUCTION;
use super::process::{Service, output_of, root};
use super::rabbit_server::RabbitServer;
use super::redis_server::RedisServer;
use super::secrets::Secrets;

/// Where the servers are, and the directory of the service.
pub(crate) struct Production {
    dir: tempfile::TempDir,
    redis: String,
    operator: String,
    rabbit: String,
}

impl Production {
    /// On these servers, in the broker's shipped virtual host.
    pub(crate) fn on(redis: &RedisServer, rabbit: &RabbitServer) -> Self {
        let dir = tempfile::Builder::new().prefix("orch-production-").tempdir().unwrap();
        // The file itself, elsewhere: the log is kept beside it.
        std::fs::copy(root().join("config/production.toml"), dir.path().join("production.toml")).unwrap();
        let secrets = Secrets::shared();
        let operator = secrets.as_operator(&redis.url());
        let (redis, rabbit) = (secrets.as_service(&redis.url()), Self::rabbit_url("orchestrator", rabbit));
        Self { dir, redis, operator, rabbit }
    }

    /// The URL of a shipped user of the broker.
    pub(crate) fn rabbit_url(user: &str, rabbit: &RabbitServer) -> String {
        let (secrets, url) = (Secrets::shared(), rabbit.url(RabbitServer::SHIPPED_VHOST));
        match user {
            "producer" => secrets.as_producer(&url),
            "subscriber" => secrets.as_subscriber(&url),
            _ => secrets.as_service(&url),
        }
    }

    /// A directory that ends with this.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("production.toml")
    }

    /// The arguments with which every command gets its addresses and deviations.
    fn settings(&self) -> Vec<String> {
        let Self { dir, redis, rabbit, .. } = self;
        let addresses = [
            format!("service.data_dir={}", dir.path().join("data").display()),
            "http.listen=127.0.0.1:0".to_owned(),
            format!("redis.url={redis}"),
            format!("kill_switch.url={redis}"),
            format!("sources.market.url={rabbit}"),
            format!("publish.rabbitmq.url={rabbit}"),
            format!("redis.mark.url={rabbit}"),
        ];
        let deviations = PRODUCTION.map(|(name, value, _why)| format!("{name}={value}"));
        addresses.into_iter().chain(deviations).flat_map(|setting| ["--set".to_owned(), setting]).collect()
    }

    /// Starts the service and waits until it is up.
    pub(crate) async fn start(&self) -> Service {
        let settings = self.settings();
        Service::start(&self.config(), &settings.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// A command of the binary on this deployment: `words`, then configuration and settings.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
        command
            .args(words)
            .arg("--config")
            .arg(self.config())
            .args(self.settings())
            .current_dir(root())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// The kill switch as `docker compose run --rm operator` works it; what its exit code is and what it says.
    pub(crate) fn kill_switch(&self, words: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
        command
            .arg("kill-switch")
            .args(words)
            .current_dir(root())
            .env_clear()
            .env("ORCHESTRATOR__KILL_SWITCH__KIND", "redis")
            .env("ORCHESTRATOR__KILL_SWITCH__URL", &self.operator);
        let output = output_of(command);
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        (output.status.code().unwrap(), said.concat())
    }

    /// A command of the operator on the kill switch, which must succeed.
    pub(crate) fn operate(&self, words: &[&str]) {
        let (code, said) = self.kill_switch(&[words, &["--operator", "test"]].concat());
        assert_eq!(code, 0, "{words:?}: {said}");
    }

    /// Everything that the logs hold, the archive included, as files of lines in the directory that is returned. The
    /// service must be stopped.
    pub(crate) fn export(&self) -> PathBuf {
        let to = self.dir.path().join("exported");
        let output = output_of(self.command(&["export", "--to", to.to_str().unwrap()]));
        assert!(output.status.success(), "cannot export: {}", String::from_utf8_lossy(&output.stderr));
        to
    }
}
