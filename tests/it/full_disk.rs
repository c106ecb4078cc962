//! Bad media at the start, and what makes room when there is none: nothing is damaged, nothing is lost, and the way out
//! needs nothing of what is missing.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::small_disk::SmallDisk;
use crate::support::{PATIENCE, Service, eventually, verify_by};

/// Receipts of a post, a kilobyte each.
const POSTED: u64 = 200;

/// A service whose data directory is a small disk, with small segments.
struct Rig {
    dir: tempfile::TempDir,
    disk: SmallDisk,
}

impl Rig {
    fn new(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let disk = SmallDisk::mounted(&data, options);
        let rig = Self { dir, disk };
        rig.configure("");
        rig
    }

    fn configure(&self, more: &str) {
        let text = format!(
            "[service]\ndata_dir = {:?}\n[buffer]\nsegment_bytes = \"1MiB\"\nbatch_bytes_max = \"512KiB\"\n\
             [symbols]\ndiscover = false\nlist = [\"A\"]\n[schedule]\ninterval = \"200ms\"\ndelay = \"0s\"\n\
             [sources.http]\nkind = \"http\"\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n{more}\n",
            self.dir.path().join("data")
        );
        std::fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// The service on the disk.
    async fn start(&self) -> Service {
        let mut command = self.disk.command(env!("CARGO_BIN_EXE_orchestrator"));
        command.args(["run", "--config"]).arg(self.config());
        Service::spawn(command, &self.config()).await
    }

    /// What a command on the disk comes to.
    fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        // One that goes on is asked to stop.
        let mut command = self.disk.command("timeout");
        command.args(["5", env!("CARGO_BIN_EXE_orchestrator")]);
        let Output { status, stdout, stderr } =
            command.args(args).arg("--config").arg(self.config()).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        (status.code(), said)
    }

    /// What the files on the disk hold, the ballast aside.
    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut folders = vec![self.disk.path()];
        let mut contents = BTreeMap::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    _ if path.ends_with("ballast") => {}
                    true => folders.push(path),
                    false => drop(contents.insert(path.clone(), std::fs::read(path).unwrap())),
                }
            }
        }
        contents
    }

    fn verify(&self) {
        let command = self.disk.command(env!("CARGO_BIN_EXE_orchestrator"));
        verify_by(command, &self.config(), &[]);
    }
}

/// Status of a post of numbered receipts from `first` on.
async fn post(service: &Service, first: u64) -> u16 {
    let payload = "x".repeat(900);
    let lines: Vec<String> = (first..first + POSTED)
        .map(|number| {
            format!(
                r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"T","source_id":"t","symbol":"A","exchange_ts_ms":null,"recv_ts_ms":{number},"raw_payload":"{payload}","normalized":{{}}}}"#
            )
        })
        .collect();
    let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
    let request = client
        .post(format!("{}/api/v1/receipts", service.url))
        .header("content-type", "application/x-ndjson")
        .header("orchestrator-producer", "p")
        .header("orchestrator-sequence", first)
        .body(lines.join("\n"));
    request.send().await.unwrap().status().as_u16()
}

/// Posts until something is refused; how many are acknowledged.
async fn post_until_full(service: &Service, mut acknowledged: u64) -> u64 {
    while post(service, acknowledged + 1).await == 200 {
        acknowledged += POSTED;
        assert!(acknowledged < 1_000_000, "it never became full");
    }
    acknowledged
}

async fn settled(service: &Service) -> u64 {
    let (_, said) = service.get("/api/v1/producers/p").await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    said["settled"].as_u64().unwrap_or(0)
}

/// Method: a service fills its disk; what is left is filled up to the last page by somebody else. Trimming by hand
/// makes room, and nothing that was acknowledged and is still to be there is lost.
#[tokio::test]
async fn logs_are_trimmed_by_hand_on_a_disk_that_is_full() {
    let rig = Rig::new("size=40m");
    let service = rig.start().await;
    let acknowledged = post_until_full(&service, 0).await;
    rig.disk.fill();
    service.kill();
    rig.disk.fill_on();

    let (code, said) = rig.run(&["log", "trim", "--keep-bytes", "4194304"]);

    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\"removed\""), "{said}");
    let service = rig.start().await;
    assert_eq!(settled(&service).await, acknowledged);
    assert_eq!(post(&service, acknowledged + 1).await, 200, "there is room");
    eventually("it is ready", async || (service.get("/readyz").await.0 == 200).then_some(())).await;
    service.stop_unverified().await;
    rig.verify();
}

/// Method: as above, with a service that keeps its receipts for a second only, and finds the disk full up to its last
/// page when it first looks.
#[tokio::test]
async fn retention_makes_room_on_a_disk_that_is_full() {
    let rig = Rig::new("size=40m");
    rig.configure("[retention]\nreceipts_age_max = \"1s\"\ncheck_every = \"8s\"");
    let service = rig.start().await;
    let begun = Instant::now();
    for round in 0..20 {
        assert_eq!(post(&service, round * POSTED + 1).await, 200);
    }
    // What is not published holds its receipts, and the outputs file is on this disk. Runs may wait whose ticks were before
    // these receipts: two outputs each, schedule.runs_queued_max of them and the one that is made.
    let published = async || service.metric("orch_publish_outputs_total").await;
    let enough = published().await + 2.0 * (4.0 + 2.0);
    eventually("runs are published", async || (enough <= published().await).then_some(())).await;
    rig.disk.fill();
    let acknowledged = post_until_full(&service, 20 * POSTED).await;
    rig.disk.fill_on();
    let is_early = begun.elapsed() < Duration::from_secs(7);
    println!("full before retention looked: {is_early}");

    eventually("there is room again", async || (post(&service, acknowledged + 1).await == 200).then_some(()))
        .await;

    eventually("it is ready", async || (service.get("/readyz").await.0 == 200).then_some(())).await;
    assert_eq!(settled(&service).await, acknowledged + POSTED);
    service.stop_unverified().await;
    rig.verify();
}

/// Checks that what was there is as it was, but for what means nothing without a process.
fn check_unchanged(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) {
    for (path, content) in before {
        let end = path.extension().unwrap_or_default();
        let is_passing = path.ends_with("lock") || end == "tmp" || end == "reserve";
        assert!(is_passing || after.get(path) == Some(content), "{} was changed", path.display());
    }
}

/// What `timeout` says of a service that went on until it was asked to stop.
const WENT_ON: Option<i32> = Some(124);

/// Method: each kind of medium on which nothing can be written, where nothing was yet and where a service was stopped;
/// then it is well again. With its logs there a service may start without room: it has some in its segments.
#[tokio::test]
async fn a_start_on_a_bad_medium_is_refused_with_the_way_out_and_damages_nothing() {
    type Medium = (&'static str, fn(&SmallDisk), fn(&SmallDisk), &'static str);
    let media: [Medium; 3] = [
        ("full", SmallDisk::fill, SmallDisk::make_room, "room"),
        ("without inodes", SmallDisk::use_up_inodes, SmallDisk::give_inodes_back, "room"),
        ("read-only", |disk| disk.remount("ro"), |disk| disk.remount("rw"), "writable"),
    ];
    for (name, spoil, mend, way_out) in media {
        for is_fresh in [false, true] {
            let rig = Rig::new("size=40m,nr_inodes=400");
            let mut acknowledged = 0;
            if !is_fresh {
                let service = rig.start().await;
                assert_eq!(post(&service, 1).await, 200);
                acknowledged = POSTED;
                service.stop_unverified().await;
            }
            spoil(&rig.disk);
            for args in [&["run"][..], &["run", "--once"]] {
                let before = rig.contents();
                let (code, said) = rig.run(args);
                if !is_fresh && code == WENT_ON {
                    println!("a {name} disk with logs: it goes on");
                    continue;
                }
                assert_eq!(code, Some(74), "{name}: {said}");
                check_unchanged(&before, &rig.contents());
                assert!(said.contains(way_out), "{name}: the way out is missing: {said}");
            }

            mend(&rig.disk);
            let service = rig.start().await;
            assert_eq!(settled(&service).await, acknowledged, "{name}");
            assert_eq!(post(&service, acknowledged + 1).await, 200, "{name}");
            service.stop_unverified().await;
            rig.verify();
        }
    }
}

/// Method: this user may not write into the data directory, or not into it at all. Root may everything, so it is
/// another user.
#[test]
fn a_start_without_the_right_to_write_says_what_to_give() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let open = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    open(dir.path(), 0o755);
    for mode in [0o555, 0o000] {
        open(&data, mode);
        let set = format!("service.data_dir={}", data.display());
        // In a user namespace of its own nobody is root.
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(copied_binary(dir.path()))
            .args(["run", "--set", &set, "--set", "http.listen=127.0.0.1:0"])
            .current_dir(dir.path())
            .output()
            .unwrap();

        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(74), "{said}");
        assert!(said.contains("give this user the right"), "{said}");
    }
    open(&data, 0o755);
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "nothing was made");
}

/// The binary where everybody may read it.
fn copied_binary(dir: &Path) -> PathBuf {
    let copy = dir.join("orchestrator");
    if !copy.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_orchestrator"), &copy).unwrap();
    }
    copy
}
