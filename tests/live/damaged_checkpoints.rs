//! Saved values that are damaged, in files and on a server: `verify` names them, and the service says what it goes on
//! without. The base, which nothing can be derived from, is refused.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use orchestrator::adapters::files::FileCheckpoints;
use orchestrator::adapters::files::fs::RealFs;
use orchestrator::adapters::redis::{RedisOptions, RedisStore};
use orchestrator_kernel::engine::retention::{BASE, RetentionBase};
use orchestrator_kernel::ids::Epoch;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;

use crate::support::day::Day;
use crate::support::made_up::{run, text_of};

/// Where the values are.
#[derive(Clone, Copy, Debug)]
enum Medium {
    Files,
    Server,
}

impl Medium {
    const ALL: [Self; 2] = [Self::Files, Self::Server];

    fn data(self, day: &Day) -> &PathBuf {
        match self {
            Self::Files => &day.embedded,
            Self::Server => &day.on_server,
        }
    }

    /// The logs, for a command that looks at them.
    fn from(self, day: &Day) -> Vec<String> {
        let dir = text_of(self.data(day)).to_owned();
        match self {
            Self::Files => vec!["--from".to_owned(), dir],
            Self::Server => vec!["--from".to_owned(), day.redis.url(), "--archive".to_owned(), dir],
        }
    }

    /// Runs a command that looks; what it said.
    fn look(self, day: &Day, command: &[&str], code: i32) -> String {
        let from = self.from(day);
        let args: Vec<&str> = command.iter().copied().chain(from.iter().map(String::as_str)).collect();
        let (out, err) = run(&args, code);
        out + &err
    }

    /// Runs the service again; the recording is at its end. What it logged.
    fn serve(self, day: &Day, code: i32) -> String {
        let config = self.data(day).with_extension("toml");
        let on_redis = day.on_redis();
        let mut args = vec!["run", "--once", "--config", text_of(&config)];
        match self {
            Self::Files => {}
            Self::Server => args.extend(on_redis.iter().flat_map(|setting| ["--set", setting.as_str()])),
        }
        run(&args, code).1
    }

    /// What people know the value by.
    fn place(self, day: &Day, name: &str) -> String {
        match self {
            Self::Files => text_of(&self.data(day).join(format!("checkpoints/{name}.ckpt"))).to_owned(),
            Self::Server => format!("orch:{{default}}:checkpoint:{name}"),
        }
    }

    async fn store(self, day: &Day) -> Arc<dyn CheckpointStore> {
        match self {
            Self::Files => {
                let dir = self.data(day).join("checkpoints");
                Arc::new(FileCheckpoints::open(&dir, Arc::new(RealFs)).unwrap())
            }
            Self::Server => {
                let options = RedisOptions::new(&day.redis.url(), "default", day.path("state"));
                Arc::new(RedisStore::connect(options).await.unwrap().checkpoints())
            }
        }
    }

    /// Flips a bit in the last byte of what is stored.
    fn damage(self, day: &Day, name: &str) {
        let flip = |stored: &mut Vec<u8>| *stored.last_mut().expect("it is saved") ^= 1;
        let place = self.place(day, name);
        match self {
            Self::Files => {
                let mut stored = std::fs::read(&place).unwrap();
                flip(&mut stored);
                std::fs::write(&place, stored).unwrap();
            }
            Self::Server => {
                let mut connection = redis::Client::open(day.redis.url()).unwrap().get_connection().unwrap();
                let mut stored: Vec<u8> =
                    redis::cmd("HGET").arg(&place).arg("value").query(&mut connection).unwrap();
                flip(&mut stored);
                let set = redis::cmd("HSET").arg(&place).arg("value").arg(stored).clone();
                let added: u64 = set.query(&mut connection).unwrap();
                assert_eq!(added, 0, "it was there");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_or_cursor_is_named_by_verify_and_by_the_service_which_mends_it() {
    let day = Day::record();
    for medium in Medium::ALL {
        medium.look(&day, &["verify"], 0);
        for (name, what, warning) in [
            ("receipts", "the checkpoint of the receipts", "checkpoint is damaged"),
            ("runs", "the checkpoint of the runs", "checkpoint is damaged"),
            ("published", "the publish cursor", "the publish cursor is damaged"),
        ] {
            medium.damage(&day, name);
            let place = medium.place(&day, name);

            let said = medium.look(&day, &["verify"], 1);
            let named = format!("{what}, {place}: not a whole value: it fails its checksum");
            assert!(said.contains(&named) && said.contains("different in 1 place"), "{medium:?}: {said}");

            let logged = medium.serve(&day, 0);
            let line = logged.lines().find(|line| line.contains(warning));
            let line = line.unwrap_or_else(|| panic!("{medium:?}, {name}: no warning in:\n{logged}"));
            assert!(line.contains("WARN") && line.contains(&place), "{line}");
            medium.look(&day, &["verify"], 0);
        }
        assert!(!medium.serve(&day, 0).contains("damaged"), "{medium:?}: all of it is saved again");
    }
}

/// Method: a base that let nothing go, beside logs that are whole; then logs that lack their beginning.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_base_is_named_by_verify_and_refused_by_the_service() {
    let day = Day::record();
    for medium in Medium::ALL {
        let value = Bytes::from(RetentionBase::default().encode());
        medium.store(&day).await.save(BASE, Epoch(1), value).await.unwrap();
        medium.look(&day, &["verify"], 0);
        medium.serve(&day, 0);

        medium.damage(&day, BASE);

        let place = medium.place(&day, BASE);
        let said = medium.look(&day, &["verify"], 1);
        assert!(said.contains(&format!("the base of the logs, {place}: not a whole value")), "{said}");
        for said in [medium.serve(&day, 65), medium.look(&day, &["log", "stat"], 65)] {
            assert!(said.contains("damaged") && said.contains(&place), "{medium:?}: {said}");
        }
    }
    let data = text_of(&day.embedded);
    let (_, said) = run(&["log", "trim", "--from", data, "--older-than", "0s"], 65);
    assert!(said.contains("the base") && said.contains("damaged"), "{said}");

    day.command(&["XTRIM", "orch:{default}:receipts", "MINID", "=", "11-0"]);
    day.command(&["HSET", "orch:{default}:receipts:meta", "start", "11"]);
    let said = Medium::Server.look(&day, &["replay"], 65);
    assert!(said.contains("the base") && said.contains("damaged"), "{said}");
    Medium::Server.look(&day, &["verify"], 1);
}
