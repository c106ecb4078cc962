//! The control of the paper services: faults, quotes, positions, the clock, and the ledger. No real service has it.

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::trading::wire_values::{AMOUNT_MAX, decimal_of_json, read_object};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use serde_json::value::RawValue;

use super::{CLOCK_OFFSET_MS_MAX, PaperWorld};
use crate::adapters::paper::answers::{PaperAnswer, utc_text};
use crate::adapters::paper::ledger::plain;
use crate::adapters::paper::request::{PaperRequest, PaperTarget};

/// Half of the difference between bid and ask.
const HALF_SPREAD: Decimal = Decimal::from_parts(1, 0, 0, false, 2);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuoteBody {
    symbol: String,
    price: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PositionBody {
    symbol: String,
    qty: Box<RawValue>,
    avg_entry_price: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockBody {
    offset_ms: i64,
}

impl PaperWorld {
    pub(super) fn answer_control(
        &mut self,
        target: &PaperTarget,
        request: &PaperRequest,
        now: TsMs,
    ) -> PaperAnswer {
        let answer = match target {
            PaperTarget::Ledger => Ok(PaperAnswer::json(200, &self.ledger.to_json(&self.broker))),
            PaperTarget::ListFaults => {
                Ok(PaperAnswer::json(200, &json!({ "faults": self.faults.list_faults() })))
            }
            PaperTarget::SetFault => self
                .faults
                .set_fault(&request.body)
                .map(|rule| PaperAnswer::json(201, &rule))
                .map_err(|refused| refused.to_string()),
            PaperTarget::ClearFaults => {
                Ok(PaperAnswer::json(200, &json!({ "removed": self.faults.clear_faults() })))
            }
            PaperTarget::RemoveFault(id) => match id.parse() {
                Ok(id) if self.faults.remove_fault(id) => {
                    Ok(PaperAnswer::json(200, &json!({ "removed": 1 })))
                }
                Ok(_) | Err(_) => return PaperAnswer::detail(404, format!("fault not found: {id}")),
            },
            PaperTarget::Quote(symbol) => Ok(self.tell_quote(symbol, now)),
            PaperTarget::SetQuote => self.set_quote(&request.body, now),
            PaperTarget::SetPosition => self.set_position(&request.body, now),
            PaperTarget::SetClock => self.set_clock(&request.body, now),
            PaperTarget::Redirected => {
                self.ledger.redirects_followed += 1;
                Ok(PaperAnswer::json(200, &json!({ "message": "a redirect was followed", "paper": true })))
            }
            PaperTarget::Service(..)
            | PaperTarget::Root
            | PaperTarget::MarketPrices
            | PaperTarget::MethodNotAllowed
            | PaperTarget::NotFound => Ok(PaperAnswer::detail(404, "Not Found")),
        };
        answer.unwrap_or_else(|problem| PaperAnswer::detail(422, problem))
    }

    /// A quote in the form of the price cache.
    fn tell_quote(&self, symbol: &str, now: TsMs) -> PaperAnswer {
        if !self.universe.contains(symbol) {
            return PaperAnswer::detail(404, format!("no price of {symbol}"));
        }
        let mid = self.broker.quote(symbol, now);
        let body = json!({
            "symbol": symbol, "bid": plain(mid - HALF_SPREAD), "ask": plain(mid + HALF_SPREAD), "mid": plain(mid),
            "bid_size": 100, "ask_size": 100, "timestamp": utc_text(now), "exchange": "PAPER",
        });
        PaperAnswer::json(200, &body)
    }

    fn set_quote(&mut self, body: &[u8], now: TsMs) -> Result<PaperAnswer, String> {
        let QuoteBody { symbol, price } = read_body(body)?;
        let price = amount("price", &price)?;
        if price < Decimal::new(2, 2) {
            return Err("price is less than 0.02".to_owned());
        }
        if !self.universe.contains(&symbol) {
            return Err(format!("symbol {symbol} is not one of the paper market"));
        }
        self.broker.set_quote(&symbol, price, now);
        let effects = self.broker.advance_to(now);
        self.ledger.count_effects(&effects);
        Ok(self.tell_quote(&symbol, now))
    }

    fn set_position(&mut self, body: &[u8], now: TsMs) -> Result<PaperAnswer, String> {
        let PositionBody { symbol, qty, avg_entry_price } = read_body(body)?;
        if !self.universe.contains(&symbol) {
            return Err(format!("symbol {symbol} is not one of the paper market"));
        }
        let (qty, price) = (amount("qty", &qty)?, amount("avg_entry_price", &avg_entry_price)?);
        if !qty.fract().is_zero() || price < Decimal::ZERO {
            return Err("qty is a whole number and avg_entry_price not less than 0".to_owned());
        }
        self.broker.set_position(&symbol, qty, price, now);
        let body = json!({ "symbol": symbol, "qty": plain(qty), "avg_entry_price": plain(price) });
        Ok(PaperAnswer::json(200, &body))
    }

    fn set_clock(&mut self, body: &[u8], now: TsMs) -> Result<PaperAnswer, String> {
        let ClockBody { offset_ms } = read_body(body)?;
        if CLOCK_OFFSET_MS_MAX < offset_ms.unsigned_abs() {
            return Err("offset_ms is more than 366 days".to_owned());
        }
        let wall = now.plus_ms(-self.clock_offset_ms);
        self.clock_offset_ms = offset_ms;
        let now = self.advance_to(wall);
        Ok(PaperAnswer::json(200, &json!({ "offset_ms": offset_ms, "now": utc_text(now) })))
    }
}

fn read_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    read_object::<T>(body).map_err(|error| orchestrator_kernel::json::describe_mistake(&error))
}

fn amount(field: &str, value: &RawValue) -> Result<Decimal, String> {
    let amount = decimal_of_json(value).map_err(|error| format!("{field} is {error}"))?;
    if AMOUNT_MAX < amount.abs() { Err(format!("{field} is too large")) } else { Ok(amount) }
}
