//! `orchestrator replay`: the outputs again, from the two logs alone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::{Args, ValueEnum};
use orchestrator_kernel::engine::audit::{StateFrom, engine_of};
use orchestrator_kernel::engine::contracts::orchestrator_event::events;
use orchestrator_kernel::engine::divergence::{Check, Divergence};
use orchestrator_kernel::ids::{IngestSeq, RunSeq, Symbol, TsMs};
use tokio::time::Instant;

use super::progress::ReadProgress;
use super::run::build_runtime;
use super::verify::{calls_max, rust_log};
use super::{FromArgs, print_complaint};
use crate::config::{Config, EngineKind};
use crate::offline::replay::{
    Answers, Driver, ReplayError, ReplayPlan, ReplayRange, ReplaySummary, ReplayedRun, Sink,
};
use crate::process::exit::ProcessExit;
use crate::process::explain::explain_error;
use crate::service::wiring::WiringError;
use crate::service::wiring::engine::{self, EngineWorkers};
use crate::service::wiring::reading::{self, LogsPlace, Recorded};
use crate::telemetry::logs;

/// Differences that are printed; further ones are counted.
const PRINTED_MAX: u64 = 5;
/// Longest wait between two runs that is computed.
const WAIT_MAX: Duration = Duration::from_secs(366 * 86_400);

/// Options of `replay`.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct ReplayArgs {
    /// Where the logs and the engine are.
    #[command(flatten)]
    pub from: FromArgs,
    /// Only these symbols.
    #[arg(long, value_name = "SYMBOL,…", value_delimiter = ',')]
    pub symbols: Vec<String>,
    /// Only these runs, both ends included: by the position of their run record (10..20), or by engine time
    /// (2026-01-01T00:00:00Z..2026-01-02T00:00:00Z). An end may be left out.
    #[arg(long, value_name = "FIRST..LAST RUN RECORD", default_value = "..")]
    pub range: ReplayRange,
    /// Who answers.
    #[arg(long, value_name = "ENGINE", default_value = "configured")]
    pub engine: EngineChoice,
    /// Replay also with another engine (name, version or code) than the recorded one.
    #[arg(long)]
    pub allow_other_engine: bool,
    /// Give each call the hysteresis state that this replay computed, instead of the recorded one.
    #[arg(long)]
    pub recompute_state: bool,
    /// How fast: max, or so many times as fast as it was planned, for example 1x or 60x.
    #[arg(long, value_name = "max|Nx", default_value = "max")]
    pub speed: ReplaySpeed,
    /// Write the outputs into this file, one OrchestratorEvent a line; - is standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub out: PathBuf,
}

/// Choice of the engine that answers the calls of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EngineChoice {
    /// The engine that the configuration names.
    #[default]
    Configured,
    /// The built-in demo engine.
    Demo,
    /// The record: no engine is asked, and its answers are taken as they are.
    Recorded,
}

/// Speed of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ReplaySpeed {
    /// As fast as it can.
    #[default]
    Max,
    /// So many times as fast as planned.
    Times(f64),
}

impl FromStr for ReplaySpeed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let times = text.strip_suffix('x').and_then(|times| times.parse::<f64>().ok());
        let times = times.filter(|times| times.is_finite() && 0.0 < *times);
        times.map(Self::Times).ok_or("expected max, or a positive number and x, for example 1x")
    }
}

/// Replays and writes the outputs. Exits with 1 when the logs contradict each other or the engine the record, with 2
/// when another engine would answer and that is not allowed.
#[must_use]
pub fn run_replay(args: &ReplayArgs, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    let rust_log = rust_log(&environment);
    let (config, place) = match args.from.load_config_and_place(environment) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    if let Err(error) = logs::start_logging(&config.log, Some(&rust_log)) {
        print_complaint(&error);
        return ProcessExit::Config;
    }
    match build_runtime(&config) {
        Ok(runtime) => runtime.block_on(replay_logs(config, &place, args)),
        Err(error) => {
            print_complaint(&format!("cannot start the runtime: {error}"));
            ProcessExit::Internal
        }
    }
}

async fn replay_logs(config: Config, place: &LogsPlace, args: &ReplayArgs) -> ProcessExit {
    let prepared = match prepare_replay(config, place, args).await {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let PreparedReplay { recorded, answers, workers, out, plan } = prepared;
    let progress = ReadProgress::for_receipts(recorded.receipts.stat().tail);
    let mut writer = Writer::new(out, args, progress);
    let (receipts, runs) = (Arc::clone(&recorded.receipts), Arc::clone(&recorded.runs));
    let replayed = match Driver::new(receipts, runs, answers, plan).await {
        Ok(driver) => driver.replay_logs(&mut writer).await,
        Err(error) => Err(error),
    };
    let exit = writer.finish_replay(replayed);
    if let Some(workers) = workers {
        workers.shut_down_workers().await;
    }
    exit
}

/// Parts of a replay, once nothing can refuse it any more.
struct PreparedReplay {
    recorded: Recorded,
    answers: Answers,
    workers: EngineWorkers,
    out: Box<dyn Write + Send>,
    plan: ReplayPlan,
}

/// Opens what a replay reads, asks and writes. What is in its way is told before it returns.
async fn prepare_replay(
    mut config: Config,
    place: &LogsPlace,
    args: &ReplayArgs,
) -> Result<PreparedReplay, ProcessExit> {
    let recorded = reading::open_logs(place).await.map_err(|error| complain(&error))?;
    if args.engine == EngineChoice::Demo {
        config.engine.kind = EngineKind::Demo;
    }
    let (answers, workers) = match args.engine {
        EngineChoice::Recorded => (Answers::Recorded, None),
        EngineChoice::Configured | EngineChoice::Demo => {
            let opened = engine::open_engine(&config.engine).await;
            let (engine, workers) = opened.map_err(|error| complain(&error))?;
            (Answers::Engine(engine), workers)
        }
    };
    let out = open_output(&args.out).map_err(|error| {
        print_complaint(&format!("cannot write {}: {error}", args.out.display()));
        ProcessExit::Io
    })?;
    let base = recorded.load_base().await.map_err(|error| complain(&error))?;
    let symbols: BTreeSet<Symbol> = args.symbols.iter().map(|name| Symbol::from(name.as_str())).collect();
    let plan = ReplayPlan {
        symbols: Some(symbols).filter(|symbols| !symbols.is_empty()),
        range: args.range,
        state_from: if args.recompute_state { StateFrom::Replay } else { StateFrom::Record },
        calls_max: calls_max(&config.engine),
        to_the_end: false,
        base,
    };
    Ok(PreparedReplay { recorded, answers, workers, out, plan })
}

fn complain(error: &WiringError) -> ProcessExit {
    print_complaint(&explain_error(error));
    error.to_exit()
}

fn open_output(path: &Path) -> io::Result<Box<dyn Write + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufWriter::new(io::stdout())));
    }
    // Never over what is there: it may be the very file that the logs are compared with.
    Ok(Box::new(BufWriter::new(File::create_new(path)?)))
}

/// Writes outputs as they come.
struct Writer {
    out: Box<dyn Write + Send>,
    allow_other_engine: bool,
    speed: ReplaySpeed,
    /// When the first run was written, and when it was planned.
    begun: Option<(Instant, TsMs)>,
    progress: ReadProgress,
    written: u64,
    differences: u64,
    /// Runs that another engine answers than then.
    other_engine: u64,
    /// Those of them with another answer.
    answered_otherwise: u64,
    /// Why it was ended early.
    ended: Option<ProcessExit>,
}

impl Writer {
    fn new(out: Box<dyn Write + Send>, args: &ReplayArgs, progress: ReadProgress) -> Self {
        Self {
            out,
            allow_other_engine: args.allow_other_engine,
            speed: args.speed,
            begun: None,
            progress,
            written: 0,
            differences: 0,
            other_engine: 0,
            answered_otherwise: 0,
            ended: None,
        }
    }

    /// Whether the engine may answer this run: the recorded one always, another one only when that was allowed.
    fn admits_engine(&mut self, run: &ReplayedRun) -> bool {
        let (Some(recorded), Some(now)) = (engine_of(&run.recorded), &run.engine) else { return true };
        if recorded == now {
            return true;
        }
        self.other_engine += 1;
        if self.other_engine == 1 {
            let advice =
                if self.allow_other_engine { "allowed" } else { "refused; see --allow-other-engine" };
            print_complaint(&format!(
                "run record {} was answered by {} {} {}, now it would be {} {} {}: {advice}",
                run.at,
                recorded.name,
                recorded.version,
                recorded.code_hash,
                now.name,
                now.version,
                now.code_hash
            ));
        }
        self.allow_other_engine
    }

    /// Waits until the run is due.
    async fn wait_until_due(&mut self, planned: TsMs) -> io::Result<()> {
        let ReplaySpeed::Times(times) = self.speed else { return Ok(()) };
        self.out.flush()?;
        let (begun, first) = *self.begun.get_or_insert_with(|| (Instant::now(), planned));
        let wait = time_until_due(planned.0.saturating_sub(first.0), times);
        tokio::time::sleep_until(begun + wait).await;
        Ok(())
    }

    async fn write_outputs(&mut self, run: &ReplayedRun) -> io::Result<()> {
        self.wait_until_due(run.recorded.facts.planned_ts_ms).await?;
        for message in events(run.at, &run.replayed, None).map_err(io::Error::other)? {
            self.out.write_all(&message.body)?;
            self.out.write_all(b"\n")?;
            self.written += 1;
        }
        Ok(())
    }

    fn report_divergences(&mut self, found: Vec<Divergence>) {
        for divergence in found {
            self.differences += 1;
            if self.differences <= PRINTED_MAX {
                print_complaint(&divergence);
            }
        }
    }

    fn end_on_error(&mut self, error: &io::Error) {
        let seen_enough = error.kind() == ErrorKind::BrokenPipe;
        if !seen_enough {
            print_complaint(&format!("cannot write the outputs: {error}"));
        }
        self.ended = Some(if seen_enough { ProcessExit::Ok } else { ProcessExit::Io });
    }

    fn finish_replay(mut self, replayed: Result<ReplaySummary, ReplayError>) -> ProcessExit {
        self.progress.clear_bar();
        if self.ended.is_none()
            && let Err(error) = self.out.flush()
        {
            self.end_on_error(&error);
        }
        if PRINTED_MAX < self.differences {
            print_complaint(&format!(
                "{} differences in all; orchestrator verify explains them",
                self.differences
            ));
        }
        match (self.ended, replayed) {
            (Some(exit), _) => exit,
            (None, Err(error)) => {
                print_complaint(&explain_error(&error));
                exit_of(&error)
            }
            (None, Ok(done)) => {
                if self.other_engine > 0 {
                    let (asked, otherwise) = (self.other_engine, self.answered_otherwise);
                    print_complaint(&format!(
                        "another engine answered {asked} runs, {otherwise} of them otherwise than recorded"
                    ));
                }
                (0..PRINTED_MAX).zip(&done.anew).for_each(|(_, anew)| print_complaint(anew));
                let anew = done.anew.len() as u64;
                if PRINTED_MAX < anew {
                    print_complaint(&format!(
                        "{anew} cuts began anew in all; orchestrator verify names them"
                    ));
                }
                let runs = done.replayed;
                print_complaint(&format!("{runs} runs replayed, {} outputs written", self.written));
                if self.differences == 0 { ProcessExit::Ok } else { ProcessExit::Different }
            }
        }
    }
}

fn time_until_due(planned_ms: i64, times: f64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 285,000 years of milliseconds")]
    let seconds = planned_ms.max(0) as f64 / 1e3 / times;
    Duration::try_from_secs_f64(seconds).map_or(WAIT_MAX, |wait| wait.min(WAIT_MAX))
}

fn exit_of(error: &ReplayError) -> ProcessExit {
    use orchestrator_kernel::ports::log::ReadError;
    match error {
        ReplayError::Read { source: ReadError::Corrupt { .. } | ReadError::Trimmed { .. }, .. } => {
            ProcessExit::Data
        }
        ReplayError::Read { source: ReadError::Io(error), .. } => ProcessExit::of_storage(error),
        ReplayError::Trimmed { .. } => ProcessExit::Usage,
        ReplayError::Engine { .. } => ProcessExit::Unavailable,
    }
}

#[async_trait]
impl Sink for Writer {
    async fn take_run(&mut self, mut run: ReplayedRun) -> bool {
        if !self.admits_engine(&run) {
            self.ended = Some(ProcessExit::Usage);
            return false;
        }
        let mut found = std::mem::take(&mut run.found);
        if engine_of(&run.recorded)
            .is_some_and(|recorded| run.engine.as_ref().is_some_and(|now| recorded != now))
        {
            // That another engine answers otherwise is what it was allowed for.
            let all = found.len();
            found.retain(|divergence| divergence.check != Check::Answers);
            self.answered_otherwise += u64::from(found.len() < all);
        }
        self.report_divergences(found);
        if !run.included {
            return true;
        }
        match self.write_outputs(&run).await {
            Ok(()) => true,
            Err(error) => {
                self.end_on_error(&error);
                false
            }
        }
    }

    fn take_divergences(&mut self, found: Vec<Divergence>) {
        self.report_divergences(found);
    }

    fn note_progress(&mut self, receipts: IngestSeq, runs: RunSeq) {
        self.progress.set_position(receipts, runs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_max_or_a_positive_number_of_times() {
        assert_eq!("max".parse(), Ok(ReplaySpeed::Max));
        assert_eq!("1x".parse(), Ok(ReplaySpeed::Times(1.0)));
        assert_eq!("0.5x".parse(), Ok(ReplaySpeed::Times(0.5)));
        for text in ["", "x", "0x", "-1x", "NaNx", "infx", "2"] {
            assert!(text.parse::<ReplaySpeed>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn runs_are_due_at_their_planned_distance_divided_by_the_speed() {
        assert_eq!(time_until_due(180_000, 60.0), Duration::from_secs(3));
        assert_eq!(time_until_due(-5, 1.0), Duration::ZERO);
        assert_eq!(time_until_due(i64::MAX, 1e-300), WAIT_MAX);
    }
}
