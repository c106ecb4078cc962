//! The request for a decision: the one event that no record gives, because a stage asks and waits for the answers.

use serde_json::json;

use super::envelope::{EventTrace, TradingEvent};
use super::names::TradingEventKind;
use crate::ids::{Symbol, TsMs};
use crate::rfc3339::to_rfc3339;
use crate::trading::ids::{
    AnalysisRequestId, CorrelationId, CycleId, StageName, StrategyName, TradingEventId,
};

/// First words of a request's identifier on the wire: an answer that comes late is known by them for one.
const REQUEST: &str = "analysis-";

/// A request for a decision of one strategy about one symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnalysisRequest {
    /// The cycle that asks.
    pub cycle_id: CycleId,
    /// Its stage.
    pub stage: StageName,
    /// The strategy.
    pub strategy: StrategyName,
    /// The symbol.
    pub symbol: Symbol,
    /// When.
    pub at: TsMs,
}

impl AnalysisRequest {
    fn request_id(&self) -> AnalysisRequestId {
        AnalysisRequestId::derive(self.cycle_id, &self.stage, &self.strategy, &self.symbol)
    }

    /// The correlation that an answer carries, which is also the `requestId`.
    #[must_use]
    pub fn correlation_id(&self) -> CorrelationId {
        #[expect(clippy::expect_used, reason = "the text is a correlation")]
        CorrelationId::new(&format!("{REQUEST}{}", self.request_id())).expect("a correlation")
    }

    /// Whether a correlation is that of a request, of whatever cycle.
    #[must_use]
    pub fn is_answered_by(correlation: &CorrelationId) -> bool {
        correlation.as_str().strip_prefix(REQUEST).is_some_and(|id| AnalysisRequestId::parse(id).is_some())
    }

    /// The event. Asked again it is the same event, but for its time.
    #[must_use]
    pub fn to_event(&self) -> TradingEvent {
        let (cycle, correlation) = (self.cycle_id, self.correlation_id());
        TradingEvent {
            event_id: TradingEventId::of_request(self.request_id()),
            kind: TradingEventKind::AnalysisRequested,
            at: self.at,
            trace: EventTrace::of_cycle_part(cycle, correlation.as_str()),
            payload: json!({
                "requestId": correlation,
                "symbol": self.symbol,
                "strategyId": self.strategy,
                "cycleId": cycle.to_string(),
                "stage": self.stage,
                "analysisType": "full",
                "priority": "normal",
                "requestedAt": to_rfc3339(self.at),
            }),
            correlation,
            partition_key: cycle.to_string(),
            idempotency_key: None,
        }
    }
}
