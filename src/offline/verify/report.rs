//! What a comparison came to: for people, for programs, and for test reports.

use std::collections::BTreeMap;

use orchestrator_kernel::engine::divergence::{Check, Divergence, Place};
use orchestrator_kernel::ids::RunSeq;
use orchestrator_kernel::ports::engine::EngineIdentity;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};

use super::text::shortened;
use crate::offline::replay::{Done, Replayed};
use crate::process::exit::Exit;

/// Divergences that a report lists; further ones are counted. So are cuts that resumed after a trim.
const LISTED_MAX: usize = 100;

/// Format of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
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
pub enum Verdict {
    /// Everything that was recorded follows.
    Equal,
    /// Something was recorded otherwise than it follows.
    Different,
    /// Not everything could be compared, and what was compared is equal.
    CannotTell,
}

impl Verdict {
    /// How the process ends.
    #[must_use]
    pub const fn exit(self) -> Exit {
        match self {
            Self::Equal => Exit::Ok,
            Self::Different => Exit::Different,
            Self::CannotTell => Exit::Usage,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::CannotTell => "cannot tell",
        }
    }
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
pub struct Report {
    place: String,
    allow_other_engine: bool,
    counts: BTreeMap<Check, u64>,
    listed: Vec<Divergence>,
    /// The run of the first divergence that belongs to one, as recorded and as replayed.
    pub(super) first_run: Option<Box<Replayed>>,
    /// What is known about the first divergence.
    pub(super) context: String,
    other_engines: BTreeMap<(String, String, String), OtherEngine>,
    not_told: Vec<String>,
    notes: Vec<String>,
    done: Option<Done>,
    answered: u64,
    pub(super) outputs: Option<(u64, u64)>,
    pub(super) quarantined: u64,
    pub(super) manifests: u64,
}

impl Report {
    pub(super) fn new(place: String, allow_other_engine: bool) -> Self {
        Self { place, allow_other_engine, ..Self::default() }
    }

    /// Notes a difference.
    pub(super) fn diverged(&mut self, divergence: Divergence) {
        *self.counts.entry(divergence.check).or_default() += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push(divergence);
        }
    }

    /// Notes a replayed run.
    pub(super) fn replayed(&mut self, run: Replayed, found: Vec<Divergence>) {
        self.answered += u64::from(run.engine.is_some());
        if self.listed.is_empty() && !found.is_empty() {
            self.first_run = Some(Box::new(run));
        }
        found.into_iter().for_each(|divergence| self.diverged(divergence));
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
    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Notes that the replay came to its end.
    pub(super) fn done(&mut self, done: Done) {
        self.notes.extend(done.anew.iter().take(LISTED_MAX).map(ToString::to_string));
        if let Some(more) = done.anew.len().checked_sub(LISTED_MAX).filter(|more| 0 < *more) {
            self.note(format!("{more} more cuts began anew"));
        }
        self.done = Some(done);
    }

    /// The first difference.
    #[must_use]
    pub fn first(&self) -> Option<&Divergence> {
        self.listed.first()
    }

    /// What it says.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let told = self.not_told.is_empty() && (self.other_engines.is_empty() || self.allow_other_engine);
        match (self.counts.is_empty(), told) {
            (false, _) => Verdict::Different,
            (true, true) => Verdict::Equal,
            (true, false) => Verdict::CannotTell,
        }
    }

    /// The report in the form asked for.
    #[must_use]
    pub fn render(&self, form: Form) -> String {
        match form {
            Form::Text => self.to_text(),
            Form::Json => format!("{:#}\n", self.to_json()),
            Form::Junit => self.to_junit(),
        }
    }

    fn to_text(&self) -> String {
        let mut text = format!("{}: {}\n", self.place, self.headline());
        for line in self.engines().chain(self.not_told.iter().cloned()).chain(self.remarks()) {
            text.push_str(&format!("  {line}\n"));
        }
        let Some(first) = self.first() else { return text };
        text.push_str(&format!("\nfirst difference ({}): {}\n", first.check, line(first)));
        text.push_str(&self.context);
        let rest = self.counts.values().sum::<u64>() - 1;
        if rest > 0 {
            text.push_str(&format!("\nand {rest} more:\n"));
            for (check, count) in &self.counts {
                text.push_str(&format!("  {count:>7}  {check}: not so that {}\n", check.says()));
            }
            for divergence in self.listed.iter().skip(1).take(9) {
                text.push_str(&format!("  {}\n", line(divergence)));
            }
        }
        text
    }

    fn headline(&self) -> String {
        let compared = match &self.done {
            Some(done) => format!(
                "{} receipts, {} run records, {} runs ended, {} answers of the engine",
                done.receipts, done.runs, done.replayed, self.answered
            ),
            None => "the comparison did not come to its end".to_owned(),
        };
        let verdict = self.verdict();
        match verdict {
            Verdict::Equal | Verdict::CannotTell => format!("{} ({compared})", verdict.word()),
            Verdict::Different => {
                format!("different in {} places ({compared})", self.counts.values().sum::<u64>())
            }
        }
    }

    fn engines(&self) -> impl Iterator<Item = String> {
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
                identity(name, version, code_hash),
                identity(&now.name, &now.version, &now.code_hash)
            )
        })
    }

    fn remarks(&self) -> impl Iterator<Item = String> {
        let unfinished = self.done.iter().flat_map(|done| &done.unfinished).map(|(symbol, run_id)| {
            format!("run {run_id} of {symbol} was started and has not ended: the next start finishes it")
        });
        let outputs = self.outputs.map(|(equal, repeated)| {
            format!("outputs file: {equal} lines as published, {repeated} repetitions")
        });
        self.notes.iter().cloned().chain(unfinished).chain(outputs)
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
        json!({
            "from": self.place,
            "verdict": self.verdict().word(),
            "complete": self.done.is_some(),
            "receipts": done.receipts,
            "run_records": done.runs,
            "runs_ended": done.replayed,
            "answers": self.answered,
            "unfinished": unfinished,
            "outputs_file": self.outputs.map(|(equal, repeated)| json!({"equal": equal, "repeated": repeated})),
            "quarantined": self.quarantined,
            "manifests": self.manifests,
            "other_engines": engines,
            "cannot_tell": self.not_told,
            "notes": self.notes,
            "differences": counts,
            "first": self.listed.iter().map(divergence_json).collect::<Vec<_>>(),
            "context": self.context,
        })
    }

    fn to_junit(&self) -> String {
        let mut suite = TestSuite::new("orchestrator verify");
        for check in Check::ALL {
            let mut status = TestCaseStatus::success();
            if let Some(count) = self.counts.get(check) {
                status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                let lines: Vec<String> =
                    self.listed.iter().filter(|found| found.check == *check).map(line).collect();
                status.set_message(format!("{count} differences"));
                status.set_description(lines.join("\n"));
            }
            suite.add_test_case(TestCase::new(format!("{check}: {}", check.says()), status));
        }
        let mut complete = TestCaseStatus::success();
        if self.verdict() == Verdict::CannotTell {
            complete = TestCaseStatus::non_success(NonSuccessKind::Error);
            complete.set_message("cannot tell");
            let why: Vec<String> = self.engines().chain(self.not_told.iter().cloned()).collect();
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

fn identity(name: &str, version: &str, code_hash: &str) -> String {
    let hash: String = code_hash.chars().take(12).collect();
    if hash.is_empty() { format!("{name} {version}") } else { format!("{name} {version} (code {hash}…)") }
}

/// A divergence in one line.
fn line(divergence: &Divergence) -> String {
    let (recorded, replayed) =
        (shortened(divergence.recorded.as_bytes()), shortened(divergence.replayed.as_bytes()));
    Divergence { recorded, replayed, ..divergence.clone() }.to_string()
}

fn divergence_json(divergence: &Divergence) -> Value {
    let (receipt, run, run_id, symbol) = match &divergence.place {
        Place::Receipt(seq) => (Some(seq), None, None, None),
        Place::Run { seq, run_id, symbol } => (None, Some(seq), Some(run_id.to_string()), Some(symbol)),
        Place::Other(_) => (None, None, None, None),
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
