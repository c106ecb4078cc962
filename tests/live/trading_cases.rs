//! The cases of the trading plane that need servers: the kill switch in Redis (T9), decisions over RabbitMQ (T11), and
//! the journal on Redis Streams under kills of service and server (T6).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::ExchangeKind;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::rfc3339::to_rfc3339;
use serde_json::{Value, json};

use crate::support::amqp::Amqp;
use crate::support::process::eventually;
use crate::support::rabbit_server::RabbitServer;
use crate::support::redis_server::RedisServer;
use crate::support::secrets::Secrets;
use crate::support::stage_server::{OnAsked, StageServer, buy};
use crate::support::trading::{STRATEGY, TradingPlace, TradingService};

const KEY: &str = "kill_switch:state";

/// The canonical pipeline under this name, in which these stages have another provider.
fn pipeline(name: &str, provided: &[(&str, &str)]) -> String {
    let provided = provided.iter().map(|(stage, provider)| {
        format!("[trading.pipelines.{name}.stage.{stage}]\nprovider = \"{provider}\"\n")
    });
    format!(
        "[trading.pipelines.{name}]\nstale_after = \"0s\"\n\
         stages = [\"ING\", \"FEAT\", \"SIG\", \"RISK\", \"EXEC\", \"PORT\", \"ANA\", \"GOV\"]\n{}",
        provided.collect::<String>()
    )
}

fn set(redis: &RedisServer, value: &str) {
    assert!(redis.command(&["SET", KEY, value]).unwrap().starts_with("+OK"));
}

async fn trades_again(service: &TradingService) {
    eventually("it trades again", async || {
        (service.run_cycle("day").await["order_intents"] == 1).then_some(())
    })
    .await;
}

/// T9. Method: the switch flips while signals are made, in each way in which a key can; nothing behind them is begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_in_redis_that_flips_between_two_stages_blocks_with_who_and_why() {
    let server = StageServer::start().await;
    let mut redis = RedisServer::start();
    set(&redis, "off");
    let url = Secrets::shared().as_service(&redis.url());
    let switch =
        format!("[kill_switch]\nkind = \"redis\"\nurl = \"{url}\"\nread_timeout = \"1s\"\nlease = \"3s\"\n");
    let trading = server.section("mine") + &pipeline("day", &[("ING", "mine"), ("SIG", "mine")]) + STRATEGY;
    let place = TradingPlace::unswitched(&switch, &trading);
    let service = place.start_trading().await;
    trades_again(&service).await;

    for (how, words) in [
        ("engage", ["mary", "odd prices"]),
        ("DEL", ["nothing is stored", ""]),
        ("FLUSHALL", ["nothing is stored", ""]),
        ("garbage", ["unknown", ""]),
        ("stopped", ["unknown", ""]),
        ("frozen", ["unknown", ""]),
    ] {
        let asked = server.asked("SIG").len();
        server.next("SIG", [OnAsked::Hold]);
        let flipped = async {
            server.was_asked("SIG", asked + 1).await;
            match how {
                "engage" => {
                    set(&redis, r#"{"state":"ENGAGED","engaged_by":"mary","engagement_reason":"odd prices"}"#)
                }
                "DEL" => drop(redis.command(&["DEL", KEY]).unwrap()),
                "FLUSHALL" => drop(redis.command(&["FLUSHALL"]).unwrap()),
                "garbage" => set(&redis, "garbage"),
                "stopped" => redis.kill(),
                _ => redis.pause(),
            }
            if ["stopped", "frozen"].contains(&how) {
                // What was read before it counts until its lease is over.
                eventually("it is not known", async || {
                    service.service.get("/health").await.1.contains("kill_switch_unknown").then_some(())
                })
                .await;
            }
            server.release();
        };

        let (result, ()) = tokio::join!(service.run_cycle("day"), flipped);

        let reason = result["reason"].as_str().unwrap();
        assert_eq!((&result["status"], &result["order_intents"]), (&"blocked".into(), &0.into()), "{result}");
        assert!(reason.starts_with("kill_switch: "), "{how}: {reason}");
        words.iter().for_each(|word| assert!(reason.contains(word), "{how}: {word}: {reason}"));
        assert_eq!(result["stage_results"]["RISK"]["status"], "not_begun", "{how}: {result}");
        assert_eq!(result["errors"][0]["code"], "E_ORCH_BLOCKED", "{how}: {result}");
        assert_eq!(service.run_cycle("day").await["status"], "blocked", "{how}: the next one too");
        assert_eq!(server.asked("SIG").len(), asked + 1, "{how}: nobody is asked to decide");

        match how {
            "stopped" => redis.start_again(),
            "frozen" => redis.resume(),
            _ => {}
        }
        set(&redis, "off");
        trades_again(&service).await;
    }
    service.stop().await;

    place.journal().check_accounts();
}

const EXCHANGE: &str = "orchestrator.trading";
const QUEUE: &str = "orchestrator.trading.events";
const DECISION: &str = "ai.decision.generated";
/// Older than this a decision is too late.
const DECISION_AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// A decision of somebody else, made `age` ago.
fn decided(id: &str, correlation: &str, age: Duration, decision: &Value) -> Vec<u8> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - age;
    let at = to_rfc3339(TsMs(i64::try_from(at.as_millis()).unwrap()));
    json!({
        "event_id": id, "event_type": DECISION, "schema_version": "1.0.0", "ts_event": at, "ts_ingest": at,
        "source": "ai-decision", "trace_id": "01", "span_id": "02", "parent_span_id": null,
        "correlation_id": correlation, "partition_key": "mine", "payload": decision, "tags": {},
        "idempotency_key": null, "sig": null,
    })
    .to_string()
    .into_bytes()
}

/// The first event of this name that comes, behind all others.
async fn event_of(client: &Amqp, name: &str) -> Value {
    eventually(name, async || {
        let all = client.drain("all").await;
        let found = all.iter().find(|delivery| delivery.routing_key.as_str() == name)?;
        serde_json::from_slice(&found.data).ok()
    })
    .await
}

/// T11. Method: a decision comes twice, once more behind a kill −9, and one that is too old; then a cycle asks for one,
/// which comes twice, and once more when the cycle has ended. A further decision each time shows that all before it
/// were looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_comes_twice_or_late_has_one_cycle_or_none() {
    let server = StageServer::start().await;
    let broker = RabbitServer::shared();
    let url = broker.url(&broker.vhost());
    let trading = server.section("mine")
        + &pipeline("canonical", &[("RISK", "mine")])
        + &pipeline("asked", &[("SIG", "event"), ("RISK", "mine")])
        + LOOK
        + &format!("[trading.events]\nurl = \"{url}\"\nconsume = [\"ai.decision.*\"]\n")
        + STRATEGY;
    let place = TradingPlace::new(&trading);
    let client = Amqp::connect(&url).await;
    client.exchange(EXCHANGE, ExchangeKind::Topic, None).await;
    client.queue("all", &[]).await;
    client.bind("all", EXCHANGE, "orchestrator.#").await;
    let decision = |number: u32| {
        let mut decision = buy("mine", "5");
        decision["decisionId"] = format!("d-{number}").into();
        decision
    };
    let now = Duration::ZERO;

    // RISK's own rules hold behind that of others, and want a price.
    let service = place.start_trading().await;
    service.done("receipts", &priced("AAPL", "100")).await;
    knows_price(&service, "AAPL", "100").await;
    let first = decided("e-1", "c-1", now, &decision(1));
    client.send(EXCHANGE, DECISION, &[&first, &first]).await;
    service.ended_cycles("canonical", 1).await;
    service.kill();
    let service = place.start().await;
    knows_price(&service, "AAPL", "100").await;
    let too_old = decided("e-2", "c-2", DECISION_AGE_MAX + Duration::from_secs(60), &decision(2));
    let second = decided("e-3", "c-3", now, &decision(3));
    client.send(EXCHANGE, DECISION, &[&first, &too_old, &second]).await;
    service.ended_cycles("canonical", 2).await;

    let answered = async {
        let request = event_of(&client, "orchestrator.analysis.requested").await;
        let correlation = request["correlation_id"].as_str().unwrap().to_owned();
        let answer = decided("e-4", &correlation, now, &decision(4));
        client.send(EXCHANGE, DECISION, &[&answer, &answer]).await;
        correlation
    };
    let (result, correlation) = tokio::join!(service.run_cycle("asked"), answered);
    assert_eq!((&result["status"], &result["decisions_generated"]), (&"ok".into(), &1.into()), "{result}");
    let late = decided("e-5", &correlation, now, &decision(5));
    let third = decided("e-6", "c-6", now, &decision(6));
    client.send(EXCHANGE, DECISION, &[&late, &third]).await;
    service.ended_cycles("canonical", 3).await;
    eventually("the queue is empty", async || (client.ready(QUEUE).await == 0).then_some(())).await;
    service.stop().await;

    let journal = place.journal();
    journal.check_accounts();
    let intended: Vec<&Value> =
        journal.facts("order_intended").into_iter().map(|intent| &intent["decision_id"]).collect();
    assert_eq!(intended, ["d-1", "d-3", "d-4", "d-6"], "each once, and none that came late");
    let began = journal.facts("cycle_started").into_iter().filter(|it| it["pipeline"]["name"] != "look");
    assert_eq!(began.count(), 4);
    let refused = journal.facts("command_ended").into_iter().map(|ended| ended["outcome"].to_string());
    assert!(refused.into_iter().any(|outcome| outcome.contains("too_late")), "what is too old is on record");
}

/// A pipeline that looks at prices and does nothing with them.
const LOOK: &str = "[trading.pipelines.look]\nstages = [\"ING\"]\nstale_after = \"0s\"\n";

/// Waits until cycles know this price of a symbol: what was received goes to them by the log.
async fn knows_price(service: &TradingService, symbol: &str, price: &str) {
    eventually(&format!("the price of {symbol} is known"), async || {
        let looked = service.run_cycle("look").await;
        (looked["stage_results"]["ING"]["data"]["prices"][symbol] == price).then_some(())
    })
    .await;
}

/// A receipt of this moment with a price.
fn priced(symbol: &str, price: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    json!({
        "schema": "raw_market_event", "schema_version": "1", "event_type": "TradeTick", "source_id": "test",
        "symbol": symbol, "exchange_ts_ms": null, "recv_ts_ms": u64::try_from(now.as_millis()).unwrap(),
        "raw_payload": "", "normalized": { "price": price },
    })
}

/// Kills of the service, of the server, and of both.
const ROUNDS: usize = 12;
const STAGES: [&str; 6] = ["ING", "FEAT", "SIG", "PORT", "ANA", "GOV"];

/// T6 on Redis Streams. Method: each stage of others is held in a cycle of its own; then the service is killed, or the
/// server, or both. The command is sent again with its key until its cycle has ended.
#[tokio::test(flavor = "multi_thread")]
async fn kills_of_service_and_redis_in_the_middle_of_cycles_leave_the_journal_whole() {
    let server = StageServer::start().await;
    let mut redis = RedisServer::start();
    let url = Secrets::shared().as_service(&redis.url());
    let storage = format!("[storage]\nkind = \"redis\"\n[redis]\nurl = \"{url}\"\nwriter_ttl = \"10m\"\n");
    let provided = STAGES.map(|stage| (stage, "mine"));
    let trading = server.section("mine") + &pipeline("day", &provided) + STRATEGY;
    let place = TradingPlace::unswitched(&storage, &trading);
    place.switch(&["init", "--operator", "ops"]);
    let mut service = place.start_trading().await;
    let command = json!({ "pipeline": "day" });
    for round in 0..ROUNDS {
        let (held, key) = (STAGES[round % STAGES.len()], format!("round {round}"));
        let kills_service = round % 4 != 3;
        server.next(held, [if kills_service { OnAsked::Hang } else { OnAsked::Hold }]);
        let before = server.asked(held).len();
        service.post_unheard("cycles", &command, &key);
        server.was_asked(held, before + 1).await;
        let interrupted = server.asked(held)[before]["cycle_id"].clone();
        if kills_service {
            if round % 4 == 2 {
                redis.kill();
            }
            service.kill();
            if round % 4 != 0 {
                redis.kill();
                redis.start_again();
            }
            service = place.start().await;
        } else {
            redis.kill();
            server.release();
            redis.start_again();
        }

        let result = eventually("the cycle ends", async || {
            let (status, answer) = service.post("cycles", &command, Some(&key)).await;
            (status == 200).then_some(answer)
        })
        .await;

        assert_eq!(result["correlation_id"], interrupted, "{held}: the same cycle");
        assert_eq!(
            (&result["status"], &result["order_intents"]),
            (&"ok".into(), &1.into()),
            "{held}: {result}"
        );
    }
    service.stop().await;

    let journal = place.journal();
    journal.check_accounts();
    assert_eq!(journal.facts("cycle_ended").len(), ROUNDS);
}
