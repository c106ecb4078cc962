//! Pages of orchestration runs: the recorded bodies, from rows that stand in the history.

use orchestrator_kernel::ports::history::{HistoryBatch, HistoryStore as _};
use orchestrator_kernel::ports::history_conformance::{sample_cycle_id, sample_orchestration};
use orchestrator_kernel::ports::history_memory::MemoryHistory;
use orchestrator_kernel::trading::history::{HistoryMark, HistoryRows};
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_trading_plane::testkit::history_ports;

use super::*;

const RUNS: &str = "/api/v1/orchestration/runs";

/// A plane whose history has runs of these numbers, each ended or not.
async fn with_runs(runs: &[(u8, bool)]) -> (Trading, Arc<MemoryHistory>) {
    let store = Arc::new(MemoryHistory::default());
    let mut rig = PlaneRig::new(by_hand());
    rig.history = Some(history_ports(store.clone(), false));
    let trading = Trading::of(rig).await;
    trading.start_agent().await;
    let plane = trading.plane.as_ref().unwrap().handle().clone();
    until("the history has caught up", async || {
        let tail = plane.committed.borrow().tail;
        JournalSeq(0) < tail && plane.history_progress.borrow().projected == tail
    })
    .await;
    let mut rows = HistoryRows::default();
    for (number, has_ended) in runs {
        let of_run = sample_orchestration(*number, *has_ended);
        rows.orchestration_runs.extend(of_run.orchestration_runs);
        rows.signal_orders.extend(of_run.signal_orders);
    }
    let mark = store.mark().unwrap();
    let batch =
        HistoryBatch { after: Some(mark.position), mark: HistoryMark { schedules: None, ..mark }, rows };
    store.apply_batch(&batch).await.unwrap();
    (trading, store)
}

#[track_caller]
fn check_detail(answer: &Answer, status: u16, detail: &Value) {
    assert_eq!((answer.status, answer.json()), (status, json!({ "detail": detail })), "{}", answer.text);
}

#[tokio::test]
async fn runs_have_the_recorded_bodies() {
    let (trading, _) = with_runs(&[(1, true), (2, false)]).await;
    let summary = |number: u8, has_ended: bool| {
        json!({
            "run_id": sample_cycle_id(number).to_string(),
            "status": if has_ended { "completed" } else { "running" },
            "strategy_id": "alpha_baseline",
            "as_of_date": "2025-01-02",
            "num_signals": 2,
            "num_orders_submitted": u8::from(has_ended),
            "num_orders_accepted": u8::from(has_ended),
            "num_orders_rejected": 0,
            "started_at": format!("2026-01-09T23:5{}:00.123+00:00", number + 1),
            "completed_at": has_ended.then(|| format!("2026-01-09T23:5{}:01.023+00:00", number + 1)),
            "duration_seconds": has_ended.then_some("0.018432"),
        })
    };

    let page = trading.get(RUNS).await;
    let body = json!({ "runs": [summary(2, false), summary(1, true)], "total": 2, "limit": 50, "offset": 0 });
    assert_eq!((page.status, page.json()), (200, body));
    let page = trading.get(&format!("{RUNS}?limit=1&offset=1&strategy_id=alpha_baseline")).await.json();
    assert_eq!(page, json!({ "runs": [summary(1, true)], "total": 2, "limit": 1, "offset": 1 }));
    let page = trading.get(&format!("{RUNS}?status=partial")).await.json();
    assert_eq!(page, json!({ "runs": [], "total": 0, "limit": 50, "offset": 0 }));

    let run = trading.get(&format!("{RUNS}/{}", sample_cycle_id(1))).await;
    let mut body = summary(1, true);
    let mapping = |symbol: &str, skip_reason: Option<&str>| {
        json!({
            "symbol": symbol, "predicted_return": null, "rank": null, "target_weight": null, "client_order_id": null,
            "order_qty": null, "order_side": null, "broker_order_id": null, "order_status": null, "filled_qty": null,
            "filled_avg_price": null, "skip_reason": skip_reason,
        })
    };
    let with = |mut mapping: Value, members: Value| {
        mapping.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        mapping
    };
    let id = "479131535213089960f7eebb";
    let more = json!({
        "symbols": ["AAPL", "MSFT", "BRK.B"],
        "capital": "100000",
        "max_position_size": "20000.005",
        "signal_metadata":
            {"strategies": ["alpha_baseline"], "multi_strategy": false, "allocation_method": null},
        "num_orders_filled": 1,
        "error_message": null,
        "mappings": [
            with(mapping("AAPL", None), json!({
                "predicted_return": 0.02, "rank": 1, "target_weight": 0.5, "client_order_id": id, "order_qty": 133,
                "order_side": "buy", "broker_order_id": "b-1", "order_status": "filled", "filled_qty": "133",
                "filled_avg_price": "150.12345678",
            })),
            with(mapping("MSFT", Some("zero_weight")), json!({
                "predicted_return": -0.333_333_333_333, "rank": 2, "target_weight": 0.0,
            })),
            mapping("AAPL", Some("duplicate_signal")),
        ],
        "signals": [{"symbol": "AAPL", "target_weight": 0.5}],
        "orders": [{
            "symbol": "AAPL", "side": "buy", "qty": 133, "order_type": "market", "time_in_force": "day",
            "client_order_id": id,
        }],
        "submissions": [{"symbol": "AAPL", "client_order_id": id, "status": "filled", "broker_order_id": "b-1"}],
        "executions": [
            {"symbol": "AAPL", "client_order_id": id, "filled_qty": "133", "filled_avg_price": "150.12345678"},
        ],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    assert_eq!((run.status, run.json()), (200, body));
    let running = trading.get(&format!("{RUNS}/{}", sample_cycle_id(2))).await.json();
    assert_eq!((&running["signals"], &running["signal_metadata"]), (&json!([]), &json!(null)));
    assert_eq!((&running["submissions"], &running["executions"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn what_no_page_can_answer_is_refused_as_recorded() {
    let (trading, store) = with_runs(&[]).await;
    let objection =
        |name: &str, msg: &str, kind: &str| json!([{"loc": ["query", name], "msg": msg, "type": kind}]);
    let least = |name: &str, min: u8| {
        objection(name, &format!("Input should be greater than or equal to {min}"), "greater_than_equal")
    };
    let most = |name: &str, max: u64| {
        objection(name, &format!("Input should be less than or equal to {max}"), "less_than_equal")
    };
    let no_number = |name: &str| objection(name, "Input should be a valid integer", "int_parsing");
    for (query, detail) in [
        ("limit=0", least("limit", 1)),
        ("limit=-1", least("limit", 1)),
        ("limit=101", most("limit", 100)),
        ("limit=ten", no_number("limit")),
        ("offset=-1", least("offset", 0)),
        ("offset=4294967296", most("offset", u64::from(u32::MAX))),
        ("offset=", no_number("offset")),
    ] {
        check_detail(&trading.get(&format!("{RUNS}?{query}")).await, 422, &detail);
    }
    assert_eq!(trading.get(&format!("{RUNS}?limit=100&offset=4294967295")).await.status, 200);
    let no_uuid =
        json!([{"loc": ["path", "run_id"], "msg": "Input should be a valid UUID", "type": "uuid_parsing"}]);
    check_detail(&trading.get(&format!("{RUNS}/not-a-uuid")).await, 422, &no_uuid);
    let unknown = sample_cycle_id(9);
    let not_found = json!(format!("Run not found: {unknown}"));
    check_detail(&trading.get(&format!("{RUNS}/{unknown}")).await, 404, &not_found);

    store.set_away(true);
    for path in [RUNS.to_owned(), format!("{RUNS}/{unknown}")] {
        let away = json!("the history's database is away: it was told so");
        check_detail(&trading.get(&path).await, 503, &away);
    }
    let without = Trading::start().await;
    let none = json!("no history is kept: trading.history.enabled is false");
    check_detail(&without.get(RUNS).await, 503, &none);
}
