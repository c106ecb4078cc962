//! The Execution Gateway: gates in the real one's order, then the record, then the broker.
//!
//! | gate | answer |
//! |---|---|
//! | rate limit | 429 |
//! | schema | 422 with a list |
//! | safety gates | 503 |
//! | position limit, reserved before the record is asked: also a repeat can be refused by it | 422 |
//! | on record already | 200, the order as it stands |
//! | a symbol without a price | 400 fat-finger |
//! | prices that do not fit the kind of order | 400, on record as rejected |
//! | the broker | 200 `pending_new`, or 422 |

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::trading::order::OrderContent;
use orchestrator_kernel::trading::order::id::{ClientOrderId, UtcDate};
use orchestrator_kernel::trading::order::status::OrderStatus;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{PaperWorld, RATE_WINDOW_S};
use crate::adapters::paper::answers::{
    PaperAnswer, gate_answer, order_answer, order_detail_answer, position_limit_answer, rejection_answer,
    schema_answer, utc_text,
};
use crate::adapters::paper::broker::CancelReply;
use crate::adapters::paper::faults::{
    AnswerFault, RefusalFault, RejectedAs, RequestPlan, RetryAfterForm, SafetyGateName,
};
use crate::adapters::paper::ledger::plain;
use crate::adapters::paper::request::{PaperRequest, order_id_of, read_order};

const MUST_BE_UNIQUE: &str = "Order rejected by broker: client_order_id must be unique";

impl PaperWorld {
    pub(super) fn submit_order(
        &mut self,
        request: &PaperRequest,
        plan: &RequestPlan,
        now: TsMs,
    ) -> PaperAnswer {
        let read = read_order(&request.body);
        let (answer, counted) = match self.take_rate(plan, now) {
            Err(limited) => (limited, Counted::Refused),
            Ok(()) => match &read {
                Err(problems) => (schema_answer(problems), Counted::Refused),
                Ok(content) => self.submit_content(content, plan, now),
            },
        };
        if let Ok(content) = &read {
            let id = self.derive_id(content, now);
            self.ledger.count(
                id,
                match counted {
                    Counted::Accepted => |counts| &mut counts.accepted,
                    Counted::Repeat => |counts| &mut counts.repeats,
                    Counted::Refused => |counts| &mut counts.refused,
                },
            );
        }
        answer
    }

    fn submit_content(
        &mut self,
        content: &OrderContent,
        plan: &RequestPlan,
        now: TsMs,
    ) -> (PaperAnswer, Counted) {
        let symbol = content.symbol.as_str();
        let refused = |answer| (answer, Counted::Refused);
        match plan.refusal {
            Some(RefusalFault::Gate(gate)) => return refused(gate_answer(gate, symbol)),
            Some(RefusalFault::Setting(status)) => return refused(setting_answer(status)),
            Some(RefusalFault::Rejected(RejectedAs::Schema)) => {
                return refused(rejection_answer(RejectedAs::Schema, symbol, 0));
            }
            Some(RefusalFault::RateLimited(..) | RefusalFault::Rejected(_) | RefusalFault::MustBeUnique)
            | None => {}
        }
        if let Some(exceeded) = self.exceed_limit(content, plan) {
            return refused(exceeded);
        }
        let id = self.derive_id(content, now);
        if let Some(order) = self.broker.order(id).filter(|order| !order.is_gone()) {
            return (order_answer(order, "Order already exists (idempotent retry)"), Counted::Repeat);
        }
        if self.settings.orders_max <= self.broker.orders_count() {
            tracing::warn!(orders = self.broker.orders_count(), "no room for further paper orders");
            return refused(gate_answer(SafetyGateName::DatabaseUnavailable, symbol));
        }
        if let Some(RefusalFault::Rejected(RejectedAs::FatFinger)) = plan.refusal {
            return refused(rejection_answer(RejectedAs::FatFinger, symbol, 0));
        }
        if !self.universe.contains(symbol) {
            return refused(PaperAnswer::detail(
                400,
                "Order rejected by fat-finger checks: data_unavailable",
            ));
        }
        if self.settings.dry_run {
            self.broker.record_order(id, content.clone(), OrderStatus::DryRun, None, now);
            return self.answer_on_record(id, "Order logged (DRY_RUN mode)");
        }
        self.place_order(id, content, plan, now)
    }

    fn place_order(
        &mut self,
        id: ClientOrderId,
        content: &OrderContent,
        plan: &RequestPlan,
        now: TsMs,
    ) -> (PaperAnswer, Counted) {
        let invalid = content.validate().err().map(|why| {
            let detail = format!("Order validation failed: {why}");
            PaperAnswer::detail(400, detail)
        });
        let rejected = match plan.refusal {
            Some(RefusalFault::Rejected(by)) => Some(rejection_answer(by, content.symbol.as_str(), 0)),
            _ => None,
        };
        if let Some(answer) = invalid.or(rejected) {
            self.broker.record_order(id, content.clone(), OrderStatus::Rejected, None, now);
            return (answer, Counted::Refused);
        }
        match self.broker.place_order(id, content.clone(), plan.broker, now) {
            Ok(effects) => self.ledger.count_effects(&effects),
            Err(_) => return (PaperAnswer::detail(422, MUST_BE_UNIQUE), Counted::Refused),
        }
        if plan.refusal == Some(RefusalFault::MustBeUnique) {
            self.broker.freeze_record(id, OrderStatus::Rejected, None);
            return (PaperAnswer::detail(422, MUST_BE_UNIQUE), Counted::Accepted);
        }
        if let Some(AnswerFault::Error(503, _)) = plan.answer {
            let words = "Broker connection error: connection aborted".to_owned();
            self.broker.freeze_record(id, OrderStatus::Failed, Some(words));
        }
        self.answer_on_record(id, "Order submitted")
    }

    fn answer_on_record(&self, id: ClientOrderId, message: &str) -> (PaperAnswer, Counted) {
        match self.broker.order(id) {
            Some(order) => (order_answer(order, message), Counted::Accepted),
            None => (PaperAnswer::detail(500, "Order inserted but not found in database"), Counted::Refused),
        }
    }

    fn exceed_limit(&self, content: &OrderContent, plan: &RequestPlan) -> Option<PaperAnswer> {
        let (symbol, limit) = (content.symbol.as_str(), self.settings.position_limit);
        if plan.refusal == Some(RefusalFault::Rejected(RejectedAs::PositionLimit)) {
            return Some(rejection_answer(RejectedAs::PositionLimit, symbol, limit));
        }
        let projected = self.broker.projected_qty(symbol, content.side, content.qty);
        let is_beyond = Decimal::from(limit) < projected.abs() && !self.settings.dry_run;
        is_beyond.then(|| position_limit_answer(symbol, limit, &format!("{} shares", plain(projected))))
    }

    fn derive_id(&self, content: &OrderContent, now: TsMs) -> ClientOrderId {
        ClientOrderId::derive(content, &self.settings.strategy_id, UtcDate::at_moment(now))
    }

    /// Counts a request against the limit of its minute.
    fn take_rate(&mut self, plan: &RequestPlan, now: TsMs) -> Result<(), PaperAnswer> {
        if let Some(RefusalFault::RateLimited(after_s, form)) = plan.refusal {
            self.ledger.rate_limited += 1;
            return Err(rate_answer(after_s, form));
        }
        let window = now.0.div_euclid(1000 * RATE_WINDOW_S);
        if self.rate.0 != window {
            self.rate = (window, 0);
        }
        if self.settings.orders_per_minute <= self.rate.1 {
            self.ledger.rate_limited += 1;
            let left = RATE_WINDOW_S - now.0.div_euclid(1000).rem_euclid(RATE_WINDOW_S);
            return Err(rate_answer(left.unsigned_abs(), RetryAfterForm::Seconds));
        }
        self.rate.1 += 1;
        Ok(())
    }

    pub(super) fn with_rate_headers(&self, answer: PaperAnswer, now: TsMs) -> PaperAnswer {
        let limit = self.settings.orders_per_minute;
        let is_current = self.rate.0 == now.0.div_euclid(1000 * RATE_WINDOW_S);
        let used = if is_current { self.rate.1 } else { 0 };
        answer
            .with_header("X-RateLimit-Limit", limit.to_string())
            .with_header("X-RateLimit-Remaining", limit.saturating_sub(used).to_string())
            .with_header("X-RateLimit-Window", RATE_WINDOW_S.to_string())
    }

    pub(super) fn read_order(&mut self, written: &str, plan: &RequestPlan, now: TsMs) -> PaperAnswer {
        let id = order_id_of(Some(written));
        if let Some(id) = id {
            self.ledger.count(id, |counts| &mut counts.reads);
        }
        let order = id.and_then(|id| self.broker.visible_order(id, now));
        match (refusal_answer(plan), order) {
            (Some(refused), _) => refused,
            (None, Some(order)) => order_detail_answer(order, &self.settings.strategy_id),
            (None, None) => not_found(written),
        }
    }

    pub(super) fn cancel_order(&mut self, written: &str, plan: &RequestPlan, now: TsMs) -> PaperAnswer {
        match (refusal_answer(plan), order_id_of(Some(written))) {
            (Some(refused), _) => refused,
            (None, None) => not_found(written),
            (None, Some(id)) => {
                self.ledger.count(id, |counts| &mut counts.cancels);
                let (reply, effects) = self.broker.cancel_order(id, now);
                self.ledger.count_effects(&effects);
                let said = |status: OrderStatus, message: &str| {
                    let status = status.as_str();
                    let body = json!({ "client_order_id": written, "status": status, "message": message });
                    PaperAnswer::json(200, &body)
                };
                match reply {
                    CancelReply::NotFound => not_found(written),
                    CancelReply::AlreadyTerminal(status) => said(status, "Order already in terminal state"),
                    CancelReply::Requested(status) => said(status, "Order canceled"),
                }
            }
        }
    }

    pub(super) fn list_positions(&self, plan: &RequestPlan, now: TsMs) -> PaperAnswer {
        if let Some(refused) = refusal_answer(plan) {
            return refused;
        }
        let mut unrealized_sum = Decimal::ZERO;
        let mut listed: Vec<Value> = Vec::new();
        for (symbol, position) in
            self.broker.positions().iter().filter(|(_, position)| !position.qty.is_zero())
        {
            let price = self.broker.quote(symbol, now);
            let unrealized = position.qty * (price - position.avg_entry_price);
            unrealized_sum += unrealized;
            let at = utc_text(position.updated_at);
            listed.push(json!({
                "symbol": symbol, "qty": plain(position.qty), "avg_entry_price": plain(position.avg_entry_price),
                "current_price": plain(price), "unrealized_pl": plain(unrealized),
                "realized_pl": plain(position.realized_pl), "updated_at": at, "last_trade_at": at,
            }));
        }
        let realized: Decimal = self.broker.positions().values().map(|position| position.realized_pl).sum();
        let body = json!({
            "total_positions": listed.len(), "positions": listed, "total_unrealized_pl": plain(unrealized_sum),
            "total_realized_pl": plain(realized),
        });
        PaperAnswer::json(200, &body)
    }

    pub(super) fn tell_config(&self, plan: &RequestPlan, now: TsMs) -> PaperAnswer {
        refusal_answer(plan).unwrap_or_else(|| {
            let body = json!({
                "service": "execution_gateway", "version": self.settings.version, "environment": "paper",
                "dry_run": self.settings.dry_run, "alpaca_paper": self.settings.alpaca_paper,
                "circuit_breaker_enabled": true, "liquidity_check_enabled": false, "max_slice_pct_of_adv": 0.01,
                "timestamp": utc_text(now),
            });
            PaperAnswer::json(200, &body)
        })
    }

    pub(super) fn tell_health(&self, plan: &RequestPlan, now: TsMs) -> PaperAnswer {
        refusal_answer(plan).unwrap_or_else(|| {
            let is_well = !plan.is_not_ready;
            let body = json!({
                "status": if is_well { "healthy" } else { "degraded" }, "service": "execution_gateway",
                "version": self.settings.version, "dry_run": self.settings.dry_run, "database_connected": true,
                "alpaca_connected": is_well, "timestamp": utc_text(now),
                "details": { "paper": true, "orders": self.broker.orders_count() },
            });
            PaperAnswer::json(200, &body)
        })
    }

    pub(super) fn answer_market_prices(&self, now: TsMs) -> PaperAnswer {
        let timestamp = utc_text(now);
        let price = |symbol: &String| {
            let mid = plain(self.broker.quote(symbol, now));
            json!({ "symbol": symbol, "mid": mid, "timestamp": timestamp })
        };
        PaperAnswer::json(200, &self.universe.iter().map(price).collect::<Vec<_>>())
    }
}

/// Kind of a request to place an order, for the ledger.
#[derive(Clone, Copy)]
enum Counted {
    Accepted,
    Repeat,
    Refused,
}

/// The refusals that any route can have.
pub(super) fn refusal_answer(plan: &RequestPlan) -> Option<PaperAnswer> {
    match plan.refusal? {
        RefusalFault::RateLimited(after_s, form) => Some(rate_answer(after_s, form)),
        RefusalFault::Setting(status) => Some(setting_answer(status)),
        RefusalFault::Gate(_) | RefusalFault::Rejected(_) | RefusalFault::MustBeUnique => None,
    }
}

fn setting_answer(status: u16) -> PaperAnswer {
    match status {
        401 => PaperAnswer::detail(
            401,
            json!({ "error": "invalid_internal_token", "message": "Invalid internal token" }),
        ),
        403 => PaperAnswer::detail(
            403,
            json!({ "error": "permission_denied", "message": "Permission submit_order required" }),
        ),
        405 => PaperAnswer::detail(405, "Method Not Allowed"),
        _ => PaperAnswer::detail(404, "Not Found"),
    }
}

fn rate_answer(after_s: u64, form: RetryAfterForm) -> PaperAnswer {
    let answer = PaperAnswer::detail(
        429,
        json!({
            "error": "rate_limited", "message": "Rate limit exceeded", "retry_after": after_s, "reason": "per_user",
        }),
    );
    match form {
        RetryAfterForm::Seconds => answer.with_header("Retry-After", after_s.to_string()),
        RetryAfterForm::Absent => answer,
    }
}

fn not_found(written: &str) -> PaperAnswer {
    PaperAnswer::detail(404, format!("Order not found: {written}"))
}
