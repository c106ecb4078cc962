//! Rows of the specifications that only a running service can show: each on the real binary, with the made-up market.

use std::path::{Path, PathBuf};

use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::support::{Service, eventually, orchestrator};

/// A RISK that allows whatever is asked for at a price of a cent, and a strategy that asks for a million shares.
const RECKLESS: &str = r#"
[sources.demo]
kind = "demo"
symbols = 5
rate_per_second = 200
snapshot_interval = "2s"
snapshot_lag = "50ms"
[schedule]
mode = "boundary"
interval = "2s"
delay = "100ms"
[engine]
kind = "demo"
mode = "truth"
[http]
listen = "127.0.0.1:0"
[trading]
enabled = true
mode = "paper"
calendar = "24-7"
cycle_budget = "1m"
[trading.risk]
capital = "100000"
max_position_size = "9000"
[trading.providers.reckless]
kind = "fixed"
answer = '''{"decisions":[
  {"decisionId":"d-eth","symbol":"ETHUSDT","strategyId":"mine","action":"BUY","confidence":0.9,"reasoning":"all in",
   "suggestedQuantity":"1000000"},
  {"decisionId":"d-odd","symbol":"BTCUSDT","strategyId":"mine","action":"BUY","confidence":0.9,"reasoning":"all in",
   "suggestedQuantity":"1000000"}]}'''
[trading.providers.permissive]
kind = "fixed"
answer = '''{"verdicts":[
  {"decisionId":"d-eth","outcome":"allowed","quantity":"1000000","price":"0.01"},
  {"decisionId":"d-odd","outcome":"allowed","quantity":"1000000","price":"0.01"}]}'''
[trading.pipelines.canonical.stage.SIG]
provider = "reckless"
[trading.pipelines.canonical.stage.RISK]
provider = "permissive"
[trading.strategies.mine]
kind = "of_mine"
symbols = ["ETHUSDT"]
status = "active"
targets = {ETHUSDT = "0.05"}
# Its symbols have prices too.
[trading.strategies.other]
kind = "of_mine"
symbols = ["BTCUSDT"]
"#;

fn written(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("config.toml");
    let data = dir.join("data").display().to_string();
    // A busy machine reads the switch late.
    let lease = "[kill_switch]\nread_timeout = \"5s\"\nlease = \"30s\"\n";
    std::fs::write(&path, format!("[service]\ndata_dir = \"{data}\"\n{lease}{text}")).unwrap();
    let init = ["kill-switch", "init", "--operator", "ops", "--config", path.to_str().unwrap()];
    let allowed = orchestrator(&init);
    assert!(allowed.status.success(), "{}", String::from_utf8_lossy(&allowed.stderr));
    path
}

async fn post(service: &Service, path: &str, body: Value) -> (u16, Value) {
    let request = reqwest::Client::new().post(format!("{}{path}", service.url)).json(&body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn get(service: &Service, path: &str) -> Value {
    serde_json::from_str(&service.get(path).await.1).unwrap()
}

/// Result and orders of the first cycle of this pipeline with an order: before there are prices none has.
async fn first_orders(service: &Service, pipeline: &str) -> (Value, Vec<Value>) {
    let result = eventually("a cycle has an order", async || {
        let (status, result) =
            post(service, "/api/v1/cycles", json!({"pipeline": pipeline, "strategies": ["mine"]})).await;
        let has_orders = status == 200 && result["status"] == "ok" && result["order_intents"] != 0;
        has_orders.then_some(result)
    })
    .await;
    let id = result["correlation_id"].as_str().unwrap();
    let page = get(service, &format!("/api/v1/cycles/{id}")).await;
    let orders = page["orders"].as_array().unwrap().clone();
    (result, orders)
}

fn amount(value: &Value) -> Decimal {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned).parse().unwrap()
}

/// Method: a provider's RISK that allows everything, a rebalance by configured targets, and what the service says of
/// itself meanwhile; at the end `verify` audits the journal.
#[tokio::test]
async fn a_risk_of_others_and_a_rebalance_keep_the_built_in_limits() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&written(dir.path(), RECKLESS), &[]).await;
    eventually("the agent starts", async || {
        (post(&service, "/api/v1/agent/start", json!({})).await.0 == 200).then_some(())
    })
    .await;

    let (result, orders) = first_orders(&service, "canonical").await;
    assert_eq!(orders.len(), 1, "a symbol that is none of the strategy's is denied: {orders:?}");
    let (quantity, price) = (amount(&orders[0]["quantity"]), amount(&orders[0]["price"]));
    assert_eq!(orders[0]["symbol"], "ETHUSDT");
    assert!(Decimal::ONE < price && quantity * price <= Decimal::from(9000), "{orders:?}");
    assert_eq!(result["stage_results"]["ANA"]["data"]["denied"], json!({"symbol_not_in_strategy": 1}));

    let (_, orders) = first_orders(&service, "rebalance").await;
    let worth = amount(&orders[0]["quantity"]) * amount(&orders[0]["price"]);
    assert_eq!(orders.len(), 1, "{orders:?}");
    assert!(worth <= Decimal::from(5000), "a twentieth of the capital: {orders:?}");

    eventually("its database is connected", async || {
        let checks = get(&service, "/health").await["checks"].clone();
        assert_eq!(checks["eventBus"], "disabled");
        (checks["database"] == "connected").then_some(())
    })
    .await;
    service.stop().await;
}

/// The commit that this was built from, as the build was told.
const REVISION: &str = match option_env!("ORCHESTRATOR_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Artifacts, `--version` and the metrics name the same commit.
#[tokio::test]
async fn a_binary_names_the_commit_that_it_was_built_from() {
    let version = env!("CARGO_PKG_VERSION");
    let said = orchestrator(&["--version"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.trim(), format!("orchestrator {version} (revision {REVISION})"));

    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&written(dir.path(), RECKLESS), &[]).await;
    let series = format!("orch_build_info{{version=\"{version}\",revision=\"{REVISION}\"}}");
    assert!((service.metric(&series).await - 1.0).abs() < f64::EPSILON, "{series}");
    let heartbeat = json!({"pipeline": "heartbeat"});
    let code = eventually("a heartbeat", async || {
        let (status, result) = post(&service, "/api/v1/cycles", heartbeat.clone()).await;
        (status == 200).then(|| result["code"].clone())
    })
    .await;
    assert_eq!(code, json!(format!("{version}+{REVISION}")));
    service.stop().await;
}
