//! The comparison of everything that was recorded with everything that follows: what `orchestrator verify` does.
//!
//! ```text
//! receipt log, run log ─▶ replay::Driver ─▶ audit, engine ─┐
//! outputs file ────────────────────────────────────────────┼─▶ Report: equal, different (the first place), cannot tell
//! publish cursor, checkpoints, quarantine, manifests ──────┘
//! ```

mod context;
mod journal;
mod outputs;
mod published;
mod report;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use orchestrator_engine_plane::saved;
use orchestrator_kernel::engine::audit::{ReplayStart, StateFrom, engine_of};
use orchestrator_kernel::engine::contracts::manifest::{
    ManifestChange, ManifestEntry, ManifestRecord, OperatorRecord, OutputManifest,
};
use orchestrator_kernel::engine::contracts::orchestrator_event::{events, outputs_of};
use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::engine::divergence::{Check, Divergence, DivergencePlace};
use orchestrator_kernel::engine::outbox::{PublishCursor, PublishProgress};
use orchestrator_kernel::ids::{IngestSeq, RunSeq, Seq};
use orchestrator_kernel::ports::checkpoint::LoadError;
use orchestrator_kernel::ports::engine::Engine;
use orchestrator_kernel::ports::log::{AcquireError, Log, LogName, ReadError};
use orchestrator_kernel::rfc3339::to_rfc3339;

use self::journal::SavedJournal;
use self::outputs::OutputsFiles;
use self::report::ComparedLines;
pub use self::report::{VerifyFormat, VerifyReport, VerifyVerdict};
use crate::offline::replay::{Answers, Driver, Pages, ReplayError, ReplayPlan, ReplayedRun, Sink};
use crate::process::explain::explain_error;
use crate::service::manifest;
use crate::service::wiring::WiringError;
use crate::service::wiring::reading::Recorded;

/// Comparison of recorded logs with what follows from them.
pub struct Verify<'a> {
    /// The logs.
    pub recorded: &'a Recorded,
    /// Where they are, for people.
    pub place: String,
    /// The engine to ask.
    pub engine: Arc<dyn Engine>,
    /// Engine calls beside each other.
    pub calls_max: usize,
    /// Whether states are computed from the start instead of taken from the log.
    pub state_from: StateFrom,
    /// Whether an engine of another name, version or code may be asked.
    pub allow_other_engine: bool,
    /// The program and the settings of this comparison.
    pub now: OutputManifest,
    /// The outputs files, oldest first; none when there can be none.
    pub outputs: Vec<PathBuf>,
    /// Whether the configuration or the caller names them; otherwise it is where it usually is, and may be elsewhere.
    pub is_outputs_configured: bool,
    /// What was saved beside the logs, as it was before they were opened: a running service saves more meanwhile.
    pub saved: SavedState,
}

/// Saved values beside the logs.
pub struct SavedState {
    /// The publish cursor.
    pub published: Result<Option<PublishProgress>, LoadError>,
    /// What the checkpoint of the buffer knows.
    pub known: Result<Option<saved::CheckpointTails>, LoadError>,
    /// The last record that the checkpoint of the run log knows.
    pub known_runs: Result<Option<Seq>, LoadError>,
    /// Whether the base can be used.
    pub base: Result<(), LoadError>,
    /// What was saved of the trading plane's journal.
    pub journal: SavedJournal,
}

impl SavedState {
    /// Reads it.
    pub async fn read_beside(recorded: &Recorded) -> Self {
        let checkpoints = recorded.checkpoints.as_ref();
        Self {
            published: saved::load_progress(checkpoints).await,
            known: saved::load_known_tails(checkpoints).await,
            known_runs: saved::load_known_run_tail(checkpoints).await,
            base: saved::base_is_sound(checkpoints).await,
            journal: SavedJournal::read_beside(checkpoints).await,
        }
    }
}

impl Verify<'_> {
    /// Compares everything. `progress` learns now and then how many receipts and run records were read.
    pub async fn compare_all(self, progress: &mut (dyn FnMut(IngestSeq, RunSeq) + Send)) -> VerifyReport {
        let mut report = VerifyReport::new(self.place.clone(), self.allow_other_engine);
        for (log, bytes) in &self.recorded.torn {
            report.add_note(format!(
                "log {log} ends with {bytes} bytes that are no whole write: cut short by a crash, or damaged since; what they \
                 held is not known"
            ));
        }
        if self.has_no_records() {
            report.cannot_tell("there are no records".to_owned());
        }
        self.check_saved(&mut report);
        let clock = self.check_others(&mut report).await;
        self.replay_runs(clock, &mut report, progress).await;
        journal::audit_journal(self.recorded, &self.saved.journal, &mut report).await;
        context::explain_first(self.recorded, &mut report).await;
        report
    }

    /// A plane that only follows the clock has a journal and nothing else.
    fn has_no_records(&self) -> bool {
        let journal = self.recorded.journal().ok().flatten();
        [Some(&self.recorded.receipts), Some(&self.recorded.runs), journal]
            .into_iter()
            .flatten()
            .all(|log| log.stat().tail == Seq(0))
    }

    async fn replay_runs(
        &self,
        clock: RecordedUnder,
        report: &mut VerifyReport,
        progress: &mut (dyn FnMut(IngestSeq, RunSeq) + Send),
    ) {
        let saved = self.saved.published.as_ref().ok().and_then(Option::as_ref);
        saved.into_iter().for_each(|saved| tell_held(saved, report));
        let published = saved.map(|saved| saved.cursor);
        let (receipts, runs) = (Arc::clone(&self.recorded.receipts), Arc::clone(&self.recorded.runs));
        let base = match self.recorded.load_base().await {
            Ok(base) => base,
            Err(error) => {
                report.cannot_tell(explain_error(&error));
                return;
            }
        };
        let outputs_so_far = base.runs.output_count();
        if !base.is_beginning() {
            let (receipts, runs) = (base.receipts.next(), base.runs.tail().next());
            report.add_note(format!(
                "begins at receipt {receipts} and run record {runs}: what was before was let go"
            ));
        }
        let outputs = self.open_outputs(clock, published, &base, report).await;
        let plan = ReplayPlan {
            state_from: self.state_from,
            calls_max: self.calls_max,
            base,
            ..ReplayPlan::default()
        };
        let answers = Answers::Engine(Arc::clone(&self.engine));
        let mut comparison =
            Comparison { report, outputs, published, outputs_so_far, at_cursor: outputs_so_far, progress };
        let replayed = match Driver::new(receipts, runs, answers, plan).await {
            Ok(driver) => driver.replay_logs(&mut comparison).await,
            Err(error) => Err(error),
        };
        comparison.finish_comparison(&replayed);
        match replayed {
            Ok(done) => report.note_done(done),
            Err(error) => note_stopped(report, &error),
        }
    }

    /// The outputs files at the place where the comparison begins; nothing when they are not compared.
    async fn open_outputs(
        &self,
        clock: RecordedUnder,
        published: Option<PublishCursor>,
        base: &ReplayStart,
        report: &mut VerifyReport,
    ) -> Option<OutputsFiles> {
        let opened = match OutputsFiles::open_files(&self.outputs, clock == RecordedUnder::RecordedClock) {
            Ok(Some(mut files)) => match files.is_empty() {
                Ok(true) => {
                    report.add_note(
                        "outputs are not compared: there is no line in the outputs file".to_owned(),
                    );
                    return None;
                }
                Ok(false) => files
                    .begin_in(&self.recorded.runs, base.runs.tail().next())
                    .await
                    .map(|begins| (files, begins)),
                Err(error) => Err(error.into()),
            },
            Ok(None) => {
                self.outputs.iter().for_each(|path| self.outputs_are_gone(path, published, report));
                return None;
            }
            Err(error) => Err(error.into()),
        };
        match opened {
            Ok((files, Some(begins))) => {
                report.add_note(format!(
                    "the outputs file begins with run record {}: outputs before it are not compared; name the files that \
                     have them with --outputs, oldest first",
                    begins.run_seq
                ));
                Some(files)
            }
            Ok((files, None)) if base.is_beginning() => Some(files),
            // The file still has the outputs of runs that were trimmed; which of its lines those are, nothing tells.
            Ok((_, None)) => {
                report.add_note(
                    "the outputs file is not compared: the logs were trimmed, it was not".to_owned(),
                );
                None
            }
            Err(error) => {
                report.cannot_tell(format!("the outputs file cannot be read: {}", explain_error(&error)));
                None
            }
        }
    }

    /// There is no outputs file where there should be one, or where one usually is.
    fn outputs_are_gone(&self, path: &Path, published: Option<PublishCursor>, report: &mut VerifyReport) {
        let confirmed = published.map_or(0, |cursor| cursor.outputs);
        if self.is_outputs_configured && 0 < confirmed {
            report.note_divergence(Divergence {
                check: Check::Outputs,
                place: DivergencePlace::Other(path.display().to_string()),
                field: "file",
                recorded: "missing".to_owned(),
                replayed: format!("{confirmed} outputs, which were confirmed"),
            });
        } else {
            report.add_note(format!("outputs are not compared: there is no {}", path.display()));
        }
    }

    /// Every saved value is whole; and LOG_REGRESSED: what was derived from a log may not know more than it holds.
    fn check_saved(&self, report: &mut VerifyReport) {
        let SavedState { published, known, known_runs, base, journal } = &self.saved;
        let unusable = [
            ("the publish cursor", published.as_ref().err()),
            ("the checkpoint of the receipts", known.as_ref().err()),
            ("the checkpoint of the runs", known_runs.as_ref().err()),
            ("the base of the logs", base.as_ref().err()),
        ];
        for (what, error) in unusable.into_iter().chain(journal.unusable()) {
            match error {
                None => {}
                Some(LoadError::Damaged { place, detail }) => report.note_divergence(Divergence {
                    check: Check::Storage,
                    place: DivergencePlace::Other(format!("{what}, {place}")),
                    field: "bytes",
                    recorded: detail.clone(),
                    replayed: "a whole value".to_owned(),
                }),
                Some(LoadError::Io(error)) => {
                    report.cannot_tell(format!("{what} cannot be read: {error}"));
                }
            }
        }
        let known = known.as_ref().copied().ok().flatten();
        for (log, of, known) in [
            (LogName::Receipts, &self.recorded.receipts, known.map(|known| known.receipts)),
            (LogName::Quarantine, &self.recorded.quarantine, known.map(|known| known.quarantine)),
            (LogName::Runs, &self.recorded.runs, known_runs.as_ref().copied().ok().flatten()),
        ] {
            let tail = of.stat().tail;
            if let Some(known) = known.filter(|known| tail < *known) {
                report.note_divergence(Divergence {
                    check: Check::Checkpoints,
                    place: DivergencePlace::Other(format!("checkpoint of log {log}")),
                    field: "last record",
                    recorded: known.to_string(),
                    replayed: format!("{tail}: LOG_REGRESSED, the log has lost records"),
                });
            }
        }
    }

    /// The logs that no run follows from: every record is read and verified.
    async fn check_others(&self, report: &mut VerifyReport) -> RecordedUnder {
        let quarantine =
            |payload: &[u8]| QuarantineRecord::decode(payload).map(drop).map_err(|error| error.to_string());
        report.quarantined =
            scan_log(LogName::Quarantine, &self.recorded.quarantine, quarantine, report).await;
        match manifest::read_entries(self.recorded.manifests.as_ref()).await {
            Ok(entries) => {
                let starts = tell_acts(entries, report);
                self.tell_changes(&starts, report);
                RecordedUnder::told_by(&starts)
            }
            Err(source) => {
                note_stopped(report, &ReplayError::Read { log: LogName::Manifests, source });
                RecordedUnder::Unknown
            }
        }
    }

    /// What was recorded under which program and settings, where that changed; and what the engine gets otherwise now.
    fn tell_changes(&self, manifests: &[ManifestRecord], report: &mut VerifyReport) {
        report.manifests = manifests.len() as u64;
        if manifests.is_empty() && Seq(0) < self.recorded.runs.stat().tail {
            report.add_note(
                "nothing tells what wrote these logs: the log of manifests is empty or missing".to_owned(),
            );
        }
        for (before, after) in manifests.iter().zip(manifests.iter().skip(1)) {
            for change in before.manifest.changes_to(&after.manifest) {
                report.add_note(format!("from run record {} on: {change}", after.runs_tail.next()));
            }
        }
        let Some(last) = manifests.last() else { return };
        for change in last.manifest.changes_to(&self.now).iter().filter(|change| is_about_answers(change)) {
            report.add_note(format!("not as it was recorded: {change}"));
        }
    }
}

/// The clock that all runs were made under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordedUnder {
    /// The receipts' own times: nobody knows when an output was published.
    RecordedClock,
    /// The wall clock, more than one, or not told.
    Unknown,
}

impl RecordedUnder {
    fn told_by(manifests: &[ManifestRecord]) -> Self {
        let is_recorded = |record: &ManifestRecord| {
            record.manifest.settings.get("clock.mode").is_some_and(|mode| mode == "recorded")
        };
        match !manifests.is_empty() && manifests.iter().all(is_recorded) {
            true => Self::RecordedClock,
            false => Self::Unknown,
        }
    }
}

/// What operators decided about outputs, which is no difference. Returns the starts.
fn tell_acts(entries: Vec<ManifestEntry>, report: &mut VerifyReport) -> Vec<ManifestRecord> {
    let mut starts = Vec::new();
    for entry in entries {
        match entry {
            ManifestEntry::Start(record) => starts.push(record),
            ManifestEntry::Operator(OperatorRecord { at_ms, operator, reason, act, .. }) => {
                report.add_note(format!("{act}: by {operator} at {}: {reason}", to_rfc3339(at_ms)));
            }
        }
    }
    starts
}

/// What waits because a fan-out refuses it: no difference, since the run log has it.
fn tell_held(progress: &PublishProgress, report: &mut VerifyReport) {
    for (symbol, fan_out, hold) in progress.holds.iter() {
        let (first, waiting, reason) = (hold.first, hold.waiting_outputs(), &hold.reason);
        report.add_note(format!(
            "outputs of {symbol} from number {first} on wait, {waiting} so far: {fan_out} refuses it for good: {reason}"
        ));
    }
}

/// Whether a change decides what the engine is asked. The engine itself is compared with each run.
fn is_about_answers(change: &ManifestChange) -> bool {
    change.what.starts_with("engine.hysteresis")
}

async fn scan_log(
    name: LogName,
    log: &Arc<dyn Log>,
    check: impl Fn(&[u8]) -> Result<(), String>,
    report: &mut VerifyReport,
) -> u64 {
    let mut pages = Pages::read_ahead(Arc::clone(log), log.stat().start, None);
    let mut count = 0;
    loop {
        let page = match pages.next_page().await {
            Ok(Some(page)) => page,
            Ok(None) => return count,
            Err(source) => {
                note_stopped(report, &ReplayError::Read { log: name, source });
                return count;
            }
        };
        for (at, payload) in page.iter() {
            count += 1;
            if let Err(detail) = check(payload) {
                let source = ReadError::Corrupt { at, detail };
                note_stopped(report, &ReplayError::Read { log: name, source });
            }
        }
    }
}

/// Notes why a replay, or a scan, did not come to its end.
fn note_stopped(report: &mut VerifyReport, error: &ReplayError) {
    match error {
        ReplayError::Read { log, source: ReadError::Corrupt { at, detail } } => {
            report.note_divergence(Divergence {
                check: Check::Storage,
                place: DivergencePlace::Other(format!("log {log} record {at}")),
                field: "bytes",
                recorded: detail.clone(),
                replayed: "a whole record".to_owned(),
            })
        }
        ReplayError::Read { source: ReadError::Io(_) | ReadError::Trimmed { .. }, .. }
        | ReplayError::Trimmed { .. }
        | ReplayError::Engine { .. } => report.cannot_tell(explain_error(error)),
    }
}

/// The report on logs that could not even be opened.
#[must_use]
pub fn unopened_report(place: String, error: &WiringError) -> VerifyReport {
    let mut report = VerifyReport::new(place, false);
    note_unopened(&mut report, error);
    report
}

/// Notes that a log cannot be opened: a difference when it is corrupt.
fn note_unopened(report: &mut VerifyReport, error: &WiringError) {
    match error {
        WiringError::Log(AcquireError::Corrupt { log, place, detail }) => {
            report.note_divergence(Divergence {
                check: Check::Storage,
                place: DivergencePlace::Other(format!("log {log}, {place}")),
                field: "bytes",
                recorded: detail.clone(),
                replayed: "a whole log".to_owned(),
            })
        }
        other => report.cannot_tell(explain_error(other)),
    }
}

/// Takes what comes of the replay.
struct Comparison<'a> {
    report: &'a mut VerifyReport,
    outputs: Option<OutputsFiles>,
    published: Option<PublishCursor>,
    /// Outputs of the records so far.
    outputs_so_far: u64,
    /// The same, up to the publish cursor.
    at_cursor: u64,
    progress: &'a mut (dyn FnMut(IngestSeq, RunSeq) + Send),
}

impl Comparison<'_> {
    /// The outputs of a record against the file.
    fn compare_outputs(&mut self, run: &ReplayedRun) {
        let published = self.published.is_some_and(|cursor| run.at <= cursor.run_seq);
        self.outputs_so_far += outputs_of(&run.recorded);
        if published {
            self.at_cursor = self.outputs_so_far;
        }
        let mut found = Vec::new();
        match events(run.at, &run.recorded, None) {
            Ok(messages) => {
                for message in &messages {
                    let Some(outputs) = &mut self.outputs else { break };
                    if let Err(error) = outputs.expect_output(message, published, &mut found) {
                        self.report.cannot_tell(format!("the outputs file cannot be read: {error}"));
                        self.outputs = None;
                    }
                }
            }
            Err(error) => found.push(Divergence {
                check: Check::Storage,
                place: DivergencePlace::of_run(run.at, &run.recorded.facts),
                field: "answer",
                recorded: error.to_string(),
                replayed: "an answer in JSON".to_owned(),
            }),
        }
        found.into_iter().for_each(|divergence| self.report.note_divergence(divergence));
    }

    /// What can be compared once all records were seen.
    fn finish_comparison(&mut self, replayed: &Result<crate::offline::replay::ReplaySummary, ReplayError>) {
        let Ok(done) = replayed else { return };
        if let Some(outputs) = &mut self.outputs {
            let mut found = Vec::new();
            if let Err(error) = outputs.take_rest(&mut found) {
                self.report.cannot_tell(format!("the outputs file cannot be read: {error}"));
            }
            found.into_iter().for_each(|divergence| self.report.note_divergence(divergence));
            self.report.outputs = Some(ComparedLines { equal: outputs.equal, repeated: outputs.repeated });
            if let Some(bytes) = outputs.torn_bytes() {
                let note = format!("the outputs file ends with {bytes} bytes of a line that was cut short");
                self.report.add_note(note);
            }
        }
        let Some(cursor) = self.published else { return };
        let mut differs = |field, recorded: u64, replayed: String| {
            let place = DivergencePlace::Other("publish cursor".to_owned());
            let recorded = recorded.to_string();
            self.report.note_divergence(Divergence {
                check: Check::Cursor,
                place,
                field,
                recorded,
                replayed,
            });
        };
        if done.runs < cursor.run_seq {
            let replayed = format!("{}: LOG_REGRESSED, the log of runs has lost records", done.runs);
            differs("run record", cursor.run_seq.0, replayed);
        } else if cursor.outputs != self.at_cursor {
            differs("outputs", cursor.outputs, self.at_cursor.to_string());
        }
    }
}

#[async_trait]
impl Sink for Comparison<'_> {
    async fn take_run(&mut self, mut run: ReplayedRun) -> bool {
        self.compare_outputs(&run);
        if let (Some(recorded), Some(now)) = (engine_of(&run.recorded), &run.engine)
            && recorded != now
        {
            self.report.other_engine(run.at, recorded.clone(), now.clone());
        }
        let found = std::mem::take(&mut run.found);
        self.report.note_replayed(run, found);
        true
    }

    fn take_divergences(&mut self, found: Vec<Divergence>) {
        found.into_iter().for_each(|divergence| self.report.note_divergence(divergence));
    }

    fn note_progress(&mut self, receipts: IngestSeq, runs: RunSeq) {
        (self.progress)(receipts, runs);
    }
}
