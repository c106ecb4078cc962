//! Lines of JSON: the wire forms of the specification, one record a line.

use std::borrow::Cow;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use orchestrator_kernel::engine::contracts::orchestrator_event::events;
use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::ids::IngestSeq;
use orchestrator_kernel::ports::log::LogName;
use serde_json::json;

use super::{ExportError, ExportOptions, Exported, write_failed};
use crate::offline::recorded::{LogCursor, LogError, ReceiptCursor, RunCursor};
use crate::process::files::{Finished, NewFile};
use crate::service::wiring::reading::Recorded;

/// The files' names.
pub(super) const NAMES: [&str; 4] =
    ["raw_market_events.jsonl", "orchestrator_events.jsonl", "engine_run_records.jsonl", "quarantine.jsonl"];

/// Writes the files of `targets`, which have the order of [`NAMES`] and may go on behind them.
pub(super) async fn write_files(
    recorded: &Recorded,
    options: &ExportOptions,
    range: &RangeInclusive<IngestSeq>,
    targets: &[PathBuf],
) -> Result<(Exported, Vec<Finished>), ExportError> {
    let has_quarantine = options.selection.is_everything();
    let targets = targets.get(..NAMES.len() - usize::from(!has_quarantine)).unwrap_or(targets);
    let create = |target: &PathBuf| LineFile::create_file(target, options);
    let mut files = targets.iter().map(create).collect::<Result<Vec<_>, ExportError>>()?;
    let mut exported = Exported::default();
    // `targets` gives three or four.
    if let [receipts, outputs, runs, rest @ ..] = files.as_mut_slice() {
        write_receipts(recorded, options, range, receipts, &mut exported).await?;
        write_runs(recorded, options, range, (outputs, runs), &mut exported).await?;
        if let [quarantine] = rest {
            write_quarantine(recorded, quarantine, &mut exported).await?;
        }
    }
    exported.line_is_ingest_seq =
        options.selection.is_everything() && exported.first_ingest_seq.is_none_or(|first| first == 1);
    let finished = files.into_iter().map(LineFile::finish_file).collect::<Result<_, _>>()?;
    Ok((exported, finished))
}

async fn write_receipts(
    recorded: &Recorded,
    options: &ExportOptions,
    range: &RangeInclusive<IngestSeq>,
    file: &mut LineFile,
    exported: &mut Exported,
) -> Result<(), ExportError> {
    let symbols = options.selection.symbol_set();
    let mut receipts = ReceiptCursor::over_range(recorded.receipts.as_ref(), range);
    while let Some(record) = receipts.next().await? {
        if symbols.as_ref().is_some_and(|symbols| !symbols.contains(record.symbol)) {
            continue;
        }
        let line = on_one_line(record.event);
        exported.receipts_with_line_breaks += u64::from(matches!(line, Cow::Owned(_)));
        exported.note_receipt(record.ingest_seq.0);
        file.write_line(&line)?;
    }
    Ok(())
}

async fn write_runs(
    recorded: &Recorded,
    options: &ExportOptions,
    range: &RangeInclusive<IngestSeq>,
    (outputs, records): (&mut LineFile, &mut LineFile),
    exported: &mut Exported,
) -> Result<(), ExportError> {
    let symbols = options.selection.symbol_set();
    let mut runs = RunCursor::over_all(recorded.runs.as_ref());
    while let Some((seq, record)) = runs.next().await? {
        let facts = &record.facts;
        let is_meant = symbols.as_ref().is_none_or(|symbols| symbols.contains(facts.symbol.as_str()))
            && range.contains(&facts.cut.end);
        if !is_meant {
            continue;
        }
        records.write_line(record.to_wire().as_bytes())?;
        exported.run_records += 1;
        for output in events(seq, &record, None)? {
            outputs.write_line(&output.body)?;
            exported.outputs += 1;
        }
    }
    Ok(())
}

async fn write_quarantine(
    recorded: &Recorded,
    file: &mut LineFile,
    exported: &mut Exported,
) -> Result<(), ExportError> {
    let mut items = LogCursor::over_all(recorded.quarantine.as_ref(), LogName::Quarantine);
    while let Some((seq, payload)) = items.next().await? {
        let item = QuarantineRecord::decode(payload)
            .map_err(|error| LogError::corrupt_record(LogName::Quarantine, seq, &error))?;
        file.write_line(quarantine_wire(seq.0, &item).as_bytes())?;
        exported.quarantined += 1;
    }
    Ok(())
}

/// One refused item: its bytes as text where they are text, otherwise in hexadecimal digits.
fn quarantine_wire(seq: u64, item: &QuarantineRecord) -> String {
    let (encoding, bytes) = match std::str::from_utf8(&item.bytes) {
        Ok(text) => ("text", text.to_owned()),
        Err(_) => ("hex", item.bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    };
    json!({
        "at_ms": item.at_ms,
        "bytes": bytes,
        "bytes_encoding": encoding,
        "detail": item.detail,
        "origin": item.origin,
        "position": item.position,
        "quarantine_seq": seq,
        "reason": item.reason,
        "size": item.size,
    })
    .to_string()
}

/// An event as one line. Valid JSON has line breaks only between its tokens, where a space means the same.
fn on_one_line(event: &[u8]) -> Cow<'_, [u8]> {
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    match event.iter().any(is_break) {
        false => Cow::Borrowed(event),
        true => event.iter().map(|byte| if is_break(byte) { b' ' } else { *byte }).collect(),
    }
}

/// A file of lines in the making.
pub(super) struct LineFile {
    file: NewFile,
    target: PathBuf,
}

impl LineFile {
    pub(super) fn create_file(target: &Path, options: &ExportOptions) -> Result<Self, ExportError> {
        let file = NewFile::create(target, options.compression).map_err(write_failed(target))?;
        Ok(Self { file, target: target.to_owned() })
    }

    pub(super) fn write_line(&mut self, line: &[u8]) -> Result<(), ExportError> {
        let written = self.file.write_all(line).and_then(|()| self.file.write_all(b"\n"));
        written.map_err(write_failed(&self.target))
    }

    pub(super) fn finish_file(self) -> Result<Finished, ExportError> {
        self.file.finish().map_err(write_failed(&self.target))
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ids::TsMs;

    use super::*;

    #[test]
    fn line_breaks_become_spaces_and_other_events_stay_untouched() {
        assert!(matches!(on_one_line(br#"{"a": "x\ny"}"#), Cow::Borrowed(_)));
        assert_eq!(on_one_line(b"{\r\n\"a\":\n1}\r").as_ref(), b"{  \"a\": 1} ");
    }

    #[test]
    fn a_refused_item_keeps_every_byte() {
        let item = |bytes: &[u8]| QuarantineRecord {
            at_ms: TsMs(5),
            origin: "o".to_owned(),
            position: 3,
            reason: "not_utf8".to_owned(),
            detail: "d".to_owned(),
            size: 2,
            bytes: bytes.to_vec(),
        };

        assert_eq!(
            quarantine_wire(7, &item(b"{\"")),
            r#"{"at_ms":5,"bytes":"{\"","bytes_encoding":"text","detail":"d","origin":"o","position":3,"quarantine_seq":7,"reason":"not_utf8","size":2}"#
        );
        assert!(quarantine_wire(7, &item(b"\xff\x00")).contains(r#""bytes":"ff00","bytes_encoding":"hex""#));
    }
}
