//! Parquet tables for notebooks: one row a receipt, one row an ended run.

use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::basic::Compression as Codec;
use ::parquet::column::writer::ColumnWriter;
use ::parquet::data_type::ByteArray;
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use bytes::Bytes;
use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::orchestrator_event::{outputs_of, selected_output};
use orchestrator_kernel::engine::contracts::raw_market_event::{Names, decode};
use orchestrator_kernel::ids::{IngestSeq, RunSeq};
use orchestrator_kernel::ports::engine::EngineAnswer;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ExportError, ExportOptions, Exported, write_failed};
use crate::offline::recorded::{ReceiptCursor, RunCursor};
use crate::process::files::{Compression, Finished, NewFile};
use crate::process::version::VERSION;
use crate::service::wiring::reading::Recorded;

/// The files' names.
pub(super) const NAMES: [&str; 2] = ["receipts.parquet", "runs.parquet"];

/// Rows in a group at most.
const GROUP_ROWS_MAX: usize = 1 << 17;
/// Bytes of values in a group, before the next group begins.
const GROUP_BYTES_MAX: usize = 32 << 20;

/// Columns of the receipts. `event` is the stored event, byte for byte.
const RECEIPTS: &str = "message receipts {
    required int64 ingest_seq;
    required int64 ingest_ts_ms;
    required binary symbol (string);
    required binary event_type (string);
    required binary source_id (string);
    required int64 recv_ts_ms;
    optional int64 exchange_ts_ms;
    required binary event (string);
}";

/// Columns of the runs. `output` is the regime output, in hysteresis mode the decision; `state` what follows it.
const RUNS: &str = "message runs {
    required int64 run_seq;
    required binary run_id (string);
    required binary symbol (string);
    required int64 engine_timestamp_ms;
    required binary engine_mode (string);
    required binary cut_kind (string);
    required int64 cut_start_ingest_seq;
    required int64 cut_end_ingest_seq;
    optional int64 snapshot_ingest_seq;
    required int64 planned_ts_ms;
    required int64 started_ts_ms;
    required int64 completed_ts_ms;
    required binary status (string);
    optional binary error_kind (string);
    optional binary error_detail (string);
    required int64 attempts;
    optional binary regime (string);
    optional double confidence;
    optional binary output (string);
    optional binary state (string);
    optional binary engine_name (string);
    optional binary engine_version (string);
    optional binary engine_code_hash (string);
}";

/// Writes the files of `targets`, which have the order of [`NAMES`] and may go on behind them.
pub(super) async fn write_tables(
    recorded: &Recorded,
    options: &ExportOptions,
    range: &RangeInclusive<IngestSeq>,
    targets: &[PathBuf],
) -> Result<(Exported, Vec<Finished>), ExportError> {
    let mut exported = Exported::default();
    let mut files = Vec::new();
    if let [receipts_file, runs_file, ..] = targets {
        let mut table = ParquetTable::create_table(receipts_file, RECEIPTS)?;
        write_receipts(recorded, options, range, &mut table, &mut exported).await?;
        files.push(table.finish_table()?);
        let mut table = ParquetTable::create_table(runs_file, RUNS)?;
        write_runs(recorded, options, range, &mut table, &mut exported).await?;
        files.push(table.finish_table()?);
    }
    Ok((exported, files))
}

async fn write_receipts(
    recorded: &Recorded,
    options: &ExportOptions,
    range: &RangeInclusive<IngestSeq>,
    table: &mut ParquetTable,
    exported: &mut Exported,
) -> Result<(), ExportError> {
    let symbols = options.selection.symbol_set();
    let mut names = Names::default();
    let mut receipts = ReceiptCursor::over_range(recorded.receipts.as_ref(), range);
    while let Some(record) = receipts.next().await? {
        if symbols.as_ref().is_some_and(|symbols| !symbols.contains(record.symbol)) {
            continue;
        }
        let at = record.ingest_seq.0;
        let event = Bytes::copy_from_slice(record.event);
        let receipt = decode(event.clone(), &mut names)
            .map_err(|error| ExportError::NoEnvelope { at, detail: error.to_string() })?;
        exported.note_receipt(at);
        table.push_row([
            seq_cell(record.ingest_seq.0),
            Cell::Int(record.ingest_ts_ms.0),
            text_cell(record.symbol),
            text_cell(record.event_type),
            text_cell(receipt.source_id.as_str()),
            Cell::Int(receipt.recv_ts_ms.0),
            receipt.exchange_ts_ms.map_or(Cell::Null, |ts| Cell::Int(ts.0)),
            Cell::Text(event.into()),
        ])?;
    }
    Ok(())
}

async fn write_runs(
    recorded: &Recorded,
    options: &ExportOptions,
    range: &RangeInclusive<IngestSeq>,
    table: &mut ParquetTable,
    exported: &mut Exported,
) -> Result<(), ExportError> {
    let symbols = options.selection.symbol_set();
    let mut runs = RunCursor::over_all(recorded.runs.as_ref());
    while let Some((run_seq, record)) = runs.next().await? {
        let facts = &record.facts;
        let is_meant = symbols.as_ref().is_none_or(|symbols| symbols.contains(facts.symbol.as_str()))
            && range.contains(&facts.cut.end);
        if record.is_terminal() && is_meant {
            exported.run_records += 1;
            exported.outputs += outputs_of(&record);
            table.push_row(run_row(run_seq, &record))?;
        }
    }
    Ok(())
}

fn run_row(run_seq: RunSeq, record: &RunRecord) -> [Cell; 23] {
    let facts = &record.facts;
    let (status, completed, attempts) = match &record.status {
        RunStatus::Started { attempts } => ("started", facts.started_ts_ms, *attempts),
        RunStatus::Completed { attempts, completed_ts_ms, .. } => ("completed", *completed_ts_ms, *attempts),
        RunStatus::Failed { attempts, completed_ts_ms, .. } => ("failed", *completed_ts_ms, *attempts),
    };
    let [error_kind, error_detail] = match &record.status {
        RunStatus::Failed { error_kind, error_detail, .. } => {
            [text_cell(error_kind.as_str()), text_cell(error_detail)]
        }
        RunStatus::Started { .. } | RunStatus::Completed { .. } => [Cell::Null, Cell::Null],
    };
    let [regime, confidence, output, state] = answer_cells(record);
    let [name, version, code_hash] = match &record.status {
        RunStatus::Completed { engine, .. } => {
            [&engine.name, &engine.version, &engine.code_hash].map(|word| text_cell(word))
        }
        RunStatus::Started { .. } | RunStatus::Failed { .. } => [Cell::Null, Cell::Null, Cell::Null],
    };
    [
        seq_cell(run_seq.0),
        text_cell(&facts.run_id.to_string()),
        text_cell(facts.symbol.as_str()),
        Cell::Int(facts.engine_timestamp_ms.0),
        text_cell(facts.engine_mode.as_str()),
        text_cell(facts.cut.kind.as_str()),
        seq_cell(facts.cut.start.0),
        seq_cell(facts.cut.end.0),
        facts.snapshot_seq.map_or(Cell::Null, |at| seq_cell(at.0)),
        Cell::Int(facts.planned_ts_ms.0),
        Cell::Int(facts.started_ts_ms.0),
        Cell::Int(completed.0),
        text_cell(status),
        error_kind,
        error_detail,
        Cell::Int(i64::from(attempts)),
        regime,
        confidence,
        output,
        state,
        name,
        version,
        code_hash,
    ]
}

/// `regime` and `confidence` as far as the regime output has them, the answer's JSON, and the state.
fn answer_cells(record: &RunRecord) -> [Cell; 4] {
    #[derive(Deserialize)]
    struct Known<'a> {
        #[serde(borrow, default)]
        regime: Option<&'a RawValue>,
        #[serde(borrow, default)]
        confidence: Option<&'a RawValue>,
    }
    let RunStatus::Completed { answer, .. } = &record.status else {
        return [Cell::Null, Cell::Null, Cell::Null, Cell::Null];
    };
    let (regime_output, output, state) = match answer {
        EngineAnswer::Truth { regime_output } => (Some(regime_output.as_str()), regime_output, Cell::Null),
        EngineAnswer::Hysteresis { decision, state } => {
            (selected_output(decision).ok().map(RawValue::get), decision, text_cell(state))
        }
    };
    // The engine's output is opaque: what is not there stays empty.
    let known = regime_output.and_then(|output| serde_json::from_str::<Known<'_>>(output).ok());
    let (regime, confidence) = known.map_or((None, None), |known| (known.regime, known.confidence));
    let regime = regime.and_then(|regime| serde_json::from_str::<String>(regime.get()).ok());
    // Read by the standard library: serde_json by default may be one unit off.
    let confidence = confidence.and_then(|confidence| confidence.get().parse().ok());
    let (regime, confidence) =
        (regime.map_or(Cell::Null, |regime| text_cell(&regime)), confidence.map_or(Cell::Null, Cell::Number));
    [regime, confidence, text_cell(output), state]
}

/// A value of a table.
pub(super) enum Cell {
    Null,
    Int(i64),
    Number(f64),
    Text(ByteArray),
}

pub(super) fn text_cell(text: &str) -> Cell {
    Cell::Text(ByteArray::from(text))
}

/// Positions are below 2^63 for as long as there are disks.
pub(super) fn seq_cell(position: u64) -> Cell {
    Cell::Int(i64::try_from(position).unwrap_or(i64::MAX))
}

/// The values of one column in the group of rows that is being collected.
#[derive(Default)]
struct Column {
    /// 1 where there is a value, 0 where there is none.
    levels: Vec<i16>,
    ints: Vec<i64>,
    numbers: Vec<f64>,
    texts: Vec<ByteArray>,
}

/// A Parquet file in the making, a group of rows at a time.
pub(super) struct ParquetTable {
    writer: SerializedFileWriter<NewFile>,
    target: PathBuf,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

impl ParquetTable {
    pub(super) fn create_table(target: &Path, schema: &str) -> Result<Self, ExportError> {
        let file = NewFile::create(target, Compression::None).map_err(write_failed(target))?;
        let properties = WriterProperties::builder()
            .set_compression(Codec::SNAPPY)
            .set_created_by(format!("orchestrator {VERSION}"))
            .build();
        let started = parse_message_type(schema)
            .and_then(|schema| SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)));
        let writer = started.map_err(parquet_failed(target))?;
        let columns = writer.schema_descr().columns().iter().map(|_| Column::default()).collect();
        Ok(Self { writer, target: target.to_owned(), columns, rows: 0, bytes: 0 })
    }

    pub(super) fn push_row<const CELLS: usize>(&mut self, cells: [Cell; CELLS]) -> Result<(), ExportError> {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.levels.push(i16::from(!matches!(cell, Cell::Null)));
            match cell {
                Cell::Null => {}
                Cell::Int(value) => column.ints.push(value),
                Cell::Number(value) => column.numbers.push(value),
                Cell::Text(value) => {
                    self.bytes += value.len();
                    column.texts.push(value);
                }
            }
        }
        self.rows += 1;
        self.bytes += CELLS * size_of::<Cell>();
        match self.rows < GROUP_ROWS_MAX && self.bytes < GROUP_BYTES_MAX {
            true => Ok(()),
            false => self.flush_rows(),
        }
    }

    fn flush_rows(&mut self) -> Result<(), ExportError> {
        if self.rows == 0 {
            return Ok(());
        }
        write_group(&mut self.writer, &self.columns).map_err(parquet_failed(&self.target))?;
        self.columns.fill_with(Column::default);
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    pub(super) fn finish_table(mut self) -> Result<Finished, ExportError> {
        self.flush_rows()?;
        let file = self.writer.into_inner().map_err(parquet_failed(&self.target))?;
        file.finish().map_err(write_failed(&self.target))
    }
}

fn write_group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    columns: &[Column],
) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    for column in columns {
        let Some(mut sink) = group.next_column()? else { break };
        // A required column ignores the levels: it has none to write.
        let levels = Some(column.levels.as_slice());
        match sink.untyped() {
            ColumnWriter::Int64ColumnWriter(sink) => sink.write_batch(&column.ints, levels, None)?,
            ColumnWriter::DoubleColumnWriter(sink) => sink.write_batch(&column.numbers, levels, None)?,
            ColumnWriter::ByteArrayColumnWriter(sink) => sink.write_batch(&column.texts, levels, None)?,
            _ => return Err(ParquetError::General("a column of a type that no cell has".to_owned())),
        };
        sink.close()?;
    }
    group.close()?;
    Ok(())
}

fn parquet_failed(target: &Path) -> impl FnOnce(ParquetError) -> ExportError {
    let target = target.to_owned();
    move |error| match error {
        ParquetError::External(cause) => write_failed(&target)(std::io::Error::other(cause)),
        other => write_failed(&target)(std::io::Error::other(other)),
    }
}
