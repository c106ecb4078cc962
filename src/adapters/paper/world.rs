//! Both services without their sockets: a request and the time go in, an answer comes out.

use std::collections::BTreeSet;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::trading::order::id::{ClientOrderId, UtcDate};
use orchestrator_kernel::trading::signing::SignedRequest;
use serde_json::json;

use super::answers::PaperAnswer;
use super::auth::{AuthRefusal, PaperAuth, Permission};
use super::broker::{BrokerPlan, PaperBroker};
use super::faults::{FaultRefused, FaultedRequest, PaperFaults, PaperRoute, RequestPlan};
use super::ledger::PaperLedger;
use super::request::{PaperRequest, PaperRole, PaperTarget, order_id_of, read_order};

mod control;
mod gateway;
mod signals;

/// Longest shift of the clock.
const CLOCK_OFFSET_MS_MAX: u64 = 366 * 86_400_000;
/// Window of the rate limit.
const RATE_WINDOW_S: i64 = 60;

/// Settings of the paper services.
#[derive(Clone, Debug)]
pub struct PaperSettings {
    /// Seed of the market, of the broker's ids, and of faults by percent.
    pub seed: u64,
    /// Symbols that there are bars of.
    pub symbols: Vec<String>,
    /// The gateway's strategy, which goes into every id.
    pub strategy_id: String,
    /// The gateway logs orders and places none.
    pub dry_run: bool,
    /// What the gateway says of its account. The broker is a paper broker either way.
    pub alpaca_paper: bool,
    /// Largest position of a symbol in shares, bought or sold.
    pub position_limit: u64,
    /// Requests for orders in a minute.
    pub orders_per_minute: u64,
    /// Time from the acceptance to the fill.
    pub fill_after_ms: i64,
    /// Orders that are kept. Further ones are refused.
    pub orders_max: usize,
    /// Longs when a request does not say; without it half of the symbols, at most three.
    pub top_n: Option<usize>,
    /// Shorts.
    pub bottom_n: Option<usize>,
    /// Secret of the signatures; without it no request is checked.
    pub secret: Option<Vec<u8>>,
    /// Version that the services tell.
    pub version: &'static str,
}

/// The state behind both services.
#[derive(Debug)]
pub struct PaperWorld {
    settings: PaperSettings,
    universe: BTreeSet<String>,
    broker: PaperBroker,
    faults: PaperFaults,
    ledger: PaperLedger,
    auth: PaperAuth,
    /// The window that counts, and the requests in it.
    rate: (i64, u64),
    clock_offset_ms: i64,
}

impl PaperWorld {
    /// A world in which nothing has happened.
    #[must_use]
    pub fn new(settings: PaperSettings) -> Self {
        Self {
            universe: settings.symbols.iter().cloned().collect(),
            broker: PaperBroker::new(settings.seed),
            faults: PaperFaults::new(settings.seed),
            ledger: PaperLedger::new(settings.orders_max),
            auth: PaperAuth::new(settings.secret.clone()),
            rate: (0, 0),
            clock_offset_ms: 0,
            settings,
        }
    }

    /// Switches a fault on.
    ///
    /// # Errors
    ///
    /// [`FaultRefused`]: it was not understood.
    pub fn set_fault(&mut self, rule: &[u8]) -> Result<(), FaultRefused> {
        self.faults.set_fault(rule).map(drop)
    }

    /// Takes note of a request that arrived, and plans what happens to it.
    pub fn plan_request(&mut self, target: &PaperTarget, request: &PaperRequest, wall: TsMs) -> RequestPlan {
        let now = self.advance_to(wall);
        let undisturbed = BrokerPlan::undisturbed(self.settings.fill_after_ms);
        let PaperTarget::Service(route, written_id) = target else {
            return PaperFaults::new(0).plan_request(
                FaultedRequest { route: PaperRoute::Health, id: None, symbol: None, side: None },
                undisturbed,
            );
        };
        let sent = (*route == PaperRoute::Submit).then(|| read_order(&request.body).ok()).flatten();
        let id = match &sent {
            Some(content) => {
                Some(ClientOrderId::derive(content, &self.settings.strategy_id, UtcDate::at_moment(now)))
            }
            None => order_id_of(written_id.as_deref()),
        };
        if let (PaperRoute::Submit, Some(id)) = (route, id) {
            self.ledger.count(id, |counts| &mut counts.requests);
        }
        let on_record = id.and_then(|id| self.broker.order(id)).map(|order| order.content.clone());
        let content = sent.or(on_record);
        let symbol = content.as_ref().map(|content| content.symbol.as_str());
        let side = content.as_ref().map(|content| content.side);
        self.faults.plan_request(FaultedRequest { route: *route, id, symbol, side }, undisturbed)
    }

    /// Does what a request asks for, within `plan`, and answers it.
    pub fn answer_request(
        &mut self,
        target: &PaperTarget,
        request: &PaperRequest,
        plan: &RequestPlan,
        wall: TsMs,
    ) -> PaperAnswer {
        let now = self.advance_to(wall);
        match target {
            PaperTarget::Service(route, id) => {
                let answer = self.answer_service(*route, id.as_deref(), request, plan, now);
                match request.role {
                    PaperRole::Gateway => self.with_rate_headers(answer, now),
                    PaperRole::Signals => answer,
                }
            }
            PaperTarget::Root => PaperAnswer::json(
                200,
                &json!({
                    "service": "orchestrator paper", "version": self.settings.version, "status": "running",
                    "paper": true,
                }),
            ),
            PaperTarget::MarketPrices => self.answer_market_prices(now),
            PaperTarget::NotFound => PaperAnswer::detail(404, "Not Found"),
            PaperTarget::MethodNotAllowed => PaperAnswer::detail(405, "Method Not Allowed"),
            PaperTarget::Quote(_)
            | PaperTarget::SetQuote
            | PaperTarget::SetPosition
            | PaperTarget::SetClock
            | PaperTarget::ListFaults
            | PaperTarget::SetFault
            | PaperTarget::ClearFaults
            | PaperTarget::RemoveFault(_)
            | PaperTarget::Ledger
            | PaperTarget::Redirected => self.answer_control(target, request, now),
        }
    }

    fn answer_service(
        &mut self,
        route: PaperRoute,
        id: Option<&str>,
        request: &PaperRequest,
        plan: &RequestPlan,
        now: TsMs,
    ) -> PaperAnswer {
        let permission = match route {
            PaperRoute::Submit => Some(Permission::SubmitOrder),
            PaperRoute::Cancel => Some(Permission::CancelOrder),
            PaperRoute::Read | PaperRoute::Positions => Some(Permission::ViewPositions),
            PaperRoute::Signals => Some(Permission::GenerateSignals),
            PaperRoute::Config | PaperRoute::Health => None,
        };
        if let Some(refused) =
            permission.and_then(|permission| self.refuse_stranger(request, permission, now))
        {
            self.ledger.unauthorized += 1;
            return refused;
        }
        match route {
            PaperRoute::Submit => self.submit_order(request, plan, now),
            PaperRoute::Read => self.read_order(id.unwrap_or_default(), plan, now),
            PaperRoute::Cancel => self.cancel_order(id.unwrap_or_default(), plan, now),
            PaperRoute::Positions => self.list_positions(plan, now),
            PaperRoute::Config => self.tell_config(plan, now),
            PaperRoute::Health => match request.role {
                PaperRole::Signals => self.tell_signals_health(request, plan, now),
                PaperRole::Gateway => self.tell_health(plan, now),
            },
            PaperRoute::Signals => self.generate_signals(request, plan, now),
        }
    }

    fn refuse_stranger(
        &mut self,
        request: &PaperRequest,
        permission: Permission,
        now: TsMs,
    ) -> Option<PaperAnswer> {
        let signed = SignedRequest {
            method: &request.method,
            path: &request.path,
            query: &request.query,
            body: &request.body,
            service_id: "",
            strategy_id: "",
            user_id: "",
            timestamp_s: 0,
            nonce: "",
        };
        let object = |error: &str, message: &str| json!({ "error": error, "message": message });
        let now_s = now.0.div_euclid(1000);
        let (status, detail) = match self.auth.admit_request(&request.headers, &signed, permission, now_s) {
            Ok(()) => return None,
            Err(AuthRefusal::AuthenticationRequired) => {
                (401, object("authentication_required", "Authentication required"))
            }
            Err(AuthRefusal::InvalidToken) => {
                (401, object("invalid_internal_token", "Invalid internal token"))
            }
            Err(AuthRefusal::PermissionDenied(permission)) => {
                let message = format!("Permission {} required", permission.as_str());
                (403, object("permission_denied", &message))
            }
            Err(AuthRefusal::NoRoom) => {
                (503, object("service_unavailable", "Auth service temporarily unavailable"))
            }
        };
        Some(PaperAnswer::detail(status, detail))
    }

    /// The services' time at `wall`, with everything done that is due by then.
    fn advance_to(&mut self, wall: TsMs) -> TsMs {
        let now = wall.plus_ms(self.clock_offset_ms);
        let effects = self.broker.advance_to(now);
        self.ledger.count_effects(&effects);
        now
    }
}

#[cfg(test)]
mod tests;
