//! The report as one page: no script, no font, nothing from elsewhere, so that it can be kept, sent and printed.

use std::fmt::Write;

use super::charts;
use super::report::Report;
use super::svg::Escaped;
use super::words::{grouped, measure, moment, span};

const STYLE: &str = include_str!("report.css");

/// The page of a report.
#[must_use]
pub fn page(report: &Report) -> String {
    let name = Escaped(&report.capture.name);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>Backtest of {name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header><h1>Backtest</h1><p class=\"path\">{name}</p></header>\n"
    );
    for part in [
        trouble(report),
        cards(report),
        outputs(report),
        regimes(report),
        failures(report),
        latency(report),
        receipts(report),
        provenance(report),
    ] {
        html.push_str(&part);
    }
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

fn section(title: &str, note: &str, body: &str) -> String {
    format!("<section><h2>{title}</h2><p class=\"note\">{note}</p>{body}</section>\n")
}

/// What must be seen before any figure.
fn trouble(report: &Report) -> String {
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
    lines.extend(report.capture.odd_times.sentences());
    let paragraphs: String = lines.iter().map(|line| format!("<p>{}</p>", Escaped(line))).collect();
    if paragraphs.is_empty() { paragraphs } else { format!("<div class=\"trouble\">{paragraphs}</div>\n") }
}

fn cards(report: &Report) -> String {
    let (capture, runs, speed) = (&report.capture.receipts, &report.runs, &report.performance);
    let range = match (capture.first_ts_ms, capture.last_ts_ms) {
        (Some(first), Some(last)) => format!("{} to {} UTC", moment(first), moment(last)),
        (None, _) | (_, None) => "no receipt".to_owned(),
    };
    let failed = if runs.failed > 0 { "bad-text" } else { "" };
    let aside = if capture.quarantined > 0 { "bad-text" } else { "" };
    let cards = [
        ("Receipts", grouped(capture.receipts), range, ""),
        ("Kept aside", grouped(capture.quarantined), "lines that are no receipts".to_owned(), aside),
        (
            "Symbols",
            grouped(capture.by_symbol.len() as u64),
            format!("{} with runs", runs.by_symbol.len()),
            "",
        ),
        ("Runs completed", grouped(runs.completed), format!("of {} begun", grouped(runs.started)), ""),
        ("Runs failed", grouped(runs.failed), "each with its error_kind".to_owned(), failed),
        ("Outputs", grouped(runs.outputs), "in the outputs file".to_owned(), ""),
        (
            "Engine call, 95 %",
            format!("{} ms", measure(speed.engine_calls.p95_ms)),
            format!("at most; longest {} ms", measure(speed.engine_calls.max_ms)),
            "",
        ),
        (
            "Speed",
            format!("{}×", measure(speed.speed_up)),
            format!("{} in {} s", span(capture.span_ms()), measure(speed.wall_seconds)),
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

fn outputs(report: &Report) -> String {
    let steps = &report.over_time.runs;
    let chart = charts::outputs(steps);
    let legend = "<div class=\"legend\"><span><i class=\"good\"></i>of completed runs</span>\
                  <span><i class=\"bad\"></i>of failed runs</span></div>";
    section(
        "Outputs over time",
        &format!("Outputs by the planned time of their runs, UTC; a bar is {}.", span(steps.step_ms)),
        &format!("{legend}{chart}"),
    )
}

fn regimes(report: &Report) -> String {
    let by_symbol = &report.regimes.by_symbol;
    if by_symbol.is_empty() {
        return section("Regimes", "The outputs name no regime.", "");
    }
    let mut note = "What each run said, UTC; paler means less confident.".to_owned();
    if by_symbol.len() > charts::SYMBOLS_SHOWN {
        let (shown, all) = (charts::SYMBOLS_SHOWN, grouped(by_symbol.len() as u64));
        write!(note, " The first {shown} of {all} symbols; report.json has all.").unwrap_or_default();
    }
    let interval_ms = report.manifest.schedule.interval_ms;
    section("Regimes", &note, &charts::regimes(&report.regimes, interval_ms))
}

fn failures(report: &Report) -> String {
    if report.runs.failures.is_empty() {
        return section("Failures", "No run failed.", "");
    }
    let mut rows = String::new();
    for (kind, failures) in &report.runs.failures {
        write!(
            rows,
            "<tr><td data-name=\"error_kind\"><code>{kind}</code></td><td data-name=\"runs\" class=\"number\">{}</td>\
             <td data-name=\"first symbol\">{}</td><td data-name=\"at, UTC\">{}</td>\
             <td data-name=\"first run_id\"><code>{}</code></td><td data-name=\"detail\">{}</td></tr>",
            grouped(failures.runs),
            Escaped(failures.first_symbol.as_str()),
            moment(failures.first_engine_timestamp_ms),
            Escaped(&failures.first_run_id),
            Escaped(&failures.first_error_detail),
        )
        .unwrap_or_default();
    }
    let table = format!(
        "<table class=\"failures\"><thead><tr><th>error_kind</th><th class=\"number\">runs</th><th>first symbol</th>\
         <th>at, UTC</th><th>first run_id</th><th>detail</th></tr></thead><tbody>{rows}</tbody></table>"
    );
    section("Failures", "Runs that ended without an answer, by category; the first one of each.", &table)
}

fn latency(report: &Report) -> String {
    let calls = &report.performance.engine_calls;
    if calls.calls == 0 {
        return section("Engine calls", "The engine was not called.", "");
    }
    let figures = [
        ("calls", grouped(calls.calls)),
        ("without answer", grouped(calls.failed)),
        ("half within", format!("{} ms", measure(calls.p50_ms))),
        ("95 % within", format!("{} ms", measure(calls.p95_ms))),
        ("99 % within", format!("{} ms", measure(calls.p99_ms))),
        ("longest", format!("{} ms", measure(calls.max_ms))),
    ];
    let figures: String =
        figures.iter().map(|(name, value)| format!("<span>{name} <b>{value}</b></span>")).collect();
    section(
        "Engine calls",
        "How long calls took on this machine, this time; each bar is twice as wide as the one before it.",
        &format!("<div class=\"legend\">{figures}</div>{}", charts::latency(&calls.histogram)),
    )
}

fn receipts(report: &Report) -> String {
    let (capture, steps) = (&report.capture.receipts, &report.over_time.receipts);
    let types: String = capture
        .by_event_type
        .iter()
        .map(|(name, count)| format!("<span>{} <b>{}</b></span>", Escaped(name), grouped(*count)))
        .collect();
    let note = format!("Receipts by their time in the log, UTC; a bar is {}.", span(steps.step_ms));
    let chart = charts::receipts(steps);
    section("Receipts over time", &note, &format!("<div class=\"legend\">{types}</div>{chart}"))
}

fn provenance(report: &Report) -> String {
    let manifest = &report.manifest;
    let mut rows = vec![
        ("orchestrator", manifest.orchestrator_version.to_owned()),
        ("hash of the settings below", manifest.config_hash.clone()),
        ("time", format!("{} time of the receipts", report.capture.time)),
        ("bytes of events", grouped(report.capture.receipts.bytes)),
    ];
    for answerer in &manifest.engines {
        let engine = &answerer.engine;
        let runs = grouped(answerer.runs);
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
    section(
        "Provenance",
        "What this was made with.",
        &format!("<table class=\"facts\"><tbody>{rows}</tbody></table>"),
    )
}

#[cfg(test)]
mod tests;
