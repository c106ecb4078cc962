//! The answer for people: the same facts as in the JSON form, in the order in which one asks for them.

use std::collections::BTreeMap;
use std::fmt::Write;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::rfc3339::to_rfc3339;
use serde_json::value::RawValue;

use super::{InspectAnswer, KnownInputs, ReceiptLine, ReceiptView, RunLine, RunView, SymbolView};

/// Digits of a run's id in a line.
const ID_DIGITS: usize = 12;

/// Renders `answer`.
#[must_use]
pub fn render_answer(answer: &InspectAnswer) -> String {
    let mut page = InspectPage(String::new());
    match answer {
        InspectAnswer::Run(view) => page.push_run(view),
        InspectAnswer::Receipt(view) => page.push_receipt(view),
        InspectAnswer::Symbol(view) => page.push_symbol(view),
        InspectAnswer::Cycle(view) => page.push_cycle(view),
    }
    page.0
}

pub(super) struct InspectPage(String);

impl InspectPage {
    pub(super) fn push_title(&mut self, title: &str) {
        self.0.push_str(title);
        self.0.push('\n');
    }

    pub(super) fn push_item(&mut self, name: &str, value: &str) {
        // Writing to a string has no way to fail.
        writeln!(self.0, "  {name:<18} {value}").unwrap_or_default();
    }

    pub(super) fn push_line(&mut self, line: &str) {
        writeln!(self.0, "  {line}").unwrap_or_default();
    }

    fn push_json(&mut self, name: &str, value: Option<&RawValue>) {
        let Some(value) = value else { return };
        let pretty = serde_json::from_str::<&RawValue>(value.get()).map(indent_json);
        let text = pretty.unwrap_or_else(|_| value.get().to_owned());
        self.push_item(name, "");
        for line in text.lines() {
            writeln!(self.0, "    {line}").unwrap_or_default();
        }
    }

    fn push_run(&mut self, view: &RunView) {
        let run = &view.run;
        self.push_title(&format!("run {}", run.run_id));
        self.push_item("symbol", &run.symbol);
        self.push_item("engine timestamp", &moment_text(run.engine_timestamp_ms));
        self.push_item("mode", &format!("{}, {} cut", view.engine_mode, view.cut_kind));
        self.push_item("planned", &moment_text(view.planned_ts_ms));
        self.push_item("started", &moment_text(view.started_ts_ms));
        if let Some(ended) = view.completed_ts_ms {
            self.push_item("ended", &moment_text(ended));
        }
        self.push_item("attempts", &attempts_text(view));
        self.push_title("\nwhat was known");
        self.push_item("cut", &cut_text(run));
        self.push_known(&view.known);
        match &view.known.snapshot {
            None => self.push_item("snapshot", "none for this timestamp"),
            Some(snapshot) => {
                let place = format!("receipt {}", snapshot.ingest_seq);
                self.push_item("snapshot", &place);
                match &snapshot.inputs {
                    Some(inputs) => self.push_json("inputs", Some(inputs)),
                    None => self.push_item("inputs", "no longer in the log"),
                }
            }
        }
        self.push_decided(view);
        self.push_title("\nwhat came out");
        if view.outputs.is_empty() {
            self.push_item("nothing", "the run has not ended");
        }
        for output in &view.outputs {
            self.0.push_str("  ");
            self.0.push_str(output.get());
            self.0.push('\n');
        }
        self.push_title("\naround it");
        self.push_item("previous run", &run_line(view.previous.as_ref()));
        self.push_item("next run", &run_line(view.next.as_ref()));
    }

    fn push_decided(&mut self, view: &RunView) {
        let decided = &view.decided;
        self.push_title("\nwhat was decided");
        self.push_item("status", view.run.status);
        if let Some(kind) = decided.error_kind {
            self.push_item(
                "error",
                &format!("{kind}: {}", decided.error_detail.as_deref().unwrap_or_default()),
            );
        }
        if let Some(engine) = &decided.engine {
            let hash = engine.code_hash.get(..ID_DIGITS).unwrap_or(&engine.code_hash);
            self.push_item("engine", &format!("{} {}, code {hash}", engine.name, engine.version));
        }
        self.push_json("answer", decided.answer.as_deref());
        if decided.state_after.is_some() && decided.state_before.is_none() {
            self.push_item("state before", "none, the first one");
        }
        self.push_json("state before", decided.state_before.as_deref());
        self.push_json("state after", decided.state_after.as_deref());
    }

    fn push_known(&mut self, known: &KnownInputs) {
        self.push_item("receipts", &format!("{}{}", known.receipts, by_type(&known.by_event_type)));
        let is_counted_otherwise =
            !known.recorded_by_event_type.is_empty() && known.recorded_by_event_type != known.by_event_type;
        if is_counted_otherwise {
            self.push_item("recorded", by_type(&known.recorded_by_event_type).trim_start_matches(": "));
        }
        if known.is_trimmed {
            self.push_item("", "the log no longer holds the beginning of the cut");
        }
        if let Some(first) = &known.first {
            self.push_item("first", &receipt_line(first));
        }
        if let Some(last) = &known.last {
            self.push_item("last", &receipt_line(last));
        }
    }

    fn push_receipt(&mut self, view: &ReceiptView) {
        self.push_title(&format!("receipt {}", view.ingest_seq));
        self.push_item("symbol", &view.symbol);
        self.push_item("type", &view.event_type);
        self.push_item("taken in", &moment_text(view.ingest_ts_ms));
        let position = match view.position {
            0 => String::new(),
            position => format!(", position {position}"),
        };
        self.push_item("through", &format!("{}{position}", view.origin));
        self.push_json("event", Some(&view.event));
        self.push_title("\nwhat became of it");
        match &view.taken_by {
            None => self.push_item("cut", "no run has taken it yet"),
            Some(run) => {
                self.push_item("run", &run_line(Some(run)));
                self.push_item("cut", &cut_text(run));
                if view.is_snapshot_of_run {
                    self.push_item("", "the run's snapshot");
                }
            }
        }
    }

    fn push_symbol(&mut self, view: &SymbolView) {
        self.push_title(&format!("{} at {}", view.symbol, moment_text(view.at_ms)));
        self.push_item("receipt log", &format!("ended at {}", view.last_ingest_seq));
        self.push_item("last run", &run_line(view.last_run.as_ref().map(|last| &last.run)));
        self.push_item("under way", &run_line(view.under_way.as_ref()));
        self.push_title("\nwhat no run had taken yet");
        self.push_known(&view.waiting);
        if let Some(last) = &view.last_run {
            self.push_title("");
            self.push_run(last);
        }
    }
}

fn attempts_text(view: &RunView) -> String {
    match view.answered {
        None => format!("{}, not answered yet", view.attempts),
        Some(answered) if answered == view.attempts => view.attempts.to_string(),
        Some(answered) => format!("{}, of which {answered} were answered", view.attempts),
    }
}

pub(super) fn moment_text(at: TsMs) -> String {
    format!("{} ({at})", to_rfc3339(at))
}

fn cut_text(run: &RunLine) -> String {
    match run.cut_end_ingest_seq < run.cut_start_ingest_seq {
        true => format!("empty, behind receipt {}", run.cut_end_ingest_seq),
        false => {
            format!("receipts {} to {}, of this symbol", run.cut_start_ingest_seq, run.cut_end_ingest_seq)
        }
    }
}

fn by_type(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let counts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    format!(": {}", counts.join(", "))
}

fn receipt_line(receipt: &ReceiptLine) -> String {
    format!("receipt {}, {}, {}", receipt.ingest_seq, moment_text(receipt.ingest_ts_ms), receipt.event_type)
}

fn run_line(run: Option<&RunLine>) -> String {
    let Some(run) = run else { return "none".to_owned() };
    let id = run.run_id.get(..ID_DIGITS).unwrap_or(&run.run_id);
    let what = run.regime.as_deref().or(run.error_kind).map(|what| format!(", {what}")).unwrap_or_default();
    format!("{id}, {}, {}{what}", to_rfc3339(run.engine_timestamp_ms), run.status)
}

/// JSON over several lines, every number as it was written.
fn indent_json(value: &RawValue) -> String {
    let mut out = String::new();
    let (mut depth, mut is_text, mut is_escaped) = (0usize, false, false);
    let mut last = ' ';
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    for character in value.get().chars() {
        if is_text {
            out.push(character);
            (is_text, is_escaped) = (is_escaped || character != '"', !is_escaped && character == '\\');
            last = character;
            continue;
        }
        match character {
            ' ' | '\n' | '\r' | '\t' => continue,
            '{' | '[' => {
                if matches!(last, '{' | '[') {
                    new_line(&mut out, depth);
                }
                out.push(character);
                depth += 1;
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !matches!(last, '{' | '[') {
                    new_line(&mut out, depth);
                }
                out.push(character);
            }
            ',' => {
                out.push(',');
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                if matches!(last, '{' | '[') {
                    new_line(&mut out, depth);
                }
                is_text = character == '"';
                out.push(character);
            }
        }
        last = character;
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json_is_laid_out_and_numbers_stay_as_they_are() {
        let raw: &RawValue =
            serde_json::from_str(r#"{"a":[1.50,{"b":"x,\"{"}],"c":{},"d":[[],-0]}"#).unwrap();
        let expected = "{\n  \"a\": [\n    1.50,\n    {\n      \"b\": \"x,\\\"{\"\n    }\n  ],\n  \"c\": {},\n  \"d\": [\n    [],\n    -0\n  ]\n}";

        assert_eq!(indent_json(raw), expected);
    }

    proptest! {
        /// Method: what is laid out is read again and must be the same value.
        #[test]
        fn layout_changes_no_value(texts in prop::collection::vec(any::<String>(), 0..5), number in any::<i64>()) {
            let value = serde_json::json!({"texts": texts, "number": number, "nested": [[texts], {}]});
            let raw = serde_json::value::to_raw_value(&value).unwrap();

            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&indent_json(&raw)).unwrap(), value);
        }
    }
}
