//! The command line: what can be asked, and the commands that need no running service.

mod ask;
mod backtest;
mod completions;
mod config;
mod cycle_lines;
mod demo;
mod demo_trading;
mod diff;
mod engine_worker;
mod export;
mod from;
pub mod healthcheck;
mod history;
mod import;
mod inspect;
mod kill_switch;
mod log_keep;
mod log_stat;
mod output;
mod outputs;
mod paper;
mod progress;
mod replay;
mod run;
mod schedule;
mod signals;
mod tally;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::trading::trading_demo_base;
use crate::config::{ConfigBase, FlagSetting, Layers};
use crate::process::exit::{self, ProcessExit};
use crate::process::version::VERSION_LINE;
use crate::service::wiring::worker_guard;
use crate::telemetry::logs;

pub use ask::HttpUrl;
pub use backtest::{BacktestArgs, run_backtest};
pub use completions::print_completions;
pub use config::{check_config as config_check, show_config as config_show};
pub use demo::run_demo;
pub use diff::{DiffArgs, run_diff};
pub use engine_worker::engine_worker;
pub use export::{ExportArgs, run_export};
pub use from::FromArgs;
pub use healthcheck::run_healthcheck;
pub use history::{HistoryCommand, run_history};
pub use import::{ImportArgs, ImportFormat, run_import};
pub use inspect::{InspectCommand, InspectPlace, run_inspect};
pub use kill_switch::{KillSwitchCommand, KillSwitchPlace, kill_switch};
pub use log_keep::{ArchiveArgs, TrimArgs, log_archive, log_trim};
pub use log_stat::log_stat;
pub use output::{print_answer, print_complaint};
pub use outputs::{DecisionArgs, OutputsCommand, OutputsPlace, run_outputs};
pub use paper::{PaperArgs, run_paper};
pub use replay::{EngineChoice, ReplayArgs, ReplaySpeed, run_replay};
pub use run::run_service;
pub use schedule::{NextFiresArgs, ScheduleCommand, run_schedule};
pub use signals::outlive_file_size_limit;
pub use verify::{VerifyArgs, run_verify};

/// Time that the demo runs when no command is given.
const DEMO_DURATION: Duration = Duration::from_secs(20);
/// What the demo runs.
const DEMO_TOML: &str = include_str!("../../config/demo.toml");

/// Turns raw market receipts into a deterministic, replayable sequence of engine runs and outputs.
///
/// Without a command it runs the demo for 20 seconds.
#[derive(Debug, Parser)]
#[command(name = "orchestrator", version = VERSION_LINE.as_str(), after_help = exit::exit_codes_help(), after_long_help = exit::exit_codes_help())]
struct Cli {
    #[command(subcommand)]
    command: Option<CliCommand>,
}

/// Command that the process was given.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum CliCommand {
    /// Run the service until it is told to stop.
    Run(RunArgs),
    /// Run a made-up market through the built-in engine and show what happens.
    Demo(DemoArgs),
    /// Serve a Signal Service and an Execution Gateway with a paper broker, to try the trading plane on. No real money.
    Paper(PaperArgs),
    /// Run a recorded capture through the live tree as fast as it goes, and report what came out.
    Backtest(BacktestArgs),
    /// Check or show the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a running service whether it is ready; exit code 0 when it is.
    Healthcheck(HealthcheckArgs),
    /// Look into the logs.
    #[command(subcommand)]
    Log(LogCommand),
    /// Write the outputs again, from the receipt log and the run log alone.
    Replay(ReplayArgs),
    /// Say whether everything that was recorded follows from the logs; where it first does not, if not.
    Verify(VerifyArgs),
    /// Write recorded logs as files for other tools.
    Export(ExportArgs),
    /// Turn recordings of other systems into receipts that a file source can read.
    Import(ImportArgs),
    /// Look back: what was known, what was decided, what came out.
    #[command(subcommand)]
    Inspect(InspectCommand),
    /// Compare two records of the same runs; exit code 0 equal, 1 different, 2 cannot tell.
    Diff(DiffArgs),
    /// List outputs that are refused for good, offer them again, or let them go.
    #[command(subcommand)]
    Outputs(OutputsCommand),
    /// Stop all effects, allow them again, or see how it stands.
    #[command(subcommand)]
    KillSwitch(KillSwitchCommand),
    /// See when the trading plane's schedules fire.
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Make the tables of the trading plane's history again.
    #[command(subcommand)]
    History(HistoryCommand),
    /// Become an engine worker that ends with the service. Started by the service only.
    #[command(name = worker_guard::COMMAND, hide = true)]
    EngineWorker {
        /// The service's process.
        parent: i32,
        /// Address space of the worker in bytes.
        #[arg(long)]
        memory_max: Option<u64>,
        /// The worker's command.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Write completions for a shell to standard output.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Commands on the configuration.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum ConfigCommand {
    /// List everything that is wrong with the configuration; exit code 78 when something is.
    Check(ConfigArgs),
    /// Print the effective configuration as TOML. Values that may be secrets are hidden.
    Show {
        /// Where the configuration comes from.
        #[command(flatten)]
        config: ConfigArgs,
        /// Say where each value comes from.
        #[arg(long)]
        origin: bool,
    },
}

/// Commands on the logs.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum LogCommand {
    /// Check the logs and print their extent.
    Stat(FromArgs),
    /// Copy the logs, or their old part, into an archive. Nothing is removed.
    Archive(ArchiveArgs),
    /// Remove the oldest records of a stopped service's logs, as far as they are not needed. There is no way back.
    Trim(TrimArgs),
}

/// Flags of the configuration: its file, and single values.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigArgs {
    /// Configuration file; without it: the defaults.
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Set one value, over file and environment, for example --set http.listen=127.0.0.1:9000.
    #[arg(long, value_name = "SECTION.KEY=VALUE", value_parser = parse_set)]
    pub set: Vec<FlagSetting>,
}

/// Options of `run`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct RunArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Stop by itself once every source has ended and everything is published.
    #[arg(long)]
    pub once: bool,
    /// Take logs on a server over from another writer that still runs. That one is fenced and ends.
    #[arg(long)]
    pub takeover: bool,
    /// Go on in a recording (clock.mode = "recorded") although settings or engine are not those that it was begun
    /// with. The change is recorded with the logs.
    #[arg(long)]
    pub accept_changes: bool,
    /// Take logs on a server as they are there, although less of them is there than was known, or nobody knows how much
    /// there was. Positions beyond them are given out again. For one start; it is logged for each log.
    #[arg(long)]
    pub trust_server: bool,
}

/// Options of `demo`.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct DemoArgs {
    /// Directory for the logs and outputs; without it: a temporary one that is removed afterwards.
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Let two strategies trade on it, by cycles whose every step is on record. No order is sent.
    #[arg(long)]
    pub trading: bool,
    /// Stop after this time, for example 20s; without it: at Ctrl-C.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Symbols of the made-up market.
    #[arg(long, value_name = "N")]
    pub symbols: Option<u64>,
    /// Receipts a second over all symbols.
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
    /// Address and port of the HTTP interface; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
}

/// Options of `healthcheck`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct HealthcheckArgs {
    /// What to ask. Plain HTTP only.
    #[arg(long, default_value = "http://127.0.0.1:8003/readyz")]
    pub url: HttpUrl,
    /// Time for the answer.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// Reads the command line. Prints help, version or what is not understood, and ends the process then (code 0 or 2).
#[must_use]
pub fn parse_command_line() -> CliCommand {
    match Cli::try_parse() {
        Ok(cli) => cli.into_command(),
        Err(error) => {
            // It quotes what was typed, which may be a URL with its login in the wrong place.
            let quoted = error.render().to_string();
            let said = output::without_logins(&quoted);
            if said == quoted {
                error.exit();
            }
            logs::write_line(said.trim_end());
            std::process::exit(error.exit_code())
        }
    }
}

impl Cli {
    fn into_command(self) -> CliCommand {
        let demo = || CliCommand::Demo(DemoArgs { duration: Some(DEMO_DURATION), ..DemoArgs::default() });
        self.command.unwrap_or_else(demo)
    }
}

impl ConfigArgs {
    /// The layers of the configuration, with these environment variables.
    #[must_use]
    pub fn config_layers(&self, environment: Vec<(OsString, OsString)>) -> Layers {
        let base = self.config.clone().map_or(ConfigBase::None, ConfigBase::File);
        Layers { base, environment, flags: self.set.clone() }
    }

    /// The arguments that say the same to another process.
    #[must_use]
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        let file = self.config.iter().flat_map(|path| ["--config".to_owned(), path.display().to_string()]);
        let set = self
            .set
            .iter()
            .flat_map(|FlagSetting { path, value, .. }| ["--set".to_owned(), format!("{path}={value}")]);
        file.chain(set).collect()
    }
}

impl DemoArgs {
    /// The layers of the demo's configuration, with these environment variables. Without `--data` the data directory
    /// is the usual one: the caller puts a temporary one in its place.
    #[must_use]
    pub fn config_layers(&self, environment: Vec<(OsString, OsString)>) -> Layers {
        let flag = |flag: &str, path: &str, value: Option<String>| {
            value.map(|value| FlagSetting { flag: flag.to_owned(), path: path.to_owned(), value })
        };
        let flags = [
            flag("--data", "service.data_dir", self.data.clone()),
            flag("--symbols", "sources.demo.symbols", self.symbols.map(|symbols| symbols.to_string())),
            flag("--rate", "sources.demo.rate_per_second", self.rate.map(|rate| rate.to_string())),
            flag("--listen", "http.listen", self.listen.clone()),
        ];
        let base = match self.trading {
            true => trading_demo_base(),
            false => ConfigBase::BuiltIn { name: "config/demo.toml", toml: DEMO_TOML },
        };
        Layers { base, environment, flags: flags.into_iter().flatten().collect() }
    }
}

/// Runs a command that needs no tree to its end.
fn block_on(command: impl Future<Output = ProcessExit>) -> ProcessExit {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            print_complaint(&error);
            ProcessExit::Internal
        }
    }
}

fn parse_set(text: &str) -> Result<FlagSetting, &'static str> {
    let (path, value) = text.split_once('=').ok_or("expected SECTION.KEY=VALUE")?;
    Ok(FlagSetting { flag: "--set".to_owned(), path: path.to_owned(), value: value.to_owned() })
}

/// The definition of the command line.
fn command_definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn check_parse(arguments: &[&str]) -> CliCommand {
        Cli::try_parse_from(std::iter::once(&"orchestrator").chain(arguments)).unwrap().into_command()
    }

    #[test]
    fn the_definition_is_consistent() {
        command_definition().debug_assert();
    }

    #[test]
    fn no_command_is_the_demo_for_twenty_seconds() {
        let demo = DemoArgs { duration: Some(Duration::from_secs(20)), ..DemoArgs::default() };

        assert_eq!(check_parse(&[]), CliCommand::Demo(demo));
        assert_eq!(check_parse(&["demo"]), CliCommand::Demo(DemoArgs::default()));
    }

    #[test]
    fn flags_of_the_demo_become_its_configuration() {
        let arguments = ["demo", "--data", "d", "--symbols", "9", "--rate", "50", "--listen", "127.0.0.1:0"];
        let CliCommand::Demo(args) = check_parse(&arguments) else { panic!("no demo") };

        let shown = crate::config::render_settings(
            &Config::load(&args.config_layers(Vec::new())).unwrap().settings,
            true,
        );

        for (line, flag) in [
            ("data_dir = \"d\"", "--data"),
            ("symbols = 9", "--symbols"),
            ("rate_per_second = 50", "--rate"),
            ("listen = \"127.0.0.1:0\"", "--listen"),
        ] {
            let found = shown
                .lines()
                .find(|candidate| candidate.starts_with(line))
                .unwrap_or_else(|| panic!("{line}"));
            assert!(found.ends_with(&format!("# flag {flag}")), "{found}");
        }
    }

    #[test]
    fn set_takes_the_first_equals_sign() {
        let CliCommand::Run(args) = check_parse(&["run", "--config", "c.toml", "--set", "a.b=c=d"]) else {
            panic!()
        };

        let set = FlagSetting { flag: "--set".to_owned(), path: "a.b".to_owned(), value: "c=d".to_owned() };
        assert_eq!(args.config.to_arguments(), ["--config", "c.toml", "--set", "a.b=c=d"]);
        assert_eq!(args.config, ConfigArgs { config: Some(PathBuf::from("c.toml")), set: vec![set] });
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for arguments in [
            &["runn"][..],
            &["config"],
            &["run", "--set", "x"],
            &["demo", "--for", "20"],
            &["healthcheck", "--url", "https://127.0.0.1/"],
            &["log", "stat", "--archive", "d"],
            &["replay", "--range", "7"],
            &["replay", "--speed", "0x"],
            &["verify", "--report", "html"],
            &["completions", "csh"],
        ] {
            let parsed = Cli::try_parse_from(std::iter::once(&"orchestrator").chain(arguments));
            assert_eq!(
                parsed.expect_err(&arguments.join(" ")).exit_code(),
                i32::from(ProcessExit::Usage.code()),
                "{arguments:?}"
            );
        }
    }

    /// A range is of receipts here and of run records there: the placeholder itself says which.
    #[test]
    fn a_range_says_what_it_counts() {
        for (command, counted) in [
            ("export", "<FIRST..LAST RECEIPT>"),
            ("replay", "<FIRST..LAST RUN RECORD>"),
            ("diff", "<FIRST..LAST RUN RECORD>"),
        ] {
            let mut definition = command_definition();
            let help = definition.find_subcommand_mut(command).unwrap().render_help().to_string();

            assert!(help.contains(&format!("--range {counted}")), "{command}:\n{help}");
        }
    }

    #[test]
    fn help_lists_every_exit_code() {
        let help = command_definition().render_long_help().to_string();

        for exit in ProcessExit::ALL {
            assert!(help.contains(&format!("{:>2}  {}", exit.code(), exit.help_text())), "{help}");
        }
    }
}
