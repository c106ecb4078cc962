//! Stopping effects by the file when things are bad (KILL-4): the real binary on disks that take nothing more, under
//! locks of others, killed and torn at every step.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use orchestrator_kernel::kill_switch::{Stored, TradingState};

use crate::support::{PATIENCE, orchestrator, root};

const BINARY: &str = env!("CARGO_BIN_EXE_orchestrator");
/// A value as releases before this one wrote it: without room for a later stop.
const ACTIVE: &str = "{\"state\":\"ACTIVE\",\"engaged_at\":null,\"engaged_by\":null,\"engagement_reason\":null,\
    \"engagement_details\":null,\"disengaged_at\":null,\"disengaged_by\":null,\"engagement_count_today\":0}\n";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One kill switch in a directory of its own.
struct Switch {
    dir: tempfile::TempDir,
}

impl Switch {
    fn trading() -> Self {
        let switch = Self { dir: tempfile::tempdir().unwrap() };
        switch.run(&["init", "--operator", "ops"], 0);
        switch
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("kill.json")
    }

    fn arguments(&self, words: &[&str]) -> Vec<String> {
        let file = self.file().display().to_string();
        ["kill-switch"].iter().chain(words).copied().chain(["--file", &file]).map(str::to_owned).collect()
    }

    fn run(&self, words: &[&str], code: i32) -> Output {
        let arguments = self.arguments(words);
        let output = orchestrator(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        output
    }

    fn reading(&self) -> TradingState {
        reading(&self.file())
    }
}

fn reading(file: &Path) -> TradingState {
    let value = fs::read(file).unwrap_or_default();
    let value = value.strip_suffix(b"\n").unwrap_or(&value);
    TradingState::of_stored(&if value.is_empty() {
        Stored::Missing
    } else {
        Stored::Value(value.to_vec().into())
    })
}

const ENGAGE: [&str; 5] = ["engage", "--operator", "ops", "--reason", "odd prices"];

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a script in a mount namespace of its own says. `$D` is a directory to mount on, `$O` the command, `$ACTIVE` a
/// value of an earlier release, `FILL` and `EXHAUST` take what room and inodes there are below `$D`.
fn in_own_mounts(script: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let prelude = "set -u\n\
        FILL() { dd if=/dev/zero of=$D/ballast bs=64k 2>/dev/null; dd if=/dev/zero of=$D/ballast2 bs=4k 2>/dev/null; true; }\n\
        EXHAUST() { i=0; while touch $D/e$i 2>/dev/null; do i=$((i+1)); done; }\n\
        K() { command=$1; shift; $O kill-switch $command --file $D/kill.json \"$@\" 2>&1; echo \"$command: $?\"; }\n";
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "--", "sh", "-c", &format!("{prelude}{script}")])
        .current_dir(root())
        .env("D", dir.path())
        .env("O", BINARY)
        .env("ACTIVE", ACTIVE)
        .output()
        .unwrap();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(said.contains("mounted"), "unshare needs root, or user namespaces: {said}");
    said
}

/// Checks that `said` has each part, in this order.
#[track_caller]
fn check_order(said: &str, parts: &[&str]) {
    let mut rest = said;
    for part in parts {
        rest = rest.split_once(part).unwrap_or_else(|| panic!("{part:?} is missing in its place:\n{said}")).1;
    }
}

/// Method: a tmpfs without a page left. The value was written by this release, by an earlier one, and the stop needs
/// more than the page that an earlier one's value has.
#[test]
fn a_full_disk_does_not_keep_anybody_from_stopping() {
    let long = "x".repeat(4000);
    let script = format!(
        "mount -t tmpfs -o size=256k tmpfs $D && echo mounted\n\
         K init --operator ops; FILL\n\
         K engage --operator ops --reason {long} --details '{{\"more\":\"{long}{long}\"}}'; K status\n\
         rm $D/ballast* $D/kill.*; printf %s \"$ACTIVE\" >$D/kill.json; FILL\n\
         K engage --operator ops --reason 'in its page'; K status\n\
         rm $D/ballast* $D/kill.*; printf %s \"$ACTIVE\" >$D/kill.json; FILL\n\
         K engage --operator ops --reason {long} --details '{{\"more\":\"{long}{long}\"}}'; K status\n\
         rm $D/ballast*; K disengage --operator ops; K init --operator ops; K status\n"
    );
    let said = in_own_mounts(&script);

    check_order(&said, &["init: 0", "\"engaged_by\":\"ops\"", "engage: 0", "halted", "status: 1"]);
    let second = said.split_once("status: 1").unwrap().1;
    check_order(second, &["the history was not written", "in its page", "engage: 0", "halted", "status: 1"]);
    let third = second.split_once("status: 1").unwrap().1;
    check_order(
        third,
        &["blocked, state removed: `kill-switch init` is needed", "engage: 0", "unknown", "status: 2"],
    );
    check_order(third, &["status: 2", "disengage: 1", "init: 0", "trading", "status: 0"]);
}

/// Method: a tmpfs without an inode left; the value stands, and then it does not and no file can be made.
#[test]
fn a_disk_without_inodes_does_not_keep_anybody_from_stopping() {
    let said = in_own_mounts(
        "mount -t tmpfs -o nr_inodes=16 tmpfs $D && echo mounted\n\
         printf %s \"$ACTIVE\" >$D/kill.json; EXHAUST\n\
         K engage --operator ops --reason r; K status\n\
         rm $D/kill.json; touch $D/e; K engage --operator ops --reason r; K status\n",
    );

    check_order(
        &said,
        &["the history was not written", "\"engaged_by\":\"ops\"", "engage: 0", "halted", "status: 1"],
    );
    let second = said.split_once("status: 1").unwrap().1;
    check_order(second, &["blocked, state removed", "engage: 0", "unknown", "status: 2"]);
}

/// Method: the directory is mounted read-only. Nobody can change the value there, so what holds is said, and the way
/// out.
#[test]
fn a_read_only_mount_says_that_nothing_was_changed_and_what_holds() {
    let said = in_own_mounts(
        "mount -t tmpfs tmpfs $D && echo mounted\n\
         K init --operator ops; mount -o remount,ro $D\n\
         K engage --operator ops --reason r; K status\n\
         mount -o remount,rw $D; rm $D/kill.json; mount -o remount,ro $D\n\
         K engage --operator ops --reason r; K status\n",
    );

    let parts = [
        "nothing was changed",
        "Read-only file system",
        "stays `trading`",
        "stop the services",
        "engage: 69",
    ];
    check_order(&said, &parts);
    check_order(&said, &["engage: 69", "trading", "status: 0", "engage: ", "unknown", "status: 2"]);
}

/// Method: somebody holds a shared lock on a lock that everybody may read. It is in force while it waits to be
/// recorded.
#[test]
fn a_lock_of_anybody_does_not_keep_anybody_from_stopping() {
    let switch = Switch::trading();
    let lock = File::open(switch.dir.path().join("kill.lock")).unwrap();
    lock.lock_shared().unwrap();

    let mut child = Command::new(BINARY)
        .args(switch.arguments(&ENGAGE))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("it is in force", || matches!(switch.reading(), TradingState::Halted(_)));
    assert!(child.try_wait().unwrap().is_none(), "in force before it is recorded");
    let ended = child.wait_with_output().unwrap();

    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    let status = text(&switch.run(&["status"], 1).stdout);
    check_order(&status, &["halted", "\"event\":\"INITIALIZED\"", "\"event\":\"ENGAGED\""]);
    // Permission is not given past a lock.
    switch.run(&["disengage", "--operator", "ops"], 69);
    drop(lock);
    switch.run(&["disengage", "--operator", "ops"], 0);
}

/// Ends its process when a test does not.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Method: `strace` holds a command that lifts the stop right before its rename, past every check of its own. Another
/// operator engages meanwhile.
#[test]
fn a_stop_cancels_a_permission_that_is_about_to_be_given() {
    let switch = Switch::trading();
    switch.run(&ENGAGE, 0);
    let lifting = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=rename,renameat,renameat2"])
        .args(["-e", "inject=rename,renameat,renameat2:delay_enter=4000000", BINARY])
        .args(switch.arguments(&["disengage", "--operator", "second"]))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lifting = Ended(lifting);
    let aside = switch.dir.path().join("kill.tmp");
    wait_until("it has its new value aside", || fs::metadata(&aside).is_ok_and(|aside| aside.len() > 100));
    std::thread::sleep(Duration::from_millis(300));
    // Somebody allowed trading by hand, and the next one sees that and stops it again.
    fs::write(switch.file(), "off\n").unwrap();

    let stopped = switch.run(&["engage", "--operator", "third", "--reason", "again"], 0);
    let ended = lifting.0.wait().unwrap();

    assert!(text(&stopped.stdout).contains("\"engaged_by\":\"third\""));
    assert_eq!(ended.code(), Some(69), "what it was about to allow was stopped meanwhile");
    let TradingState::Halted(halt) = switch.reading() else { panic!("{:?}", switch.reading()) };
    assert_eq!(halt.by.as_deref(), Some("third"));
}

/// Method: `strace` ends it at each of its system calls that could change anything, one after the other.
#[test]
fn a_stop_killed_at_any_call_has_changed_nothing_or_blocks() {
    let mut halted = 0;
    for call in ["pwrite64", "ftruncate", "fsync", "unlink", "flock", "fchmod", "write", "fdatasync"] {
        for number in 1.. {
            let switch = Switch::trading();
            let before = fs::read(switch.file()).unwrap();
            let traced = Command::new("strace")
                .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
                .args(["-e", &format!("inject={call}:signal=SIGKILL:when={number}"), BINARY])
                .args(switch.arguments(&ENGAGE))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap();
            let (now, reading) = (fs::read(switch.file()).unwrap(), switch.reading());
            assert!(reading != TradingState::Trading || now == before, "{call} {number}: {}", text(&now));
            if traced.code() == Some(0) {
                break;
            }
            halted += u32::from(reading != TradingState::Trading);
            assert!(number < 100, "it never comes to its end");
        }
    }
    assert!(halted > 3, "it was killed after it was in force, too: {halted}");
}

/// Method: a limit on the size of files tears the overwrite after each number of bytes.
#[test]
fn a_stop_torn_at_any_byte_has_changed_nothing_or_blocks() {
    let switch = Switch::trading();
    for bytes in (0..40).chain((40..330).step_by(17)) {
        fs::write(switch.file(), ACTIVE).unwrap();
        let torn = Command::new("prlimit")
            .args([&format!("--fsize={bytes}"), "--core=0", BINARY])
            .args(switch.arguments(&ENGAGE))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        let now = fs::read(switch.file()).unwrap_or_default();
        let blocks = switch.reading() != TradingState::Trading;
        assert!(blocks || now == ACTIVE.as_bytes(), "{bytes} bytes: {}", text(&now));
        assert!(blocks || !torn.success(), "{bytes} bytes: it says that it is done");
    }
}

/// Method: faults everywhere in the configuration but where the kill switch is; then there too, and no configuration at
/// all. Permission needs all of it to be right.
#[test]
fn what_is_wrong_elsewhere_in_the_configuration_does_not_keep_anybody_from_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml").display().to_string();
    let broken = format!(
        "[service]\ndata_dir = {:?}\ngrace = \"soon\"\n[schedule]\nintervall = \"3m\"\n[http]\nlisten = \"0.0.0.0:1\"\n[kill_switch]\npoll = 3\n",
        dir.path()
    );
    let run = |words: &[&str], code: i32| {
        let output = orchestrator(&[&["kill-switch"], words, &["--config", &config]].concat());
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        said
    };
    fs::write(&config, &broken).unwrap();

    run(&["init", "--operator", "ops"], 78);
    fs::write(dir.path().join("kill_switch.json"), ACTIVE).unwrap();
    let said = run(&ENGAGE, 0);
    assert!(said.contains("schedule.intervall") && said.contains("not needed for this"), "{said}");
    run(&["status"], 1);
    run(&["disengage", "--operator", "ops"], 78);

    // Where it is not known where the kill switch is, nothing is stopped somewhere else instead.
    for place in [
        "[kill_switch]\nfiel = \"x\"\n",
        "[kill-switch]\nfile = \"x\"\n",
        "[kill_switch]\nkind = \"redis\"\n",
    ] {
        fs::write(&config, place).unwrap();
        run(&ENGAGE, 78);
    }
    fs::write(&config, "no TOML at all").unwrap();
    run(&ENGAGE, 78);
    let elsewhere = dir.path().join("other.json");
    fs::write(&elsewhere, ACTIVE).unwrap();
    run(&[&ENGAGE[..], &["--file", elsewhere.to_str().unwrap()]].concat(), 0);
    assert!(matches!(reading(&elsewhere), TradingState::Halted(_)));
}

/// Method: its standard output is full.
#[test]
fn a_stop_that_can_tell_nobody_is_a_stop() {
    let switch = Switch::trading();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let ended = Command::new(BINARY)
        .args(switch.arguments(&ENGAGE))
        .stdout(full)
        .stderr(Stdio::null())
        .status()
        .unwrap();

    assert_eq!(ended.code(), Some(0));
    assert!(matches!(switch.reading(), TradingState::Halted(_)));
}
