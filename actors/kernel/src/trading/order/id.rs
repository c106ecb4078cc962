//! The order's id by the gateway's own formula, and the ids that it may have got near midnight.
//!
//! ```text
//!                 300 s           midnight UTC            300 s
//! one id ───────────┤ two ids: the date may be either's ├──────────── one id
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{OrderContent, quantise_price};
use crate::engine::run_id::hex_digit;
use crate::ids::TsMs;
use crate::rfc3339::to_rfc3339;

const DAY_MS: i64 = 86_400_000;

/// A date of the calendar in UTC, as days since 1970-01-01. Shown as `2025-01-02`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UtcDate(pub i64);

impl UtcDate {
    /// The date at this moment.
    #[must_use]
    pub const fn at_moment(moment: TsMs) -> Self {
        Self(moment.0.div_euclid(DAY_MS))
    }
}

impl fmt::Display for UtcDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let midnight = to_rfc3339(TsMs(self.0.saturating_mul(DAY_MS)));
        f.write_str(midnight.split('T').next().unwrap_or_default())
    }
}

/// The id under which the gateway keeps an order: 24 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientOrderId([u8; 12]);

impl ClientOrderId {
    /// Derives the id that the gateway derives: the first 24 hexadecimal digits of the SHA-256 of
    /// `{symbol}|{side}|{qty}|{limit}|{stop}|{order_type}|{tif}|{strategy_id}|{UTC date}`, prices with two decimals
    /// (half up) or `None`.
    ///
    /// `strategy_id` is the gateway's own, never the name of one of our strategies.
    ///
    /// Source: CONTRACTS §5.
    #[must_use]
    pub fn derive(content: &OrderContent, strategy_id: &str, date: UtcDate) -> Self {
        let price = |price| match price {
            Some(price) => format!("{:.2}", quantise_price(price)),
            None => "None".to_owned(),
        };
        let text = format!(
            "{}|{}|{}|{}|{}|{}|{}|{strategy_id}|{date}",
            content.symbol,
            content.side.as_str(),
            content.qty,
            price(content.limit_price),
            price(content.stop_price),
            content.order_type.as_str(),
            content.time_in_force.as_str(),
        );
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let mut id = [0; 12];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(id)
    }

    /// Reads what [`Display`](fmt::Display) writes.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 24 {
            return None;
        }
        let mut id = [0; 12];
        for (byte, pair) in id.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
        }
        Some(Self(id))
    }
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for ClientOrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.iter().flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 0xf)]);
        f.write_str(&digits.map(char::from).collect::<String>())
    }
}

impl fmt::Debug for ClientOrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientOrderId({self})")
    }
}

/// The dates on which the gateway's clock may have stood when ours said `moment`: one, or near midnight two, ours
/// first. `window_ms` is how near.
#[must_use]
pub fn possible_dates(moment: TsMs, window_ms: i64) -> Vec<UtcDate> {
    let ours = UtcDate::at_moment(moment);
    let (before, after) =
        (UtcDate::at_moment(moment.plus_ms(-window_ms)), UtcDate::at_moment(moment.plus_ms(window_ms)));
    let mut dates = vec![ours];
    dates.extend([before, after].into_iter().filter(|date| *date != ours));
    dates
}

/// The ids that an order sent at `moment` may have at the gateway: the expected one first.
#[must_use]
pub fn possible_ids(
    content: &OrderContent,
    strategy_id: &str,
    moment: TsMs,
    window_ms: i64,
) -> Vec<ClientOrderId> {
    let dates = possible_dates(moment, window_ms).into_iter();
    dates.map(|date| ClientOrderId::derive(content, strategy_id, date)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Symbol;
    use crate::trading::order::{OrderSide, OrderType, TimeInForce};

    /// 2025-01-02T00:00:00Z.
    const MIDNIGHT: i64 = 1_735_776_000_000;
    const DATE: UtcDate = UtcDate(20_090);

    fn apple() -> OrderContent {
        OrderContent::market_order(Symbol::from("AAPL"), OrderSide::Buy, 133)
    }

    fn microsoft(limit: &str) -> OrderContent {
        OrderContent {
            order_type: OrderType::Limit,
            limit_price: Some(limit.parse().unwrap()),
            time_in_force: TimeInForce::Gtc,
            ..OrderContent::market_order(Symbol::from("MSFT"), OrderSide::Sell, 5)
        }
    }

    fn id(content: &OrderContent) -> String {
        ClientOrderId::derive(content, "alpha_baseline", DATE).to_string()
    }

    #[test]
    fn ids_match_the_recorded_vectors() {
        assert_eq!(DATE.to_string(), "2025-01-02");
        assert_eq!(id(&apple()), "479131535213089960f7eebb");
        assert_eq!(id(&microsoft("300.50")), "dbc1c3abf98c0cb5561d131a");
    }

    #[test]
    fn prices_are_quantised_half_up_before_they_are_written() {
        assert_eq!(id(&microsoft("300.5")), id(&microsoft("300.50")));
        assert_eq!(id(&microsoft("300.505")), id(&microsoft("300.51")));
        assert_eq!(id(&microsoft("300.515")), id(&microsoft("300.52")));
        assert_eq!(id(&microsoft("300.5049")), id(&microsoft("300.50")));
    }

    #[test]
    fn each_part_of_an_order_is_part_of_its_id() {
        let strategy = ClientOrderId::derive(&apple(), "other", DATE).to_string();
        let date = ClientOrderId::derive(&apple(), "alpha_baseline", UtcDate(20_091)).to_string();
        let others = [
            OrderContent { symbol: Symbol::from("AAPLX"), ..apple() },
            OrderContent { side: OrderSide::Sell, ..apple() },
            OrderContent { qty: 134, ..apple() },
            OrderContent { order_type: OrderType::Stop, ..apple() },
            OrderContent { limit_price: Some("1".parse().unwrap()), ..apple() },
            OrderContent { stop_price: Some("1".parse().unwrap()), ..apple() },
            OrderContent { time_in_force: TimeInForce::Fok, ..apple() },
        ];
        let mut ids: Vec<String> = others.iter().map(id).chain([strategy, date, id(&apple())]).collect();

        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 10);
    }

    #[test]
    fn near_midnight_the_id_may_be_the_neighbouring_dates() {
        let dates = |offset: i64| -> Vec<i64> {
            possible_dates(TsMs(MIDNIGHT + offset), 300_000).iter().map(|date| date.0).collect()
        };

        assert_eq!(dates(43_200_000), [20_090]);
        assert_eq!(dates(300_000), [20_090]);
        assert_eq!(dates(299_999), [20_090, 20_089]);
        assert_eq!(dates(0), [20_090, 20_089]);
        assert_eq!(dates(-1), [20_089, 20_090]);
        assert_eq!(dates(-300_000), [20_089, 20_090]);
        assert_eq!(dates(-300_001), [20_089]);
        let ids = possible_ids(&apple(), "alpha_baseline", TsMs(MIDNIGHT), 300_000);
        assert_eq!(ids.len(), 2);
        assert_eq!(ids[0].to_string(), "479131535213089960f7eebb");
    }

    #[test]
    fn what_is_no_id_is_not_read_as_one() {
        for text in [
            "",
            "47913153521308996",
            "479131535213089960F7EEBB",
            "479131535213089960f7eebbb",
            "é79131535213089960f7eeb",
        ] {
            assert_eq!(ClientOrderId::from_hex(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_read_as_it_is_written(bytes in any::<[u8; 12]>()) {
            let id = ClientOrderId(bytes);

            prop_assert_eq!(ClientOrderId::from_hex(&id.to_string()), Some(id));
        }
    }
}
