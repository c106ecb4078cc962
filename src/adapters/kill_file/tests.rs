//! The file keeps the port's promises, under other processes, crashes and strange files too.

use std::io::Write as _;

use orchestrator_kernel::kill_switch::Reading;
use orchestrator_kernel::ports::kill_switch_conformance::{self as conformance, KillSwitchProvider};

use super::*;

fn kill_file(dir: &tempfile::TempDir) -> KillFile {
    let path = dir.path().join("kill_switch.json");
    KillFile::new(KillFileOptions { path, lock_wait: Duration::from_secs(30) })
}

fn engage(reason: &str) -> Command {
    Command::Engage { operator: "ops".to_owned(), reason: reason.to_owned(), details: None }
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
    assert_eq!(store.read().await, Ok(Stored::NotText));
    std::fs::remove_dir(path).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert_eq!(store.read().await, Ok(Stored::NotText));
    std::fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink(path, path).unwrap();
    assert!(matches!(store.read().await, Err(ReadError::Refused(_))));

    store.apply(&engage("whatever is there"), TsMs(0)).await.unwrap();
    assert!(matches!(Reading::of(&store.read().await.unwrap()), Reading::Halted(_)));
}

#[tokio::test]
async fn one_line_feed_is_the_files_and_not_the_values() {
    let dir = tempfile::tempdir().unwrap();
    let store = kill_file(&dir);
    for (content, value) in [("off\n", Some("off")), ("off\n\n", Some("off\n")), ("\n", None), ("", None)] {
        std::fs::write(store.files.value_path(), content).unwrap();
        let expected = value.map_or(Stored::Missing, |value| Stored::Value(value.into()));
        assert_eq!(store.read().await, Ok(expected), "{content:?}");
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

    let refused = store.apply(&engage("r"), TsMs(0)).await.unwrap_err();
    assert!(matches!(&refused, ApplyError::Unchanged(why) if why.contains("another command")), "{refused}");
    assert_eq!(store.read().await, Ok(Stored::Missing), "reading needs no lock");

    drop(lock);
    store.apply(&engage("r"), TsMs(0)).await.unwrap();
}

#[tokio::test]
async fn a_stop_needs_no_history_and_permission_needs_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = kill_file(&dir);
    // A directory in its place: it can be neither read nor written.
    std::fs::create_dir(dir.path().join("kill_switch.history.jsonl")).unwrap();

    let init = store.apply(&Command::Init { operator: "ops".to_owned() }, TsMs(0)).await;
    assert!(matches!(init, Err(ApplyError::Unchanged(_))), "{init:?}");
    assert_eq!(store.read().await, Ok(Stored::Missing));

    store.apply(&engage("r"), TsMs(0)).await.unwrap();
    assert!(matches!(Reading::of(&store.read().await.unwrap()), Reading::Halted(_)));
}

#[tokio::test]
async fn a_line_that_a_crash_cut_short_does_not_spoil_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = kill_file(&dir);
    std::fs::write(dir.path().join("kill_switch.history.jsonl"), "{\"event\":\"ENG").unwrap();

    store.apply(&engage("r"), TsMs(0)).await.unwrap();

    let lines = store.history(10).await.unwrap();
    assert_eq!(lines.len(), 2);
    assert!(serde_json::from_str::<serde_json::Value>(&lines[1]).is_ok(), "{lines:?}");
}
