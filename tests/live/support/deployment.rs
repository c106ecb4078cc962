//! The engine plane as it is deployed: logs on Redis, receipts from RabbitMQ, outputs to it, the real binary between,
//! with the shipped `config/production.toml` and the shipped users. What is otherwise stands in `deviations.rs`.

use std::path::PathBuf;
use std::sync::Arc;

use toml::{Table, Value};

use super::deviations::{DECLARES, SERVICE};
use super::process::{Service, root};
use super::secrets::Secrets;
use super::topology;

/// The symbols of the load.
pub(crate) const SYMBOLS: [&str; 4] = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"];
/// Where the logs of the tests are on their server.
const NAMESPACE: &str = "default";

/// Where the servers are, and what the service is configured with. One directory, so a restart is the same instance.
pub(crate) struct Deployment {
    dir: tempfile::TempDir,
    /// Holds the second mark: storage that every host reaches.
    shared: Arc<tempfile::TempDir>,
    redis_url: String,
    amqp_url: String,
    /// Further sections of the configuration, merged into the file.
    extra: String,
    declares: bool,
}

impl Deployment {
    /// The shipped deployment on these servers. The shipped topology is declared in the virtual host of `amqp_url`.
    pub(crate) fn new(redis_url: &str, amqp_url: &str) -> Self {
        topology::declare(amqp_url);
        Self::on(redis_url, amqp_url)
    }

    /// As [`new`](Self::new), but the service declares exchanges and queues itself; see [`DECLARES`].
    pub(crate) fn declaring(redis_url: &str, amqp_url: &str) -> Self {
        println!("the service declares its topology: {DECLARES}");
        Self { declares: true, ..Self::on(redis_url, amqp_url) }
    }

    fn on(redis_url: &str, amqp_url: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("orch-live-").tempdir().unwrap();
        let shared = Arc::new(tempfile::Builder::new().prefix("orch-shared-").tempdir().unwrap());
        let (redis_url, amqp_url) = (redis_url.to_owned(), amqp_url.to_owned());
        Self { dir, shared, redis_url, amqp_url, extra: String::new(), declares: false }
    }

    /// Further sections of the configuration file: the deviations of this test.
    pub(crate) fn with(mut self, extra: &str) -> Self {
        self.extra.push_str(extra);
        self.extra.push('\n');
        self
    }

    /// The same servers as another host with a directory of its own would use them.
    pub(crate) fn on_another_host(&self) -> Self {
        let (declares, shared) = (self.declares, Arc::clone(&self.shared));
        Self { declares, shared, ..Self::on(&self.redis_url, &self.amqp_url) }.with(&self.extra)
    }

    /// The file with the second mark.
    pub(crate) fn mark(&self) -> PathBuf {
        self.shared.path().join("marks")
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The Redis server's URL.
    pub(crate) fn redis_url(&self) -> &str {
        &self.redis_url
    }

    /// The broker's URL, with the login of its owner.
    pub(crate) fn amqp_url(&self) -> &str {
        &self.amqp_url
    }

    /// The login of whoever runs the service: the shipped user, unless the URL names one that a test made.
    fn login(&self, url: &str) -> String {
        let place = url.split("://").nth(1).unwrap();
        let is_inspector = place.starts_with("inspector:any@");
        let may_declare = self.declares && url.starts_with("amqp");
        let is_ours = !may_declare && (is_inspector || !place.contains('@'));
        if is_ours { Secrets::shared().as_service(url) } else { url.to_owned() }
    }

    /// Writes the configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        let path = self.dir.path().join("service.toml");
        std::fs::write(&path, self.settings().to_string()).unwrap();
        path
    }

    /// What is in the configuration file.
    pub(crate) fn settings(&self) -> Table {
        let shipped = std::fs::read_to_string(root().join("config/production.toml")).unwrap();
        let mut settings: Table = shipped.parse().unwrap();
        let (redis, amqp) = (self.login(&self.redis_url), self.login(&self.amqp_url));
        // Its settings for a broker mean nothing to a file.
        settings["redis"].as_table_mut().unwrap().remove("mark");
        for (name, value) in [
            ("redis.mark.path", self.mark().to_str().unwrap()),
            ("service.data_dir", self.data().to_str().unwrap()),
            ("http.listen", "127.0.0.1:0"),
            ("redis.namespace", NAMESPACE),
            ("redis.url", &redis),
            ("kill_switch.url", &redis),
            ("sources.market.url", &amqp),
            ("publish.rabbitmq.url", &amqp),
        ] {
            put(&mut settings, name, Value::from(value));
        }
        for (name, value, _why) in SERVICE {
            let parsed: Table = format!("value = {value}").parse().unwrap();
            put(&mut settings, name, parsed["value"].clone());
        }
        if self.declares {
            put(&mut settings, "sources.market.topology", Value::from("declare"));
            put(&mut settings, "publish.rabbitmq.topology", Value::from("declare"));
        }
        merge(&mut settings, self.extra.parse().unwrap());
        settings
    }

    /// Starts the service and waits until it is up.
    pub(crate) async fn start(&self) -> Service {
        Service::start(&self.config(), &[]).await
    }
}

/// Sets `a.b.c`.
fn put(settings: &mut Table, name: &str, value: Value) {
    let mut names = name.split('.').rev();
    let leaf = names.next().unwrap();
    let mut addition = Table::from_iter([(leaf.to_owned(), value)]);
    for name in names {
        addition = Table::from_iter([(name.to_owned(), Value::Table(addition))]);
    }
    merge(settings, addition);
}

/// Sets what `addition` has, table by table.
fn merge(settings: &mut Table, addition: Table) {
    for (name, value) in addition {
        match (settings.get_mut(&name), value) {
            (Some(Value::Table(known)), Value::Table(more)) => merge(known, more),
            (_, value) => {
                settings.insert(name, value);
            }
        }
    }
}
