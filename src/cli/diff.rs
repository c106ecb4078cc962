//! `orchestrator diff`: two records of the same runs, compared.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use orchestrator_kernel::engine::audit::StateFrom;
use orchestrator_kernel::ids::Symbol;

use super::run::runtime;
use super::verify::{calls_max, rust_log};
use super::{ConfigArgs, FromArgs, complain, print};
use crate::config::Config;
use crate::offline::diff::{Align, Differences, Side, Verdict, against_engine, render};
use crate::offline::recorded::{LogError, Runs};
use crate::offline::replay::{Plan, Range};
use crate::process::exit::Exit;
use crate::process::explain::explain;
use crate::service::wiring::engine::engine;
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
    /// With --engine: each call begins with the recorded state, so that one difference does not make the next. Without it
    /// the engine goes on from its own, as it would have.
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
    pub range: Range,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// The exit with code 2.
const CANNOT_TELL: Exit = Exit::Usage;

/// Something keeps the comparison from being made; it was said.
struct CannotTell;

impl DiffArgs {
    fn from(&self, side: Side) -> FromArgs {
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
    fn plan(&self, config: &Config) -> Plan {
        let symbols =
            self.symbols.iter().map(|symbol| Symbol::from(symbol.as_str())).collect::<BTreeSet<_>>();
        Plan {
            symbols: (!symbols.is_empty()).then_some(symbols),
            range: self.range,
            state_from: if self.recorded_state { StateFrom::Record } else { StateFrom::Replay },
            calls_max: calls_max(&config.engine),
            to_the_end: false,
            ..Plan::default()
        }
    }
}

/// Compares, and prints what was found. The exit says it too: 0 equal, 1 different, 2 cannot tell.
#[must_use]
pub fn diff(args: &DiffArgs, environment: Vec<(OsString, OsString)>) -> Exit {
    let rust_log = rust_log(&environment);
    let loaded = args.from(Side::A).load(environment.clone()).and_then(|(config, a)| match args.engine {
        true => Ok((config, a, None)),
        false => args.from(Side::B).load(environment).map(|(_, b)| (config, a, Some(b))),
    });
    let (config, a, b) = match loaded {
        Ok(loaded) => loaded,
        Err(Exit::Unavailable) => return CANNOT_TELL,
        Err(exit) => return exit,
    };
    if let Err(error) = logs::start(&config.log, Some(&rust_log)) {
        complain(&error);
        return Exit::Config;
    }
    let runtime = match runtime(&config) {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start the runtime: {error}"));
            return Exit::Internal;
        }
    };
    let compared = runtime.block_on(async {
        match &b {
            Some(b) => compare(args, &config, &a, b).await,
            None => compare_with_engine(args, &config, &a).await,
        }
    });
    match compared {
        Ok(differences) => deliver(&differences, args.json),
        Err(CannotTell) => CANNOT_TELL,
    }
}

fn deliver(differences: &Differences, as_json: bool) -> Exit {
    let shown = match as_json {
        true => format!("{:#}\n", serde_json::json!(differences)),
        false => render(differences),
    };
    match (print(&shown), differences.verdict) {
        (Exit::Ok, Verdict::Equal) => Exit::Ok,
        (Exit::Ok, Verdict::Different) => Exit::Different,
        (Exit::Ok, Verdict::CannotTell) => CANNOT_TELL,
        (failed, _) => failed,
    }
}

/// Says what keeps the comparison from being made.
fn cannot_tell(error: &(dyn std::error::Error + 'static)) -> CannotTell {
    complain(&explain(error));
    CannotTell
}

async fn open(place: &LogsPlace) -> Result<Recorded, CannotTell> {
    reading::open(place).await.map_err(|error| {
        complain(&format!("{}: {}", place.name(), explain(&error)));
        CannotTell
    })
}

async fn compare(
    args: &DiffArgs,
    config: &Config,
    a: &LogsPlace,
    b: &LogsPlace,
) -> Result<Differences, CannotTell> {
    let (opened_a, opened_b) = (open(a).await?, open(b).await?);
    let mut align = Align::new(&a.name(), &b.name());
    feed(&mut align, &args.plan(config), &opened_a, &opened_b).await.map_err(|error| cannot_tell(&error))?;
    Ok(align.finish())
}

async fn compare_with_engine(
    args: &DiffArgs,
    config: &Config,
    place: &LogsPlace,
) -> Result<Differences, CannotTell> {
    let recorded = open(place).await?;
    let (engine, workers) = engine(&config.engine).await.map_err(|error| cannot_tell(&error))?;
    let names = (place.name(), format!("{}, answered again", place.name()));
    let compared = match recorded.base().await {
        Ok(base) => {
            let plan = Plan { base, ..args.plan(config) };
            let compared = against_engine(&recorded, engine, plan, (&names.0, &names.1)).await;
            compared.map_err(|error| cannot_tell(&error))
        }
        Err(error) => Err(cannot_tell(&error)),
    };
    if let Some(workers) = workers {
        workers.shutdown().await;
    }
    compared
}

/// Feeds both run logs, always the side that is behind.
async fn feed(align: &mut Align, plan: &Plan, a: &Recorded, b: &Recorded) -> Result<(), LogError> {
    let (mut a, mut b) = (Runs::all(a.runs.as_ref()), Runs::all(b.runs.as_ref()));
    while let Some(side) = align.behind() {
        let next = match side {
            Side::A => a.next().await?,
            Side::B => b.next().await?,
        };
        match next {
            Some((at, record)) if plan.includes(at, &record) => align.take(side, record),
            Some(_) => {}
            None => align.end(side),
        }
    }
    Ok(())
}
