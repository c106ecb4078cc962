//! One order: the broker's side of it, and the record that the gateway tells from.

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::trading::order::OrderContent;
use orchestrator_kernel::trading::order::id::ClientOrderId;
use orchestrator_kernel::trading::order::status::OrderStatus;
use rust_decimal::Decimal;
use sha2::{Digest as _, Sha256};

use super::BrokerPlan;

/// Decimal places of an average price.
const PRICE_PLACES: u32 = 8;

/// The order as the broker has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BrokerSide {
    /// It was never placed there.
    Never,
    /// It may be filled.
    Working,
    /// It has ended: filled, canceled or expired.
    Ended,
}

/// Shares that were filled at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PaperFill {
    /// Shares of the order that are filled with this fill.
    pub cumulative: u64,
    /// Shares of this fill.
    pub qty: u64,
    /// Price of each.
    pub price: Decimal,
    /// Profit that it realised.
    pub realized_pl: Decimal,
    /// Its moment.
    pub at: TsMs,
}

/// An order, and what the gateway says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PaperOrder {
    /// Its id at the gateway.
    pub id: ClientOrderId,
    /// Its content, prices quantised.
    pub content: OrderContent,
    /// Moment at which the gateway made it.
    pub created_at: TsMs,
    /// Moment of its last change.
    pub updated_at: TsMs,
    /// The broker's id.
    pub broker_order_id: Option<String>,
    /// Status that the gateway tells.
    pub status: OrderStatus,
    /// Shares that its own fields tell: those of fills after the record was frozen are not among them.
    pub told_qty: u64,
    /// Mean price of those.
    pub told_price: Option<Decimal>,
    /// The gateway's or the broker's words for what went wrong.
    pub error_message: Option<String>,
    /// The order as the broker has it.
    pub broker: BrokerSide,
    /// Every fill, in order: the truth.
    pub fills: Vec<PaperFill>,
    pub(super) plan: BrokerPlan,
    pub(super) is_frozen: bool,
    pub(super) is_matched: bool,
    pub(super) hidden_until: TsMs,
    pub(super) is_gone: bool,
}

impl PaperOrder {
    pub(super) const fn on_record(
        id: ClientOrderId,
        content: OrderContent,
        status: OrderStatus,
        now: TsMs,
    ) -> Self {
        Self {
            id,
            content,
            created_at: now,
            updated_at: now,
            broker_order_id: None,
            status,
            told_qty: 0,
            told_price: None,
            error_message: None,
            broker: BrokerSide::Never,
            fills: Vec::new(),
            plan: BrokerPlan::undisturbed(0),
            is_frozen: false,
            is_matched: false,
            hidden_until: TsMs(i64::MIN),
            is_gone: false,
        }
    }

    /// Shares that are filled at the broker.
    #[must_use]
    pub(crate) fn filled_qty(&self) -> u64 {
        self.fills.last().map_or(0, |fill| fill.cumulative)
    }

    /// Shares that are not.
    #[must_use]
    pub(crate) fn remaining_qty(&self) -> u64 {
        self.content.qty - self.filled_qty()
    }

    /// What was decided about it when it was accepted.
    #[must_use]
    pub(crate) const fn plan(&self) -> &BrokerPlan {
        &self.plan
    }

    /// Tells whether the gateway lost it.
    #[must_use]
    pub(crate) const fn is_gone(&self) -> bool {
        self.is_gone
    }

    pub(super) fn acknowledge(&mut self, at: TsMs) {
        if !self.is_frozen && self.status == OrderStatus::PendingNew {
            self.status = OrderStatus::New;
            self.updated_at = at;
        }
    }

    /// The next fill, of at most what is left; nothing when nothing is left.
    pub(super) fn next_fill(&self, qty: u64, price: Decimal, at: TsMs) -> Option<PaperFill> {
        let qty = qty.min(self.remaining_qty());
        let cumulative = self.filled_qty() + qty;
        (0 < qty).then_some(PaperFill { cumulative, qty, price, realized_pl: Decimal::ZERO, at })
    }

    pub(super) fn book_fill(&mut self, fill: PaperFill) {
        let at = fill.at;
        self.fills.push(fill);
        if self.is_frozen {
            return;
        }
        let cost: Decimal = self.fills.iter().map(|fill| fill.price * Decimal::from(fill.qty)).sum();
        self.told_qty = self.filled_qty();
        self.told_price = Some((cost / Decimal::from(self.told_qty)).round_dp(PRICE_PLACES).normalize());
        self.status =
            if self.remaining_qty() == 0 { OrderStatus::Filled } else { OrderStatus::PartiallyFilled };
        self.updated_at = at;
    }

    /// Tells the end, unless the record is frozen or the order is filled.
    pub(super) fn tell_end(&mut self, status: OrderStatus, at: TsMs) {
        if !self.is_frozen && self.status != OrderStatus::Filled {
            self.status = status;
            self.updated_at = at;
        }
    }
}

/// An id in the form of a UUID that follows from the seed and the order.
pub(super) fn broker_order_id(seed: u64, id: ClientOrderId) -> String {
    let digest: [u8; 32] = Sha256::digest(format!("paper|{seed}|{id}")).into();
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}
