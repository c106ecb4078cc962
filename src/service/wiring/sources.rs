//! The sources that the configuration names.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::source::SourceFactory;

use super::{WiringError, rabbit};
use crate::adapters::demo::feed::{DemoFeedFactory, DemoFeedOptions};
use crate::adapters::files::capture_source::{self, CaptureFactory, CaptureOptions, StoredLines};
use crate::adapters::files::fs::{FileFacts, FileId};
use crate::adapters::http::source::{HttpIntake, HttpIntakeOptions};
use crate::adapters::redis::stream_source::{StreamSourceFactory, StreamSourceOptions};
use crate::config::{Config, DemoSourceConfig, RecordingSpeed, RedisStreamConfig, SourceConfig};

/// The sources, and the queue of the one that is posted to.
pub(super) type Opened = (Vec<Arc<dyn SourceFactory>>, Option<HttpIntake>);

pub(super) fn open_sources(
    config: &Config,
    clock: &Arc<dyn Clock>,
    stored: &StoredLines,
) -> Result<Opened, WiringError> {
    refuse_one_file_twice(config)?;
    let mut intake = None;
    let open = |(name, source): (&String, &SourceConfig)| -> Result<Arc<dyn SourceFactory>, WiringError> {
        Ok(match source {
            SourceConfig::File(file) => {
                let options = CaptureOptions {
                    speed: match file.speed {
                        RecordingSpeed::Max => capture_source::CaptureSpeed::Max,
                        RecordingSpeed::Times(times) => capture_source::CaptureSpeed::Times(times),
                    },
                    follow: file.follow,
                    line_bytes_max: usize::try_from(file.line_bytes_max).unwrap_or(usize::MAX),
                    ..CaptureOptions::new(name, &file.path)
                };
                Arc::new(CaptureFactory::new(options).compared_with(stored.clone()))
            }
            SourceConfig::Http(http) => {
                let (handle, factory) = HttpIntake::new(
                    name,
                    HttpIntakeOptions {
                        queue_batches_max: http.queue_batches_max,
                        queue_bytes_max: usize::try_from(http.queue_bytes_max).unwrap_or(usize::MAX),
                        unsettled_batches_max: http.unsettled_batches_max,
                        retry_after: http.retry_after,
                    },
                );
                intake = Some(handle);
                Arc::new(factory)
            }
            SourceConfig::RedisStream(stream) => {
                Arc::new(StreamSourceFactory::new(stream_source(name, stream)).map_err(|source| {
                    WiringError::Stream { setting: format!("sources.{name}.url"), source }
                })?)
            }
            SourceConfig::Demo(demo) => {
                Arc::new(DemoFeedFactory::new(demo_feed(name, demo), Arc::clone(clock)))
            }
            SourceConfig::Rabbit(rabbit) => Arc::new(rabbit::rabbit_source(name, rabbit)?),
        })
    };
    let sources = config.sources.iter().map(open).collect::<Result<_, _>>()?;
    Ok((sources, intake))
}

/// Two sources that read one file would take each of its receipts twice, whatever names it has.
fn refuse_one_file_twice(config: &Config) -> Result<(), WiringError> {
    let mut seen: Vec<(&String, FileId)> = Vec::new();
    for (name, source) in &config.sources {
        let SourceConfig::File(file) = source else { continue };
        // One that cannot be looked at is its source's to tell.
        let Ok(metadata) = std::fs::metadata(&file.path) else { continue };
        let id = FileFacts::from_metadata(&metadata).id;
        if let Some((other, _)) = seen.iter().find(|(_, seen)| *seen == id) {
            let (first, second) = ((*other).clone(), name.clone());
            return Err(WiringError::OneFileTwice { first, second, path: file.path.clone() });
        }
        seen.push((name, id));
    }
    Ok(())
}

/// A server of a source that does not answer within it is lost: readiness must tell within two seconds.
const STREAM_TIMEOUT: Duration = Duration::from_secs(1);

fn stream_source(name: &str, stream: &RedisStreamConfig) -> StreamSourceOptions {
    StreamSourceOptions {
        name: name.to_owned(),
        url: stream.url.expose_url().to_owned(),
        stream: stream.stream.clone(),
        group: stream.group.clone(),
        consumer: stream.consumer.clone(),
        field: stream.field.clone(),
        start: stream.start.clone(),
        count_max: stream.count_max,
        claim_idle: stream.claim_idle,
        connect_timeout: STREAM_TIMEOUT,
        response_timeout: STREAM_TIMEOUT,
    }
}

fn demo_feed(name: &str, demo: &DemoSourceConfig) -> DemoFeedOptions {
    let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    DemoFeedOptions {
        name: name.to_owned(),
        seed: demo.seed,
        symbols: demo_symbols(demo.symbols),
        rate_per_second: demo.rate_per_second,
        snapshot_interval_ms: millis(demo.snapshot_interval),
        snapshot_lag_ms: millis(demo.snapshot_lag),
        duration: None,
    }
}

/// Names of the made-up market: well-known ones first, then numbered ones.
fn demo_symbols(count: usize) -> Vec<String> {
    const KNOWN: [&str; 8] =
        ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT", "AVAXUSDT", "LINKUSDT"];
    let numbered = (KNOWN.len() + 1..).map(|number| format!("SYM{number:04}"));
    KNOWN.iter().map(|known| (*known).to_owned()).chain(numbered).take(count).collect()
}
