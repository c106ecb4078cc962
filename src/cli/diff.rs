//! `orchestrator diff`: two records of the same runs, compared.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use orchestrator_kernel::contracts::engine_run::RunRecord;

use super::{ConfigArgs, Exit, FromArgs, block_on, complain, print};
use crate::diff::{Align, Differences, Side, Verdict, render};
use crate::recorded::{LogError, Runs, Selection};
use crate::service::explain;
use crate::wiring::reading::{self, LogsPlace, Recorded};

/// Options of `diff`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct DiffArgs {
    /// The first: data directory of a stopped service, or redis://[user:password@]host[:port][/database].
    #[arg(value_name = "A")]
    pub a: String,
    /// The second.
    #[arg(value_name = "B")]
    pub b: String,
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
    /// Where the configuration comes from: time-outs of servers.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Which part.
    #[command(flatten)]
    pub selection: Selection,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What keeps a comparison from being made: the exit code is that of [`Verdict::CannotTell`].
struct CannotTell;

impl DiffArgs {
    fn from(&self, side: Side) -> FromArgs {
        let (from, namespace, archive) = match side {
            Side::A => (&self.a, &self.namespace, &self.archive),
            Side::B => (&self.b, self.namespace_b.as_ref().unwrap_or(&self.namespace), &self.archive_b),
        };
        FromArgs {
            from: Some(from.clone()),
            namespace: namespace.clone(),
            archive: archive.clone(),
            config: self.config.clone(),
        }
    }
}

/// Compares, and prints what was found. The exit code says it too: 0 equal, 1 different, 2 cannot tell.
#[must_use]
pub fn diff(args: &DiffArgs, environment: Vec<(OsString, OsString)>) -> u8 {
    let places = [Side::A, Side::B].map(|side| args.from(side).load(environment.clone()));
    let [Ok((_, a)), Ok((_, b))] = places else { return Verdict::CannotTell.code() };
    let mut code = Verdict::CannotTell.code();
    let exit = block_on(async {
        let Ok(differences) = compare(args, &a, &b).await else { return Exit::Ok };
        let shown = match args.json {
            true => format!("{:#}\n", serde_json::json!(differences)),
            false => render(&differences),
        };
        let printed = print(&shown);
        if printed == Exit::Ok {
            code = differences.verdict.code();
        }
        printed
    });
    match exit {
        Exit::Ok => code,
        _ => Verdict::CannotTell.code(),
    }
}

async fn compare(args: &DiffArgs, a: &LogsPlace, b: &LogsPlace) -> Result<Differences, CannotTell> {
    let open = async |place: &LogsPlace| {
        reading::open(place).await.map_err(|error| {
            complain(&format!("{}: {}", place.name(), explain(&error)));
            CannotTell
        })
    };
    let (opened_a, opened_b) = (open(a).await?, open(b).await?);
    let mut align = Align::new(&a.name(), &b.name());
    feed(&mut align, &args.selection, &opened_a, &opened_b).await.map_err(|error| {
        complain(&explain(&error));
        CannotTell
    })?;
    Ok(align.finish())
}

/// Feeds both run logs, always the side that is behind.
async fn feed(align: &mut Align, selection: &Selection, a: &Recorded, b: &Recorded) -> Result<(), LogError> {
    let mut a = Selected::new(selection, a).await?;
    let mut b = Selected::new(selection, b).await?;
    while let Some(side) = align.behind() {
        let next = match side {
            Side::A => a.next().await?,
            Side::B => b.next().await?,
        };
        match next {
            Some(record) => align.take(side, record),
            None => align.end(side),
        }
    }
    Ok(())
}

/// The run records that are selected.
struct Selected<'a> {
    runs: Runs<'a>,
    symbols: &'a [String],
    first: u64,
    last: u64,
}

impl<'a> Selected<'a> {
    async fn new(selection: &'a Selection, recorded: &'a Recorded) -> Result<Self, LogError> {
        let (first, last) = selection.positions(recorded.receipts.as_ref()).await?;
        let runs = Runs::all(recorded.runs.as_ref());
        Ok(Self { runs, symbols: &selection.symbols, first: first.0, last: last.0 })
    }

    async fn next(&mut self) -> Result<Option<RunRecord>, LogError> {
        while let Some((_, record)) = self.runs.next().await? {
            let (symbol, end) = (record.facts.symbol.as_str(), record.facts.cut.end.0);
            let is_symbol = self.symbols.is_empty() || self.symbols.iter().any(|one| one == symbol);
            if is_symbol && self.first <= end && end <= self.last {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}
