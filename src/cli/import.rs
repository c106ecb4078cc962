//! `orchestrator import`: recordings of other systems as RawMarketEvents.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{print_answer, print_complaint};
use crate::offline::import::{
    BarTime, ImportOptions, OnError, RecordingFormat, Rows, TableOptions, Unit, import_recording,
};
use crate::process::exit::ProcessExit;
use crate::process::explain::explain_error;

/// Format of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    /// Frames of Binance, `<recv_ns> <json>` a line.
    Binance,
    /// A table with a line a trade.
    TradesCsv,
    /// A table with a line a bar.
    BarsCsv,
}

/// Options of `import`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ImportArgs {
    /// What the recording is.
    #[arg(long, value_enum)]
    pub format: ImportFormat,
    /// The recording: plain, gzip or zstd.
    #[arg(long = "in", value_name = "FILE")]
    pub input: PathBuf,
    /// The file of events, one a line; named .gz or .zst it is compressed.
    #[arg(long = "out", value_name = "FILE")]
    pub output: PathBuf,
    /// Symbol of what names none; tables need it, or a column for it.
    #[arg(long, value_name = "SYMBOL")]
    pub symbol: Option<String>,
    /// source_id of the events; without it: binance_usdm, or csv.
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Tables: which column is what, for example ts=time_ms,price=p. Trades: ts, price, quantity, and if there are
    /// recv, symbol, id, side, buyer_maker. Bars: ts, open, high, low, close, volume, and if there are recv, symbol.
    #[arg(long, value_name = "WORD=COLUMN,…", value_delimiter = ',', value_parser = parse_mapping)]
    pub map: Vec<(String, String)>,
    /// Tables: what times count, since 1970 in UTC.
    #[arg(long, value_enum, default_value_t)]
    pub unit: Unit,
    /// Tables: what separates columns.
    #[arg(long, value_name = "CHARACTER", default_value = ",", value_parser = parse_delimiter)]
    pub delimiter: u8,
    /// Tables: the first line is data; columns are named 1, 2, 3 …
    #[arg(long)]
    pub no_header: bool,
    /// Bars: how long one is, for example 1m.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub interval: Option<Duration>,
    /// Bars: whether ts is the begin or the end of the bar.
    #[arg(long, value_enum, default_value_t)]
    pub bar_time: BarTime,
    /// What becomes of a line that cannot be read.
    #[arg(long, value_enum, default_value_t)]
    pub on_error: OnError,
    /// Replace the output.
    #[arg(long)]
    pub force: bool,
}

impl ImportArgs {
    fn to_format(&self) -> Result<RecordingFormat, &'static str> {
        let rows = match (self.format, self.interval) {
            (ImportFormat::Binance, _) => return Ok(RecordingFormat::Binance),
            (ImportFormat::TradesCsv, _) => Rows::Trades,
            (ImportFormat::BarsCsv, Some(interval)) if !interval.is_zero() => {
                Rows::Bars { interval, time: self.bar_time }
            }
            (ImportFormat::BarsCsv, _) => return Err("bars need --interval, for example --interval 1m"),
        };
        Ok(RecordingFormat::Table(TableOptions {
            rows,
            map: self.map.iter().cloned().collect(),
            unit: self.unit,
            delimiter: self.delimiter,
            has_header: !self.no_header,
        }))
    }
}

/// Imports, and prints what as one JSON object.
#[must_use]
pub fn run_import(args: &ImportArgs) -> ProcessExit {
    let format = match args.to_format() {
        Ok(format) => format,
        Err(error) => {
            print_complaint(&error);
            return ProcessExit::Usage;
        }
    };
    let source_id = match (&args.source, args.format) {
        (Some(source), _) => source.clone(),
        (None, ImportFormat::Binance) => "binance_usdm".to_owned(),
        (None, ImportFormat::TradesCsv | ImportFormat::BarsCsv) => "csv".to_owned(),
    };
    let options = ImportOptions {
        input: args.input.clone(),
        output: args.output.clone(),
        format,
        source_id,
        symbol: args.symbol.clone(),
        on_error: args.on_error,
        force: args.force,
    };
    match import_recording(&options) {
        Ok(imported) => print_answer(&format!("{:#}\n", serde_json::json!(imported))),
        Err(error) => {
            print_complaint(&explain_error(&error));
            error.to_exit()
        }
    }
}

fn parse_mapping(text: &str) -> Result<(String, String), &'static str> {
    let (word, column) = text.split_once('=').ok_or("expected WORD=COLUMN")?;
    Ok((word.trim().to_owned(), column.trim().to_owned()))
}

fn parse_delimiter(text: &str) -> Result<u8, &'static str> {
    match text.as_bytes() {
        [delimiter] if *delimiter != b'"' => Ok(*delimiter),
        b"\\t" => Ok(b'\t'),
        _ => Err("expected one ASCII character, or \\t"),
    }
}
