//! What a comparison came to: for people, for programs, and for test reports.

use std::collections::BTreeMap;

use orchestrator_kernel::engine::divergence::{Check, Divergence, DivergencePlace};
use orchestrator_kernel::ids::RunSeq;
use orchestrator_kernel::ports::engine::EngineIdentity;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};

use super::journal::AuditedJournal;
use super::text::shorten_value;
use crate::offline::replay::{ReplaySummary, ReplayedRun};
use crate::process::exit::ProcessExit;

/// Divergences that a report lists; further ones are counted. So are cuts that resumed after a trim.
const LISTED_MAX: usize = 100;

/// Format of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum VerifyFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object with everything.
    Json,
    /// A JUnit test report, one test case for each check.
    Junit,
}

/// Verdict of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyVerdict {
    /// Everything that was recorded follows.
    Equal,
    /// Something was recorded otherwise than it follows.
    Different,
    /// Not everything could be compared, and what was compared is equal.
    CannotTell,
}

impl VerifyVerdict {
    /// How the process ends.
    #[must_use]
    pub const fn to_exit(self) -> ProcessExit {
        match self {
            Self::Equal => ProcessExit::Ok,
            Self::Different => ProcessExit::Different,
            Self::CannotTell => ProcessExit::Usage,
        }
    }

    const fn verdict_word(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::CannotTell => "cannot tell",
        }
    }
}

/// Lines of the outputs file that were compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct ComparedLines {
    /// As published.
    pub(super) equal: u64,
    /// Repetitions.
    pub(super) repeated: u64,
}

/// Runs that were answered by another engine than the one that was asked now.
#[derive(Clone, Debug)]
struct OtherEngine {
    first: RunSeq,
    runs: u64,
    now: EngineIdentity,
}

/// Report of a comparison.
#[derive(Debug, Default)]
pub struct VerifyReport {
    place: String,
    allow_other_engine: bool,
    counts: BTreeMap<Check, u64>,
    listed: Vec<Divergence>,
    /// The run of the first divergence that belongs to one, as recorded and as replayed.
    pub(super) first_run: Option<Box<ReplayedRun>>,
    /// What is known about the first divergence.
    pub(super) context: String,
    other_engines: BTreeMap<(String, String, String), OtherEngine>,
    not_told: Vec<String>,
    notes: Vec<String>,
    done: Option<ReplaySummary>,
    answered: u64,
    pub(super) outputs: Option<ComparedLines>,
    pub(super) quarantined: u64,
    pub(super) manifests: u64,
    /// Whether there is a journal.
    pub(super) has_journal: bool,
    /// The journal, when its audit came to its end.
    pub(super) journal: Option<AuditedJournal>,
}

impl VerifyReport {
    pub(super) fn new(place: String, allow_other_engine: bool) -> Self {
        Self { place, allow_other_engine, ..Self::default() }
    }

    /// Notes a difference.
    pub(super) fn note_divergence(&mut self, divergence: Divergence) {
        *self.counts.entry(divergence.check).or_default() += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push(divergence);
        }
    }

    /// Notes a replayed run.
    pub(super) fn note_replayed(&mut self, run: ReplayedRun, found: Vec<Divergence>) {
        self.answered += u64::from(run.engine.is_some());
        if self.listed.is_empty() && !found.is_empty() {
            self.first_run = Some(Box::new(run));
        }
        found.into_iter().for_each(|divergence| self.note_divergence(divergence));
    }

    /// Notes that another engine answered now than then.
    pub(super) fn other_engine(&mut self, at: RunSeq, recorded: EngineIdentity, now: EngineIdentity) {
        let EngineIdentity { name, version, code_hash } = recorded;
        let other = self.other_engines.entry((name, version, code_hash));
        other.or_insert(OtherEngine { first: at, runs: 0, now }).runs += 1;
    }

    /// Notes something that could not be compared.
    pub(super) fn cannot_tell(&mut self, why: String) {
        self.not_told.push(why);
    }

    /// Notes something worth knowing that is no difference.
    pub(super) fn add_note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Notes that the replay came to its end.
    pub(super) fn note_done(&mut self, done: ReplaySummary) {
        self.notes.extend(done.anew.iter().take(LISTED_MAX).map(ToString::to_string));
        if let Some(more) = done.anew.len().checked_sub(LISTED_MAX).filter(|more| 0 < *more) {
            self.add_note(format!("{more} more cuts began anew"));
        }
        self.done = Some(done);
    }

    /// The first difference.
    #[must_use]
    pub fn first_divergence(&self) -> Option<&Divergence> {
        self.listed.first()
    }

    /// What it says.
    #[must_use]
    pub fn to_verdict(&self) -> VerifyVerdict {
        let told = self.not_told.is_empty() && (self.other_engines.is_empty() || self.allow_other_engine);
        match (self.counts.is_empty(), told) {
            (false, _) => VerifyVerdict::Different,
            (true, true) => VerifyVerdict::Equal,
            (true, false) => VerifyVerdict::CannotTell,
        }
    }

    /// The report in the form asked for.
    #[must_use]
    pub fn render_as(&self, form: VerifyFormat) -> String {
        match form {
            VerifyFormat::Text => self.to_text(),
            VerifyFormat::Json => format!("{:#}\n", self.to_json()),
            VerifyFormat::Junit => self.to_junit(),
        }
    }

    fn to_text(&self) -> String {
        let mut text = format!("{}: {}\n", self.place, self.headline_text());
        for line in self.engine_lines().chain(self.not_told.iter().cloned()).chain(self.remark_lines()) {
            text.push_str(&format!("  {line}\n"));
        }
        let Some(first) = self.first_divergence() else { return text };
        text.push_str(&format!("\nfirst difference ({}): {}\n", first.check, divergence_line(first)));
        text.push_str(&self.context);
        let rest = self.counts.values().sum::<u64>() - 1;
        if rest > 0 {
            text.push_str(&format!("\nand {rest} more:\n"));
            for (check, count) in &self.counts {
                text.push_str(&format!("  {count:>7}  {check}: not so that {}\n", check.says()));
            }
            for divergence in self.listed.iter().skip(1).take(9) {
                text.push_str(&format!("  {}\n", divergence_line(divergence)));
            }
        }
        text
    }

    fn headline_text(&self) -> String {
        let compared = match &self.done {
            Some(done) => format!(
                "{} receipts, {} run records, {} runs ended, {} answers of the engine",
                done.receipts, done.runs, done.replayed, self.answered
            ),
            None => "the comparison did not come to its end".to_owned(),
        };
        let verdict = self.to_verdict();
        match verdict {
            VerifyVerdict::Equal | VerifyVerdict::CannotTell => {
                format!("{} ({compared})", verdict.verdict_word())
            }
            VerifyVerdict::Different => {
                format!("different in {} places ({compared})", self.counts.values().sum::<u64>())
            }
        }
    }

    fn engine_lines(&self) -> impl Iterator<Item = String> {
        self.other_engines.iter().map(|((name, version, code_hash), other)| {
            let now = &other.now;
            let advice = if self.allow_other_engine {
                "allowed by --allow-other-engine"
            } else {
                "ask the engine of the record, or allow it with --allow-other-engine"
            };
            format!(
                "another engine: {} runs from run record {} on were answered by {}, now by {}: {advice}",
                other.runs,
                other.first,
                engine_identity(name, version, code_hash),
                engine_identity(&now.name, &now.version, &now.code_hash)
            )
        })
    }

    fn remark_lines(&self) -> impl Iterator<Item = String> {
        let unfinished = self.done.iter().flat_map(|done| &done.unfinished).map(|(symbol, run_id)| {
            format!("run {run_id} of {symbol} was started and has not ended: the next start finishes it")
        });
        let outputs = self.outputs.map(|ComparedLines { equal, repeated }| {
            format!("outputs file: {equal} lines as published, {repeated} repetitions")
        });
        let journal = self.journal.iter().flat_map(journal_lines);
        self.notes.iter().cloned().chain(unfinished).chain(outputs).chain(journal)
    }

    fn to_json(&self) -> Value {
        let engines: Vec<Value> = self
            .other_engines
            .iter()
            .map(|((name, version, code_hash), other)| {
                let EngineIdentity { name: name_now, version: version_now, code_hash: code_hash_now } =
                    &other.now;
                json!({
                    "recorded": {"name": name, "version": version, "code_hash": code_hash},
                    "now": {"name": name_now, "version": version_now, "code_hash": code_hash_now},
                    "runs": other.runs,
                    "first_run_record": other.first,
                    "allowed": self.allow_other_engine,
                })
            })
            .collect();
        let counts: BTreeMap<&str, u64> =
            self.counts.iter().map(|(check, count)| (check.as_str(), *count)).collect();
        let done = self.done.clone().unwrap_or_default();
        let unfinished: Vec<Value> = done
            .unfinished
            .iter()
            .map(|(symbol, run_id)| json!({"symbol": symbol, "run_id": run_id.to_string()}))
            .collect();
        let mut report = json!({
            "from": self.place,
            "verdict": self.to_verdict().verdict_word(),
            "complete": self.done.is_some(),
            "receipts": done.receipts,
            "run_records": done.runs,
            "runs_ended": done.replayed,
            "answers": self.answered,
            "unfinished": unfinished,
            "outputs_file": self.outputs.map(|lines| json!({"equal": lines.equal, "repeated": lines.repeated})),
            "quarantined": self.quarantined,
            "manifests": self.manifests,
            "other_engines": engines,
            "cannot_tell": self.not_told,
            "notes": self.notes,
            "differences": counts,
            "first": self.listed.iter().map(divergence_json).collect::<Vec<_>>(),
            "context": self.context,
        });
        if let (Some(journal), Value::Object(fields)) = (&self.journal, &mut report) {
            fields.insert("journal".to_owned(), journal_json(journal));
        }
        report
    }

    fn to_junit(&self) -> String {
        let mut suite = TestSuite::new("orchestrator verify");
        let is_asked = |check: &&Check| **check != Check::Journal || self.has_journal;
        for check in Check::ALL.iter().filter(is_asked) {
            let mut status = TestCaseStatus::success();
            if let Some(count) = self.counts.get(check) {
                status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                let lines: Vec<String> =
                    self.listed.iter().filter(|found| found.check == *check).map(divergence_line).collect();
                status.set_message(format!("{count} differences"));
                status.set_description(lines.join("\n"));
            }
            suite.add_test_case(TestCase::new(format!("{check}: {}", check.says()), status));
        }
        let mut complete = TestCaseStatus::success();
        if self.to_verdict() == VerifyVerdict::CannotTell {
            complete = TestCaseStatus::non_success(NonSuccessKind::Error);
            complete.set_message("cannot tell");
            let why: Vec<String> = self.engine_lines().chain(self.not_told.iter().cloned()).collect();
            complete.set_description(why.join("\n"));
        }
        let mut case = TestCase::new("complete: everything could be compared", complete);
        case.set_system_out(self.to_text());
        suite.add_test_case(case);
        let mut junit = quick_junit::Report::new(self.place.clone());
        junit.add_test_suite(suite);
        junit.to_string().unwrap_or_else(|error| format!("no report: {error}\n"))
    }
}

fn engine_identity(name: &str, version: &str, code_hash: &str) -> String {
    let hash: String = code_hash.chars().take(12).collect();
    if hash.is_empty() { format!("{name} {version}") } else { format!("{name} {version} (code {hash}…)") }
}

/// What the audit of the journal came to, and what has begun there and not ended.
fn journal_lines(journal: &AuditedJournal) -> Vec<String> {
    let AuditedJournal { first, last, head, unfinished } = journal;
    let mut lines =
        vec![format!("journal: records {first} to {last} keep its rules, the chain ends with {head}")];
    lines.extend(unfinished.cycles.iter().map(|cycle| format!("cycle {cycle} has not ended")));
    let fires = unfinished.fires.iter();
    lines.extend(fires.map(|(schedule, fire)| format!("fire {fire} of {schedule} is no cycle yet")));
    lines.extend(unfinished.commands.iter().map(|command| format!("command {command} has no result yet")));
    lines
}

fn journal_json(journal: &AuditedJournal) -> Value {
    let AuditedJournal { first, last, head, unfinished } = journal;
    let fires = unfinished.fires.iter().map(|(schedule, fire)| json!({"schedule": schedule, "fire": fire}));
    json!({
        "first": first,
        "last": last,
        "head": head.to_string(),
        "open_cycles": unfinished.cycles,
        "open_fires": fires.collect::<Vec<_>>(),
        "open_commands": unfinished.commands,
    })
}

/// A divergence in one line.
fn divergence_line(divergence: &Divergence) -> String {
    let (recorded, replayed) =
        (shorten_value(divergence.recorded.as_bytes()), shorten_value(divergence.replayed.as_bytes()));
    Divergence { recorded, replayed, ..divergence.clone() }.to_string()
}

fn divergence_json(divergence: &Divergence) -> Value {
    let (receipt, run, run_id, symbol) = match &divergence.place {
        DivergencePlace::Receipt(seq) => (Some(seq), None, None, None),
        DivergencePlace::Run { seq, run_id, symbol } => {
            (None, Some(seq), Some(run_id.to_string()), Some(symbol))
        }
        DivergencePlace::Other(_) => (None, None, None, None),
    };
    json!({
        "check": divergence.check.as_str(),
        "place": divergence.place.to_string(),
        "receipt": receipt,
        "run_record": run,
        "run_id": run_id,
        "symbol": symbol,
        "field": divergence.field,
        "recorded": divergence.recorded,
        "replayed": divergence.replayed,
    })
}
