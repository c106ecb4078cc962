//! What people do to the files of a service that acknowledged receipts: it never comes back with less, and says where.
//!
//! `SEED=n` repeats a campaign; `ops/test --soak` runs it on every segment for as long as it is told.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use orchestrator_kernel::random::Rng;

use crate::faults::{RECEIPTS_PER_POST, post_receipts};
use crate::support::{PATIENCE, Service, eventually, orchestrator, seed};

const MARKS: [&str; 2] = ["high_water.marks", "runs/high_water.marks"];

/// A service with small segments and nothing but HTTP before it. Its ticks leave time between them in which nothing is
/// written, so that both files of marks can know the same.
fn config(dir: &Path) -> PathBuf {
    let path = dir.join("config.toml");
    let text = format!(
        "[service]\ndata_dir = {:?}\n[buffer]\nsegment_bytes = \"1MiB\"\nbatch_bytes_max = \"256KiB\"\n\
         [sources.http]\nkind = \"http\"\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n\
         [schedule]\nmode = \"boundary\"\ninterval = \"3s\"\n[symbols]\nlist = [\"A\"]\n",
        dir.join("data")
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// A killed service's directory with acknowledged receipts in some segments.
struct Acknowledged {
    dir: tempfile::TempDir,
    receipts: u64,
    /// The receipt log as it was before the last posts.
    earlier: PathBuf,
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cp {} {}", from.display(), to.display());
}

/// Number of each log's newest mark in a file of marks. Older ones stand beside it, and differ from file to file: the
/// second file misses those that came between two syncs.
fn newest_marks(path: &Path) -> Option<Vec<u64>> {
    const BLOCK: usize = 4096;
    let bytes = std::fs::read(path).ok()?;
    let writes = |slot: &[u8]| u64::from_le_bytes(slot[32..40].try_into().unwrap());
    let of_log = |slots: &[u8]| slots.chunks(BLOCK).map(writes).max().unwrap_or_default();
    Some(bytes.chunks(3 * BLOCK).map(of_log).collect())
}

impl Acknowledged {
    async fn receipts(posts: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::start(&config(dir.path()), &[]).await;
        let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        let earlier = dir.path().join("earlier");
        let mut receipts = 0;
        for post in 0..posts {
            assert_eq!(post_receipts(&client, &service.url, receipts + 1).await.status(), 200);
            receipts += RECEIPTS_PER_POST;
            if post == posts / 2 {
                copy(&dir.path().join("data/receipts"), &earlier);
            }
        }
        // The second file of marks follows within a second; a host that dies before that is the business of another test.
        eventually("both files of marks know it", async || {
            let newest = MARKS.map(|name| newest_marks(&dir.path().join("data").join(name)));
            (newest[0].is_some() && newest[0] == newest[1]).then_some(())
        })
        .await;
        service.kill();
        Self { dir, receipts, earlier }
    }

    /// A copy of the data directory with its configuration.
    fn copied(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        copy(&self.dir.path().join("data"), &dir.path().join("data"));
        config(dir.path());
        dir
    }
}

fn segments(log: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

/// Starts the service, which must refuse; returns what it said.
fn refused(dir: &Path) -> String {
    let stderr = dir.join("refused.stderr");
    let mut child = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(["run", "--config"])
        .arg(dir.join("config.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let said = std::fs::read_to_string(&stderr).unwrap();
        if said.contains("\"running\"") || deadline < Instant::now() {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it was not refused:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = std::fs::read_to_string(&stderr).unwrap();
    assert_eq!(status.code(), Some(65), "{said}");
    said
}

/// Who only looks says the same, and changes nothing.
fn check_offline(dir: &Path, words: &[&str]) {
    let data = dir.join("data");
    let data = data.to_str().unwrap();
    for (args, code) in [(vec!["verify", "--from", data], 1), (vec!["log", "stat", "--data", data], 65)] {
        let output = orchestrator(&args);
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", said.concat());
        for word in words {
            assert!(said.concat().contains(word), "{args:?}: {word:?} is missing in {}", said.concat());
        }
    }
}

/// A damage by its name, and what must be said of it.
type Damage<'a> = (&'a str, &'a dyn Fn(&Path), &'a [&'a str]);

/// Each kind of damage once, each start twice, and by who only looks.
#[tokio::test]
async fn log_that_lost_acknowledged_receipts_is_refused_with_file_and_byte() {
    let made = Acknowledged::receipts(8).await;
    let all = segments(&made.dir.path().join("data/receipts"));
    assert!(all.len() > 2, "{all:?}");
    let newest = all.last().unwrap().file_name().unwrap().to_str().unwrap();
    let used = {
        let content = std::fs::read(all.last().unwrap()).unwrap();
        content.iter().rposition(|byte| *byte != 0).unwrap() as u64
    };
    let cut = |dir: &Path, size| {
        let path = dir.join("data/receipts").join(newest);
        std::fs::File::options().write(true).open(path).unwrap().set_len(size).unwrap();
    };
    let overwrite = |dir: &Path, byte: &dyn Fn(usize) -> u8| {
        let path = dir.join("data/receipts").join(newest);
        let mut content = std::fs::read(&path).unwrap();
        content.iter_mut().enumerate().skip(used as usize / 2).for_each(|(at, to)| *to = byte(at));
        std::fs::write(path, content).unwrap();
    };
    let receipts = |dir: &Path| dir.join("data/receipts");
    let damages: [Damage<'_>; 11] = [
        ("half of it", &|dir| cut(dir, used / 2), &[newest, "byte", "was durable"]),
        ("its header", &|dir| cut(dir, 64), &[newest, "byte 64", "was durable"]),
        ("nothing", &|dir| cut(dir, 0), &[newest, "header fails its checksum"]),
        ("zeros", &|dir| overwrite(dir, &|_| 0), &[newest, "was durable"]),
        ("noise", &|dir| overwrite(dir, &|at| (at * 31 % 251) as u8), &[newest, "byte"]),
        ("deleted", &|dir| std::fs::remove_file(receipts(dir).join(newest)).unwrap(), &[newest, "missing"]),
        (
            "oldest deleted",
            &|dir| std::fs::remove_file(&segments(&receipts(dir))[0]).unwrap(),
            &["00000000000000000001.seg", "missing"],
        ),
        (
            "receipts/ deleted",
            &|dir| std::fs::remove_dir_all(receipts(dir)).unwrap(),
            &["receipts", "gone", " byte "],
        ),
        (
            "receipts/ of an earlier moment",
            &|dir| {
                std::fs::remove_dir_all(receipts(dir)).unwrap();
                copy(&made.earlier, &receipts(dir));
            },
            // Shorter, or without its newest segment.
            &["receipts", " byte "],
        ),
        (
            "receipts/ deleted with the marks in the data directory",
            &|dir| {
                std::fs::remove_dir_all(receipts(dir)).unwrap();
                std::fs::remove_file(dir.join("data").join(MARKS[0])).unwrap();
            },
            &["receipts", "gone", " byte "],
        ),
        (
            "both files of marks deleted",
            &|dir| MARKS.iter().for_each(|name| std::fs::remove_file(dir.join("data").join(name)).unwrap()),
            &["high-water mark of this log is gone"],
        ),
    ];
    for (what, damage, words) in damages {
        let dir = made.copied();
        damage(dir.path());

        check_offline(dir.path(), words);
        for _ in 0..2 {
            let said = refused(dir.path());
            for word in words {
                assert!(said.contains(word), "{what}: {word:?} is missing in\n{said}");
            }
        }
    }
}

/// One file of marks is enough; a directory without any, as an older version leaves it, is taken over.
#[tokio::test]
async fn directory_of_an_older_version_or_of_one_moment_starts() {
    let made = Acknowledged::receipts(2).await;
    let starts = async |dir: &Path, what: &str| {
        let service = Service::start(&dir.join("config.toml"), &[]).await;
        let (_, said) = service.get("/api/v1/producers/disk").await;
        let settled = serde_json::from_str::<serde_json::Value>(&said).unwrap()["settled"].as_u64();
        assert_eq!(settled, Some(made.receipts), "{what}");
        eventually("it is ready", async || (service.get("/readyz").await.0 == 200).then_some(())).await;
        service.stop().await;
    };

    starts(made.copied().path(), "a copy of one moment").await;
    for name in MARKS {
        let dir = made.copied();
        std::fs::remove_file(dir.path().join("data").join(name)).unwrap();
        starts(dir.path(), name).await;
        assert!(dir.path().join("data").join(name).is_file(), "{name} is made good");
    }
    let old = made.copied();
    for log in ["receipts", "runs", "quarantine", "manifests"] {
        let meta = old.path().join("data").join(log).join("meta");
        let mut bytes = std::fs::read(&meta).unwrap();
        bytes[12] = 0;
        let crc = crc32c::crc32c(&bytes[..48]);
        bytes[48..52].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&meta, bytes).unwrap();
    }
    MARKS.iter().for_each(|name| std::fs::remove_file(old.path().join("data").join(name)).unwrap());
    let older = tempfile::tempdir().unwrap();
    copy(&old.path().join("data"), &older.path().join("data"));
    config(older.path());
    starts(old.path(), "an older version's").await;

    // Without marks the other logs still tell that one is missing.
    std::fs::remove_dir_all(older.path().join("data/quarantine")).unwrap();
    for _ in 0..2 {
        let said = refused(older.path());
        assert!(said.contains("it is gone, and the log of receipts beside it has records up to"), "{said}");
    }
    check_offline(older.path(), &["it is gone, and the log of receipts beside it"]);
}

/// Method: random segments of all logs are cut, zeroed, deleted; after the kill and without one.
#[tokio::test]
async fn random_damage_of_any_log_is_never_ready_with_less() {
    let seed = seed();
    let mut dice = Rng::new(seed);
    println!("SEED={seed}");
    let made = Acknowledged::receipts(8).await;
    let minutes = std::env::var("ORCHESTRATOR_SOAK_MINUTES").ok().map(|value| value.parse::<u64>().unwrap());
    let until = Instant::now() + Duration::from_secs(60 * minutes.unwrap_or(0));
    let mut damages = 0;
    while damages < 12 || Instant::now() < until {
        let dir = made.copied();
        let logs = ["receipts", "receipts", "runs", "manifests"];
        let log = logs[dice.next_index(logs.len())];
        let all = segments(&dir.path().join("data").join(log));
        let path = &all[dice.next_index(all.len())];
        let content = std::fs::read(path).unwrap();
        let used = content.iter().rposition(|byte| *byte != 0).unwrap();
        if used < 64 {
            continue;
        }
        let what = match dice.next_index(3) {
            0 => {
                let cut = dice.next_index(used);
                std::fs::write(path, &content[..cut]).unwrap();
                format!("cut at {cut} of {used}")
            }
            1 => {
                std::fs::write(path, vec![0; content.len()]).unwrap();
                "zeroed".to_owned()
            }
            _ => {
                std::fs::remove_file(path).unwrap();
                "deleted".to_owned()
            }
        };
        println!("{log}: {} {what}", path.file_name().unwrap().display());
        let said = refused(dir.path());
        assert!(said.contains(&format!("log {log} is corrupt")) && said.contains(" byte "), "{what}: {said}");
        damages += 1;
    }
}

/// What is taken away, and how.
type Taken = (&'static str, fn(&Path));

/// Method: each thing that must stay is taken away while receipts come; then while nothing comes.
#[tokio::test]
async fn data_directory_taken_away_under_the_service_ends_it() {
    let taken: [Taken; 6] = [
        ("removed", |data| std::fs::remove_dir_all(data).unwrap()),
        ("renamed", |data| std::fs::rename(data, data.with_file_name("away")).unwrap()),
        ("replaced by a copy", |data| {
            copy(data, &data.with_file_name("copy"));
            std::fs::rename(data, data.with_file_name("away")).unwrap();
            std::fs::rename(data.with_file_name("copy"), data).unwrap();
        }),
        ("its lock removed", |data| std::fs::remove_file(data.join("lock")).unwrap()),
        ("a log renamed", |data| std::fs::rename(data.join("runs"), data.join("away")).unwrap()),
        ("newest segment removed", |data| {
            std::fs::remove_file(segments(&data.join("receipts")).last().unwrap()).unwrap();
        }),
    ];
    for (what, take) in taken {
        for is_idle in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut service = Service::start(&config(dir.path()), &[]).await;
            let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
            assert_eq!(post_receipts(&client, &service.url, 1).await.status(), 200);

            take(&dir.path().join("data"));
            let since = Instant::now();
            let of_receipts = !matches!(what, "its lock removed" | "a log renamed");
            if !is_idle && of_receipts {
                let url = service.url.clone();
                let posted = tokio::spawn(async move { post_receipts_or_end(&client, &url).await });
                let acknowledged = posted.await.unwrap();
                assert!(!acknowledged, "{what}: a receipt was acknowledged after it");
            }
            let status = service.ended().await;

            assert_eq!(status.code(), Some(74), "{what}: {}", service.log());
            assert!(service.log().contains("under the running service"), "{what}: {}", service.log());
            let took = since.elapsed();
            assert!(took < Duration::from_secs(20), "{what}: it took {took:?}");
        }
    }
}

/// Whether the service acknowledged one more post; it may end meanwhile.
async fn post_receipts_or_end(client: &reqwest::Client, url: &str) -> bool {
    let line = |position: u64| {
        format!(
            r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"TradeTick","source_id":"t","symbol":"A","exchange_ts_ms":null,"recv_ts_ms":{position},"raw_payload":"x","normalized":{{}}}}"#
        )
    };
    let response = client
        .post(format!("{url}/api/v1/receipts"))
        .header("content-type", "application/x-ndjson")
        .body(line(1))
        .send()
        .await;
    response.is_ok_and(|response| response.status() == 200)
}

/// A second service in the place of a directory that was taken away: the first acknowledges nothing beside it.
#[tokio::test]
async fn second_service_in_a_recreated_directory_is_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Service::start(&config(dir.path()), &[]).await;
    let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
    assert_eq!(post_receipts(&client, &first.url, 1).await.status(), 200);

    std::fs::rename(dir.path().join("data"), dir.path().join("away")).unwrap();
    let second = Service::start(&config(dir.path()), &[]).await;
    let posted = post_receipts_or_end(&client, &first.url).await;

    assert!(!posted, "the first one acknowledged a receipt into a directory that is not there");
    assert_eq!(first.ended().await.code(), Some(74), "{}", first.log());
    assert_eq!(post_receipts(&client, &second.url, 1).await.status(), 200);
    second.stop_unverified().await;
}
