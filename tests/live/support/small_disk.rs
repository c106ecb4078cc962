//! A file system of a few megabytes in a mount namespace of its own, for servers that shall find their disk full. It
//! lives as long as its handle, also over restarts of what runs on it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a file system is filled up with.
const BALLAST: &str = "ballast";

/// The process that holds the namespace; it ends when its input does, however the tests end.
pub(crate) struct SmallDisk {
    holder: Child,
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts it on `dir`, for itself and what [`command`](Self::command) starts.
    pub(crate) fn on(dir: &Path, megabytes: u32) -> Self {
        let script = format!(
            "mount -t tmpfs -o size={megabytes}m tmpfs '{}' && echo mounted && exec cat >&2",
            dir.display()
        );
        let mut holder = Command::new("unshare")
            .args(["--mount", "--map-root-user", "--", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n", "unshare needs root, or user namespaces");
        Self { holder, dir: dir.to_owned() }
    }

    /// A command that sees it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let holder = self.holder.id().to_string();
        command.args(["--user", "--preserve-credentials", "--mount", "--target", &holder, "--", program]);
        command
    }

    /// Leaves no room.
    pub(crate) fn fill(&self) {
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        // Ever smaller pieces, so that not a page is left.
        for size in [1 << 20, 64 << 10, 4 << 10] {
            let piece = vec![7u8; size];
            while ballast.write_all(&piece).is_ok() {}
        }
    }

    /// Gives the room back.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), self.dir.display())).join(BALLAST)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        drop(self.holder.wait());
    }
}
