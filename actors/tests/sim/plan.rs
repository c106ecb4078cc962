//! What a seed decides before anything happens: symbols, limits, weather; and what items look like.

use std::time::Duration;

use bytes::Bytes;
use orchestrator_actors::testkit;
use orchestrator_actors::tree::Settings;
use orchestrator_engine_plane::scheduler::messages::Universe;
use orchestrator_kernel::engine::cadence::Cadence;
use orchestrator_kernel::ids::{EngineMode, Symbol};
use orchestrator_kernel::random::Rng;
use orchestrator_runtime::kill_switch::KillSwitchSettings;

use crate::world::Weather;

/// The wall time at which everything begins.
pub(crate) const START: i64 = 1_000_000_200;
/// Items that a source offers together, at most.
pub(crate) const ITEMS_MAX: usize = 6;

pub(crate) fn symbols(dice: &mut Rng) -> Vec<&'static str> {
    ["A", "B", "C"][..1 + dice.next_below(3) as usize].to_vec()
}

/// Limits so small that a short life meets them.
pub(crate) fn settings(dice: &mut Rng, symbols: &[&'static str]) -> Settings {
    let mut coin = |times: u64| dice.next_below(times) == 0;
    let mut settings = testkit::settings(&[]);
    settings.engine_plane.runners.mode = if coin(2) { EngineMode::Truth } else { EngineMode::Hysteresis };
    settings.engine_plane.scheduler.universe = match coin(2) {
        true => Universe::Discover { limit: 10 },
        false => Universe::Listed(symbols.iter().map(|symbol| Symbol::from(*symbol)).collect()),
    };
    if coin(4) {
        settings.engine_plane.scheduler.cadence = Cadence::Timer { interval_ms: 1000, align_ms: 1000 };
    }
    settings.log_writer.probe_every = coin(2).then_some(Duration::from_millis(700));
    settings.engine_plane.flow.backlog_max = if coin(2) { 8 } else { 64 };
    settings.engine_plane.flow.blocked_max = Duration::from_secs(if coin(2) { 2 } else { 30 });
    let every = coin(2);
    settings.log_writer.limits.records = if coin(2) { 64 } else { 1 + dice.next_below(4) as usize };
    if every {
        settings.engine_plane.buffer.checkpoint_every = 1 + dice.next_below(8);
        settings.engine_plane.run_log.checkpoint_every = 1 + dice.next_below(8);
    }
    settings.engine_plane.publisher.batch_max = 1 + dice.next_below(6) as usize;
    settings.engine_plane.ingest.in_flight_receipts_max = ITEMS_MAX as u32 + dice.next_below(3) as u32;
    settings.engine_plane.ingest.batches_in_flight_max = 1 + dice.next_below(4) as usize;
    settings.engine_plane.scheduler.runs_queued_max = 1 + dice.next_below(4) as usize;
    settings.engine_plane.ingest.source_restart.restarts_max = u32::MAX;
    let ms = Duration::from_millis;
    settings.kill_switch = KillSwitchSettings { poll: ms(2000), read_timeout: ms(1000), lease: ms(5000) };
    settings
}

/// Each port has fair weather, rain or a storm.
pub(crate) fn weather(dice: &mut Rng) -> Weather {
    let mut one = || [0, 0, 40, 200][dice.next_below(4) as usize];
    let (log, engine, fan_out, source, checkpoint) = (one(), one(), one(), one(), one());
    Weather {
        log,
        engine,
        fan_out,
        source: source / 2,
        checkpoint: checkpoint * 3,
        yields: dice.next_below(4),
    }
}

fn event(kind: &str, symbol: &str, n: u64, normalized: &str) -> Bytes {
    Bytes::from(format!(
        r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"{kind}","source_id":"sim","symbol":"{symbol}","exchange_ts_ms":null,"recv_ts_ms":{n},"raw_payload":"","normalized":{normalized}}}"#
    ))
}

/// A trade; `n` makes its bytes unlike those of any other item.
pub(crate) fn trade(symbol: &str, n: u64) -> Bytes {
    event("TradeTick", symbol, n, "{}")
}

/// The engine's inputs for the timestamp `ts`.
pub(crate) fn snapshot(symbol: &str, n: u64, ts: i64) -> Bytes {
    event("SnapshotInputs", symbol, n, &format!(r#"{{"market":{{"price":{n}}},"timestamp_ms":{ts}}}"#))
}

/// Something that is no receipt.
pub(crate) fn garbage(n: u64) -> Bytes {
    Bytes::from(format!("no receipt {n}"))
}
