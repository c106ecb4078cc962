//! The file keeps the port's promises, under other processes, crashes and strange files too.

use std::io::Write as _;

use orchestrator_kernel::kill_switch::{Shortfall, TradingState};
use orchestrator_kernel::ports::kill_switch_conformance::{self as conformance, KillSwitchProvider};

use super::*;

fn kill_file(dir: &tempfile::TempDir) -> KillFile {
    let path = dir.path().join("kill_switch.json");
    KillFile::new(KillFileOptions { path, lock_wait: Duration::from_secs(30) })
}

fn engage(reason: &str) -> OperatorCommand {
    OperatorCommand::Engage { operator: "ops".to_owned(), reason: reason.to_owned(), details: None }
}

#[derive(Default)]
struct InFiles(std::sync::Mutex<Vec<tempfile::TempDir>>);

#[async_trait]
impl KillSwitchProvider for InFiles {
    type Store = KillFile;

    async fn fresh(&self) -> Arc<KillFile> {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(kill_file(&dir));
        self.0.lock().unwrap().push(dir);
        store
    }

    async fn put(&self, store: &KillFile, value: Option<&[u8]>) {
        let path = store.files.value_path();
        match value {
            Some(value) => std::fs::write(path, value).unwrap(),
            None => std::fs::remove_file(path).or_else(missing_is_fine).unwrap(),
        }
    }

    async fn put_history(&self, store: &KillFile, lines: Vec<String>) {
        let path = store.files.value_path().with_extension("history.jsonl");
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    }

    async fn spoil_history(&self, store: &KillFile) {
        // A directory in its place: it can be neither read nor written.
        std::fs::create_dir(store.files.value_path().with_extension("history.jsonl")).unwrap();
    }
}

fn missing_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[tokio::test]
async fn file_keeps_the_promises_of_the_port() {
    conformance::run(&InFiles::default()).await;
}

/// Method: what stands where the file should be; none of it may hang or allow anything.
#[tokio::test]
async fn strange_files_allow_nothing_and_hang_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = kill_file(&dir);
    let path = store.files.value_path();

    std::fs::create_dir(path).unwrap();
    assert_eq!(store.read_value().await, Ok(Stored::NotText));
    std::fs::remove_dir(path).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert_eq!(store.read_value().await, Ok(Stored::NotText));
    std::fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink(path, path).unwrap();
    assert!(matches!(store.read_value().await, Err(KillSwitchReadError::Refused(_))));

    store.apply_command(&engage("whatever is there"), TsMs(0)).await.unwrap();
    assert!(matches!(TradingState::of_stored(&store.read_value().await.unwrap()), TradingState::Halted(_)));
}

#[tokio::test]
async fn one_line_feed_is_the_files_and_not_the_values() {
    let dir = tempfile::tempdir().unwrap();
    let store = kill_file(&dir);
    for (content, value) in [("off\n", Some("off")), ("off\n\n", Some("off\n")), ("\n", None), ("", None)] {
        std::fs::write(store.files.value_path(), content).unwrap();
        let expected = value.map_or(Stored::Missing, |value| Stored::Value(value.into()));
        assert_eq!(store.read_value().await, Ok(expected), "{content:?}");
    }
}

/// Method: a second handle has its own lock, as another process has.
#[tokio::test]
async fn a_command_waits_for_that_of_another_process_and_gives_up_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let other = kill_file(&dir);
    let path = other.files.value_path().to_owned();
    let store = KillFile::new(KillFileOptions { path, lock_wait: Duration::from_millis(50) });
    let lock = std::fs::File::create(dir.path().join("kill_switch.lock")).unwrap();
    lock.lock().unwrap();

    let init = OperatorCommand::Init { operator: "ops".to_owned() };
    let refused = store.apply_command(&init, TsMs(0)).await.unwrap_err();
    assert!(matches!(&refused, ApplyError::Unchanged(why) if why.contains("another command")), "{refused}");
    assert_eq!(store.read_value().await, Ok(Stored::Missing), "reading needs no lock");
    assert!(
        store.apply_command(&engage("r"), TsMs(0)).await.unwrap().shortfalls.is_empty(),
        "nor does a stop"
    );

    drop(lock);
    std::fs::remove_file(store.files.value_path()).unwrap();
    store.apply_command(&init, TsMs(0)).await.unwrap();
}

/// KILL-4. Method: one operator lifts a stop while another one stops, over and over; whoever was told that it is
/// engaged must find it so, because what was lifted is what was there before.
#[test]
fn a_stop_wins_over_a_command_that_is_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let files = std::sync::Arc::new(kill_file(&dir).files);
    let lift = OperatorCommand::Disengage { operator: "second".to_owned(), notes: None };
    let mut both = 0;
    for round in 0..300 {
        match files.apply_command(&engage("before"), TsMs(round)) {
            Ok(_) | Err(ApplyError::Refused(_)) => {}
            Err(error) => panic!("{error}"),
        }
        let (lifted, stopped) = std::thread::scope(|scope| {
            let lifting = scope.spawn(|| files.apply_command(&lift, TsMs(round)));
            // Later in each round, over the time that lifting takes.
            std::thread::sleep(Duration::from_micros(u64::try_from(round).unwrap() * 5));
            let stopped = files.apply_command(&engage("meanwhile"), TsMs(round));
            (lifting.join().unwrap(), stopped)
        });
        let reading = TradingState::of_stored(&files.read_value().unwrap());
        both += u32::from(lifted.is_ok() && stopped.is_ok());
        assert!(
            stopped.is_err() || matches!(reading, TradingState::Halted(_)),
            "round {round}: {stopped:?}, then {reading:?}; lifted: {lifted:?}"
        );
        assert!(
            stopped.is_ok() || lifted.is_err() || reading == TradingState::Trading,
            "{stopped:?} {lifted:?}"
        );
    }
    println!("both were carried out in {both} rounds");
}

/// Method: the history cannot be written while it is stopped; whoever lifts it writes both lines.
#[tokio::test]
async fn a_stop_that_could_not_be_recorded_is_recorded_by_whoever_lifts_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = kill_file(&dir);
    let history = dir.path().join("kill_switch.history.jsonl");
    std::fs::create_dir(&history).unwrap();
    let stopped = store.apply_command(&engage("r"), TsMs(0)).await.unwrap();
    assert!(matches!(stopped.shortfalls.as_slice(), [Shortfall::Unrecorded(_)]), "{stopped:?}");

    std::fs::remove_dir(&history).unwrap();
    let lift = OperatorCommand::Disengage { operator: "second".to_owned(), notes: None };
    store.apply_command(&lift, TsMs(1)).await.unwrap();
    store.apply_command(&engage("again"), TsMs(2)).await.unwrap();
    store.apply_command(&lift, TsMs(3)).await.unwrap();

    let events: Vec<String> = store
        .read_history(10)
        .await
        .unwrap()
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].to_string())
        .collect();
    assert_eq!(events.join(" "), r#""ENGAGED" "DISENGAGED" "ENGAGED" "DISENGAGED""#);
}

/// Method: rights and owner before and after; the lock of an earlier release is readable for everybody.
#[tokio::test]
async fn commands_keep_the_rights_of_the_value_and_nobody_else_may_hold_the_lock() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let dir = tempfile::tempdir().unwrap();
    let store = kill_file(&dir);
    let lock = dir.path().join("kill_switch.lock");
    std::fs::write(&lock, "").unwrap();
    std::fs::set_permissions(&lock, std::fs::Permissions::from_mode(0o644)).unwrap();
    store.apply_command(&OperatorCommand::Init { operator: "ops".to_owned() }, TsMs(0)).await.unwrap();
    assert_eq!(std::fs::metadata(&lock).unwrap().mode() & 0o777, 0o600);
    let path = store.files.value_path();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let inode = std::fs::metadata(path).unwrap().ino();

    store.apply_command(&engage("r"), TsMs(0)).await.unwrap();
    assert_eq!(std::fs::metadata(path).unwrap().ino(), inode, "a stop takes no new inode");
    store
        .apply_command(&OperatorCommand::Disengage { operator: "ops".to_owned(), notes: None }, TsMs(0))
        .await
        .unwrap();

    assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o777, 0o640);
}

#[tokio::test]
async fn a_line_that_a_crash_cut_short_does_not_spoil_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = kill_file(&dir);
    std::fs::write(dir.path().join("kill_switch.history.jsonl"), "{\"event\":\"ENG").unwrap();

    store.apply_command(&engage("r"), TsMs(0)).await.unwrap();

    let lines = store.read_history(10).await.unwrap();
    assert_eq!(lines.len(), 2);
    assert!(serde_json::from_str::<serde_json::Value>(&lines[1]).is_ok(), "{lines:?}");
}
