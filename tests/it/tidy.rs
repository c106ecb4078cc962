//! The repository keeps its own rules: directions of imports, documents that match the code, nothing left lying about.
//!
//! Each rule is a function of the repository in memory, so each is also shown to fail on a planted fault.

mod documents;
mod repo;
mod rules;

use repo::Repo;
use rules::Problems;

/// A rule, and the repository with a fault that it must see.
type Case = (&'static str, fn(&Repo) -> Problems, fn(&Repo) -> Vec<Repo>);

const CASES: [Case; 21] = [
    ("packages depend downwards", rules::packages_depend_downwards, |repo| {
        let kernel = "actors/kernel/Cargo.toml";
        vec![
            repo.replaced(kernel, "[dependencies]\n", "[dependencies]\ntokio = \"1\"\n"),
            repo.replaced("actors/Cargo.toml", "[dependencies]\n", "[dependencies]\naxum = \"0.8\"\n"),
            repo.replaced(
                "actors/engine_plane/Cargo.toml",
                "[dependencies]\n",
                "[dependencies]\norchestrator-trading-plane = \"0\"\n",
            ),
            repo.without(kernel),
        ]
    }),
    ("adapters know only the kernel", rules::adapters_know_only_the_kernel, |repo| {
        let plant = |line| repo.with("src/adapters/clock.rs", line);
        vec![
            plant("//! A.\nuse orchestrator_actors::tree::Tree;\n"),
            plant("//! A.\nuse crate::adapters::files::capture_source::Speed;\n"),
            plant("//! A.\nuse crate::config::Config;\n"),
        ]
    }),
    ("only the wiring names adapters", rules::only_the_wiring_names_adapters, |repo| {
        vec![repo.with("src/api/extra.rs", "//! A.\nuse crate::adapters::clock::WallClock;\n")]
    }),
    ("what serves people is a leaf", rules::what_serves_people_is_a_leaf, |repo| {
        vec![
            repo.with("src/api/extra.rs", "//! A.\nuse crate::cli::print;\n"),
            repo.with("src/service/extra.rs", "//! A.\nuse crate::offline::diff::text;\n"),
        ]
    }),
    ("actors know messages only", rules::actors_know_messages_only, |repo| {
        vec![
            repo.with(
                "actors/engine_plane/src/buffer/extra.rs",
                "//! A.\nuse crate::publisher::Publisher;\n",
            ),
        ]
    }),
    ("types have names of their own", rules::types_have_names_of_their_own, |repo| {
        vec![repo.with("src/api/extra.rs", "//! A.\npub(crate) struct CutBook<T>(T);\n")]
    }),
    ("comments are easy to read", rules::comments_are_easy_to_read, |repo| {
        vec![repo.with("src/api/extra.rs", &format!("//! A.\n/// {}\n", "word ".repeat(25)))]
    }),
    ("files open with their purpose", rules::files_open_with_their_purpose, |repo| {
        vec![repo.with("src/extra.rs", "use std::fmt;\n"), repo.with("actors/src/extra.rs", "")]
    }),
    ("words have runbooks", documents::words_have_runbooks, |repo| {
        vec![
            repo.without("ops/runbooks/engine_timeout.md"),
            repo.without("ops/runbooks/source_down.md"),
            repo.with("ops/runbooks/no_such_word.md", repo.text("ops/runbooks/storage.md")),
            repo.replaced("ops/runbooks/storage.md", "**Fix.**", "Fix."),
        ]
    }),
    ("metrics are documented", documents::metrics_are_documented, |repo| {
        let manual = "docs/operations.md";
        vec![
            repo.replaced(manual, "| `orch_buffer_age_seconds` |", "| the age |"),
            repo.replaced(manual, "counter | `log` |", "counter | |"),
            repo.replaced("ops/runbooks/symbol_halted.md", "**Means.**", "**Means.** orch_nonsense_total"),
        ]
    }),
    ("invariants are tested", documents::invariants_are_tested, |repo| {
        let architecture = "docs/architecture.md";
        vec![
            repo.replaced("actors/kernel/src/engine/cut/tests.rs", "CUT-3", "costs"),
            repo.replaced(architecture, "| **LOG-1** |", "| LOG-1 |"),
            repo.replaced(architecture, "`later_writer_fences_the_earlier`", "`no_such_test`"),
        ]
    }),
    ("faults are tested", documents::faults_are_tested, |repo| {
        let manual = "docs/operations.md";
        vec![
            repo.replaced(manual, "| `nothing_is_acknowledged_before_a_slow_sync_has_returned` |", "| |"),
            repo.replaced(manual, "`missing_segment_is_refused`", "`no_such_test`"),
            repo.replaced("tests/it/readiness.rs", "lost_for_good", "never_asked"),
            repo.replaced("tests/it/faults.rs", "never_lost", "never_asked"),
            repo.replaced(manual, "## Faults", "## Troubles"),
        ]
    }),
    ("specifications are tested", documents::specifications_are_tested, |repo| {
        let page = "docs/specifications.md";
        let row = |proof: &str| format!("{}| a row | – | {proof} |\n", repo.text(page));
        vec![
            repo.without(page),
            repo.with(page, &row("`no_such_test`")),
            // A helper is no test, and four cells are not three.
            repo.with(page, &row("`sample_rows`")),
            repo.with(page, &row("later |")),
            repo.with(page, &row("")),
            repo.with(page, &row("by hand")),
            repo.replaced(
                "actors/kernel/src/trading/cycle/tests.rs",
                "#[test]\nfn every_shipped_pipeline_comes_to_its_end",
                "fn every_shipped_pipeline_comes_to_its_end",
            ),
        ]
    }),
    ("files are short", rules::files_are_short, |repo| {
        vec![repo.with("src/extra.rs", &"//! A.\n".repeat(701))]
    }),
    ("files name no machine", rules::files_name_no_machine, |repo| {
        vec![
            repo.with("docs/extra.md", "see /home/somebody/notes"),
            repo.with("docs/extra.md", "curl https://mirror.example/simple"),
            repo.with("Cargo.lock", "source = \"registry+https://mirror.example/index\"\n"),
            repo.with("fuzz/Cargo.lock", "source = \"registry+https://mirror.example/index\"\n"),
        ]
    }),
    ("the fuzzer locks the service's packages", rules::fuzzer_locks_the_services_packages, |repo| {
        let lock = "fuzz/Cargo.lock";
        let package =
            repo.text(lock).split("\n\n").find(|part| part.contains("\"bytes\"")).unwrap_or_default();
        let version = package.lines().find(|line| line.starts_with("version = ")).unwrap_or_default();
        let other = package.replace(version, "version = \"0.0.1\"");
        vec![repo.without(lock), repo.replaced(lock, package, &other)]
    }),
    ("nothing is left undone", rules::nothing_is_left_undone, |repo| {
        vec![
            repo.with("src/extra.rs", "//! A.\nfn later() { todo!() }\n"),
            repo.with("engines/extra.py", "# FIXME: later\n"),
        ]
    }),
    ("decisions are numbered", documents::decisions_are_numbered, |repo| {
        let (second, _) = repo.below("docs/decisions/0002-", ".md").next().expect("there are two decisions");
        vec![repo.without(second), repo.replaced(second, "**Decision.**", "So:")]
    }),
    ("links lead somewhere", documents::links_lead_somewhere, |repo| {
        vec![repo.without("docs/determinism.md"), repo.with("docs/extra.md", "[a](nowhere.md)")]
    }),
    ("documents are easy to read", documents::documents_are_easy_to_read, |repo| {
        let long = format!("{}\n", "word ".repeat(25));
        vec![repo.with("docs/extra.md", &long), repo.with("README.md", &"a line\n".repeat(151))]
    }),
    ("named settings exist", documents::named_settings_exist, |repo| {
        vec![repo.with("docs/extra.md", "set `schedule.intervall`"), repo.without("config/default.toml")]
    }),
];

#[test]
fn the_repository_keeps_its_rules() {
    let repo = Repo::load();
    let broken: Vec<String> = CASES
        .iter()
        .flat_map(|(rule, check, _)| {
            check(&repo).into_iter().map(move |problem| format!("{rule}: {problem}"))
        })
        .collect();

    assert!(broken.is_empty(), "{} problems:\n  {}", broken.len(), broken.join("\n  "));
}

/// Method: each rule on the repository with one fault at a time, planted in memory.
#[test]
fn every_rule_sees_its_planted_faults() {
    let repo = Repo::load();
    for (rule, check, faults) in CASES {
        let before = check(&repo).len();
        for (faulty, number) in faults(&repo).iter().zip(1..) {
            assert!(check(faulty).len() > before, "{rule}: fault {number} was not seen");
        }
    }
}
