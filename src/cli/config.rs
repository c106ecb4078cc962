//! `orchestrator config check` and `config show`.

use std::ffi::OsString;

use super::ConfigArgs;
use super::output::{print_answer, print_complaint};
use crate::config::{Config, Loaded, render_settings};
use crate::process::exit::ProcessExit;

/// Says whether the configuration is accepted, or everything that is wrong with it.
#[must_use]
pub fn check_config(args: &ConfigArgs, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    load_and_tell(args, environment, |loaded| {
        format!("configuration is valid, {} settings\n", loaded.settings.len())
    })
}

/// Prints the effective configuration.
#[must_use]
pub fn show_config(
    args: &ConfigArgs,
    environment: Vec<(OsString, OsString)>,
    with_origins: bool,
) -> ProcessExit {
    load_and_tell(args, environment, |loaded| render_settings(&loaded.settings, with_origins))
}

fn load_and_tell(
    args: &ConfigArgs,
    environment: Vec<(OsString, OsString)>,
    tell: impl FnOnce(&Loaded) -> String,
) -> ProcessExit {
    match Config::load(&args.config_layers(environment)) {
        Ok(loaded) => print_answer(&tell(&loaded)),
        Err(error) => {
            print_complaint(&error);
            ProcessExit::Config
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_refused_configuration_exits_with_its_code() {
        let args = ConfigArgs { config: Some(PathBuf::from("no/such.toml")), set: Vec::new() };

        assert_eq!(check_config(&args, Vec::new()), ProcessExit::Config);
        assert_eq!(check_config(&ConfigArgs::default(), Vec::new()), ProcessExit::Ok);
        assert_eq!(
            check_config(&ConfigArgs::default(), vec![("ORCHESTRATOR__A__B".into(), "x".into())]),
            ProcessExit::Config
        );
    }
}
