//! `orchestrator diff`: two records of the same runs, compared.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use orchestrator_kernel::engine::audit::StateFrom;
use orchestrator_kernel::ids::Symbol;

use super::run::build_runtime;
use super::verify::{calls_max, rust_log};
use super::{ConfigArgs, FromArgs, print_answer, print_complaint};
use crate::config::Config;
use crate::offline::diff::{Align, DiffVerdict, Differences, Side, against_engine, render_differences};
use crate::offline::recorded::{LogError, RunCursor};
use crate::offline::replay::{ReplayPlan, ReplayRange};
use crate::process::exit::ProcessExit;
use crate::process::explain::explain_error;
use crate::service::wiring::engine::open_engine;
use crate::service::wiring::reading::{self, LogsPlace, Recorded};
use crate::telemetry::logs;

/// Options of `diff`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct DiffArgs {
    /// The first: data directory of a stopped service, or `redis://[user:password@]host[:port][/database]`.
    #[arg(value_name = "A")]
    pub a: String,
    /// The second.
    #[arg(value_name = "B", required_unless_present = "engine", conflicts_with = "engine")]
    pub b: Option<String>,
    /// Instead of B: the runs of A, answered again by the engine that the configuration names (--config, --set).
    #[arg(long)]
    pub engine: bool,
    /// With --engine: each call begins with the recorded state, so that one difference does not make the next. Without
    /// it the engine goes on from its own, as it would have.
    #[arg(long, requires = "engine")]
    pub recorded_state: bool,
    /// With a URL: the namespace of the keys of A.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// With a URL: the namespace of the keys of B; without it: that of A.
    #[arg(long, value_name = "NAME")]
    pub namespace_b: Option<String>,
    /// With a URL: the data directory whose archive holds what moved out of A's server.
    #[arg(long, value_name = "DIR")]
    pub archive: Option<PathBuf>,
    /// As --archive, for B.
    #[arg(long, value_name = "DIR")]
    pub archive_b: Option<PathBuf>,
    /// Where the configuration comes from that names the engine.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Only these symbols, separated by commas.
    #[arg(long, value_name = "SYMBOL,…", value_delimiter = ',')]
    pub symbols: Vec<String>,
    /// Only these runs, both ends included: by the position of their run record (10..20), or by engine time
    /// (2026-01-01T00:00:00Z..2026-01-02T00:00:00Z). An end may be left out.
    #[arg(long, value_name = "FIRST..LAST RUN RECORD", default_value = "..")]
    pub range: ReplayRange,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// The exit with code 2.
const CANNOT_TELL: ProcessExit = ProcessExit::Usage;

/// Something keeps the comparison from being made; it was said.
struct CannotTell;

impl DiffArgs {
    fn args_of_side(&self, side: Side) -> FromArgs {
        let (from, namespace, archive) = match side {
            Side::A => (Some(&self.a), &self.namespace, &self.archive),
            Side::B => {
                (self.b.as_ref(), self.namespace_b.as_ref().unwrap_or(&self.namespace), &self.archive_b)
            }
        };
        FromArgs {
            from: from.cloned(),
            namespace: namespace.clone(),
            archive: archive.clone(),
            config: self.config.clone(),
        }
    }

    /// Which runs are compared.
    fn replay_plan(&self, config: &Config) -> ReplayPlan {
        let symbols =
            self.symbols.iter().map(|symbol| Symbol::from(symbol.as_str())).collect::<BTreeSet<_>>();
        ReplayPlan {
            symbols: (!symbols.is_empty()).then_some(symbols),
            range: self.range,
            state_from: if self.recorded_state { StateFrom::Record } else { StateFrom::Replay },
            calls_max: calls_max(&config.engine),
            to_the_end: false,
            ..ReplayPlan::default()
        }
    }
}

/// Compares, and prints what was found. The exit says it too: 0 equal, 1 different, 2 cannot tell.
#[must_use]
pub fn run_diff(args: &DiffArgs, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    let rust_log = rust_log(&environment);
    let loaded =
        args.args_of_side(Side::A).load_config_and_place(environment.clone()).and_then(|(config, a)| {
            match args.engine {
                true => Ok((config, a, None)),
                false => args
                    .args_of_side(Side::B)
                    .load_config_and_place(environment)
                    .map(|(_, b)| (config, a, Some(b))),
            }
        });
    let (config, a, b) = match loaded {
        Ok(loaded) => loaded,
        Err(ProcessExit::Unavailable) => return CANNOT_TELL,
        Err(exit) => return exit,
    };
    if let Err(error) = logs::start_logging(&config.log, Some(&rust_log)) {
        print_complaint(&error);
        return ProcessExit::Config;
    }
    let runtime = match build_runtime(&config) {
        Ok(runtime) => runtime,
        Err(error) => {
            print_complaint(&format!("cannot start the runtime: {error}"));
            return ProcessExit::Internal;
        }
    };
    let compared = runtime.block_on(async {
        match &b {
            Some(b) => compare_logs(args, &config, &a, b).await,
            None => compare_with_engine(args, &config, &a).await,
        }
    });
    match compared {
        Ok(differences) => print_differences(&differences, args.json),
        Err(CannotTell) => CANNOT_TELL,
    }
}

fn print_differences(differences: &Differences, as_json: bool) -> ProcessExit {
    let shown = match as_json {
        true => format!("{:#}\n", serde_json::json!(differences)),
        false => render_differences(differences),
    };
    match (print_answer(&shown), differences.verdict) {
        (ProcessExit::Ok, DiffVerdict::Equal) => ProcessExit::Ok,
        (ProcessExit::Ok, DiffVerdict::Different) => ProcessExit::Different,
        (ProcessExit::Ok, DiffVerdict::CannotTell) => CANNOT_TELL,
        (failed, _) => failed,
    }
}

/// Says what keeps the comparison from being made.
fn cannot_tell(error: &(dyn std::error::Error + 'static)) -> CannotTell {
    print_complaint(&explain_error(error));
    CannotTell
}

async fn open_logs(place: &LogsPlace) -> Result<Recorded, CannotTell> {
    reading::open_logs(place).await.map_err(|error| {
        print_complaint(&format!("{}: {}", place.display_name(), explain_error(&error)));
        CannotTell
    })
}

async fn compare_logs(
    args: &DiffArgs,
    config: &Config,
    a: &LogsPlace,
    b: &LogsPlace,
) -> Result<Differences, CannotTell> {
    let (opened_a, opened_b) = (open_logs(a).await?, open_logs(b).await?);
    let mut align = Align::new(&a.display_name(), &b.display_name());
    feed_run_logs(&mut align, &args.replay_plan(config), &opened_a, &opened_b)
        .await
        .map_err(|error| cannot_tell(&error))?;
    Ok(align.into_differences())
}

async fn compare_with_engine(
    args: &DiffArgs,
    config: &Config,
    place: &LogsPlace,
) -> Result<Differences, CannotTell> {
    let recorded = open_logs(place).await?;
    let (engine, workers) = open_engine(&config.engine).await.map_err(|error| cannot_tell(&error))?;
    let names = (place.display_name(), format!("{}, answered again", place.display_name()));
    let compared = match recorded.load_base().await {
        Ok(base) => {
            let plan = ReplayPlan { base, ..args.replay_plan(config) };
            let compared = against_engine(&recorded, engine, plan, (&names.0, &names.1)).await;
            compared.map_err(|error| cannot_tell(&error))
        }
        Err(error) => Err(cannot_tell(&error)),
    };
    if let Some(workers) = workers {
        workers.shut_down_workers().await;
    }
    compared
}

/// Feeds both run logs, always the side that is behind.
async fn feed_run_logs(
    align: &mut Align,
    plan: &ReplayPlan,
    a: &Recorded,
    b: &Recorded,
) -> Result<(), LogError> {
    let (mut a, mut b) = (RunCursor::over_all(a.runs.as_ref()), RunCursor::over_all(b.runs.as_ref()));
    while let Some(side) = align.side_behind() {
        let next = match side {
            Side::A => a.next().await?,
            Side::B => b.next().await?,
        };
        match next {
            Some((at, record)) if plan.includes_run(at, &record) => align.take_record(side, record),
            Some(_) => {}
            None => align.end_side(side),
        }
    }
    Ok(())
}
