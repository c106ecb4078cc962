//! The configuration: one struct a TOML section, read from defaults, file, environment and flags, in this order.
//!
//! All settings are refused or accepted together: a [`ConfigError`] lists every violation with its path and place.
//! Nothing below this module reads the environment.

mod engine;
mod ingest;
mod kill_switch;
mod publish;
mod rabbitmq;
mod reader;
mod redis_stream;
mod retention;
mod retry;
mod rules;
mod schedule;
mod service;
mod sources;
mod storage;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use engine::{
    EngineConfig, EngineKind, HttpEngineConfig, HysteresisConfig, ProcessConfig, RespawnConfig, WorkerEnv,
};
pub use ingest::{BufferConfig, IngestConfig};
pub use kill_switch::{KillSwitchConfig, KillSwitchKind};
pub use publish::{HttpConfig, PublishConfig};
pub use rabbitmq::{RabbitConnection, RabbitFanOutConfig, RabbitSourceConfig, RabbitTopology};
pub use reader::secret::{Secret, SecretUrl};
pub use reader::section::Setting;
pub use reader::show::render;
pub use reader::tree::Origin;
pub use reader::violation::{ConfigError, Violation};
pub use redis_stream::RedisStreamConfig;
pub use retention::RetentionConfig;
pub use retry::ReconnectConfig;
pub use schedule::{ScheduleConfig, SymbolsConfig};
pub use service::{ClockConfig, ClockMode, LogConfig, LogFormat, LogLevel, ServiceConfig};
pub use sources::{DemoSourceConfig, FileSourceConfig, HttpSourceConfig, SourceConfig, Sources, Speed};
pub use storage::{MarkConfig, MarkKind, RedisConfig, RedisDurability, StorageConfig, StorageKind};

use reader::section::{Report, Section};
use reader::tree::{Table, Value};
use reader::{environment, file, tree};

/// The whole configuration. [`Config::default`] equals `config/default.toml`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The process itself.
    pub service: ServiceConfig,
    /// Whose time counts.
    pub clock: ClockConfig,
    /// Where the logs are.
    pub storage: StorageConfig,
    /// The server of a storage in Redis.
    pub redis: RedisConfig,
    /// Where receipts come from. Never empty.
    pub sources: Sources,
    /// How much may be on its way into the log.
    pub ingest: IngestConfig,
    /// The receipt log.
    pub buffer: BufferConfig,
    /// How much of the logs is kept.
    pub retention: RetentionConfig,
    /// When runs happen.
    pub schedule: ScheduleConfig,
    /// For which symbols.
    pub symbols: SymbolsConfig,
    /// Who answers a run.
    pub engine: EngineConfig,
    /// Where outputs go.
    pub publish: PublishConfig,
    /// Where operators stop all effects.
    pub kill_switch: KillSwitchConfig,
    /// The HTTP interface.
    pub http: HttpConfig,
    /// The log lines.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service: ServiceConfig::default(),
            clock: ClockConfig::default(),
            storage: StorageConfig::default(),
            redis: RedisConfig::default(),
            sources: sources::default_sources(),
            ingest: IngestConfig::default(),
            buffer: BufferConfig::default(),
            retention: RetentionConfig::default(),
            schedule: ScheduleConfig::default(),
            symbols: SymbolsConfig::default(),
            engine: EngineConfig::default(),
            publish: PublishConfig::default(),
            kill_switch: KillSwitchConfig::default(),
            http: HttpConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// Layers of the configuration, besides the defaults. Later fields win over earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The lowest layer: the file.
    pub base: Base,
    /// Environment variables. Those named `ORCHESTRATOR__SECTION__KEY` count, and `…__KEY_FILE`, which names a file
    /// with the value.
    pub environment: Vec<(OsString, OsString)>,
    /// What flags of the command line say.
    pub flags: Vec<FlagSetting>,
}

/// The file layer.
#[derive(Clone, Debug, Default)]
pub enum Base {
    /// No file.
    #[default]
    None,
    /// A file to be read.
    File(PathBuf),
    /// A file that is built into the binary.
    BuiltIn {
        /// Its name in messages.
        name: &'static str,
        /// Its content.
        toml: &'static str,
    },
}

impl Base {
    fn read(&self) -> Result<Table, Vec<Violation>> {
        match self {
            Self::None => Ok(Table::new()),
            Self::File(path) => file::read(path),
            Self::BuiltIn { name, toml } => file::parse(toml, Path::new(name)),
        }
    }
}

/// A setting that a flag gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagSetting {
    /// The flag, for messages.
    pub flag: String,
    /// The setting, for example `http.listen`.
    pub path: String,
    /// Its value, written as in the environment.
    pub value: String,
}

/// An accepted configuration and how it came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every effective setting with its origin, for `config show`.
    pub settings: Vec<Setting>,
}

impl Config {
    /// Reads and checks all layers.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with every violation of every layer. Only syntax errors come alone: what the file says is
    /// unknown then.
    pub fn load(layers: &Layers) -> Result<Loaded, ConfigError> {
        let mut tree = layers.base.read().map_err(|violations| ConfigError { violations })?;
        Self::of_tree(&mut tree, layers)
    }

    fn of_tree(tree: &mut Table, layers: &Layers) -> Result<Loaded, ConfigError> {
        let (config, report) = Self::judge(tree, layers);
        if report.violations.is_empty() {
            Ok(Loaded { config, settings: report.settings })
        } else {
            Err(ConfigError { violations: report.violations })
        }
    }

    /// Puts the layers on top of `tree` and reads all of it. A default stands in for what is wrong.
    fn judge(tree: &mut Table, layers: &Layers) -> (Self, Report) {
        let mut report = Report::default();
        report.violations.extend(environment::apply(tree, &layers.environment));
        for setting in &layers.flags {
            report.violations.extend(apply_flag(tree, setting));
        }
        let config = Section::read_tree(tree, &mut report, Self::read);
        rules::check(&config, &mut report);
        (config, report)
    }

    /// Reads where the kill switch is, for a stop and for a look at it: nothing else that is wrong may be in their way.
    ///
    /// Returns the configuration, in which only the place counts, and the violations that do not concern it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with every violation after which the place is not known.
    pub fn load_kill_switch_place(layers: &Layers) -> Result<(Self, Vec<Violation>), ConfigError> {
        let named = layers.flags.iter().any(|flag| kill_switch::NAMES_PLACE.contains(&flag.path.as_str()));
        let (mut tree, unread) = match layers.base.read() {
            Ok(tree) => (tree, Vec::new()),
            Err(violations) if named => (Table::new(), violations),
            Err(violations) => return Err(ConfigError { violations }),
        };
        let (config, report) = Self::judge(&mut tree, layers);
        let (violations, others): (Vec<_>, Vec<_>) = report
            .violations
            .into_iter()
            .partition(|violation| kill_switch::concerns_place(violation, named));
        if violations.is_empty() {
            Ok((config, unread.into_iter().chain(others).collect()))
        } else {
            Err(ConfigError { violations })
        }
    }

    /// A door for the fuzz targets: as [`load`](Self::load), with the text of a file named `name` in place of a base.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    #[cfg(any(test, feature = "testkit"))]
    #[doc(hidden)]
    pub fn load_text(text: &str, name: &str, layers: &Layers) -> Result<Loaded, ConfigError> {
        let mut tree = file::parse(text, Path::new(name)).map_err(|violations| ConfigError { violations })?;
        Self::of_tree(&mut tree, layers)
    }

    fn read(root: &mut Section<'_>) -> Self {
        Self {
            service: root.section("service", ServiceConfig::read),
            clock: root.section("clock", ClockConfig::read),
            storage: root.section("storage", StorageConfig::read),
            redis: root.section("redis", RedisConfig::read),
            sources: root.section("sources", sources::read),
            ingest: root.section("ingest", IngestConfig::read),
            buffer: root.section("buffer", BufferConfig::read),
            retention: root.section("retention", RetentionConfig::read),
            schedule: root.section("schedule", ScheduleConfig::read),
            symbols: root.section("symbols", SymbolsConfig::read),
            engine: root.section("engine", EngineConfig::read),
            publish: root.section("publish", PublishConfig::read),
            kill_switch: root.section("kill_switch", KillSwitchConfig::read),
            http: root.section("http", HttpConfig::read),
            log: root.section("log", LogConfig::read),
        }
    }

    /// The file of the kill switch.
    #[must_use]
    pub fn kill_switch_file(&self) -> PathBuf {
        self.service.data_dir.join(&self.kill_switch.file)
    }

    /// The file that outputs are appended to, if any.
    #[must_use]
    pub fn outputs_file(&self) -> Option<PathBuf> {
        self.publish.file.as_ref().map(|file| self.service.data_dir.join(file))
    }
}

fn apply_flag(tree: &mut Table, setting: &FlagSetting) -> Option<Violation> {
    let path: Vec<String> = setting.path.split('.').map(str::to_owned).collect();
    let origin = Origin::Flag { flag: setting.flag.clone() };
    if path.len() < 2 || path.iter().any(String::is_empty) {
        return Some(Violation {
            path: setting.flag.clone(),
            what: format!("{:?} names no setting", setting.path),
            allowed: "section.key".to_owned(),
            origin,
        });
    }
    tree::insert(tree, &path, Value::Word(setting.value.clone()), origin);
    None
}
