//! The answer for people: the same facts as in the JSON form, in the order in which one asks for them.

use std::collections::BTreeMap;
use std::fmt::Write;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::rfc3339::rfc3339;
use serde_json::value::RawValue;

use super::{Answer, Known, ReceiptLine, ReceiptView, RunLine, RunView, SymbolView};

/// Digits of a run's id in a line.
const ID_DIGITS: usize = 12;

/// Renders `answer`.
#[must_use]
pub fn render(answer: &Answer) -> String {
    let mut page = Page(String::new());
    match answer {
        Answer::Run(view) => page.run(view),
        Answer::Receipt(view) => page.receipt(view),
        Answer::Symbol(view) => page.symbol(view),
    }
    page.0
}

struct Page(String);

impl Page {
    fn title(&mut self, title: &str) {
        self.0.push_str(title);
        self.0.push('\n');
    }

    fn item(&mut self, name: &str, value: &str) {
        // Writing to a string has no way to fail.
        writeln!(self.0, "  {name:<18} {value}").unwrap_or_default();
    }

    fn json(&mut self, name: &str, value: Option<&RawValue>) {
        let Some(value) = value else { return };
        let pretty = serde_json::from_str::<&RawValue>(value.get()).map(indented);
        let text = pretty.unwrap_or_else(|_| value.get().to_owned());
        self.item(name, "");
        for line in text.lines() {
            writeln!(self.0, "    {line}").unwrap_or_default();
        }
    }

    fn run(&mut self, view: &RunView) {
        let run = &view.run;
        self.title(&format!("run {}", run.run_id));
        self.item("symbol", &run.symbol);
        self.item("engine timestamp", &moment(run.engine_timestamp_ms));
        self.item("mode", &format!("{}, {} cut", view.engine_mode, view.cut_kind));
        self.item("planned", &moment(view.planned_ts_ms));
        self.item("started", &moment(view.started_ts_ms));
        if let Some(ended) = view.completed_ts_ms {
            self.item("ended", &moment(ended));
        }
        self.item("attempts", &attempts(view));
        self.title("\nwhat was known");
        self.item("cut", &cut(run));
        self.known(&view.known);
        match &view.known.snapshot {
            None => self.item("snapshot", "none for this timestamp"),
            Some(snapshot) => {
                let place = format!("receipt {}", snapshot.ingest_seq);
                self.item("snapshot", &place);
                match &snapshot.inputs {
                    Some(inputs) => self.json("inputs", Some(inputs)),
                    None => self.item("inputs", "no longer in the log"),
                }
            }
        }
        self.decided(view);
        self.title("\nwhat came out");
        if view.outputs.is_empty() {
            self.item("nothing", "the run has not ended");
        }
        for output in &view.outputs {
            self.0.push_str("  ");
            self.0.push_str(output.get());
            self.0.push('\n');
        }
        self.title("\naround it");
        self.item("previous run", &run_line(view.previous.as_ref()));
        self.item("next run", &run_line(view.next.as_ref()));
    }

    fn decided(&mut self, view: &RunView) {
        let decided = &view.decided;
        self.title("\nwhat was decided");
        self.item("status", view.run.status);
        if let Some(kind) = decided.error_kind {
            self.item("error", &format!("{kind}: {}", decided.error_detail.as_deref().unwrap_or_default()));
        }
        if let Some(engine) = &decided.engine {
            let hash = engine.code_hash.get(..ID_DIGITS).unwrap_or(&engine.code_hash);
            self.item("engine", &format!("{} {}, code {hash}", engine.name, engine.version));
        }
        self.json("answer", decided.answer.as_deref());
        if decided.state_after.is_some() && decided.state_before.is_none() {
            self.item("state before", "none, the first one");
        }
        self.json("state before", decided.state_before.as_deref());
        self.json("state after", decided.state_after.as_deref());
    }

    fn known(&mut self, known: &Known) {
        self.item("receipts", &format!("{}{}", known.receipts, by_type(&known.by_event_type)));
        let is_counted_otherwise =
            !known.recorded_by_event_type.is_empty() && known.recorded_by_event_type != known.by_event_type;
        if is_counted_otherwise {
            self.item("recorded", by_type(&known.recorded_by_event_type).trim_start_matches(": "));
        }
        if known.is_trimmed {
            self.item("", "the log no longer holds the beginning of the cut");
        }
        if let Some(first) = &known.first {
            self.item("first", &receipt_line(first));
        }
        if let Some(last) = &known.last {
            self.item("last", &receipt_line(last));
        }
    }

    fn receipt(&mut self, view: &ReceiptView) {
        self.title(&format!("receipt {}", view.ingest_seq));
        self.item("symbol", &view.symbol);
        self.item("type", &view.event_type);
        self.item("taken in", &moment(view.ingest_ts_ms));
        let position = match view.position {
            0 => String::new(),
            position => format!(", position {position}"),
        };
        self.item("through", &format!("{}{position}", view.origin));
        self.json("event", Some(&view.event));
        self.title("\nwhat became of it");
        match &view.taken_by {
            None => self.item("cut", "no run has taken it yet"),
            Some(run) => {
                self.item("run", &run_line(Some(run)));
                self.item("cut", &cut(run));
                if view.is_snapshot_of_run {
                    self.item("", "the run's snapshot");
                }
            }
        }
    }

    fn symbol(&mut self, view: &SymbolView) {
        self.title(&format!("{} at {}", view.symbol, moment(view.at_ms)));
        self.item("receipt log", &format!("ended at {}", view.last_ingest_seq));
        self.item("last run", &run_line(view.last_run.as_ref().map(|last| &last.run)));
        self.item("under way", &run_line(view.under_way.as_ref()));
        self.title("\nwhat no run had taken yet");
        self.known(&view.waiting);
        if let Some(last) = &view.last_run {
            self.title("");
            self.run(last);
        }
    }
}

fn attempts(view: &RunView) -> String {
    match view.answered {
        None => format!("{}, not answered yet", view.attempts),
        Some(answered) if answered == view.attempts => view.attempts.to_string(),
        Some(answered) => format!("{}, of which {answered} were answered", view.attempts),
    }
}

fn moment(at: TsMs) -> String {
    format!("{} ({at})", rfc3339(at))
}

fn cut(run: &RunLine) -> String {
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
    format!("receipt {}, {}, {}", receipt.ingest_seq, moment(receipt.ingest_ts_ms), receipt.event_type)
}

fn run_line(run: Option<&RunLine>) -> String {
    let Some(run) = run else { return "none".to_owned() };
    let id = run.run_id.get(..ID_DIGITS).unwrap_or(&run.run_id);
    let what = run.regime.as_deref().or(run.error_kind).map(|what| format!(", {what}")).unwrap_or_default();
    format!("{id}, {}, {}{what}", rfc3339(run.engine_timestamp_ms), run.status)
}

/// JSON over several lines, every number as it was written.
fn indented(value: &RawValue) -> String {
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

        assert_eq!(indented(raw), expected);
    }

    proptest! {
        /// Method: what is laid out is read again and must be the same value.
        #[test]
        fn layout_changes_no_value(texts in prop::collection::vec(any::<String>(), 0..5), number in any::<i64>()) {
            let value = serde_json::json!({"texts": texts, "number": number, "nested": [[texts], {}]});
            let raw = serde_json::value::to_raw_value(&value).unwrap();

            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&indented(&raw)).unwrap(), value);
        }
    }
}
