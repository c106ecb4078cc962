//! Tables with a line a trade or a bar, their columns named by a mapping.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;
use csv::{ByteRecord, ReaderBuilder};

use super::event::{Event, Fields};
use super::number::{Unit, json_decimal, parse_milliseconds};
use super::{BadMap, Problem, Take};

/// What a column can be mapped to, for trades. The first three must be there.
const TRADE_KEYS: [&str; 8] = ["ts", "price", "quantity", "recv", "symbol", "id", "side", "buyer_maker"];
/// What a column can be mapped to, for bars. The first six must be there.
const BAR_KEYS: [&str; 8] = ["ts", "open", "high", "low", "close", "volume", "recv", "symbol"];

/// Meaning of a bar's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BarTime {
    /// Its begin. The event is received at its end: nobody knows a bar before.
    #[default]
    Open,
    /// Its end.
    Close,
}

/// Meaning of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// A trade.
    Trades,
    /// A bar of this length.
    Bars {
        /// How long a bar is.
        interval: Duration,
        /// What its time means.
        time: BarTime,
    },
}

/// Options for reading a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// What a line is.
    pub rows: Rows,
    /// Our words to the names of columns; what is not mapped is looked for under its own name.
    pub map: BTreeMap<String, String>,
    /// What times count.
    pub unit: Unit,
    /// What separates columns.
    pub delimiter: u8,
    /// Whether the first line names the columns; otherwise they are named 1, 2, 3 …
    pub has_header: bool,
}

/// Turns lines into events.
pub(super) struct Table<'a> {
    options: &'a TableOptions,
    source_id: &'a str,
    symbol: Option<&'a str>,
    /// Where each mapped word stands; unknown before the first line.
    columns: Option<BTreeMap<&'static str, usize>>,
}

impl<'a> Table<'a> {
    /// A table whose lines have `symbol`, where no column gives it.
    pub(super) fn new(
        options: &'a TableOptions,
        source_id: &'a str,
        symbol: Option<&'a str>,
    ) -> Result<Self, BadMap> {
        let keys = options.known_keys();
        match options.map.keys().find(|key| !keys.contains(&key.as_str())) {
            Some(unknown) => Err(BadMap(format!("--map knows no {unknown}, only {}", keys.join(", ")))),
            None => Ok(Self { options, source_id, symbol, columns: None }),
        }
    }

    /// Whether `text` is a whole record: a quoted field may have line breaks in it.
    pub(super) fn is_whole(text: &str) -> bool {
        text.bytes().filter(|byte| *byte == b'"').count().is_multiple_of(2)
    }

    /// Takes one record.
    pub(super) fn take_line(&mut self, text: &str, take: Take<'_>) -> Result<(), Problem> {
        let fields = self.split_fields(text)?;
        if let Some(columns) = &self.columns {
            return self.build_event(&Row { columns, fields: &fields }, text, take);
        }
        let names: Vec<String> = match self.options.has_header {
            true => fields.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect(),
            false => (1..=fields.len()).map(|number| number.to_string()).collect(),
        };
        let columns = self.columns_of(&names)?;
        if !self.options.has_header {
            self.build_event(&Row { columns: &columns, fields: &fields }, text, take)?;
        }
        self.columns = Some(columns);
        Ok(())
    }

    fn split_fields(&self, text: &str) -> Result<ByteRecord, Problem> {
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .delimiter(self.options.delimiter)
            .buffer_capacity(text.len().max(1))
            .from_reader(text.as_bytes());
        let mut fields = ByteRecord::new();
        match reader.read_byte_record(&mut fields) {
            Ok(_) => Ok(fields),
            Err(error) => Err(Problem { column: "1".to_owned(), detail: error.to_string() }),
        }
    }

    fn columns_of(&self, names: &[String]) -> Result<BTreeMap<&'static str, usize>, Problem> {
        let mut columns = BTreeMap::new();
        for key in self.options.known_keys() {
            let mapped = self.options.map.get(*key);
            let wanted = mapped.map_or(*key, String::as_str);
            let found = names.iter().position(|name| name.trim_start_matches('\u{feff}') == wanted);
            match found {
                Some(at) => drop(columns.insert(*key, at)),
                None if mapped.is_some() || self.options.required_keys().contains(key) => {
                    let detail = format!(
                        "no column {wanted} for {key}, only {}; name it with --map {key}=COLUMN",
                        names.join(", ")
                    );
                    return Err(Problem { column: "1".to_owned(), detail });
                }
                None => {}
            }
        }
        if self.symbol.is_none() && !columns.contains_key("symbol") {
            let detail =
                "no column gives the symbol; name it with --map symbol=COLUMN, or give --symbol".to_owned();
            return Err(Problem { column: "1".to_owned(), detail });
        }
        Ok(columns)
    }

    fn build_event(&self, row: &Row<'_>, text: &str, take: Take<'_>) -> Result<(), Problem> {
        let symbol = match row.column_text("symbol")? {
            Some(symbol) => symbol,
            None => self.symbol.unwrap_or_default(),
        };
        let ts = row.column_time("ts", self.options.unit)?.unwrap_or_default();
        let (event_type, channel, exchange_ts_ms, normalized) = match self.options.rows {
            Rows::Trades => ("TradeTick", "trades", ts, row.trade_fields()?),
            Rows::Bars { interval, time } => {
                let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
                let end = match time {
                    BarTime::Open => ts.saturating_add(interval_ms),
                    BarTime::Close => ts,
                };
                ("Candle", "candles", end, row.bar_fields(interval_ms)?)
            }
        };
        let recv_ts_ms = row.column_time("recv", self.options.unit)?.unwrap_or(exchange_ts_ms);
        let id = row.column_text("id")?;
        let mut event = Event::new(event_type, symbol, recv_ts_ms, text);
        event.source_id = self.source_id;
        event.exchange_ts_ms = Some(exchange_ts_ms);
        event.normalized = normalized.into_object();
        event.source_event_id = id.map(str::to_owned);
        event.source_seq = id.and_then(|id| id.parse().ok());
        event.channel = Some(channel);
        event.payload_content_type = Some("text/csv");
        take(&event)
    }
}

impl TableOptions {
    const fn known_keys(&self) -> &'static [&'static str] {
        match self.rows {
            Rows::Trades => &TRADE_KEYS,
            Rows::Bars { .. } => &BAR_KEYS,
        }
    }

    fn required_keys(&self) -> &'static [&'static str] {
        match self.rows {
            Rows::Trades => &TRADE_KEYS[..3],
            Rows::Bars { .. } => &BAR_KEYS[..6],
        }
    }
}

/// One record, with the columns that are known.
struct Row<'r> {
    columns: &'r BTreeMap<&'static str, usize>,
    fields: &'r ByteRecord,
}

impl<'r> Row<'r> {
    /// The text of a column; nothing when there is no such column, or nothing in it.
    fn column_text(&self, key: &str) -> Result<Option<&'r str>, Problem> {
        let Some(at) = self.columns.get(key) else { return Ok(None) };
        let field = self
            .fields
            .get(*at)
            .ok_or_else(|| self.column_problem(key, "the line ends before it".to_owned()))?;
        let text =
            std::str::from_utf8(field).map_err(|error| self.column_problem(key, error.to_string()))?.trim();
        Ok((!text.is_empty()).then_some(text))
    }

    fn column_time(&self, key: &str, unit: Unit) -> Result<Option<i64>, Problem> {
        let read = |text: &str| {
            let refused = || self.column_problem(key, format!("{text:?} is no time in the unit {unit:?}"));
            let ms = parse_milliseconds(text, unit).ok_or_else(refused)?;
            unit.check_plausible(ms).map_err(|detail| self.column_problem(key, detail))
        };
        match (self.column_text(key)?, key) {
            (Some(text), _) => read(text).map(Some),
            (None, "ts") => Err(self.column_problem(key, "is empty".to_owned())),
            (None, _) => Ok(None),
        }
    }

    fn column_number(&self, key: &str) -> Result<String, Problem> {
        let text = self.column_text(key)?.unwrap_or_default();
        json_decimal(text).ok_or_else(|| self.column_problem(key, format!("{text:?} is no number")))
    }

    fn trade_fields(&self) -> Result<Fields, Problem> {
        let fields = Fields::default()
            .with_json("price", &self.column_number("price")?)
            .with_json("quantity", &self.column_number("quantity")?);
        Ok(fields.with_text("side", self.taker_side()?))
    }

    /// The taker's side, if a column says it.
    fn taker_side(&self) -> Result<Option<&'static str>, Problem> {
        let word = |key| Ok(self.column_text(key)?.map(str::to_ascii_lowercase));
        match word("side")?.as_deref() {
            None => {}
            Some("buy" | "b" | "bid") => return Ok(Some("buy")),
            Some("sell" | "s" | "ask" | "a") => return Ok(Some("sell")),
            Some(other) => {
                return Err(self.column_problem("side", format!("{other:?} is neither buy nor sell")));
            }
        }
        match word("buyer_maker")?.as_deref() {
            None => Ok(None),
            Some("true" | "t" | "1") => Ok(Some("sell")),
            Some("false" | "f" | "0") => Ok(Some("buy")),
            Some(other) => {
                Err(self.column_problem("buyer_maker", format!("{other:?} is neither true nor false")))
            }
        }
    }

    fn bar_fields(&self, interval_ms: i64) -> Result<Fields, Problem> {
        let mut fields = Fields::default();
        for key in ["open", "high", "low", "close", "volume"] {
            fields = fields.with_json(key, &self.column_number(key)?);
        }
        Ok(fields.with_json("interval_ms", &interval_ms.to_string()).with_json("is_final", "true"))
    }

    fn column_problem(&self, key: &str, detail: String) -> Problem {
        let at = self.columns.get(key).map_or(0, |at| at + 1);
        Problem { column: format!("{at} ({key})"), detail }
    }
}
