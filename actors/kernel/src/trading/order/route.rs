//! The gateway's configuration against ours: an order goes only where both agree on what it can cost.
//!
//! | ours | the gateway's, read less than a minute ago | an order |
//! |---|---|---|
//! | dry run | dry run | is sent: the gateway logs it |
//! | dry run | not, or not known | is recorded here and nothing is sent |
//! | real | dry run, or not known | is refused |
//! | paper and live differ | | is refused |

use std::time::Duration;

use serde::Deserialize;

use crate::ids::TsMs;
use crate::json::describe_mistake;
use crate::trading::wire_values::read_object;

/// Age at which the gateway's configuration counts no more.
pub const GATEWAY_CONFIG_AGE_MAX: Duration = Duration::from_secs(60);

/// The two settings that decide which money an order costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct GatewayMode {
    /// Orders are logged and never placed.
    pub dry_run: bool,
    /// Orders are placed with money that is not real.
    pub alpaca_paper: bool,
}

impl GatewayMode {
    /// Reads the answer to `GET /api/v1/config`.
    ///
    /// # Errors
    ///
    /// The mistake, in words.
    pub fn from_config_answer(body: &[u8]) -> Result<Self, String> {
        read_object(body).map_err(|error| describe_mistake(&error))
    }
}

/// Destination of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderRoute {
    /// To the gateway.
    Send,
    /// Into our records only.
    RecordOnly,
}

/// Reason for which an order goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteRefused {
    /// One side trades with real money, the other does not.
    #[error("paper against live: alpaca_paper is {ours} here and {theirs} at the gateway")]
    PaperAgainstLive {
        /// Our setting.
        ours: bool,
        /// The gateway's.
        theirs: bool,
    },
    /// Our orders are meant to be placed, the gateway only logs them.
    #[error("dry_run is false here and true at the gateway")]
    GatewayInDryRun,
    /// The gateway's configuration was not read in the last minute.
    #[error("the gateway's configuration is not known")]
    NotKnown,
}

/// Returns where an order goes at `now`. `theirs` is the gateway's mode and when it was read.
///
/// # Errors
///
/// [`RouteRefused`]: it may not go anywhere.
pub fn route_order(
    ours: GatewayMode,
    theirs: Option<(GatewayMode, TsMs)>,
    now: TsMs,
) -> Result<OrderRoute, RouteRefused> {
    let age_max = i64::try_from(GATEWAY_CONFIG_AGE_MAX.as_millis()).unwrap_or(i64::MAX);
    let is_fresh = |read_at: TsMs| read_at <= now && now < read_at.plus_ms(age_max);
    match theirs.filter(|(_, read_at)| is_fresh(*read_at)) {
        Some((theirs, _)) if theirs.alpaca_paper != ours.alpaca_paper => {
            Err(RouteRefused::PaperAgainstLive { ours: ours.alpaca_paper, theirs: theirs.alpaca_paper })
        }
        Some((theirs, _)) => match (ours.dry_run, theirs.dry_run) {
            (true, true) | (false, false) => Ok(OrderRoute::Send),
            (true, false) => Ok(OrderRoute::RecordOnly),
            (false, true) => Err(RouteRefused::GatewayInDryRun),
        },
        None if ours.dry_run => Ok(OrderRoute::RecordOnly),
        None => Err(RouteRefused::NotKnown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TsMs = TsMs(1_735_830_000_000);

    fn mode(dry_run: bool, alpaca_paper: bool) -> GatewayMode {
        GatewayMode { dry_run, alpaca_paper }
    }

    fn route(dry_run: bool, theirs: Option<GatewayMode>, age_ms: i64) -> Result<OrderRoute, RouteRefused> {
        let theirs = theirs.map(|theirs| (theirs, NOW.plus_ms(-age_ms)));
        route_order(mode(dry_run, true), theirs, NOW)
    }

    #[test]
    fn an_order_goes_where_both_sides_agree() {
        use OrderRoute::{RecordOnly, Send};
        assert_eq!(route(true, Some(mode(true, true)), 0), Ok(Send));
        assert_eq!(route(false, Some(mode(false, true)), 59_999), Ok(Send));
        assert_eq!(route(true, Some(mode(false, true)), 0), Ok(RecordOnly));
        assert_eq!(route(false, Some(mode(true, true)), 0), Err(RouteRefused::GatewayInDryRun));
    }

    #[test]
    fn an_old_or_missing_configuration_of_the_gateway_sends_nothing() {
        for (theirs, age_ms) in [(None, 0), (Some(mode(true, true)), 60_000), (Some(mode(true, true)), -1)] {
            assert_eq!(route(true, theirs, age_ms), Ok(OrderRoute::RecordOnly));
        }
        assert_eq!(route(false, Some(mode(false, true)), 60_000), Err(RouteRefused::NotKnown));
        assert_eq!(route(false, None, 0), Err(RouteRefused::NotKnown));
    }

    #[test]
    fn paper_against_live_refuses_every_order() {
        for dry_run in [true, false] {
            let refused = route(dry_run, Some(mode(dry_run, false)), 0);
            assert_eq!(refused, Err(RouteRefused::PaperAgainstLive { ours: true, theirs: false }));
        }
    }

    #[test]
    fn the_gateways_configuration_is_read_from_its_fields() {
        let body =
            r#"{"service":"execution_gateway","dry_run":false,"alpaca_paper":true,"environment":"dev"}"#;

        assert_eq!(GatewayMode::from_config_answer(body.as_bytes()), Ok(mode(false, true)));
        for body in ["", "{}", r#"{"dry_run":"false","alpaca_paper":true}"#, "[false,true]"] {
            assert!(GatewayMode::from_config_answer(body.as_bytes()).is_err(), "{body}");
        }
    }
}
