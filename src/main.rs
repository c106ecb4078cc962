//! The binary: reads the command line and does what it says.

use std::process::ExitCode;

use orchestrator::cli::{self, Command, ConfigCommand, LogCommand};
use orchestrator::telemetry::logs;

fn main() -> ExitCode {
    orchestrator::process::tls::install();
    if let Err(error) = cli::outlive_file_size_limit() {
        cli::complain(&format!("the file-size limit cannot be handled: {error}"));
    }
    let code = run(cli::parse());
    logs::finish();
    code
}

fn run(command: Command) -> ExitCode {
    let environment = std::env::vars_os().collect();
    let exit = match command {
        Command::KillSwitch(command) => return cli::kill_switch(&command, environment).into(),
        Command::Config(ConfigCommand::Check(config)) => cli::config_check(&config, environment),
        Command::Config(ConfigCommand::Show { config, origin }) => {
            cli::config_show(&config, environment, origin)
        }
        Command::Healthcheck(args) => cli::healthcheck(&args),
        Command::EngineWorker { parent, memory_max, command } => {
            return cli::engine_worker(parent, memory_max, &command);
        }
        Command::Outputs(command) => cli::outputs(&command, environment),
        Command::Completions { shell } => cli::completions(shell),
        Command::Run(args) => cli::run(&args, environment),
        Command::Demo(args) => cli::demo(&args, environment),
        Command::Replay(args) => cli::replay(&args, environment),
        Command::Verify(args) => cli::verify(&args, environment),
        Command::Backtest(args) => cli::backtest(&args, environment),
        Command::Diff(args) => cli::diff(&args, environment),
        Command::Import(args) => cli::import(&args),
        Command::Inspect(command) => cli::inspect(&command, environment),
        Command::Export(args) => cli::export(&args, environment),
        Command::Log(LogCommand::Stat(args)) => cli::log_stat(&args, environment),
        Command::Log(LogCommand::Archive(args)) => cli::log_archive(&args, environment),
        Command::Log(LogCommand::Trim(args)) => cli::log_trim(&args, environment),
    };
    exit.into()
}
