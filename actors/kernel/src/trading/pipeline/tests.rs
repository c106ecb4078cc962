//! The shipped pipelines are those of the specifications, and each broken rule is named with its path.

use super::*;
use crate::trading::stage::{HookMode, StageProvider};
use crate::trading::testkit::{hook, stage_name};

fn stages(pipeline: &Pipeline) -> String {
    pipeline.stages.iter().map(|stage| stage.name.to_string()).collect::<Vec<_>>().join(" ")
}

#[test]
fn shipped_pipelines_have_the_stages_and_figures_of_the_specifications() {
    let canonical = canonical_pipeline();
    assert_eq!(stages(&canonical), "ING FEAT SIG RISK EXEC PORT ANA GOV");
    assert_eq!(canonical.budget, Duration::from_millis(5000));
    let budgets: Vec<_> = canonical.stages.iter().map(|stage| stage.budget.as_millis()).collect();
    assert_eq!(budgets, [500, 500, 1000, 200, 2000, 200, 500, 100]);
    let attempts: Vec<_> = canonical.stages.iter().map(|stage| stage.attempts_max).collect();
    assert_eq!(attempts, [2, 2, 2, 2, 1, 2, 2, 2], "ORCH_RETRY_MAX 1, idempotent stages only");
    let not_critical: Vec<_> = canonical.stages.iter().filter(|stage| !stage.critical).collect();
    assert!(matches!(not_critical.as_slice(), [ana] if ana.name.as_str() == "ANA"
        && ana.on_failure == OnStageFailure::Degrade));
    assert!(canonical.degraded_allow_exec && canonical.fail_closed_on_audit);

    assert_eq!(
        stages(&analysis_pipeline()),
        "fetch_market_data evaluate_positions generate_decisions validate_decisions execute_orders update_state"
    );
    assert_eq!(analysis_pipeline().budget, Duration::from_secs(120));
    assert_eq!(analysis_pipeline().stale_after, Some(Duration::from_secs(180)));
    assert_eq!(stages(&heartbeat_pipeline()), "check_service_health sync_positions update_status");
    assert_eq!(
        stages(&rebalance_pipeline()),
        "calculate_target_weights compare_current_weights generate_rebalance_orders execute_orders"
    );
    for (name, cadence) in [
        ("analysis", Some(DefaultCadence::Every(Duration::from_secs(60)))),
        ("heartbeat", Some(DefaultCadence::Every(Duration::from_secs(30)))),
        ("rebalance", Some(DefaultCadence::Cron("0 9 * * 1-5"))),
        ("canonical", None),
    ] {
        assert_eq!(default_cadence(name), cadence);
    }
    for pipeline in [canonical, analysis_pipeline(), heartbeat_pipeline(), rebalance_pipeline()] {
        assert_eq!(pipeline.find_violations(), [], "{}", pipeline.name);
        assert!(!pipeline.lacks_risk(0), "{}", pipeline.name);
    }
}

#[test]
fn gates_begin_with_the_first_stage_that_can_lead_to_an_effect() {
    assert_eq!(canonical_pipeline().first_gated(), Some(2));
    assert_eq!(heartbeat_pipeline().first_gated(), None);
    assert_eq!(rebalance_pipeline().first_gated(), Some(0));
}

#[test]
fn a_disabled_late_or_passed_risk_is_a_missing_one() {
    let mut disabled = canonical_pipeline();
    disabled.stages[3].enabled = false;
    assert!(disabled.lacks_risk(0));

    let mut late = canonical_pipeline();
    late.stages.swap(3, 4);
    assert!(late.lacks_risk(0));

    assert!(!canonical_pipeline().lacks_risk(3));
    assert!(canonical_pipeline().lacks_risk(4), "a cycle that begins behind RISK has none");

    disabled.stages[4].enabled = false;
    assert!(!disabled.lacks_risk(0), "nothing is executed, so nothing lacks it");
}

#[test]
fn a_failed_audit_fails_closed_or_degrades_by_the_setting_alone() {
    let mut pipeline = canonical_pipeline();
    let gov = pipeline.stages[7].clone();
    assert_eq!(pipeline.on_failure(&gov), OnStageFailure::Fail);
    pipeline.fail_closed_on_audit = false;
    assert_eq!(pipeline.on_failure(&gov), OnStageFailure::Degrade);
}

#[test]
fn every_violation_is_named_with_its_path_at_once() {
    let mut pipeline = canonical_pipeline();
    pipeline.budget = Duration::ZERO;
    pipeline.stale_after = Some(Duration::ZERO);
    pipeline.stages[0].budget = Duration::from_secs(3601);
    pipeline.stages[1].attempts_max = 0;
    pipeline.stages[2].idempotent = false;
    pipeline.stages[2].backoff.min = Duration::from_secs(1);
    pipeline.stages[3].on_failure = OnStageFailure::Degrade;
    pipeline.stages[4].provider = StageProvider::Http;
    pipeline.stages[4].idempotent = true;
    pipeline.stages[4].critical = false;
    pipeline.stages[6].name = stage_name("execute_orders");
    pipeline.stages[7].name = stage_name("PORT");
    pipeline.hooks = vec![hook("h", "SIG", HookMoment::Before, HookMode::Hard); 2];
    pipeline.hooks[1].stage = stage_name("OPT");
    pipeline.hooks[1].provider = StageProvider::Fixed;
    pipeline.hooks[1].budget = Duration::ZERO;

    let paths: Vec<String> = pipeline.find_violations().into_iter().map(|violation| violation.path).collect();

    assert_eq!(
        paths,
        [
            "budget",
            "stale_after",
            "stages",
            "stages.ING.budget",
            "stages.FEAT.attempts_max",
            "stages.SIG.attempts_max",
            "stages.SIG.backoff",
            "stages.RISK.on_failure",
            "stages.EXEC.provider",
            "stages.EXEC.idempotent",
            "stages.EXEC.critical",
            "stages.execute_orders.idempotent",
            "stages.execute_orders.on_failure",
            "stages.execute_orders.critical",
            "stages.PORT",
            "hooks.h",
            "hooks.h.budget",
            "hooks.h.stage",
            "hooks.h.provider",
        ]
    );
    pipeline.stages.clear();
    assert!(pipeline.find_violations().iter().any(|violation| violation.problem.contains("there are 0")));
    let mut hooks = canonical_pipeline();
    hooks.hooks = (0..65).map(|n| hook(&format!("h{n}"), "SIG", HookMoment::After, HookMode::Soft)).collect();
    assert_eq!(hooks.find_violations()[0].path, "hooks");
}

/// OPT and LEARN are stages that a user appends.
#[test]
fn a_user_appends_stages_of_his_own() {
    let mut pipeline = canonical_pipeline();
    for name in ["OPT", "LEARN"] {
        let mut stage = pipeline.stages[6].clone();
        stage.name = stage_name(name);
        stage.provider = StageProvider::Worker;
        pipeline.stages.push(stage);
    }

    assert_eq!(pipeline.find_violations(), []);
    assert_eq!(stages(&pipeline), "ING FEAT SIG RISK EXEC PORT ANA GOV OPT LEARN");
}
