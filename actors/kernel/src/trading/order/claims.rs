//! Ids of the day: two intents that come to one id are one order at the gateway, so the second is not sent.

use std::collections::BTreeMap;

use super::id::{ClientOrderId, UtcDate};

/// An intent that would be an order that exists already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("duplicate_order: {run_id}")]
pub struct DuplicateOrder {
    /// The run whose intent has the id.
    pub run_id: String,
}

/// Order ids of the last two dates, each with the run whose intent has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderClaims {
    claims: BTreeMap<ClientOrderId, (UtcDate, String)>,
}

impl OrderClaims {
    /// Claims `ids`, all that an intent of `date` may get, for `run_id`. Claiming them again for the same run changes
    /// nothing: a run that a crash interrupted finds its own intent.
    ///
    /// # Errors
    ///
    /// [`DuplicateOrder`]: another run has one of them. Nothing is claimed then.
    pub fn claim_ids(
        &mut self,
        ids: &[ClientOrderId],
        date: UtcDate,
        run_id: &str,
    ) -> Result<(), DuplicateOrder> {
        let other = ids.iter().filter_map(|id| self.claims.get(id)).find(|(_, owner)| owner != run_id);
        if let Some((_, owner)) = other {
            return Err(DuplicateOrder { run_id: owner.clone() });
        }
        self.claims.extend(ids.iter().map(|id| (*id, (date, run_id.to_owned()))));
        Ok(())
    }

    /// Forgets the claims of dates before yesterday's: their ids cannot come again.
    pub fn forget_before(&mut self, today: UtcDate) {
        self.claims.retain(|_, (date, _)| today.0 - 1 <= date.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Symbol, TsMs};
    use crate::trading::order::id::possible_ids;
    use crate::trading::order::{OrderContent, OrderSide};

    const NOON: TsMs = TsMs(1_735_819_200_000);
    const MIDNIGHT: TsMs = TsMs(1_735_862_400_000);

    fn ids(qty: u64, at: TsMs) -> Vec<ClientOrderId> {
        let content = OrderContent::market_order(Symbol::from("AAPL"), OrderSide::Buy, qty);
        possible_ids(&content, "alpha_baseline", at, 300_000)
    }

    #[test]
    fn the_second_intent_of_an_id_is_named_a_duplicate_of_the_first() {
        let mut claims = OrderClaims::default();
        let today = UtcDate::at_moment(NOON);

        assert_eq!(claims.claim_ids(&ids(1, NOON), today, "run-1"), Ok(()));
        assert_eq!(claims.claim_ids(&ids(1, NOON), today, "run-1"), Ok(()));
        let refused = claims.claim_ids(&ids(1, NOON), today, "run-2").unwrap_err();
        assert_eq!(refused.to_string(), "duplicate_order: run-1");
        assert_eq!(claims.claim_ids(&ids(2, NOON), today, "run-2"), Ok(()));
    }

    #[test]
    fn near_midnight_the_neighbouring_dates_id_is_claimed_too() {
        let (before, behind) = (MIDNIGHT.plus_ms(-1000), MIDNIGHT.plus_ms(1000));
        let mut claims = OrderClaims::default();

        assert_eq!(claims.claim_ids(&ids(1, before), UtcDate::at_moment(before), "run-1"), Ok(()));
        assert!(claims.claim_ids(&ids(1, behind), UtcDate::at_moment(behind), "run-2").is_err());
        let next_noon = MIDNIGHT.plus_ms(43_200_000);
        assert!(claims.claim_ids(&ids(1, next_noon), UtcDate::at_moment(next_noon), "run-3").is_err());
    }

    #[test]
    fn claims_of_older_dates_are_forgotten() {
        let mut claims = OrderClaims::default();
        let date = UtcDate::at_moment(NOON);
        assert_eq!(claims.claim_ids(&ids(1, NOON), date, "run-1"), Ok(()));

        claims.forget_before(UtcDate(date.0 + 1));
        assert!(claims.claim_ids(&ids(1, NOON), date, "run-2").is_err());
        claims.forget_before(UtcDate(date.0 + 2));
        assert_eq!(claims, OrderClaims::default());
    }
}
