//! The rules over several settings.

use std::time::Duration;

use orchestrator_kernel::engine::cadence::Cadence;
use orchestrator_kernel::retry::RetrySchedule;

use super::reader::section::ReadReport;
use super::{
    ClockMode, Config, DemoSourceConfig, EngineKind, KillSwitchKind, MarkKind, RecordingSpeed, SourceConfig,
    StorageKind, trading,
};

/// Reports every rule that `config` breaks.
pub(super) fn check_rules(config: &Config, report: &mut ReadReport) {
    check_sources(config, report);
    check_sizes(config, report);
    check_redis(config, report);
    check_schedule(config, report);
    check_retries(config, report);
    check_engine(config, report);
    check_publish(config, report);
    check_kill_switch(config, report);
    trading::check_trading(config, report);
    let listen = config.http.listen;
    report.check_rule(
        &["http.listen", "http.allow_public"],
        listen.ip().is_loopback() || config.http.allow_public,
        format!("{listen} can be reached from other machines, and nothing on it asks who is calling"),
        "a loopback address, or http.allow_public = true behind something that does ask",
    );
    report.check_rule(
        &["http.subscribers_max", "http.connections_max"],
        config.http.subscribers_max < config.http.connections_max,
        "is not less than http.connections_max: streams would leave no room for requests".to_owned(),
        "less than http.connections_max",
    );
}

fn check_sources(config: &Config, report: &mut ReadReport) {
    let recorded = config.clock.mode == ClockMode::Recorded;
    report.check_rule(
        &["clock.mode"],
        !recorded || config.sources.len() == 1,
        format!("a recorded clock follows one source, and there are {}", config.sources.len()),
        "\"wall\", or exactly one source",
    );
    let count = config.sources.values().filter(|source| matches!(source, SourceConfig::Http(_))).count();
    report.check_rule(
        &["sources"],
        count <= 1,
        format!("{count} sources have kind \"http\", and there is one HTTP interface"),
        "at most one source of kind \"http\"",
    );
    for (name, source) in &config.sources {
        let key = |key: &str| format!("sources.{name}.{key}");
        report.check_rule(
            &["clock.mode", &key("kind")],
            !recorded || !matches!(source, SourceConfig::Demo(_)),
            format!(
                "a recorded clock needs a recording, and source {name:?} has kind {:?}",
                source.kind_word()
            ),
            "\"wall\", or a source of another kind",
        );
        match source {
            SourceConfig::File(file) => {
                report.check_rule(
                    &[&key("follow"), "clock.mode"],
                    !(recorded && file.follow),
                    "is true with a recorded clock, which ends with its recording".to_owned(),
                    "false, or clock.mode = \"wall\"",
                );
                report.check_rule(
                    &[&key("speed"), &key("follow")],
                    !file.follow || file.speed == RecordingSpeed::Max,
                    "sets a pace for a file that is read as it grows".to_owned(),
                    "\"max\", or follow = false",
                );
            }
            SourceConfig::Demo(demo) => check_demo(name, demo, config, report),
            SourceConfig::Http(_) | SourceConfig::RedisStream(_) => {}
            SourceConfig::Rabbit(rabbit) => report.check_rule(
                &[&key("batch_max"), &key("prefetch")],
                rabbit.batch_max <= usize::from(rabbit.prefetch),
                "is more than the prefetch, so a batch would never be full".to_owned(),
                "at most the prefetch",
            ),
        }
    }
}

/// A demo whose snapshots never carry the timestamp of a run would fail every run.
fn check_demo(name: &str, demo: &DemoSourceConfig, config: &Config, report: &mut ReadReport) {
    let key = |key: &str| format!("sources.{name}.{key}");
    let (step, setting) = match config.schedule.cadence {
        Cadence::Boundary { interval_ms, delay_ms } => {
            report.check_rule(
                &[&key("snapshot_lag"), "schedule.delay"],
                demo.snapshot_lag < duration_from_ms(delay_ms),
                "is not shorter than schedule.delay, so runs would miss their snapshot".to_owned(),
                &format!("less than {}", humantime::format_duration(duration_from_ms(delay_ms))),
            );
            (duration_from_ms(interval_ms), "schedule.interval")
        }
        Cadence::Timer { align_ms, .. } => (duration_from_ms(align_ms), "schedule.align"),
    };
    report.check_rule(
        &[&key("snapshot_interval"), setting],
        is_multiple(step, demo.snapshot_interval),
        format!("does not divide {setting}, so runs would find no snapshot of their timestamp"),
        &format!("a divisor of {}", humantime::format_duration(step)),
    );
}

fn check_sizes(config: &Config, report: &mut ReadReport) {
    let (ingest, buffer) = (&config.ingest, &config.buffer);
    report.check_rule(
        &["ingest.receipt_bytes_max", "ingest.in_flight_bytes_max"],
        ingest.receipt_bytes_max <= ingest.in_flight_bytes_max,
        "is more than ingest.in_flight_bytes_max, so the largest receipt could never be taken".to_owned(),
        "at most ingest.in_flight_bytes_max",
    );
    report.check_rule(
        &["ingest.receipt_bytes_max", "buffer.batch_bytes_max"],
        ingest.receipt_bytes_max <= buffer.batch_bytes_max,
        "is more than buffer.batch_bytes_max, so the largest receipt would fit no batch".to_owned(),
        "at most buffer.batch_bytes_max",
    );
    report.check_rule(
        &["buffer.batch_bytes_max", "buffer.segment_bytes"],
        buffer.batch_bytes_max <= buffer.segment_bytes,
        "is more than buffer.segment_bytes, so a batch would fit no segment".to_owned(),
        "at most buffer.segment_bytes",
    );
    report.check_rule(
        &["buffer.capacity_bytes", "buffer.segment_bytes"],
        buffer.capacity_bytes == 0 || buffer.capacity_bytes >= 2 * buffer.segment_bytes,
        "holds less than two segments".to_owned(),
        "0, or at least twice buffer.segment_bytes",
    );
    let has_http = config.sources.values().any(|source| matches!(source, SourceConfig::Http(_)));
    report.check_rule(
        &["http.body_bytes_max", "ingest.receipt_bytes_max"],
        !has_http || config.http.body_bytes_max >= ingest.receipt_bytes_max,
        "is less than ingest.receipt_bytes_max, so the largest receipt could not be posted".to_owned(),
        "at least ingest.receipt_bytes_max",
    );
}

fn check_redis(config: &Config, report: &mut ReadReport) {
    report.check_rule(
        &["redis.archive_keep", "redis.archive_above"],
        config.redis.archive_keep < config.redis.archive_above,
        "is not less than redis.archive_above, so nothing could be archived".to_owned(),
        "less than redis.archive_above",
    );
    report.check_rule(
        &["retention.archive", "storage.kind"],
        !(config.retention.archive && config.storage.kind == StorageKind::Redis),
        "is true, but what is old is in an archive already: retention deletes from there".to_owned(),
        "false, or storage.kind = \"embedded\"",
    );
    check_mark(config, report);
}

/// A second mark that fails with the first, or that nobody would write, is none.
fn check_mark(config: &Config, report: &mut ReadReport) {
    let mark = &config.redis.mark;
    report.check_rule(
        &["redis.mark.kind", "storage.kind"],
        mark.kind == MarkKind::None || config.storage.kind == StorageKind::Redis,
        "is set, and the logs are not on Redis".to_owned(),
        "\"none\", or storage.kind = \"redis\"",
    );
    report.check_rule(
        &["redis.mark.path", "redis.mark.kind"],
        mark.kind != MarkKind::File || mark.path.is_some(),
        "is missing, and redis.mark.kind is \"file\"".to_owned(),
        "a file on storage that fails neither with Redis nor with this host",
    );
    report.check_rule(
        &["redis.mark.path", "redis.mark.kind"],
        mark.kind == MarkKind::File || mark.path.is_none(),
        "is set, and redis.mark.kind is not \"file\"".to_owned(),
        "no path, or redis.mark.kind = \"file\"",
    );
    let is_inside = mark.path.as_ref().is_some_and(|path| path.starts_with(&config.service.data_dir));
    report.check_rule(
        &["redis.mark.path", "service.data_dir"],
        !is_inside,
        "is in service.data_dir, and is lost with it".to_owned(),
        "a file on other storage",
    );
    report.check_rule(
        &["redis.mark.url", "redis.mark.kind"],
        mark.kind != MarkKind::Rabbit || !mark.connection.url.is_empty(),
        "is missing, and redis.mark.kind is \"rabbitmq\"".to_owned(),
        "for example \"amqp://rabbitmq:5672/%2f\"",
    );
    report.check_rule(
        &["redis.mark.url", "redis.mark.kind"],
        mark.kind == MarkKind::Rabbit || mark.connection.url.is_empty(),
        "is set, and redis.mark.kind is not \"rabbitmq\"".to_owned(),
        "no url, or redis.mark.kind = \"rabbitmq\"",
    );
    report.check_rule(
        &["redis.mark.max_age", "redis.mark.kind"],
        mark.kind != MarkKind::None || mark.max_age.is_zero(),
        "is set, and no second mark is kept".to_owned(),
        "0s, or another redis.mark.kind",
    );
}

fn check_schedule(config: &Config, report: &mut ReadReport) {
    match config.schedule.cadence {
        Cadence::Boundary { interval_ms, delay_ms } => report.check_rule(
            &["schedule.delay", "schedule.interval"],
            delay_ms < interval_ms,
            "is not shorter than schedule.interval".to_owned(),
            "less than schedule.interval",
        ),
        Cadence::Timer { interval_ms, align_ms } => report.check_rule(
            &["schedule.interval", "schedule.align"],
            is_multiple(duration_from_ms(interval_ms), duration_from_ms(align_ms)),
            "is no multiple of schedule.align, so engine timestamps would repeat or be uneven".to_owned(),
            &format!("a multiple of {}", humantime::format_duration(duration_from_ms(align_ms))),
        ),
    }
}

/// Whether `whole` is `part`, or twice, three times … `part`.
fn is_multiple(whole: Duration, part: Duration) -> bool {
    !part.is_zero() && whole >= part && whole.as_millis().is_multiple_of(part.as_millis())
}

fn duration_from_ms(ms: i64) -> Duration {
    Duration::from_millis(ms.unsigned_abs())
}

fn check_retries(config: &Config, report: &mut ReadReport) {
    let reconnect = config.ingest.reconnect;
    let respawn = config.engine.process.respawn;
    check_delays("ingest.reconnect", reconnect.min, reconnect.max, report);
    check_delays("engine.process.respawn", respawn.min, respawn.max, report);
    for (path, retry) in [("engine.retry", config.engine.retry), ("publish.retry", config.publish.retry)] {
        let RetrySchedule { min, max, max_attempts: _, max_elapsed } = retry;
        check_delays(path, min, max, report);
        report.check_rule(
            &[&format!("{path}.max_elapsed"), &format!("{path}.min")],
            min <= max_elapsed,
            "is less than min, so there would be no second attempt".to_owned(),
            "at least min",
        );
    }
}

pub(super) fn check_delays(path: &str, min: Duration, max: Duration, report: &mut ReadReport) {
    let paths = [format!("{path}.min"), format!("{path}.max")];
    report.check_rule(&[&paths[0], &paths[1]], min <= max, "is more than max".to_owned(), "at most max");
}

fn check_engine(config: &Config, report: &mut ReadReport) {
    let engine = &config.engine;
    let program = engine.process.command.first().is_some_and(|program| !program.is_empty());
    report.check_rule(
        &["engine.process.command", "engine.kind"],
        engine.kind != EngineKind::Process || program,
        "is empty, and engine.kind is \"process\"".to_owned(),
        "program and arguments, for example [\"python3\", \"engines/standin_engine.py\"]",
    );
    report.check_rule(
        &["engine.http.url", "engine.kind"],
        engine.kind != EngineKind::Http || !engine.http.url.is_empty(),
        "is empty, and engine.kind is \"http\"".to_owned(),
        "the address that calls are posted to, for example \"http://127.0.0.1:8090/\"",
    );
    report.check_rule(
        &["engine.http.url"],
        !engine.http.url.has_credentials(),
        "holds a user or password".to_owned(),
        "a URL without them, and engine.http.token",
    );
}

fn check_publish(config: &Config, report: &mut ReadReport) {
    let publish = &config.publish;
    report.check_rule(
        &["publish.backlog_resume", "publish.backlog_max"],
        publish.backlog_resume < publish.backlog_max,
        "is not less than publish.backlog_max".to_owned(),
        "less than publish.backlog_max",
    );
    report.check_rule(
        &["publish.batch_max", "publish.backlog_max"],
        publish.batch_max as u64 <= publish.backlog_max,
        "is more than publish.backlog_max".to_owned(),
        "at most publish.backlog_max",
    );
}

fn check_kill_switch(config: &Config, report: &mut ReadReport) {
    let kill_switch = &config.kill_switch;
    report.check_rule(
        &["kill_switch.lease", "kill_switch.poll", "kill_switch.read_timeout"],
        kill_switch.poll + kill_switch.read_timeout < kill_switch.lease,
        "is not more than kill_switch.poll and kill_switch.read_timeout together, so one lost read would block effects"
            .to_owned(),
        "more than kill_switch.poll + kill_switch.read_timeout",
    );
    report.check_rule(
        &["kill_switch.url", "kill_switch.kind"],
        kill_switch.kind != KillSwitchKind::Redis || !kill_switch.url.is_empty(),
        "is missing, and kill_switch.kind is \"redis\"".to_owned(),
        "for example \"redis://127.0.0.1:6379/0\"",
    );
    report.check_rule(
        &["kill_switch.operator_url", "kill_switch.url"],
        kill_switch.operator_url != kill_switch.url || !kill_switch.url.has_credentials(),
        "is the login that the service itself reads with, which must not be able to change the value"
            .to_owned(),
        "the login of a user of its own, see docs/kill_switch_http.md",
    );
    report.check_rule(
        &["kill_switch.history_key", "kill_switch.key"],
        kill_switch.key != kill_switch.history_key,
        "is the same as kill_switch.key".to_owned(),
        "another key",
    );
}
