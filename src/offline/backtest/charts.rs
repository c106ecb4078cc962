//! The four pictures of the report: HTML around a stretched drawing, so that labels stay readable at any width.

use std::fmt::Write;

use orchestrator_kernel::ids::{Symbol, TsMs};

use super::latency::Class;
use super::over_time::{ReceiptCounts, RunCounts, Steps};
use super::regimes::{RegimeLine, Regimes};
use super::svg::{Area, Drawing, Escaped};
use super::words::{axis_ceiling, group_digits, moment_text, span_text, three_digits, tick_label};

/// Inner size of a drawing; it is stretched.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 200.0;
/// Symbols whose regimes are drawn; report.json has all of them.
pub(super) const SYMBOLS_SHOWN: usize = 40;
/// Colours that can be told apart; further regimes share the last one.
const COLOURS: usize = 10;

/// One bar: its parts from below with their classes, and its text for the pointer.
struct Bar {
    parts: Vec<(&'static str, u64)>,
    hint: String,
}

/// Bars side by side with an axis of counts; `ticks` are the labels below, spread evenly.
fn draw_bars(label: &str, bars: &[Bar], ticks: &[String]) -> String {
    let height_of = |bar: &Bar| bar.parts.iter().map(|(_, count)| count).sum::<u64>();
    let top = axis_ceiling(bars.iter().map(height_of).max().unwrap_or(0));
    let mut drawing = Drawing::new(WIDTH, HEIGHT, label);
    (0..3).for_each(|part| drawing.draw_rule(HEIGHT * f64::from(part) / 2.0));
    #[expect(clippy::cast_precision_loss, reason = "places on a screen")]
    for (bar, index) in bars.iter().zip(0_u64..) {
        let step = WIDTH / bars.len() as f64;
        let gap = (step * 0.15).min(4.0);
        let mut below = HEIGHT;
        for (class, count) in &bar.parts {
            // What is there at all is seen.
            let height = if *count == 0 { 0.0 } else { (HEIGHT * *count as f64 / top as f64).max(1.5) };
            below -= height;
            let area = Area { x: step * index as f64 + gap / 2.0, y: below, width: step - gap, height };
            drawing.draw_bar(area, class, 1.0, &bar.hint);
        }
    }
    let middle = if top.is_multiple_of(2) { group_digits(top / 2) } else { String::new() };
    format!(
        r#"<div class="plot"><div class="y"><span>{}</span><span>{middle}</span><span>0</span></div><div class="area">{drawing}{}</div></div>"#,
        group_digits(top),
        draw_axis(ticks),
    )
}

fn draw_axis(ticks: &[String]) -> String {
    let mut axis = r#"<div class="x">"#.to_owned();
    for tick in ticks {
        write!(axis, "<span>{}</span>", Escaped(tick)).unwrap_or_default();
    }
    axis + "</div>"
}

/// Five labels from one moment to the other.
fn time_ticks(from: TsMs, to: TsMs) -> Vec<String> {
    let length = to.0.saturating_sub(from.0);
    (0..5).map(|part| tick_label(from.plus_ms(length / 4 * part), length)).collect()
}

fn over_time<C>(label: &str, over_time: &Steps<C>, bar: impl Fn(&C) -> Bar) -> String {
    let Steps { step_ms, steps } = over_time;
    let made: Vec<Bar> = steps
        .iter()
        .map(|step| {
            let Bar { parts, hint } = bar(&step.counts);
            Bar { parts, hint: format!("{}: {hint}", moment_text(step.from_ts_ms)) }
        })
        .collect();
    let ends = steps.first().zip(steps.last());
    let ticks = ends.map(|(first, last)| time_ticks(first.from_ts_ms, last.from_ts_ms.plus_ms(*step_ms)));
    draw_bars(label, &made, &ticks.unwrap_or_default())
}

/// Outputs along recorded time.
pub(super) fn outputs_chart(steps: &Steps<RunCounts>) -> String {
    over_time("Outputs over recorded time", steps, |counts| {
        // A run that failed makes two outputs.
        let failed = (2 * counts.failed).min(counts.outputs);
        let RunCounts { outputs, completed, failed: runs } = counts;
        Bar {
            parts: vec![("good", outputs - failed), ("bad", failed)],
            hint: format!("{outputs} outputs, {completed} runs completed, {runs} failed"),
        }
    })
}

/// Receipts along recorded time.
pub(super) fn receipts_chart(steps: &Steps<ReceiptCounts>) -> String {
    over_time("Receipts over recorded time", steps, |counts| Bar {
        parts: vec![("plain", counts.receipts)],
        hint: format!("{} receipts", counts.receipts),
    })
}

/// Engine calls by how long they took.
pub(super) fn latency_chart(histogram: &[Class]) -> String {
    let made: Vec<Bar> = histogram
        .iter()
        .map(|class| Bar {
            parts: vec![("plain", class.calls)],
            hint: format!(
                "{} to {} ms: {} calls",
                three_digits(class.up_to_ms / 2.0),
                three_digits(class.up_to_ms),
                class.calls
            ),
        })
        .collect();
    let edges: Vec<f64> = histogram
        .first()
        .map(|class| class.up_to_ms / 2.0)
        .into_iter()
        .chain(histogram.iter().map(|class| class.up_to_ms))
        .collect();
    // Labels are spread evenly, so only every edge, or every second, third … up to the last one.
    let every = edges.len().saturating_sub(1).max(1);
    let every = (1..=every).find(|step| every.is_multiple_of(*step) && every / step <= 8).unwrap_or(every);
    let ticks: Vec<String> =
        edges.iter().step_by(every).map(|edge| format!("{} ms", three_digits(*edge))).collect();
    draw_bars("Engine calls by how long they took", &made, &ticks)
}

/// The class of the regime with this number.
fn colour_class(number: usize) -> String {
    format!("r{}", number.min(COLOURS - 1))
}

/// A band a symbol, and which colour means which regime.
pub(super) fn regimes_chart(regimes: &Regimes, interval_ms: i64) -> String {
    let names: Vec<&str> = regimes.runs.keys().map(String::as_str).collect();
    let lines = || regimes.by_symbol.iter().take(SYMBOLS_SHOWN);
    let segments = || regimes.by_symbol.values().flat_map(|line| &line.segments);
    let from = segments().map(|segment| segment.from_ts_ms).min().unwrap_or_default();
    let to = segments().map(|segment| segment.to_ts_ms).max().unwrap_or_default().plus_ms(interval_ms);
    let mut html = r#"<div class="legend">"#.to_owned();
    for (number, (name, runs)) in regimes.runs.iter().enumerate() {
        let (class, runs) = (colour_class(number), group_digits(*runs));
        write!(html, r#"<span><i class="{class}"></i>{} <b>{runs}</b></span>"#, Escaped(name))
            .unwrap_or_default();
    }
    html.push_str(r#"</div><div class="bands">"#);
    for (symbol, line) in lines() {
        let band = draw_band(symbol, line, (from, to), interval_ms, &names);
        let changes = match line.changes {
            1 => "1 change".to_owned(),
            changes => format!("{} changes", group_digits(changes)),
        };
        write!(
            html,
            r#"<div class="name">{}<small>{changes}</small></div><div class="band">{band}</div>"#,
            Escaped(symbol.as_str())
        )
        .unwrap_or_default();
    }
    html + r#"<div class="name"></div>"# + &draw_axis(&time_ticks(from, to)) + "</div>"
}

fn draw_band(
    symbol: &Symbol,
    line: &RegimeLine,
    (from, to): (TsMs, TsMs),
    interval_ms: i64,
    names: &[&str],
) -> Drawing {
    #[expect(clippy::cast_precision_loss, reason = "places on a screen")]
    let place = |at: TsMs| {
        let length = to.0.saturating_sub(from.0).max(1) as f64;
        WIDTH * at.0.saturating_sub(from.0) as f64 / length
    };
    let mut drawing = Drawing::new(WIDTH, 20.0, &format!("Regimes of {symbol} over recorded time"));
    for segment in &line.segments {
        let number = names.iter().position(|name| *name == segment.regime).unwrap_or(COLOURS);
        let begin = place(segment.from_ts_ms);
        // Up to the next run. A year of short segments is still seen.
        let width = (place(segment.to_ts_ms.plus_ms(interval_ms)) - begin).max(0.4);
        let confidence = segment.confidence_mean.filter(|mean| mean.is_finite());
        let opacity = confidence.map_or(1.0, |mean| 0.4 + 0.6 * mean.clamp(0.0, 1.0));
        let sure = confidence.map_or(String::new(), |mean| format!(", confidence {mean:.2}"));
        let length = segment.to_ts_ms.plus_ms(interval_ms).0.saturating_sub(segment.from_ts_ms.0);
        let hint = format!(
            "{}: {} from {} for {}, {} runs{sure}",
            symbol,
            segment.regime,
            moment_text(segment.from_ts_ms),
            span_text(length),
            segment.runs
        );
        let area = Area { x: begin, y: 0.0, width, height: 20.0 };
        drawing.draw_bar(area, &colour_class(number), opacity, &hint);
    }
    drawing
}
