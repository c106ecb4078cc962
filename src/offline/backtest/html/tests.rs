//! The page: whole, well formed, and deaf to what names and details try to say in HTML.

use std::collections::BTreeMap;

use orchestrator_engine_plane::recorded_times::OddTimes;
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::{EngineMode, Symbol, TsMs};
use orchestrator_kernel::ports::engine::{EngineAnswer, EngineIdentity};

use super::render_page;
use crate::offline::backtest::cycles::{CycleFigures, IntentCounts};
use crate::offline::backtest::figures::{
    Answerer, Failures, NoReceipt, ReceiptFigures, RunFigures, SymbolRunFigures,
};
use crate::offline::backtest::latency::Latency;
use crate::offline::backtest::over_time::{ReceiptCounts, RunCounts, Steps, TimeStep};
use crate::offline::backtest::regimes::Regimes;
use crate::offline::backtest::report::{
    BacktestReport, CaptureReport, EngineCalls, OverTimeReport, Performance, Provenance, ReportedCondition,
    ScheduleReport,
};

/// What a name should never be able to do.
const HOSTILE: &str = "</style></title><script>alert('1')</script><img src=x onerror=\"x\">&amp;";

fn steps<C>(counts: Vec<C>) -> Steps<C> {
    let from = (0..).map(|step| TsMs(1_723_161_240_000 + step * 15_000));
    let steps = from.zip(counts).map(|(from_ts_ms, counts)| TimeStep { from_ts_ms, counts });
    Steps { step_ms: 15_000, steps: steps.collect() }
}

/// A report of nothing.
fn empty() -> BacktestReport {
    BacktestReport {
        schema: "orchestrator_backtest_report",
        schema_version: "1",
        complete: true,
        incomplete_because: None,
        conditions: Vec::new(),
        manifest: Provenance {
            orchestrator_version: "0",
            config_hash: "00".to_owned(),
            settings: BTreeMap::new(),
            tz_database: "unused".to_owned(),
            replaced: Vec::new(),
            engine_mode: EngineMode::Truth,
            engines: Vec::new(),
            schedule: ScheduleReport {
                mode: "boundary",
                interval_ms: 15_000,
                delay_ms: Some(0),
                align_ms: None,
            },
        },
        capture: CaptureReport {
            name: "c".to_owned(),
            time: "receive",
            odd_times: OddTimes::default(),
            receipts: ReceiptFigures::default(),
        },
        runs: RunFigures::default(),
        trading: None,
        over_time: OverTimeReport { receipts: steps(Vec::new()), runs: steps(Vec::new()) },
        regimes: Regimes::default(),
        performance: Performance {
            wall_seconds: 0.0,
            receipts_per_second: 0.0,
            speed_up: 0.0,
            cycles_per_second: None,
            engine_calls: calls(&Latency::default()),
        },
    }
}

fn calls(latency: &Latency) -> EngineCalls {
    EngineCalls {
        calls: latency.calls_total(),
        failed: latency.failed_total(),
        p50_ms: latency.quantile_ms(500),
        p95_ms: latency.quantile_ms(950),
        p99_ms: latency.quantile_ms(990),
        max_ms: latency.max_ms(),
        histogram: latency.to_histogram(),
    }
}

/// A report in which every text that comes from outside is hostile.
fn hostile() -> BacktestReport {
    let text = HOSTILE.to_owned();
    let symbol = Symbol::from(HOSTILE);
    let mut report = empty();
    report.complete = false;
    report.incomplete_because = Some(text.clone());
    report.conditions = vec![ReportedCondition { condition: text.clone(), detail: text.clone() }];
    report.manifest.replaced = vec![text.clone()];
    report.manifest.settings = BTreeMap::from([("symbols.list".to_owned(), text.clone())]);
    report.manifest.engines = vec![Answerer {
        engine: EngineIdentity { name: text.clone(), version: text.clone(), code_hash: text.clone() },
        runs: 1,
    }];
    report.capture.name = text.clone();
    report.capture.receipts.by_event_type = BTreeMap::from([(text.clone(), 1)]);
    report.capture.receipts.quarantined = 1;
    report.capture.receipts.first_quarantined =
        Some(NoReceipt { position: 17, reason: text.clone(), detail: text.clone() });
    report.runs.completed = 1_234;
    report.runs.failed = 1;
    report.runs.failures = BTreeMap::from([(
        ErrorKind::EngineFailure,
        Failures {
            runs: 1,
            first_run_id: text.clone(),
            first_symbol: symbol.clone(),
            first_engine_timestamp_ms: TsMs(1_723_161_255_000),
            first_error_detail: text.clone(),
        },
    )]);
    report.runs.by_symbol = BTreeMap::from([(symbol.clone(), SymbolRunFigures::default())]);
    report.trading = Some(CycleFigures {
        chain_hash: text.clone(),
        started: 2,
        ended: BTreeMap::from([("ok", 1), ("blocked", 1)]),
        intents_by_symbol: BTreeMap::from([(symbol.clone(), IntentCounts { buy: 1, sell: 0 })]),
        errors: BTreeMap::from([("E_ORCH_BLOCKED", 1)]),
        fires_skipped: BTreeMap::from([("session_closed", 3)]),
        ..CycleFigures::default()
    });
    report.over_time.receipts = steps(vec![ReceiptCounts { receipts: 3 }, ReceiptCounts::default()]);
    report.over_time.runs = steps(vec![RunCounts { completed: 1, failed: 1, outputs: 4 }]);
    let regime_output = serde_json::json!({"regime": HOSTILE, "confidence": 0.5}).to_string();
    report.regimes.add_answer(&symbol, TsMs(1_723_161_255_000), &EngineAnswer::Truth { regime_output });
    let mut latency = Latency::default();
    [0.001, 0.002, 0.1].iter().for_each(|seconds| latency.add_call(*seconds, false));
    report.performance.engine_calls = calls(&latency);
    report
}

/// Checks that every element is closed in order, attributes are quoted, and nothing but known elements is there.
fn check_well_formed(html: &str) {
    const KNOWN: &str = " html head meta title style body main header h1 h2 h3 p section div span strong small b i svg rect \
                         line table thead tbody tr th td code ";
    let mut open: Vec<&str> = Vec::new();
    let body = html.strip_prefix("<!DOCTYPE html>\n").expect("a document type");
    for piece in body.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("<{piece} is not closed"));
        let name = tag.trim_matches('/').split(' ').next().unwrap();
        assert!(KNOWN.contains(&format!(" {name} ")), "unknown <{tag}>");
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        assert!(!tag.split('"').step_by(2).any(|outside| outside.contains(" on")), "<{tag}>");
        match (tag.strip_prefix('/'), tag.ends_with('/')) {
            (Some(closed), _) => assert_eq!(open.pop(), Some(closed), "</{closed}>"),
            (None, true) => {}
            (None, false) => open.push(name),
        }
        let entities = text.split('&').skip(1).map(|rest| rest.split_once(';').map(|(entity, _)| entity));
        for entity in entities {
            assert!(matches!(entity, Some("amp" | "lt" | "gt" | "quot" | "#39")), "{text}");
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[test]
fn a_report_of_nothing_is_a_whole_page_without_absurd_figures() {
    let html = render_page(&empty());

    check_well_formed(&html);
    for absurd in ["NaN", "inf", "undefined"] {
        assert!(!html.contains(absurd), "{absurd}");
    }
    for said in ["No run failed.", "The outputs name no regime.", "The engine was not called."] {
        assert!(html.contains(said), "{said}");
    }
    assert!(!html.contains("class=\"trouble\""));
}

#[test]
fn every_text_from_outside_is_escaped_and_shown() {
    let html = render_page(&hostile());

    check_well_formed(&html);
    assert!(!html.contains("<script") && !html.contains("<img"));
    let escaped = "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;";
    // Title, path, trouble (3), type, failure (3), regime, symbol, band and hint (4), provenance (5).
    assert!(html.matches(escaped).count() >= 18, "{}", html.matches(escaped).count());
    assert!(html.contains("This backtest is incomplete"));
    assert!(html.contains("1,234"));
    assert!(html.contains("line 17: "));
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let html = render_page(&hostile());

    for outside in ["http:", "https:", "url(", "@import", "<link", " src=\"", "href"] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn many_symbols_are_bounded_and_said_to_be() {
    let mut report = empty();
    for number in 0..100 {
        let regime_output = format!("{{\"regime\":\"R{number}\"}}");
        let symbol = Symbol::from(format!("S{number:03}").as_str());
        report.regimes.add_answer(&symbol, TsMs(number), &EngineAnswer::Truth { regime_output });
    }

    let html = render_page(&report);

    check_well_formed(&html);
    assert_eq!(html.matches("class=\"band\"").count(), 40);
    assert!(html.contains("The first 40 of 100 symbols"));
    assert!(!html.contains("class=\"r10\""), "more colours than there are");
}
