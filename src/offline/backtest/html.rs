//! The report as one page: no script, no font, nothing from elsewhere, so that it can be kept, sent and printed.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::charts;
use super::report::BacktestReport;
use super::svg::Escaped;
use super::words::{group_digits, moment_text, span_text, three_digits};

const STYLE: &str = include_str!("report.css");

/// The page of a report.
#[must_use]
pub fn render_page(report: &BacktestReport) -> String {
    let name = Escaped(&report.capture.name);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>Backtest of {name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header><h1>Backtest</h1><p class=\"path\">{name}</p></header>\n"
    );
    for part in [
        trouble_section(report),
        figure_cards(report),
        outputs_section(report),
        regimes_section(report),
        cycles_section(report),
        failures_section(report),
        latency_section(report),
        receipts_section(report),
        provenance_section(report),
    ] {
        html.push_str(&part);
    }
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

fn render_section(title: &str, note: &str, body: &str) -> String {
    format!("<section><h2>{title}</h2><p class=\"note\">{note}</p>{body}</section>\n")
}

/// What must be seen before any figure.
fn trouble_section(report: &BacktestReport) -> String {
    let mut lines = Vec::new();
    if let Some(why) = &report.incomplete_because {
        lines.push(format!("This backtest is incomplete: {why}"));
    }
    if report.runs.open > 0 {
        lines.push(format!("{} runs were begun and did not end", report.runs.open));
    }
    lines.extend(
        report.conditions.iter().map(|condition| format!("{}: {}", condition.condition, condition.detail)),
    );
    lines.extend(report.capture.odd_times.to_sentences());
    let paragraphs: String = lines.iter().map(|line| format!("<p>{}</p>", Escaped(line))).collect();
    if paragraphs.is_empty() { paragraphs } else { format!("<div class=\"trouble\">{paragraphs}</div>\n") }
}

fn figure_cards(report: &BacktestReport) -> String {
    let (capture, runs, speed) = (&report.capture.receipts, &report.runs, &report.performance);
    let range = match (capture.first_ts_ms, capture.last_ts_ms) {
        (Some(first), Some(last)) => format!("{} to {} UTC", moment_text(first), moment_text(last)),
        (None, _) | (_, None) => "no receipt".to_owned(),
    };
    let failed = if runs.failed > 0 { "bad-text" } else { "" };
    let aside = if capture.quarantined > 0 { "bad-text" } else { "" };
    let cards = [
        ("Receipts", group_digits(capture.receipts), range, ""),
        ("Kept aside", group_digits(capture.quarantined), "lines that are no receipts".to_owned(), aside),
        (
            "Symbols",
            group_digits(capture.by_symbol.len() as u64),
            format!("{} with runs", runs.by_symbol.len()),
            "",
        ),
        (
            "Runs completed",
            group_digits(runs.completed),
            format!("of {} begun", group_digits(runs.started)),
            "",
        ),
        ("Runs failed", group_digits(runs.failed), "each with its error_kind".to_owned(), failed),
        ("Outputs", group_digits(runs.outputs), "in the outputs file".to_owned(), ""),
        (
            "Engine call, 95 %",
            format!("{} ms", three_digits(speed.engine_calls.p95_ms)),
            format!("at most; longest {} ms", three_digits(speed.engine_calls.max_ms)),
            "",
        ),
        (
            "Speed",
            format!("{}×", three_digits(speed.speed_up)),
            format!("{} in {} s", span_text(capture.span_ms()), three_digits(speed.wall_seconds)),
            "",
        ),
    ];
    let mut html = "<div class=\"cards\">".to_owned();
    for (title, value, note, class) in cards {
        write!(
            html,
            "<div><h3>{title}</h3><strong class=\"{class}\">{value}</strong><small>{}</small></div>",
            Escaped(&note)
        )
        .unwrap_or_default();
    }
    html + "</div>\n"
}

fn outputs_section(report: &BacktestReport) -> String {
    let steps = &report.over_time.runs;
    let chart = charts::outputs_chart(steps);
    let legend = "<div class=\"legend\"><span><i class=\"good\"></i>of completed runs</span>\
                  <span><i class=\"bad\"></i>of failed runs</span></div>";
    render_section(
        "Outputs over time",
        &format!("Outputs by the planned time of their runs, UTC; a bar is {}.", span_text(steps.step_ms)),
        &format!("{legend}{chart}"),
    )
}

fn regimes_section(report: &BacktestReport) -> String {
    let by_symbol = &report.regimes.by_symbol;
    if by_symbol.is_empty() {
        return render_section("Regimes", "The outputs name no regime.", "");
    }
    let mut note = "What each run said, UTC; paler means less confident.".to_owned();
    if by_symbol.len() > charts::SYMBOLS_SHOWN {
        let (shown, all) = (charts::SYMBOLS_SHOWN, group_digits(by_symbol.len() as u64));
        write!(note, " The first {shown} of {all} symbols; report.json has all.").unwrap_or_default();
    }
    let interval_ms = report.manifest.schedule.interval_ms;
    render_section("Regimes", &note, &charts::regimes_chart(&report.regimes, interval_ms))
}

/// The cycles, where there were any to run.
fn cycles_section(report: &BacktestReport) -> String {
    let Some(cycles) = &report.trading else { return String::new() };
    let mut rows = vec![
        ("cycles that began".to_owned(), group_digits(cycles.started)),
        ("decisions".to_owned(), group_digits(cycles.decisions)),
        ("order intents, none of them sent".to_owned(), group_digits(cycles.intents)),
        ("records of the journal".to_owned(), group_digits(cycles.records)),
        ("its chain ends with".to_owned(), cycles.chain_hash.clone()),
    ];
    let counts = |what: &str, counts: &BTreeMap<&'static str, u64>| -> Vec<(String, String)> {
        counts.iter().map(|(word, count)| (format!("{what} {word}"), group_digits(*count))).collect()
    };
    rows.extend(counts("ended", &cycles.ended));
    rows.extend(counts("errors", &cycles.errors));
    rows.extend(counts("fires without a cycle,", &cycles.fires_skipped));
    let pipelines = cycles.by_pipeline.iter();
    rows.extend(pipelines.map(|(name, count)| (format!("pipeline {name}"), group_digits(*count))));
    let symbols = cycles.intents_by_symbol.iter();
    rows.extend(symbols.map(|(symbol, intents)| {
        (format!("intents of {symbol}"), format!("{} to buy, {} to sell", intents.buy, intents.sell))
    }));
    let rows: String = rows
        .iter()
        .map(|(name, value)| format!("<tr><th>{}</th><td>{}</td></tr>", Escaped(name), Escaped(value)))
        .collect();
    render_section(
        "Cycles",
        "What the trading plane did; the journal has every step.",
        &format!("<table class=\"facts\"><tbody>{rows}</tbody></table>"),
    )
}

fn failures_section(report: &BacktestReport) -> String {
    if report.runs.failures.is_empty() {
        return render_section("Failures", "No run failed.", "");
    }
    let mut rows = String::new();
    for (kind, failures) in &report.runs.failures {
        write!(
            rows,
            "<tr><td data-name=\"error_kind\"><code>{kind}</code></td><td data-name=\"runs\" class=\"number\">{}</td>\
             <td data-name=\"first symbol\">{}</td><td data-name=\"at, UTC\">{}</td>\
             <td data-name=\"first run_id\"><code>{}</code></td><td data-name=\"detail\">{}</td></tr>",
            group_digits(failures.runs),
            Escaped(failures.first_symbol.as_str()),
            moment_text(failures.first_engine_timestamp_ms),
            Escaped(&failures.first_run_id),
            Escaped(&failures.first_error_detail),
        )
        .unwrap_or_default();
    }
    let table = format!(
        "<table class=\"failures\"><thead><tr><th>error_kind</th><th class=\"number\">runs</th><th>first symbol</th>\
         <th>at, UTC</th><th>first run_id</th><th>detail</th></tr></thead><tbody>{rows}</tbody></table>"
    );
    render_section(
        "Failures",
        "Runs that ended without an answer, by category; the first one of each.",
        &table,
    )
}

fn latency_section(report: &BacktestReport) -> String {
    let calls = &report.performance.engine_calls;
    if calls.calls == 0 {
        return render_section("Engine calls", "The engine was not called.", "");
    }
    let figures = [
        ("calls", group_digits(calls.calls)),
        ("without answer", group_digits(calls.failed)),
        ("half within", format!("{} ms", three_digits(calls.p50_ms))),
        ("95 % within", format!("{} ms", three_digits(calls.p95_ms))),
        ("99 % within", format!("{} ms", three_digits(calls.p99_ms))),
        ("longest", format!("{} ms", three_digits(calls.max_ms))),
    ];
    let figures: String =
        figures.iter().map(|(name, value)| format!("<span>{name} <b>{value}</b></span>")).collect();
    render_section(
        "Engine calls",
        "How long calls took on this machine, this time; each bar is twice as wide as the one before it.",
        &format!("<div class=\"legend\">{figures}</div>{}", charts::latency_chart(&calls.histogram)),
    )
}

fn receipts_section(report: &BacktestReport) -> String {
    let (capture, steps) = (&report.capture.receipts, &report.over_time.receipts);
    let types: String = capture
        .by_event_type
        .iter()
        .map(|(name, count)| format!("<span>{} <b>{}</b></span>", Escaped(name), group_digits(*count)))
        .collect();
    let note = format!("Receipts by their time in the log, UTC; a bar is {}.", span_text(steps.step_ms));
    let chart = charts::receipts_chart(steps);
    render_section("Receipts over time", &note, &format!("<div class=\"legend\">{types}</div>{chart}"))
}

fn provenance_section(report: &BacktestReport) -> String {
    let manifest = &report.manifest;
    let mut rows = vec![
        ("orchestrator", manifest.orchestrator_version.to_owned()),
        ("hash of the settings below", manifest.config_hash.clone()),
        ("time", format!("{} time of the receipts", report.capture.time)),
        ("bytes of events", group_digits(report.capture.receipts.bytes)),
    ];
    for answerer in &manifest.engines {
        let engine = &answerer.engine;
        let runs = group_digits(answerer.runs);
        rows.push((
            "engine",
            format!("{} {}, code {}, {runs} runs", engine.name, engine.version, engine.code_hash),
        ));
    }
    rows.push(("time zone database", manifest.tz_database.clone()));
    rows.extend(manifest.replaced.iter().map(|replaced| ("replaced", replaced.clone())));
    if let Some(first) = &report.capture.receipts.first_quarantined {
        rows.push(("first kept aside", format!("line {}: {}", first.position, first.detail)));
    }
    let settings = manifest.settings.iter().map(|(path, value)| (path.as_str(), value.clone()));
    rows.extend(settings);
    let rows: String = rows
        .iter()
        .map(|(name, value)| format!("<tr><th>{}</th><td>{}</td></tr>", Escaped(name), Escaped(value)))
        .collect();
    render_section(
        "Provenance",
        "What this was made with.",
        &format!("<table class=\"facts\"><tbody>{rows}</tbody></table>"),
    )
}

#[cfg(test)]
mod tests;
