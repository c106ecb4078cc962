//! The trading plane's journal: its records in the export form, or one row each.

use std::path::Path;

use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{Log, LogName};
use orchestrator_kernel::trading::journal::SealedEntry;

use super::ndjson::LineFile;
use super::parquet::{Cell, ParquetTable, seq_cell, text_cell};
use super::{ExportError, ExportOptions};
use crate::offline::recorded::{LogCursor, LogError};
use crate::process::files::Finished;

/// Name of the file of lines.
pub(super) const LINES_NAME: &str = "journal.jsonl";
/// Name of the table.
pub(super) const TABLE_NAME: &str = "journal.parquet";

/// Columns of the journal. `fact` is what the record says, as JSON; `cycle_id` is empty where it is no cycle's.
const JOURNAL: &str = "message journal {
    required int64 journal_seq;
    required int64 at_ms;
    optional int64 planned_ts_ms;
    required binary kind (string);
    optional binary cycle_id (string);
    required binary correlation_id (string);
    required binary who_kind (string);
    required binary who_name (string);
    required binary fact (string);
    required binary hash (string);
}";

/// Writes one line a record. Returns how many.
pub(super) async fn write_lines(
    journal: &dyn Log,
    options: &ExportOptions,
    target: &Path,
) -> Result<(u64, Finished), ExportError> {
    let mut file = LineFile::create_file(target, options)?;
    let mut records = LogCursor::over_all(journal, LogName::Journal);
    let mut count = 0;
    while let Some((seq, payload)) = records.next().await? {
        let SealedEntry { entry, hash } = decode_record(seq, payload)?;
        file.write_line(entry.to_wire(seq.into(), hash).as_bytes())?;
        count += 1;
    }
    Ok((count, file.finish_file()?))
}

/// Writes one row a record. Returns how many.
pub(super) async fn write_table(journal: &dyn Log, target: &Path) -> Result<(u64, Finished), ExportError> {
    let mut table = ParquetTable::create_table(target, JOURNAL)?;
    let mut records = LogCursor::over_all(journal, LogName::Journal);
    let mut count = 0;
    while let Some((seq, payload)) = records.next().await? {
        table.push_row(journal_row(seq, &decode_record(seq, payload)?))?;
        count += 1;
    }
    Ok((count, table.finish_table()?))
}

fn decode_record(seq: Seq, payload: &[u8]) -> Result<SealedEntry, LogError> {
    SealedEntry::decode(payload).map_err(|error| LogError::corrupt_record(LogName::Journal, seq, &error))
}

fn journal_row(seq: Seq, SealedEntry { entry, hash }: &SealedEntry) -> [Cell; 10] {
    [
        seq_cell(seq.0),
        Cell::Int(entry.at_ms.0),
        entry.planned_ts_ms.map_or(Cell::Null, |planned| Cell::Int(planned.0)),
        text_cell(entry.fact.kind_word()),
        entry.fact.cycle_id().map_or(Cell::Null, |id| text_cell(&id.to_string())),
        text_cell(entry.correlation.as_str()),
        text_cell(entry.who.kind_word()),
        text_cell(entry.who.name()),
        text_cell(&entry.fact.to_body().to_string()),
        text_cell(&hash.to_string()),
    ]
}
