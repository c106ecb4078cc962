//! The repository as the rules see it: every text file of it in memory, so that a planted fault needs no disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::support::root;

/// Paths, relative to the root, and their texts.
#[derive(Clone)]
pub(super) struct Repo(BTreeMap<String, String>);

impl Repo {
    /// Reads the files that git knows or would add; without git, all but what is built.
    pub(super) fn load() -> Self {
        let listed = git_files().unwrap_or_else(|| {
            let mut files = Vec::new();
            walk(root(), &mut files);
            files
        });
        let text = |path: &String| std::fs::read(root().join(path)).ok();
        let files = listed.into_iter().filter_map(|path| {
            let text = String::from_utf8_lossy(&text(&path)?).into_owned();
            Some((path, text))
        });
        Self(files.collect())
    }

    /// The same repository with this file in it.
    pub(super) fn with(&self, path: &str, text: &str) -> Self {
        let mut repo = self.clone();
        repo.0.insert(path.to_owned(), text.to_owned());
        repo
    }

    /// The same repository without this file.
    pub(super) fn without(&self, path: &str) -> Self {
        let mut repo = self.clone();
        repo.0.remove(path).unwrap_or_else(|| panic!("{path} is not there"));
        repo
    }

    /// The same repository with `from` replaced in a file.
    pub(super) fn replaced(&self, path: &str, from: &str, to: &str) -> Self {
        let text = self.text(path);
        assert!(text.contains(from), "{path} does not hold {from}");
        self.with(path, &text.replace(from, to))
    }

    /// The text of a file; empty when it is not there, which every rule then complains of.
    pub(super) fn text(&self, path: &str) -> &str {
        self.0.get(path).map_or("", String::as_str)
    }

    /// Whether there is such a file, or a folder with files.
    pub(super) fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        self.0.contains_key(path) || self.0.keys().any(|known| known.starts_with(&folder))
    }

    /// Every file.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The files below a folder whose names end so.
    pub(super) fn below(&self, folder: &str, end: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(move |(path, _)| path.starts_with(folder) && path.ends_with(end))
    }

    /// The parts of all Rust files that are tests or serve only tests, one after the other.
    pub(super) fn test_code(&self) -> String {
        const ONLY_TESTS: [&str; 4] = ["tests/", "/tests.rs", "/testkit/", "_conformance.rs"];
        let of_file = |(path, text): (&str, &str)| match ONLY_TESTS.iter().any(|part| path.contains(part)) {
            true => text.to_owned(),
            false => text.split_once("#[cfg(test)]").map_or_else(String::new, |(_, tests)| tests.to_owned()),
        };
        self.below("", ".rs").filter(|(path, _)| !path.starts_with("tests/it/tidy")).map(of_file).collect()
    }
}

fn git_files() -> Option<Vec<String>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .ok()?;
    let paths = String::from_utf8_lossy(&listed.stdout).into_owned();
    let paths: Vec<String> = paths.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    (listed.status.success() && !paths.is_empty()).then_some(paths)
}

fn walk(folder: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || ["target", "data", "__pycache__"].contains(&name.as_str()) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), files);
        } else {
            let path = entry.path();
            files.push(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
        }
    }
}
