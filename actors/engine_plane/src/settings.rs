//! Settings of the plane: those of each actor, under its name, in the order in which a receipt meets it.
//!
//! A setting is declared beside the actor that goes by it. From the configuration to there it has one more place: the
//! function that maps its section.

use crate::buffer::BufferSettings;
use crate::flow::FlowLimits;
use crate::ingest::IngestSettings;
use crate::publisher::PublisherSettings;
use crate::retention::RetentionSettings;
use crate::run_log::RunLogSettings;
use crate::runners::symbol_runner::RunnerSettings;
use crate::scheduler::SchedulerSettings;

/// Settings of the engine plane.
#[derive(Clone, Debug)]
pub struct EnginePlaneSettings {
    /// How receipts are taken from the sources.
    pub ingest: IngestSettings,
    /// How they are numbered and kept.
    pub buffer: BufferSettings,
    /// When runs happen, and for which symbols.
    pub scheduler: SchedulerSettings,
    /// How the engine is called.
    pub runners: RunnerSettings,
    /// How runs are recorded.
    pub run_log: RunLogSettings,
    /// How outputs are published.
    pub publisher: PublisherSettings,
    /// When outputs that wait pause the schedule.
    pub flow: FlowLimits,
    /// What the logs keep; `None`: everything.
    pub retention: Option<RetentionSettings>,
}
