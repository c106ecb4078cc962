//! The gates of a cycle at one place: which are asked, and which count there.

use super::state::CycleState;
use crate::trading::gate::{
    GateCheck, GateDecided, GateKind, GatePlace, GateReadings, GateVerdict, HookAnswer, HookError,
    judge_agent, judge_hook, judge_kill_switch, judge_session, judge_staleness, judge_strategies,
};
use crate::trading::ids::{StageName, StrategyName};
use crate::trading::pipeline::Pipeline;
use crate::trading::stage::{HookMoment, HookSpec};

/// Answer of one hook, or its failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookReply {
    /// The hook.
    pub hook: StageName,
    /// Its answer.
    pub answer: Result<HookAnswer, HookError>,
}

/// The gates that deny by these readings, for [`CycleStarted::denied_at_start`].
///
/// [`CycleStarted::denied_at_start`]: crate::trading::journal::CycleStarted::denied_at_start
#[must_use]
pub fn gates_denied(pipeline: &Pipeline, readings: &GateReadings) -> Vec<GateKind> {
    let checks = check_readings(pipeline, readings, None);
    let denied = checks.into_iter().filter(|check| matches!(check.verdict, GateVerdict::Deny(_)));
    denied.map(|check| check.gate).collect()
}

fn check_readings(
    pipeline: &Pipeline,
    readings: &GateReadings,
    strategy: Option<&StrategyName>,
) -> Vec<GateCheck> {
    let staleness = judge_staleness(readings.newest_input, readings.now, pipeline.stale_after);
    [
        (GateKind::KillSwitch, judge_kill_switch(&readings.kill)),
        (GateKind::Agent, judge_agent(readings.agent)),
        (GateKind::Strategy, judge_strategies(&readings.strategies, strategy)),
        (GateKind::Session, judge_session(readings.session)),
        (GateKind::Staleness, staleness),
    ]
    .into_iter()
    .map(|(gate, verdict)| GateCheck { gate, verdict })
    .collect()
}

impl CycleState {
    /// The hooks to be asked at `place`, in their order.
    #[must_use]
    pub fn hooks_at(&self, place: &GatePlace) -> Vec<HookSpec> {
        let pipeline = &self.started().pipeline;
        match place {
            GatePlace::Before(stage) => pipeline.hooks_at(usize::from(*stage), HookMoment::Before),
            GatePlace::After(stage) => pipeline.hooks_at(usize::from(*stage), HookMoment::After),
            GatePlace::BeforeIntent(_) => return Vec::new(),
        }
        .cloned()
        .collect()
    }

    /// What the gates at `place` decide. A hook without a reply has not answered in time; none is asked when our own
    /// gates deny.
    #[must_use]
    pub fn decide_gates(
        &self,
        place: GatePlace,
        readings: &GateReadings,
        replies: &[HookReply],
    ) -> GateDecided {
        let is_gated = self.started().pipeline.first_gated().is_some();
        let looks = is_gated && !matches!(place, GatePlace::After(_));
        let mut checks = if looks { self.check_place(&place, readings) } else { Vec::new() };
        let mut narrowed = Vec::new();
        let passes =
            |checks: &[GateCheck]| checks.iter().all(|check| !matches!(check.verdict, GateVerdict::Deny(_)));
        for hook in self.hooks_at(&place) {
            if !passes(&checks) {
                break;
            }
            let reply = replies.iter().find(|reply| reply.hook == hook.name);
            let answer = reply.map_or(Err(&HookError::TimedOut), |reply| reply.answer.as_ref());
            let ruling = judge_hook(&hook, answer, |decision| self.share_ceiling(decision));
            checks.push(GateCheck { gate: GateKind::Hook(hook.name), verdict: ruling.verdict });
            narrowed.extend(ruling.narrowed);
        }
        if !passes(&checks) {
            narrowed.clear();
        }
        GateDecided {
            cycle_id: self.started().cycle_id,
            place,
            readings: looks.then(|| readings.clone()),
            checks,
            narrowed,
        }
    }

    fn check_place(&self, place: &GatePlace, readings: &GateReadings) -> Vec<GateCheck> {
        let started = self.started();
        let pipeline = &started.pipeline;
        let (stage, strategy) = match place {
            GatePlace::Before(stage) | GatePlace::After(stage) => (Some(usize::from(*stage)), None),
            GatePlace::BeforeIntent(decision) => {
                (None, self.find_decision(decision).map(|known| &known.strategy))
            }
        };
        let leads_to_effects = stage
            .and_then(|stage| pipeline.stages.get(stage))
            .is_none_or(|stage| stage.role().leads_to_effects());
        let mut checks = Vec::new();
        if leads_to_effects {
            let missing = pipeline.lacks_risk(usize::from(started.begin_at));
            let degraded = self.is_degraded() || readings.last_cycle_degraded;
            for (denies, gate, why) in [
                (
                    missing,
                    GateKind::RiskMissing,
                    "orders are executed and no RISK stage is enabled before them",
                ),
                (
                    degraded && !pipeline.degraded_allow_exec,
                    GateKind::Degraded,
                    "trading does not go on degraded",
                ),
            ] {
                if denies {
                    checks.push(GateCheck { gate, verdict: GateVerdict::Deny(why.to_owned()) });
                }
            }
        }
        checks.extend(check_readings(pipeline, readings, strategy));
        let only_flips = stage.is_some_and(|stage| pipeline.first_gated().is_some_and(|first| stage < first));
        if only_flips {
            // Inputs may be fetched while nothing may be traded: before SIG, only what has changed stops the cycle.
            for check in &mut checks {
                if let (GateVerdict::Deny(why), true) =
                    (&check.verdict, started.denied_at_start.contains(&check.gate))
                {
                    check.verdict = GateVerdict::Noted(why.clone());
                }
            }
        }
        checks
    }
}
