//! A made-up day as two services have it: one with its logs in a data directory, one with its logs on a Redis server.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::made_up::{ingest, made_up_day};
use super::redis_server::RedisServer;
use super::secrets::Secrets;

/// Who may only look: the name and the password must be in no output.
pub(crate) const USER: &str = "looker7";
pub(crate) const PASSWORD: &str = "s3cret-0f-redis";

/// The day, recorded twice from one file. Both services are stopped.
pub(crate) struct Day {
    dir: tempfile::TempDir,
    pub(crate) redis: RedisServer,
    /// The data directory of the service without a server.
    pub(crate) embedded: PathBuf,
    /// That of the service with one.
    pub(crate) on_server: PathBuf,
}

impl Day {
    /// Records it. A line that is no receipt is in the quarantine of both.
    pub(crate) fn record() -> Self {
        let dir = tempfile::Builder::new().prefix("orch-day-").tempdir().unwrap();
        let redis = RedisServer::start();
        let [embedded, on_server] = ["embedded", "on_server"].map(|name| dir.path().join(name));
        let day = Self { dir, redis, embedded, on_server };
        let mut lines = made_up_day();
        lines.insert(40, "no receipt".to_owned());
        fs::write(day.capture(), lines.join("\n")).unwrap();
        let on_redis = day.on_redis();
        ingest(&day.capture(), &day.embedded, &[]);
        ingest(&day.capture(), &day.on_server, &on_redis.each_ref().map(String::as_str));
        let rights = ["resetkeys", "%R~orch:*", "resetchannels", "-@all", "+hget", "+hmget", "+xrange"];
        day.command(&[&["ACL", "SETUSER", USER, "on", &format!(">{PASSWORD}")], &rights[..]].concat());
        day
    }

    /// The settings that put the logs on the server.
    pub(crate) fn on_redis(&self) -> [String; 2] {
        [
            "storage.kind=redis".to_owned(),
            format!("redis.url={}", Secrets::shared().as_service(&self.redis.url())),
        ]
    }

    /// The file that both services read.
    pub(crate) fn capture(&self) -> PathBuf {
        self.path("capture.jsonl")
    }

    /// The server, for somebody who may only look.
    pub(crate) fn url(&self) -> String {
        self.url_with(USER, PASSWORD)
    }

    pub(crate) fn url_with(&self, user: &str, password: &str) -> String {
        self.redis.url_of(user, password)
    }

    /// A path of the test beside the data.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command of the operator, which must be taken.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        let answer = self.redis.command(words).unwrap();
        assert!(!answer.starts_with('-'), "{words:?}: {answer}");
        answer
    }

    /// Every key with its stored form and the time that it has to live.
    pub(crate) fn dump(&self) -> BTreeMap<Vec<u8>, (Vec<u8>, i64)> {
        let mut connection = redis::Client::open(self.redis.url()).unwrap().get_connection().unwrap();
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
        let mut all = BTreeMap::new();
        for key in keys {
            let stored = redis::cmd("DUMP").arg(&key).query(&mut connection).unwrap();
            let left = redis::cmd("PTTL").arg(&key).query(&mut connection).unwrap();
            all.insert(key, (stored, left));
        }
        assert!(all.len() > 8, "the logs and the checkpoints are there");
        all
    }
}

/// The files of a directory, by name.
pub(crate) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
}
