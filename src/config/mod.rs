//! The configuration: one struct a TOML section, read from defaults, file, environment and flags, in this order.
//!
//! All settings are refused or accepted together: a [`ConfigError`] lists every violation with its path and place.
//! Nothing below this module reads the environment.

mod engine;
mod flat_names;
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
pub mod trading;

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
pub use reader::show::render_settings;
pub use reader::tree::Origin;
pub use reader::violation::{ConfigError, Violation};
pub use redis_stream::RedisStreamConfig;
pub use retention::RetentionConfig;
pub use retry::ReconnectConfig;
pub use schedule::{ScheduleConfig, SymbolsConfig};
pub use service::{ClockConfig, ClockMode, LogConfig, LogFormat, LogLevel, ServiceConfig};
pub use sources::{
    DemoSourceConfig, FileSourceConfig, HttpSourceConfig, RecordingSpeed, SourceConfig, Sources,
};
pub use storage::{MarkConfig, MarkKind, RedisConfig, RedisDurability, StorageConfig, StorageKind};

use reader::section::{ReadReport, Section};
use reader::tree::{Table, Value};
use reader::{environment, file, tree};
use trading::TradingConfig;

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
    /// The trading plane.
    pub trading: TradingConfig,
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
            trading: TradingConfig::default(),
        }
    }
}

/// Layers of the configuration, besides the defaults. Later fields win over earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The lowest layer: the file.
    pub base: ConfigBase,
    /// Environment variables. Those named `ORCHESTRATOR__SECTION__KEY` count, and `…__KEY_FILE`, which names a file
    /// with the value; below them the flat names of the specifications.
    pub environment: Vec<(OsString, OsString)>,
    /// What flags of the command line say.
    pub flags: Vec<FlagSetting>,
}

/// The file layer.
#[derive(Clone, Debug, Default)]
pub enum ConfigBase {
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

impl ConfigBase {
    fn read_table(&self) -> Result<Table, Vec<Violation>> {
        match self {
            Self::None => Ok(Table::new()),
            Self::File(path) => file::read_file(path),
            Self::BuiltIn { name, toml } => file::parse_text(toml, Path::new(name)),
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
        let mut tree = layers.base.read_table().map_err(|violations| ConfigError { violations })?;
        Self::of_tree(&mut tree, layers)
    }

    fn of_tree(tree: &mut Table, layers: &Layers) -> Result<Loaded, ConfigError> {
        let (config, report) = Self::judge_layers(tree, layers);
        if report.violations.is_empty() {
            Ok(Loaded { config, settings: report.settings })
        } else {
            Err(ConfigError { violations: report.violations })
        }
    }

    /// Puts the layers on top of `tree` and reads all of it. A default stands in for what is wrong.
    fn judge_layers(tree: &mut Table, layers: &Layers) -> (Self, ReadReport) {
        let mut report = ReadReport::default();
        report.violations.extend(environment::apply_variables(tree, &layers.environment));
        for setting in &layers.flags {
            report.violations.extend(apply_flag(tree, setting));
        }
        report.violations.extend(flat_names::apply_flat_names(tree, &layers.environment));
        let config = Section::read_tree(tree, &mut report, Self::from_root);
        rules::check_rules(&config, &mut report);
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
        let (mut tree, unread) = match layers.base.read_table() {
            Ok(tree) => (tree, Vec::new()),
            Err(violations) if named => (Table::new(), violations),
            Err(violations) => return Err(ConfigError { violations }),
        };
        let (config, report) = Self::judge_layers(&mut tree, layers);
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
        let mut tree =
            file::parse_text(text, Path::new(name)).map_err(|violations| ConfigError { violations })?;
        Self::of_tree(&mut tree, layers)
    }

    fn from_root(root: &mut Section<'_>) -> Self {
        Self {
            service: root.read_section("service", ServiceConfig::from_section),
            clock: root.read_section("clock", ClockConfig::from_section),
            storage: root.read_section("storage", StorageConfig::from_section),
            redis: root.read_section("redis", RedisConfig::from_section),
            sources: root.read_section("sources", sources::read_sources),
            ingest: root.read_section("ingest", IngestConfig::from_section),
            buffer: root.read_section("buffer", BufferConfig::from_section),
            retention: root.read_section("retention", RetentionConfig::from_section),
            schedule: root.read_section("schedule", ScheduleConfig::from_section),
            symbols: root.read_section("symbols", SymbolsConfig::from_section),
            engine: root.read_section("engine", EngineConfig::from_section),
            publish: root.read_section("publish", PublishConfig::from_section),
            kill_switch: root.read_section("kill_switch", KillSwitchConfig::from_section),
            http: root.read_section("http", HttpConfig::from_section),
            log: root.read_section("log", LogConfig::from_section),
            trading: root.read_section("trading", TradingConfig::from_section),
        }
    }

    /// The file of the kill switch.
    #[must_use]
    pub fn kill_switch_file(&self) -> PathBuf {
        self.service.data_dir.join(&self.kill_switch.file)
    }

    /// The file of a history in SQLite.
    #[must_use]
    pub fn history_file(&self) -> PathBuf {
        self.service.data_dir.join(&self.trading.history.file)
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
    tree::insert_at_path(tree, &path, Value::Word(setting.value.clone()), origin);
    None
}
