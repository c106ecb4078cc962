//! A file system of a few megabytes in a mount namespace of its own, for those that shall find their disk full, without
//! inodes, or read-only. It lives as long as its handle, also over restarts of what runs on it.

#![allow(dead_code, reason = "two test binaries share this file, and each uses a part of it")]

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
        Self::mounted(dir, &format!("size={megabytes}m"))
    }

    /// As [`on`](Self::on), with the options of a tmpfs.
    pub(crate) fn mounted(dir: &Path, options: &str) -> Self {
        let script =
            format!("mount -t tmpfs -o {options} tmpfs '{}' && echo mounted && exec cat >&2", dir.display());
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

    /// Mounts it again with other options.
    pub(crate) fn remount(&self, options: &str) {
        let mut mount = self.command("mount");
        let status = mount.args(["-o", &format!("remount,{options}")]).arg(&self.dir).status().unwrap();
        assert!(status.success(), "mount -o remount,{options}");
    }

    /// The directory that it is on, as who is outside of its namespace sees it.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), self.dir.display()))
    }

    /// Leaves no inode.
    pub(crate) fn use_up_inodes(&self) {
        let dir = self.path().join(BALLAST);
        std::fs::create_dir(&dir).unwrap();
        for number in 0.. {
            if std::fs::File::create(dir.join(format!("{number}"))).is_err() {
                return;
            }
        }
    }

    /// Gives the inodes back.
    pub(crate) fn give_inodes_back(&self) {
        std::fs::remove_dir_all(self.path().join(BALLAST)).unwrap();
    }

    /// Leaves no room.
    pub(crate) fn fill(&self) {
        drop(std::fs::File::create(self.ballast()).unwrap());
        self.fill_on();
    }

    /// Takes what was given up since.
    pub(crate) fn fill_on(&self) {
        let mut ballast = std::fs::File::options().append(true).open(self.ballast()).unwrap();
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
        self.path().join(BALLAST)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        drop(self.holder.wait());
    }
}
