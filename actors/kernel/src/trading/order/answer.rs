//! An answer of the gateway as it came: what the decisions about orders are made from.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{OrderContent, id::ClientOrderId, quantise_price};
use crate::error::bounded_detail;
use crate::ids::TsMs;
use crate::trading::wire_values::{decimal_of_json, moment_of_text, read_object};

/// Result of one request to the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayAnswer<'a> {
    /// An HTTP answer.
    Answered {
        /// Its status code.
        code: u16,
        /// Its header `Retry-After`, if there is one that is text.
        retry_after: Option<&'a str>,
        /// Its body.
        body: AnswerBody<'a>,
    },
    /// A timeout, a reset, or an end without an answer; in words.
    Silence(&'a str),
}

/// A body as far as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerBody<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// The connection ended within it.
    Cut,
    /// Larger than what is read of an answer.
    TooLarge,
}

impl<'a> AnswerBody<'a> {
    /// The bytes of a whole body; nothing of another.
    pub(super) const fn whole_body(&self) -> Option<&'a [u8]> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Cut | Self::TooLarge => None,
        }
    }

    /// The `detail` of a whole error body.
    pub(super) fn error_detail(&self) -> Option<Value> {
        #[derive(Deserialize)]
        struct ErrorBody {
            detail: Value,
        }
        read_object::<ErrorBody>(self.whole_body()?).ok().map(|body| body.detail)
    }
}

/// An error's detail as one bounded line: its text, or `error: message` of an object, or its JSON.
pub(super) fn detail_line(detail: &Value) -> String {
    let text = |key: &str| detail.get(key).and_then(Value::as_str);
    bounded_detail(&match (detail.as_str(), text("error"), text("message")) {
        (Some(text), _, _) => text.to_owned(),
        (None, Some(error), Some(message)) => format!("{error}: {message}"),
        (None, Some(error), None) => error.to_owned(),
        (None, None, _) => detail.to_string(),
    })
}

/// The fields that an order has in every answer about it.
#[derive(Deserialize)]
pub(super) struct OrderFields {
    pub(super) client_order_id: String,
    pub(super) status: String,
    pub(super) broker_order_id: Option<String>,
    symbol: String,
    side: String,
    qty: Box<RawValue>,
    order_type: String,
    limit_price: Option<Box<RawValue>>,
    stop_price: Option<Box<RawValue>>,
    created_at: String,
}

impl OrderFields {
    /// Tells whether it is the order that we mean: one of these ids, and our content.
    pub(super) fn is_ours(&self, content: &OrderContent, ids: &[ClientOrderId]) -> bool {
        let id = ClientOrderId::from_hex(&self.client_order_id);
        let price = |found: &Option<Box<RawValue>>, ours| match (found, ours) {
            (None, None) => true,
            (Some(found), Some(ours)) => {
                decimal_of_json(found).is_ok_and(|found| quantise_price(found) == quantise_price(ours))
            }
            (Some(_), None) | (None, Some(_)) => false,
        };
        // The gateway's answer to a request has no stop price: only one that it reports can contradict.
        let stop = self.stop_price.is_none() || price(&self.stop_price, content.stop_price);
        id.is_some_and(|id| ids.contains(&id))
            && self.symbol == content.symbol.as_str()
            && self.side == content.side.as_str()
            && decimal_of_json(&self.qty).is_ok_and(|qty| qty == content.qty.into())
            && self.order_type == content.order_type.as_str()
            && price(&self.limit_price, content.limit_price)
            && stop
    }

    /// Moment at which the gateway made the order.
    pub(super) fn created_at(&self) -> Option<TsMs> {
        moment_of_text(&self.created_at)
    }
}
