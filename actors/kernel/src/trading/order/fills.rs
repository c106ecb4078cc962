//! Fills of one order: each share counted once, whatever is told twice, late or out of order (ORD-3).
//!
//! A fill covers the shares between two cumulative quantities, and shares that are covered are never counted again:
//!
//! ```text
//! 0 ────────── 5 ──────── 7 ────────── 10        order of 10
//! │ counted    │          │ counted    │         7 to 10 was told before 5 to 7
//! │            │ missing  │            │         the next reading brings it
//! ```

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::id::ClientOrderId;
use crate::trading::wire_values::{decimal_of_json, decimal_of_text, is_within_bounds, read_object};

/// Spans that are kept of one order. The gateway's answers are bounded far below; one more is a contradiction.
const SPANS_MAX: usize = 10_000;

/// A fill as somebody told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillReport {
    /// Shares of the order that were filled after this fill, more than zero.
    #[serde(with = "rust_decimal::serde::str")]
    pub cumulative: Decimal,
    /// Shares of this fill, more than zero.
    #[serde(with = "rust_decimal::serde::str")]
    pub qty: Decimal,
    /// Price of each.
    #[serde(with = "rust_decimal::serde::str")]
    pub price: Decimal,
}

/// Shares of an order that are filled in all, as its own fields and the events on the bus tell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillTotal {
    /// Shares filled so far.
    #[serde(with = "rust_decimal::serde::str")]
    pub filled_qty: Decimal,
    /// Mean price of them.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub average_price: Option<Decimal>,
}

/// A fill that says nothing that could be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAFill {
    /// A field is missing or no amount.
    #[error("a fill's {0} cannot be read")]
    Unreadable(&'static str),
    /// The id is not `{client_order_id}_{cumulative}` of this order.
    #[error("a fill's id is not of this order")]
    ForeignId,
}

impl FillReport {
    /// Reads one of `metadata.fills` of order `id`.
    ///
    /// Source: CONTRACTS §5: `fill_id` is `{client_order_id}_{cumulative}`.
    ///
    /// # Errors
    ///
    /// [`NotAFill`]: a field that cannot be read, or an id of another order.
    pub fn of_json(id: ClientOrderId, fill: &RawValue) -> Result<Self, NotAFill> {
        #[derive(Deserialize)]
        struct Fields {
            fill_id: String,
            fill_qty: Box<RawValue>,
            fill_price: Box<RawValue>,
        }
        let fields: Fields = read_object(fill.get().as_bytes()).map_err(|_| NotAFill::Unreadable("shape"))?;
        let (owner, cumulative) = fields.fill_id.rsplit_once('_').ok_or(NotAFill::ForeignId)?;
        if ClientOrderId::from_hex(owner) != Some(id) {
            return Err(NotAFill::ForeignId);
        }
        let cumulative = decimal_of_text(cumulative);
        Ok(Self {
            cumulative: cumulative.map_err(|_| NotAFill::Unreadable("fill_id"))?,
            qty: decimal_of_json(&fields.fill_qty).map_err(|_| NotAFill::Unreadable("fill_qty"))?,
            price: decimal_of_json(&fields.fill_price).map_err(|_| NotAFill::Unreadable("fill_price"))?,
        })
    }
}

/// Stage of the order's life at which a fill came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FillMoment {
    /// While the order was open, or its state unknown.
    Open,
    /// After a cancel was asked for.
    AfterCancel,
    /// After the order had ended, by what was known: a correction.
    AfterEnd,
}

/// Result of taking a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FillTaken {
    /// Shares that were not counted before; zero when all were.
    pub qty: Decimal,
    /// Price of each.
    pub price: Decimal,
    /// Stage at which it came.
    pub moment: FillMoment,
    /// Contradiction to what was known; a human should see it.
    pub contradiction: Option<FillContradiction>,
}

/// A report that does not fit what was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillContradiction {
    /// A quantity or a price that is not more than zero or out of all bounds, or a fill of more than its cumulative
    /// quantity. Not counted.
    #[error("not a possible fill")]
    Impossible,
    /// The same shares at another price. The first price stays.
    #[error("the same shares were told at another price")]
    OtherPrice,
    /// Shares of two fills overlap in part. Each share is counted once.
    #[error("two fills overlap")]
    Overlap,
    /// More shares than were ordered. They are counted: the position has them.
    #[error("more shares than were ordered")]
    BeyondOrder,
    /// More spans than are kept. Not counted.
    #[error("too many fills")]
    TooMany,
}

/// Source of a span's price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SpanSource {
    /// A fill.
    Told,
    /// The rest of an order's `filled_qty` at the price that its average leaves.
    Implied,
}

/// Shares `from` to `to` of the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    #[serde(with = "rust_decimal::serde::str")]
    from: Decimal,
    #[serde(with = "rust_decimal::serde::str")]
    to: Decimal,
    #[serde(with = "rust_decimal::serde::str")]
    price: Decimal,
    source: SpanSource,
}

impl Span {
    fn qty(&self) -> Decimal {
        self.to - self.from
    }
}

/// The shares of one order that are filled, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillBook {
    #[serde(with = "rust_decimal::serde::str")]
    ordered: Decimal,
    /// Sorted, without overlap.
    spans: Vec<Span>,
}

impl FillBook {
    /// Nothing of `ordered` shares is filled.
    #[must_use]
    pub fn new(ordered: u64) -> Self {
        Self { ordered: ordered.into(), spans: Vec::new() }
    }

    /// Shares counted.
    #[must_use]
    pub fn filled_qty(&self) -> Decimal {
        self.spans.iter().map(Span::qty).sum()
    }

    /// Cost of the counted shares: the sum of quantity × price.
    #[must_use]
    pub fn total_cost(&self) -> Decimal {
        self.spans.iter().map(|span| span.qty() * span.price).sum()
    }

    /// Mean price of the counted shares; nothing without any.
    #[must_use]
    pub fn average_price(&self) -> Option<Decimal> {
        self.total_cost().checked_div(self.filled_qty())
    }

    /// Tells whether shares are missing before the last known one: a report came before an earlier one.
    #[must_use]
    pub fn has_gap(&self) -> bool {
        self.spans.last().is_some_and(|last| last.to != self.filled_qty())
    }

    /// Takes a report of a fill.
    pub fn take_report(&mut self, report: &FillReport, moment: FillMoment) -> FillTaken {
        let FillReport { cumulative, qty, price } = *report;
        let is_possible = Decimal::ZERO < qty
            && qty <= cumulative
            && Decimal::ZERO < price
            && is_within_bounds(cumulative)
            && is_within_bounds(price);
        if !is_possible {
            return nothing_taken(price, moment, FillContradiction::Impossible);
        }
        self.cover_range(cumulative - qty, cumulative, price, moment)
    }

    /// Takes a total: what no fill covers of it is filled all the same, at the price that the mean leaves. Called after
    /// the fills of the same reading. Nothing when it tells no more than is known, or no price.
    pub fn take_total(&mut self, total: &FillTotal, moment: FillMoment) -> Option<FillTaken> {
        let filled_qty = total.filled_qty;
        let average_price =
            total.average_price.filter(|price| Decimal::ZERO < *price && is_within_bounds(*price))?;
        if !is_within_bounds(filled_qty) || SPANS_MAX <= self.spans.len() {
            return None;
        }
        let missing = filled_qty - self.covered_qty(Decimal::ZERO, filled_qty);
        if missing <= Decimal::ZERO {
            return None;
        }
        let cost = self.cost_of(filled_qty);
        let left = filled_qty.checked_mul(average_price)?.checked_sub(cost)?.checked_div(missing)?;
        // A rounded mean may leave nothing for the rest: then the mean is the better price.
        let price = if Decimal::ZERO < left && is_within_bounds(left) { left } else { average_price };
        let contradiction = self.beyond_order(filled_qty);
        let mut taken = FillTaken { qty: Decimal::ZERO, price, moment, contradiction };
        for (from, to) in self.uncovered_ranges(Decimal::ZERO, filled_qty) {
            taken.qty += to - from;
            self.insert_span(Span { from, to, price, source: SpanSource::Implied });
        }
        Some(taken)
    }

    fn cover_range(&mut self, from: Decimal, to: Decimal, price: Decimal, moment: FillMoment) -> FillTaken {
        if SPANS_MAX <= self.spans.len() {
            return nothing_taken(price, moment, FillContradiction::TooMany);
        }
        let contradiction = self.find_contradiction(from, to, price);
        let mut qty = Decimal::ZERO;
        for (from, to) in self.uncovered_ranges(from, to) {
            qty += to - from;
            self.insert_span(Span { from, to, price, source: SpanSource::Told });
        }
        FillTaken { qty, price, moment, contradiction }
    }

    /// The contradiction of `from` to `to` at `price` to the spans that are there. An implied span fits every fill: it
    /// only stood for it.
    fn find_contradiction(&self, from: Decimal, to: Decimal, price: Decimal) -> Option<FillContradiction> {
        let told = |span: &&Span| span.source == SpanSource::Told;
        let overlapping: Vec<&Span> = self.overlapping_spans(from, to).filter(told).collect();
        match overlapping.as_slice() {
            [] => self.beyond_order(to),
            [same] if same.from == from && same.to == to => {
                (same.price != price).then_some(FillContradiction::OtherPrice)
            }
            _ => Some(FillContradiction::Overlap),
        }
    }

    fn beyond_order(&self, to: Decimal) -> Option<FillContradiction> {
        (self.ordered < to).then_some(FillContradiction::BeyondOrder)
    }

    fn overlapping_spans(&self, from: Decimal, to: Decimal) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(move |span| span.from < to && from < span.to)
    }

    /// Shares of `from` to `to` that are counted.
    fn covered_qty(&self, from: Decimal, to: Decimal) -> Decimal {
        self.overlapping_spans(from, to).map(|span| span.to.min(to) - span.from.max(from)).sum()
    }

    /// Cost of the counted ones of the first `to` shares.
    fn cost_of(&self, to: Decimal) -> Decimal {
        self.overlapping_spans(Decimal::ZERO, to).map(|span| (span.to.min(to) - span.from) * span.price).sum()
    }

    /// The parts of `from` to `to` that are not counted, in order.
    fn uncovered_ranges(&self, from: Decimal, to: Decimal) -> Vec<(Decimal, Decimal)> {
        let mut holes = Vec::new();
        let mut at = from;
        for span in self.overlapping_spans(from, to) {
            if at < span.from {
                holes.push((at, span.from));
            }
            at = at.max(span.to);
        }
        if at < to {
            holes.push((at, to));
        }
        holes
    }

    fn insert_span(&mut self, span: Span) {
        let at = self.spans.partition_point(|known| known.from < span.from);
        self.spans.insert(at, span);
    }
}

const fn nothing_taken(price: Decimal, moment: FillMoment, why: FillContradiction) -> FillTaken {
    FillTaken { qty: Decimal::ZERO, price, moment, contradiction: Some(why) }
}

#[cfg(test)]
mod tests;
