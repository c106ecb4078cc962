//! What a seed decides before anything happens: schedules, pipelines, hooks, limits, weather.

use std::time::Duration;

use orchestrator_kernel::random::Rng;
use orchestrator_kernel::trading::ids::StageName;
use orchestrator_kernel::trading::pipeline::{
    Pipeline, analysis_pipeline, canonical_pipeline, heartbeat_pipeline,
};
use orchestrator_kernel::trading::schedule::{MisfirePolicy, OverlapPolicy, ScheduleTrigger};
use orchestrator_kernel::trading::stage::{HookMode, HookMoment, HookSpec, StageProvider};
use orchestrator_trading_plane::settings::{ScheduleSettings, TradingSettings};
use orchestrator_trading_plane::testkit::{every_minute, trading_settings};

use crate::world::Weather;

const MS: Duration = Duration::from_millis(1);

fn one_in(dice: &mut Rng, times: u64) -> bool {
    dice.next_below(times) == 0
}

/// Each port has fair weather, rain or a storm.
pub(crate) fn weather(dice: &mut Rng) -> Weather {
    let mut one = || [0, 0, 40, 200][dice.next_below(4) as usize];
    let (journal, stages, hooks, checkpoints, panics) = (one(), one(), one(), one(), one());
    let yields = dice.next_below(4);
    Weather { journal, stages, hooks: hooks * 2, checkpoints: checkpoints * 3, panics: panics / 10, yields }
}

fn stage_name(name: &str) -> StageName {
    StageName::new(name).expect("a name")
}

fn hooked(dice: &mut Rng, mut pipeline: Pipeline) -> Pipeline {
    for number in 0..dice.next_below(3) {
        let stage = pipeline.stages[dice.next_index(pipeline.stages.len())].name.clone();
        pipeline.hooks.push(HookSpec {
            name: stage_name(&format!("hook-{number}")),
            stage,
            moment: if one_in(dice, 2) { HookMoment::Before } else { HookMoment::After },
            mode: if one_in(dice, 3) { HookMode::Soft } else { HookMode::Hard },
            provider: StageProvider::Fixed,
            budget: 50 * MS,
        });
    }
    pipeline
}

fn varied(dice: &mut Rng, mut pipeline: Pipeline) -> Pipeline {
    pipeline.budget = Duration::from_secs(3);
    for stage in &mut pipeline.stages {
        stage.budget = MS * (200 + 300 * u32::try_from(dice.next_below(4)).expect("small"));
        stage.idempotent &= !one_in(dice, 5);
        if !stage.idempotent {
            stage.attempts_max = 1;
        }
    }
    pipeline.degraded_allow_exec = one_in(dice, 2);
    if one_in(dice, 8) {
        let risk = pipeline.first_risk().expect("there is one");
        pipeline.stages[risk].enabled = false;
    }
    if one_in(dice, 3) { hooked(dice, pipeline) } else { pipeline }
}

fn schedule(dice: &mut Rng, name: &str, pipeline: &str, every_s: u32) -> ScheduleSettings {
    let mut settings = every_minute(name, pipeline);
    let it = &mut settings.schedule;
    it.trigger = ScheduleTrigger::Interval { every_ms: every_s * 1000 };
    it.overlap = [OverlapPolicy::Skip, OverlapPolicy::QueueOne, OverlapPolicy::Cancel][dice.next_index(3)];
    it.misfire = [MisfirePolicy::Skip, MisfirePolicy::Latest, MisfirePolicy::All][dice.next_index(3)];
    it.misfire_after_ms = 900;
    it.lateness_max_ms = 60_000;
    it.concurrent_max = 1 + u32::from(one_in(dice, 4));
    it.priority = i32::try_from(dice.next_below(3)).expect("small");
    settings
}

/// Settings with limits so small that a short life meets them.
pub(crate) fn settings(dice: &mut Rng) -> TradingSettings {
    let mut settings = trading_settings();
    // What each cycle orders is as much as may be: the audit counts to the last cent.
    for (limit, value) in [("capital", "3000"), ("max_position_size", "1500"), ("confidence_min", "0.7")] {
        settings.configuration.settings.insert(format!("trading.risk.{limit}"), value.to_owned());
    }
    let canonical = varied(dice, canonical_pipeline());
    let analysis = varied(dice, analysis_pipeline());
    let pipelines = [canonical, analysis, heartbeat_pipeline()];
    settings.pipelines = pipelines.into_iter().map(|it| (it.name.clone(), it)).collect();
    let pipeline = if one_in(dice, 2) { "canonical" } else { "analysis" };
    let mut by_time = schedule(dice, "timed", pipeline, 2);
    by_time.strategies.truncate(1 + dice.next_index(2));
    let mut beats = schedule(dice, "beats", "heartbeat", 5);
    beats.strategies.clear();
    let mut on_events = schedule(dice, "on-events", "canonical", 1);
    on_events.schedule.trigger = ScheduleTrigger::OnDemand;
    on_events.topics = vec!["news.#".to_owned()];
    let mut on_outputs = schedule(dice, "on-outputs", "analysis", 1);
    on_outputs.schedule.trigger = ScheduleTrigger::OnDemand;
    on_outputs.on_outputs = true;
    settings.schedules = vec![by_time, beats, on_events, on_outputs];
    settings.dry_run = one_in(dice, 2);
    settings.cycles_running_max = if one_in(dice, 3) { 2 } else { 100 };
    settings.journal_queue_max = if one_in(dice, 3) { 2 } else { 100 };
    let every = one_in(dice, 2);
    settings.journal.writer.limits.records = if one_in(dice, 2) { 64 } else { 1 + dice.next_index(4) };
    settings.journal.writer.probe_every = one_in(dice, 2).then_some(700 * MS);
    settings.journal.checkpoint_every = if every { 1 + dice.next_below(20) } else { 1 << 20 };
    settings
}
