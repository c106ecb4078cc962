//! The rules of documents: what they name is there, what is there they name, and each promise has a test.

use std::collections::BTreeSet;

use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::invariants::Invariant;
use orchestrator_kernel::metric_names::{self, MetricName};
use orchestrator_runtime::fatal::FatalKind;
use orchestrator_runtime::status::Condition;

use super::repo::Repo;
use super::rules::{Problems, after};

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
