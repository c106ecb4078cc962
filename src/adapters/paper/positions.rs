//! Positions of the paper broker: what its fills made of the account.

use orchestrator_kernel::ids::TsMs;
use rust_decimal::Decimal;

/// Decimal places of an average price.
const PRICE_PLACES: u32 = 8;

/// Shares of one symbol. Less than zero: sold short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PaperPosition {
    /// Shares, with their sign.
    pub qty: Decimal,
    /// Mean price at which they were entered.
    pub avg_entry_price: Decimal,
    /// Profit of what was closed.
    pub realized_pl: Decimal,
    /// Moment of the last change.
    pub updated_at: TsMs,
}

impl PaperPosition {
    /// Books a fill of `qty` shares, with their sign, at `price`; returns the profit that it realised.
    pub(super) fn book_fill(&mut self, qty: Decimal, price: Decimal, at: TsMs) -> Decimal {
        self.updated_at = at;
        let is_opening = self.qty.is_zero() || self.qty.is_sign_positive() == qty.is_sign_positive();
        if is_opening {
            let cost = self.qty * self.avg_entry_price + qty * price;
            self.qty += qty;
            self.avg_entry_price = (cost / self.qty).round_dp(PRICE_PLACES);
            return Decimal::ZERO;
        }
        let closed = qty.abs().min(self.qty.abs());
        let per_share = if self.qty.is_sign_positive() {
            price - self.avg_entry_price
        } else {
            self.avg_entry_price - price
        };
        let realized = closed * per_share;
        self.realized_pl += realized;
        let was_long = self.qty.is_sign_positive();
        self.qty += qty;
        if self.qty.is_zero() {
            self.avg_entry_price = Decimal::ZERO;
        } else if self.qty.is_sign_positive() != was_long {
            self.avg_entry_price = price;
        }
        realized
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn fills_open_close_and_turn_a_position() {
        let mut position = PaperPosition::default();
        for (qty, price, realized, held, entry) in [
            ("10", "100", "0", "10", "100"),
            ("10", "110", "0", "20", "105"),
            ("-5", "120", "75", "15", "105"),
            ("-25", "100", "-75", "-10", "100"),
            ("4", "90", "40", "-6", "100"),
            ("6", "100.5", "-3.0", "0", "0"),
        ] {
            assert_eq!(position.book_fill(d(qty), d(price), TsMs(1)), d(realized), "{qty} at {price}");
            assert_eq!((position.qty, position.avg_entry_price), (d(held), d(entry)), "{qty} at {price}");
        }
        assert_eq!(position.realized_pl, d("37"));
    }
}
