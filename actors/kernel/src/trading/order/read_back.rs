//! Reading an order back, and cancels: the answers about an order that may be there.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::OrderContent;
use super::answer::{GatewayAnswer, OrderFields, detail_line};
use super::fills::{FillReport, FillTotal};
use super::id::ClientOrderId;
use super::outcome::{retry_at, says_must_be_unique};
use super::status::OrderStatus;
use crate::error::bounded_detail;
use crate::ids::TsMs;
use crate::trading::wire_values::{decimal_of_json, read_object};

/// An order as the gateway reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderView {
    /// Its id there.
    pub id: ClientOrderId,
    /// Its status there. Of a canceled or rejected order it is not the truth: late fills do not change it.
    pub status: OrderStatus,
    /// The broker's id, once there is one.
    pub broker_order_id: Option<String>,
    /// Moment at which the gateway made it.
    pub created_at: TsMs,
    /// The broker refused it because it already has the id: it has the order.
    pub is_at_broker_already: bool,
    /// Its own fields `filled_qty` and `filled_avg_price`.
    pub total: FillTotal,
    /// `metadata.fills`: the truth of fills.
    pub fills: Vec<FillReport>,
}

/// Result of one read of an order, by all its possible ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderReading {
    /// It is there.
    Found(OrderView),
    /// The gateway has no order of any of the ids. No proof while a request may still be on its way.
    Absent,
    /// Nothing was learned.
    Unread {
        /// The reason, in words.
        why: String,
    },
}

/// Returns what `answer` to a read of order `id` says.
///
/// Only the gateway's own words for an order that it does not have make it absent: any other 404 is a wrong address.
#[must_use]
pub fn reading_of(answer: &GatewayAnswer<'_>, content: &OrderContent, id: ClientOrderId) -> OrderReading {
    let (code, body) = match answer {
        GatewayAnswer::Silence(why) => return unread_because(format!("no answer: {why}")),
        GatewayAnswer::Answered { code, body, .. } => (*code, body),
    };
    let detail = body.error_detail();
    match (code, body.whole_body()) {
        (200, Some(bytes)) => match view_of(bytes, content, id) {
            Ok(view) => OrderReading::Found(view),
            Err(why) => unread_because(why),
        },
        (404, Some(_)) if says_not_found(&detail) => OrderReading::Absent,
        _ => unread_because(format!(
            "answer {code}: {}",
            detail.map(|detail| detail_line(&detail)).unwrap_or_default()
        )),
    }
}

fn unread_because(why: String) -> OrderReading {
    OrderReading::Unread { why: bounded_detail(&why) }
}

fn says_not_found(detail: &Option<Value>) -> bool {
    detail.as_ref().and_then(Value::as_str).is_some_and(|text| text.starts_with("Order not found"))
}

fn view_of(bytes: &[u8], content: &OrderContent, id: ClientOrderId) -> Result<OrderView, String> {
    #[derive(Deserialize)]
    struct DetailFields {
        filled_qty: Option<Box<RawValue>>,
        filled_avg_price: Option<Box<RawValue>>,
        error_message: Option<String>,
        metadata: Option<Box<RawValue>>,
    }
    #[derive(Deserialize)]
    struct Metadata {
        fills: Option<Vec<Box<RawValue>>>,
    }
    let unreadable = |error: serde_json::Error| format!("the order cannot be read: {error}");
    let order: OrderFields = read_object(bytes).map_err(unreadable)?;
    let fields: DetailFields = read_object(bytes).map_err(unreadable)?;
    if !order.is_ours(content, &[id]) {
        return Err("the answer is about another order".to_owned());
    }
    let status = OrderStatus::from_word(&order.status).ok_or("its status is not known")?;
    let created_at = order.created_at().ok_or("its created_at cannot be read")?;
    let amount = |value: Option<Box<RawValue>>, field: &str| {
        value
            .map(|value| decimal_of_json(&value).map_err(|error| format!("its {field} is {error}")))
            .transpose()
    };
    let metadata = fields
        .metadata
        .map(|metadata| read_object::<Metadata>(metadata.get().as_bytes()).map(|metadata| metadata.fills));
    let fills = metadata.transpose().map_err(unreadable)?.flatten().unwrap_or_default();
    let fills: Result<Vec<_>, _> = fills.iter().map(|fill| FillReport::of_json(id, fill)).collect();
    let error_message = fields.error_message.unwrap_or_default();
    Ok(OrderView {
        id,
        status,
        created_at,
        is_at_broker_already: says_must_be_unique(error_message.as_bytes()),
        total: FillTotal {
            filled_qty: amount(fields.filled_qty, "filled_qty")?.unwrap_or_default(),
            average_price: amount(fields.filled_avg_price, "filled_avg_price")?,
        },
        fills: fills.map_err(|error| error.to_string())?,
        broker_order_id: order.broker_order_id,
    })
}

/// Joins the readings of all ids that an order may have: found under any, absent only when absent under all.
#[must_use]
pub fn join_readings(readings: impl IntoIterator<Item = OrderReading>) -> OrderReading {
    let mut joined = None;
    for reading in readings {
        joined = Some(match (joined, reading) {
            (None, reading) => reading,
            (Some(found @ OrderReading::Found(_)), _) => found,
            (Some(_), found @ OrderReading::Found(_)) => found,
            (Some(unread @ OrderReading::Unread { .. }), _) => unread,
            (Some(OrderReading::Absent), other) => other,
        });
    }
    joined.unwrap_or_else(|| unread_because("no id was read".to_owned()))
}

/// Meaning of an answer to a cancel. None ends an order: it is read until it is terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelAnswer {
    /// Asked for; the broker has not confirmed it.
    Requested,
    /// The order had ended before.
    AlreadyEnded,
    /// The gateway has no such order.
    Absent,
    /// Rate limited: not again before then.
    NotBefore(TsMs),
    /// Nobody knows: asked for again.
    Unknown {
        /// The reason, in words.
        why: String,
    },
}

/// Returns what `answer`, received at `now`, to a cancel says.
#[must_use]
pub fn cancel_answer_of(answer: &GatewayAnswer<'_>, now: TsMs) -> CancelAnswer {
    #[derive(Deserialize)]
    struct Said {
        message: String,
    }
    let unknown = |why: String| CancelAnswer::Unknown { why: bounded_detail(&why) };
    let (code, retry_after, body) = match answer {
        GatewayAnswer::Silence(why) => return unknown(format!("no answer: {why}")),
        GatewayAnswer::Answered { code, retry_after, body } => (*code, *retry_after, body),
    };
    let message = body.whole_body().and_then(|bytes| read_object::<Said>(bytes).ok());
    match (code, message) {
        (200, Some(said)) if said.message.starts_with("Order already in terminal state") => {
            CancelAnswer::AlreadyEnded
        }
        (200, Some(_)) => CancelAnswer::Requested,
        (404, _) if says_not_found(&body.error_detail()) => CancelAnswer::Absent,
        (429, _) => CancelAnswer::NotBefore(retry_at(retry_after, now)),
        _ => unknown(format!("answer {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Symbol;
    use crate::trading::order::OrderSide;
    use crate::trading::order::answer::AnswerBody;

    const ID: &str = "479131535213089960f7eebb";
    const NOW: TsMs = TsMs(1_735_830_000_500);

    fn content() -> OrderContent {
        OrderContent::market_order(Symbol::from("AAPL"), OrderSide::Buy, 133)
    }

    fn id() -> ClientOrderId {
        ClientOrderId::from_hex(ID).unwrap()
    }

    fn answer(code: u16, body: &str) -> GatewayAnswer<'_> {
        GatewayAnswer::Answered { code, retry_after: None, body: AnswerBody::Whole(body.as_bytes()) }
    }

    fn read(code: u16, body: &str) -> OrderReading {
        reading_of(&answer(code, body), &content(), id())
    }

    fn order(changes: &[(&str, Value)]) -> String {
        let mut body = serde_json::json!({
            "client_order_id": ID, "status": "canceled", "broker_order_id": "b-1", "symbol": "AAPL",
            "side": "buy", "qty": 133, "order_type": "market", "limit_price": null,
            "created_at": "2025-01-02T15:00:00.100000Z", "filled_qty": "5", "filled_avg_price": "150.5",
            "error_message": null,
            "metadata": { "fills": [
                { "fill_id": format!("{ID}_5"), "fill_qty": "5", "fill_price": "150.5" },
                { "fill_id": format!("{ID}_10"), "fill_qty": "5", "fill_price": "150.7" },
            ] },
        });
        for (key, value) in changes {
            body[key] = value.clone();
        }
        body.to_string()
    }

    #[test]
    fn an_order_is_read_with_its_fills() {
        let OrderReading::Found(view) = read(200, &order(&[])) else { panic!("not found") };

        assert_eq!((view.id, view.status), (id(), OrderStatus::Canceled));
        assert_eq!(view.broker_order_id.as_deref(), Some("b-1"));
        assert_eq!(view.created_at, TsMs(1_735_830_000_100));
        let total = FillTotal { filled_qty: 5.into(), average_price: Some("150.5".parse().unwrap()) };
        assert_eq!(view.total, total);
        assert_eq!(view.fills.len(), 2);
        assert_eq!(view.fills[1].cumulative, 10.into());
        assert!(!view.is_at_broker_already);
    }

    #[test]
    fn an_order_without_metadata_has_no_fills() {
        for metadata in [Value::Null, serde_json::json!({}), serde_json::json!({ "fills": null })] {
            let OrderReading::Found(view) = read(200, &order(&[("metadata", metadata)])) else { panic!() };
            assert!(view.fills.is_empty());
        }
    }

    #[test]
    fn a_refusal_for_an_id_that_the_broker_has_is_seen() {
        let message = ("error_message", Value::from("client_order_id must be unique"));
        let OrderReading::Found(view) = read(200, &order(&[message])) else { panic!("not found") };

        assert!(view.is_at_broker_already);
    }

    #[test]
    fn only_the_gateways_own_words_make_an_order_absent() {
        assert_eq!(read(404, &format!(r#"{{"detail":"Order not found: {ID}"}}"#)), OrderReading::Absent);
        for (code, body) in [
            (404, r#"{"detail":"Not Found"}"#),
            (404, "Not Found"),
            (410, r#"{"detail":"Order not found: x"}"#),
            (200, r#"{"detail":"Order not found: x"}"#),
            (401, "{}"),
            (500, "Internal Server Error"),
            (503, ""),
            (301, ""),
        ] {
            assert!(matches!(read(code, body), OrderReading::Unread { .. }), "{code} {body}");
        }
        for body in [AnswerBody::Cut, AnswerBody::TooLarge] {
            for code in [200, 404] {
                let answer = GatewayAnswer::Answered { code, retry_after: None, body: body.clone() };
                let reading = reading_of(&answer, &content(), id());
                assert!(matches!(reading, OrderReading::Unread { .. }));
            }
        }
        let silence = reading_of(&GatewayAnswer::Silence("timeout"), &content(), id());
        assert_eq!(silence, unread_because("no answer: timeout".to_owned()));
    }

    #[test]
    fn an_order_that_cannot_be_read_whole_says_nothing() {
        for change in [
            ("client_order_id", Value::from("dbc1c3abf98c0cb5561d131a")),
            ("qty", 1.into()),
            ("status", "Filled".into()),
            ("created_at", "now".into()),
            ("filled_qty", "NaN".into()),
            ("filled_avg_price", "Infinity".into()),
            ("metadata", serde_json::json!({ "fills": [{ "fill_id": "x_1" }] })),
            ("metadata", serde_json::json!({ "fills": 3 })),
        ] {
            let reading = read(200, &order(std::slice::from_ref(&change)));
            assert!(matches!(reading, OrderReading::Unread { .. }), "{change:?}");
        }
    }

    #[test]
    fn an_order_is_absent_only_under_all_its_ids() {
        let found = || read(200, &order(&[]));
        let (absent, unread) = (|| OrderReading::Absent, || unread_because("x".to_owned()));

        assert_eq!(join_readings([absent(), absent()]), absent());
        assert_eq!(join_readings([absent(), unread()]), unread());
        assert_eq!(join_readings([unread(), absent()]), unread());
        assert_eq!(join_readings([absent(), found()]), found());
        assert_eq!(join_readings([found(), unread()]), found());
        assert_eq!(join_readings([unread(), found()]), found());
        assert!(matches!(join_readings([]), OrderReading::Unread { .. }));
    }

    #[test]
    fn an_answer_to_a_cancel_ends_nothing() {
        let of = |code, body| cancel_answer_of(&answer(code, body), NOW);

        assert_eq!(of(200, r#"{"status":"canceled","message":"Order canceled"}"#), CancelAnswer::Requested);
        assert_eq!(
            of(200, r#"{"message":"Order already in terminal state: filled"}"#),
            CancelAnswer::AlreadyEnded
        );
        assert_eq!(of(404, r#"{"detail":"Order not found: x"}"#), CancelAnswer::Absent);
        assert_eq!(of(429, ""), CancelAnswer::NotBefore(NOW.plus_ms(60_000)));
        for (code, body) in [(200, "garbage"), (404, "Not Found"), (500, ""), (503, "{}"), (302, "")] {
            assert!(matches!(of(code, body), CancelAnswer::Unknown { .. }), "{code}");
        }
        let silence = cancel_answer_of(&GatewayAnswer::Silence("reset"), NOW);
        assert!(matches!(silence, CancelAnswer::Unknown { .. }));
    }
}
