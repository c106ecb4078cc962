//! `[ingest]` and `[buffer]`: from the sources into the receipt log.

use std::time::Duration;

use orchestrator_kernel::engine::positions::FORGET_AFTER_MIN;

use super::reader::forms::{Bytes, Count, DurationForm};
use super::reader::section::Section;
use super::retry::ReconnectConfig;

/// `[ingest]`: how much may be on its way into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngestConfig {
    /// Receipts handed over by one source and not yet durable, 1 to 10000000. When reached, the source waits.
    pub in_flight_receipts_max: usize,
    /// Their bytes, 64KiB to 16GiB. When reached, the source waits.
    pub in_flight_bytes_max: u64,
    /// Largest receipt, 1KiB to 64MiB. A larger one goes to the quarantine.
    pub receipt_bytes_max: u64,
    /// Numbering producers that are remembered, 16 to 1000000. A new one beyond it is turned away.
    pub producers_max: usize,
    /// Silence after which a producer may be forgotten for a new one, 10m to 30days.
    pub producer_forget_after: Duration,
    /// Waiting before a lost source is opened again.
    pub reconnect: ReconnectConfig,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            in_flight_receipts_max: 65_536,
            in_flight_bytes_max: 64 << 20,
            receipt_bytes_max: 256 << 10,
            producers_max: 10_000,
            producer_forget_after: Duration::from_secs(86_400),
            reconnect: ReconnectConfig {
                min: Duration::from_millis(100),
                max: Duration::from_secs(5),
                max_attempts: 0,
            },
        }
    }
}

impl IngestConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        section.read_value(
            "in_flight_receipts_max",
            &mut config.in_flight_receipts_max,
            &Count(1..=10_000_000),
        );
        section.read_value(
            "in_flight_bytes_max",
            &mut config.in_flight_bytes_max,
            &Bytes(64 << 10..=16 << 30),
        );
        section.read_value("receipt_bytes_max", &mut config.receipt_bytes_max, &Bytes(1 << 10..=64 << 20));
        section.read_value("producers_max", &mut config.producers_max, &Count(16..=1_000_000));
        let silence = DurationForm(FORGET_AFTER_MIN..=Duration::from_secs(30 * 86_400));
        section.read_value("producer_forget_after", &mut config.producer_forget_after, &silence);
        section.read_section("reconnect", |section| config.reconnect.read_keys(section));
        config
    }
}

/// `[buffer]`: the receipt log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferConfig {
    /// Receipts that become durable together, 1 to 65536.
    pub batch_records_max: usize,
    /// Their bytes, 64KiB to 256MiB.
    pub batch_bytes_max: u64,
    /// Size at which a new segment file is begun, 1MiB to 4GiB.
    pub segment_bytes: u64,
    /// Bytes that the receipt log may take on the medium, 0B to 1048576GiB; 0 means as much as there is. When reached,
    /// ingestion stops and upstream keeps its receipts.
    pub capacity_bytes: u64,
    /// Receipts between two checkpoints of what a start has to read again, 1000 to 1000000000.
    pub checkpoint_every_receipts: u64,
}

impl Default for BufferConfig {
    fn default() -> Self {
        Self {
            batch_records_max: 4096,
            batch_bytes_max: 8 << 20,
            segment_bytes: 64 << 20,
            capacity_bytes: 0,
            checkpoint_every_receipts: 1_000_000,
        }
    }
}

impl BufferConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        section.read_value("batch_records_max", &mut config.batch_records_max, &Count(1..=65_536));
        section.read_value("batch_bytes_max", &mut config.batch_bytes_max, &Bytes(64 << 10..=256 << 20));
        section.read_value("segment_bytes", &mut config.segment_bytes, &Bytes(1 << 20..=4 << 30));
        section.read_value("capacity_bytes", &mut config.capacity_bytes, &Bytes(0..=1 << 50));
        let receipts = Count(1000..=1_000_000_000);
        section.read_value("checkpoint_every_receipts", &mut config.checkpoint_every_receipts, &receipts);
        config
    }
}
