//! The Signal Service: momentum, in the recorded shape.

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::trading::order::id::UtcDate;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::PaperWorld;
use super::gateway::refusal_answer;
use crate::adapters::paper::answers::{PaperAnswer, schema_answer, utc_text};
use crate::adapters::paper::bars::{PaperBars, weekday_until};
use crate::adapters::paper::faults::{RequestPlan, SignalsFault};
use crate::adapters::paper::ledger::plain;
use crate::adapters::paper::momentum::{PaperSignal, SideCounts, compute_signals};
use crate::adapters::paper::request::{PaperRequest, read_signals_body};

/// Version of the model.
const MODEL_VERSION: &str = "paper-momentum-1";

#[derive(Serialize)]
struct SignalsAnswer {
    signals: Vec<Box<RawValue>>,
    metadata: SignalsMetadata,
}

#[derive(Serialize)]
struct SignalsMetadata {
    as_of_date: String,
    model_version: &'static str,
    strategy: String,
    num_signals: usize,
    generated_at: String,
    top_n: usize,
    bottom_n: usize,
}

impl PaperWorld {
    pub(super) fn generate_signals(
        &mut self,
        request: &PaperRequest,
        plan: &RequestPlan,
        now: TsMs,
    ) -> PaperAnswer {
        self.ledger.signals += 1;
        if let Some(refused) = refusal_answer(plan) {
            return refused;
        }
        let body = match read_signals_body(&request.body) {
            Ok(body) => body,
            Err(problems) => return schema_answer(&problems),
        };
        // Without a date: the last one that there is a bar of, also at a weekend.
        let today = weekday_until(UtcDate::at_moment(now));
        let date = body.as_of_date.unwrap_or(today);
        let usual = SideCounts::of_universe(body.symbols.len());
        let sides = SideCounts {
            top_n: body.top_n.or(self.settings.top_n).unwrap_or(usual.top_n),
            bottom_n: body.bottom_n.or(self.settings.bottom_n).unwrap_or(usual.bottom_n),
        };
        if UtcDate::at_moment(now) < date {
            return PaperAnswer::detail(400, format!("Invalid request: No features available for {date}"));
        }
        let bars = PaperBars::new(self.settings.seed);
        let signals = match compute_signals(&bars, &self.universe, &body.symbols, date, sides) {
            Ok(signals) => signals,
            Err(refused) => return PaperAnswer::detail(400, refused.to_string()),
        };
        let signals = write_signals(&signals, plan.signals);
        let metadata = SignalsMetadata {
            as_of_date: date.to_string(),
            model_version: MODEL_VERSION,
            strategy: self.settings.strategy_id.clone(),
            num_signals: signals.len(),
            generated_at: utc_text(now),
            top_n: sides.top_n,
            bottom_n: sides.bottom_n,
        };
        let signals = signals.into_iter().filter_map(|signal| RawValue::from_string(signal).ok()).collect();
        let mut answer = PaperAnswer::json(200, &SignalsAnswer { signals, metadata });
        if plan.signals == Some(SignalsFault::BareNan) {
            let text = String::from_utf8_lossy(&answer.body).replacen("\"NaN\"", "NaN", 1);
            answer.body = text.into_bytes();
        }
        answer
    }

    pub(super) fn tell_signals_health(
        &self,
        request: &PaperRequest,
        plan: &RequestPlan,
        now: TsMs,
    ) -> PaperAnswer {
        if let Some(refused) = refusal_answer(plan) {
            return refused;
        }
        if plan.is_not_ready && request.path == "/ready" {
            return PaperAnswer::detail(503, "Service not ready: degraded");
        }
        let status = if plan.is_not_ready { "degraded" } else { "healthy" };
        let body = json!({
            "status": status, "model_loaded": true, "redis_status": "disabled", "feature_cache_enabled": false,
            "service": "signal_service", "timestamp": utc_text(now),
            "model_info": { "strategy": self.settings.strategy_id, "version": MODEL_VERSION, "paper": true },
        });
        PaperAnswer::json(200, &body)
    }
}

/// The signals as JSON texts; amounts are numbers with the digits that they have.
fn write_signals(signals: &[PaperSignal], fault: Option<SignalsFault>) -> Vec<String> {
    let mut written: Vec<String> = Vec::with_capacity(signals.len());
    for (signal, position) in signals.iter().zip(0..) {
        let plain_weight = format!(",\"target_weight\":{}", plain(signal.target_weight));
        let is_first = position == 0;
        let weight = match fault {
            Some(SignalsFault::ZeroWeights) => ",\"target_weight\":0".to_owned(),
            Some(SignalsFault::BareNan) if is_first => ",\"target_weight\":\"NaN\"".to_owned(),
            Some(SignalsFault::TextInfinity) if is_first => ",\"target_weight\":\"Infinity\"".to_owned(),
            Some(SignalsFault::NullWeight) if is_first => ",\"target_weight\":null".to_owned(),
            Some(SignalsFault::MissingWeight) if is_first => String::new(),
            Some(SignalsFault::Empty) => return Vec::new(),
            Some(_) | None => plain_weight,
        };
        let symbol = serde_json::Value::from(signal.symbol.as_str());
        let (predicted, rank) = (plain(signal.predicted_return), signal.rank);
        let text =
            format!("{{\"symbol\":{symbol},\"predicted_return\":{predicted},\"rank\":{rank}{weight}}}");
        if is_first && fault == Some(SignalsFault::Doubled) {
            written.push(text.clone());
        }
        written.push(text);
    }
    written
}
