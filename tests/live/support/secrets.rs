//! Users and passwords as an operator makes them, by `ops/make_secrets.py`: once a test process, for all its servers.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The files of `secrets/`, by name.
pub(crate) struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// Those of this test process.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Secrets> = OnceLock::new();
        SHARED.get_or_init(Self::make)
    }

    fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secrets = dir.path().join("secrets");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/make_secrets.py");
        let made = Command::new("python3").arg(script).arg(&secrets).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let files = std::fs::read_dir(&secrets).unwrap().map(|entry| entry.unwrap().path());
        let read = |path: std::path::PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        };
        Self(files.map(read).collect())
    }

    /// A file as it was made.
    pub(crate) fn file(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("ops/make_secrets.py does not make {name}"))
    }

    /// The same place as `url`, with the login of the service that the deployment runs.
    pub(crate) fn as_service(&self, url: &str) -> String {
        self.with_login(url, if url.starts_with("amqp") { "rabbitmq_url" } else { "redis_url" })
    }

    /// The same place as `url`, with the login of the operator of the kill switch.
    pub(crate) fn as_operator(&self, url: &str) -> String {
        self.with_login(url, "redis_operator_url")
    }

    /// The same place as `url`, with the login of whoever feeds receipts in.
    pub(crate) fn as_producer(&self, url: &str) -> String {
        self.with_login(url, "rabbitmq_producer_url")
    }

    /// The same place as `url`, with the login of whoever reads outputs.
    pub(crate) fn as_subscriber(&self, url: &str) -> String {
        self.with_login(url, "rabbitmq_subscriber_url")
    }

    /// `scheme://[login@]place` with the login that stands in the file `name`.
    fn with_login(&self, url: &str, name: &str) -> String {
        let login = self.file(name).split("://").nth(1).and_then(|rest| rest.split('@').next()).unwrap();
        let (scheme, rest) = url.split_once("://").unwrap();
        let place = rest.rsplit('@').next().unwrap();
        format!("{scheme}://{login}@{place}")
    }
}
