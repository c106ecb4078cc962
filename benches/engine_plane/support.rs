//! What every experiment needs: results with a baseline and a bar, percentiles, a directory on a real disk.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orchestrator_kernel::random::Rng;

use super::medium::Medium;

/// Why an experiment has no result. A missed bar is a result, a wrong answer of the system is not.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Small sizes, for trying whether an experiment works; its figures mean little.
    pub(crate) quick: bool,
    /// What the experiment runs on.
    pub(crate) medium: Medium,
}

impl Options {
    /// `full`, or `quick` when the run is a quick one.
    pub(crate) fn size<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// What a result has to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    /// The value is at least this.
    AtLeast(f64),
    /// The value is below this.
    Below(f64),
    /// Value / baseline is at least this.
    RatioAtLeast(f64),
    /// Value / baseline is at most this.
    RatioAtMost(f64),
    /// Reported only.
    None,
}

/// One line of results.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The result, in `unit`.
    pub(crate) value: f64,
    /// Of the value and of the baseline.
    pub(crate) unit: &'static str,
    /// What ran beside it in the same process, or the same run.
    pub(crate) baseline: &'static str,
    /// Its result, in `unit`.
    pub(crate) baseline_value: f64,
    /// What has to be reached.
    pub(crate) bar: Bar,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.value / self.baseline_value
    }

    /// Whether the bar is missed.
    pub(crate) fn is_miss(&self) -> bool {
        match self.bar {
            Bar::AtLeast(least) => self.value < least,
            Bar::Below(most) => most <= self.value,
            Bar::RatioAtLeast(least) => self.ratio() < least,
            Bar::RatioAtMost(most) => most < self.ratio(),
            Bar::None => false,
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.bar, self.is_miss()) {
            (Bar::None, _) => "–",
            (Bar::AtLeast(_) | Bar::Below(_) | Bar::RatioAtLeast(_) | Bar::RatioAtMost(_), true) => "MISS",
            (Bar::AtLeast(_) | Bar::Below(_) | Bar::RatioAtLeast(_) | Bar::RatioAtMost(_), false) => "PASS",
        }
    }

    /// As a line of a Markdown table, see [`TABLE_HEAD`].
    pub(crate) fn markdown(&self) -> String {
        let (value, base, unit) = (number(self.value), number(self.baseline_value), self.unit);
        let bar = match self.bar {
            Bar::AtLeast(least) => format!("≥ {} {unit}", number(least)),
            Bar::Below(most) => format!("< {} {unit}", number(most)),
            Bar::RatioAtLeast(least) => format!("ratio ≥ {least}"),
            Bar::RatioAtMost(most) => format!("ratio ≤ {most}"),
            Bar::None => "–".to_owned(),
        };
        format!(
            "| {} | {value} {unit} | {}: {base} {unit} | {:.2} | {bar} | {} |",
            self.what,
            self.baseline,
            self.ratio(),
            self.verdict()
        )
    }
}

/// The head of the table of results.
pub(crate) const TABLE_HEAD: &str =
    "| what | result | baseline in the same run | ratio | bar | |\n|---|---|---|---|---|---|";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.markdown().trim_matches(['|', ' ']))
    }
}

/// Three significant digits, thousands as `k` and `M`.
fn number(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        large if large >= 1e6 => (value / 1e6, " M"),
        large if large >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{suffix}")
}

/// The value that `percent` of the samples do not exceed; 0 without samples.
pub(crate) fn percentile(samples: &mut [f64], percent: f64) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    let rank = (percent / 100.0 * samples.len() as f64).ceil() as usize;
    samples.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The middle of the samples.
pub(crate) fn median(samples: &mut [f64]) -> f64 {
    percentile(samples, 50.0)
}

/// Events a second.
pub(crate) fn per_second(events: u64, took: Duration) -> f64 {
    events as f64 / took.as_secs_f64()
}

/// Fails with `what` unless it holds: the result would be a lie.
pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Outcome<()> {
    if holds { Ok(()) } else { Err(what().into()) }
}

/// Waits until `reached`, looking each millisecond.
pub(crate) async fn until(what: &str, patience: Duration, mut reached: impl FnMut() -> bool) -> Outcome<()> {
    let deadline = Instant::now() + patience;
    while !reached() {
        ensure(Instant::now() < deadline, || format!("not reached within {patience:?}: {what}"))?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// A runtime as the service has it: a thread a core.
pub(crate) fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// A directory below cargo's target directory, so that it is on a real disk; removed with the value.
pub(crate) fn scratch() -> Outcome<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("engine_plane-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// The bare way to durable bytes: one preallocated file, one write and one fdatasync a batch.
pub(crate) struct BareFile {
    file: File,
    size: u64,
    at: u64,
}

impl BareFile {
    /// A file of `size` bytes, reserved as the log reserves its segments.
    pub(crate) fn create(path: &Path, size: u64) -> Outcome<Self> {
        let file = File::create_new(path)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size)?;
        file.sync_all()?;
        Ok(Self { file, size, at: 0 })
    }

    /// Appends `bytes` durably.
    pub(crate) fn commit(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.write(bytes)?;
        Ok(self.file.sync_data()?)
    }

    /// Appends `bytes`, as durable as memory.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        ensure(self.at + bytes.len() as u64 <= self.size, || "the bare file is too small".to_owned())?;
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

/// Bytes that no compression or zero detection below makes cheaper.
pub(crate) fn noise(count: usize) -> Vec<u8> {
    let mut rng = Rng::new(1);
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// What the figures were measured on.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let kernel = read("/proc/sys/kernel/osrelease");
    let fs = file_system(Path::new(env!("CARGO_TARGET_TMPDIR")), &read("/proc/mounts"));
    format!("{cores} cores of {model}, Linux {}, {fs}", kernel.trim())
}

/// The type of the file system that holds `dir`.
fn file_system(dir: &Path, mounts: &str) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((PathBuf::from(fields.next()?), fields.next()?))
    });
    let holding = fields.filter(|(mount, _)| dir.starts_with(mount));
    let nearest = holding.max_by_key(|(mount, _)| mount.components().count());
    nearest.map_or("unknown file system", |(_, kind)| kind).to_owned()
}
