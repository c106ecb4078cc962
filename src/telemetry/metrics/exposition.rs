//! From the library's OpenMetrics to the older text format, which Prometheus, its tools and most others read.
//!
//! They differ where a counter is declared: OpenMetrics without `_total`, the text format as its samples are called.
//! `promtool check metrics` reads the text format only.

/// The content type of a scrape.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Rewrites the declarations of counters.
pub(super) fn to_prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + open_metrics.len() / 16);
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(declared) = line.strip_prefix("# HELP ") {
            // Its form depends on the type, which follows.
            help = declared.split_once(' ');
            continue;
        }
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|declared| declared.split_once(' '))
        else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let suffix = if kind == "counter" { "_total" } else { "" };
        if let Some((_, sentence)) = help.take() {
            text.push_str(&format!("# HELP {name}{suffix} {sentence}\n"));
        }
        text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
    }
    text
}
