//! The binary: reads the command line and does what it says.

use std::process::ExitCode;

use orchestrator::cli::{self, CliCommand, ConfigCommand, LogCommand};
use orchestrator::telemetry::logs;

fn main() -> ExitCode {
    orchestrator::process::tls::install_crypto();
    if let Err(error) = cli::outlive_file_size_limit() {
        cli::print_complaint(&format!("the file-size limit cannot be handled: {error}"));
    }
    let code = run(cli::parse_command_line());
    logs::finish_logging();
    code
}

fn run(command: CliCommand) -> ExitCode {
    let environment = std::env::vars_os().collect();
    let exit = match command {
        CliCommand::KillSwitch(command) => return cli::kill_switch(&command, environment).into(),
        CliCommand::Config(ConfigCommand::Check(config)) => cli::config_check(&config, environment),
        CliCommand::Config(ConfigCommand::Show { config, origin }) => {
            cli::config_show(&config, environment, origin)
        }
        CliCommand::Healthcheck(args) => cli::run_healthcheck(&args),
        CliCommand::EngineWorker { parent, memory_max, command } => {
            return cli::engine_worker(parent, memory_max, &command);
        }
        CliCommand::Schedule(command) => cli::run_schedule(&command, environment),
        CliCommand::History(command) => cli::run_history(&command, environment),
        CliCommand::Outputs(command) => cli::run_outputs(&command, environment),
        CliCommand::Completions { shell } => cli::print_completions(shell),
        CliCommand::Run(args) => cli::run_service(&args, environment),
        CliCommand::Demo(args) => cli::run_demo(&args, environment),
        CliCommand::Paper(args) => cli::run_paper(&args, environment),
        CliCommand::Replay(args) => cli::run_replay(&args, environment),
        CliCommand::Verify(args) => cli::run_verify(&args, environment),
        CliCommand::Backtest(args) => cli::run_backtest(&args, environment),
        CliCommand::Diff(args) => cli::run_diff(&args, environment),
        CliCommand::Import(args) => cli::run_import(&args),
        CliCommand::Inspect(command) => cli::run_inspect(&command, environment),
        CliCommand::Export(args) => cli::run_export(&args, environment),
        CliCommand::Log(LogCommand::Stat(args)) => cli::log_stat(&args, environment),
        CliCommand::Log(LogCommand::Archive(args)) => cli::log_archive(&args, environment),
        CliCommand::Log(LogCommand::Trim(args)) => cli::log_trim(&args, environment),
    };
    exit.into()
}
