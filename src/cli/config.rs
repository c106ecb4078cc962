//! `orchestrator config check` and `config show`.

use std::ffi::OsString;

use super::ConfigArgs;
use super::output::{complain, print};
use crate::config::{Config, Loaded, render};
use crate::process::exit::Exit;

/// Says whether the configuration is accepted, or everything that is wrong with it.
#[must_use]
pub fn check(args: &ConfigArgs, environment: Vec<(OsString, OsString)>) -> Exit {
    answer(args, environment, |loaded| {
        format!("configuration is valid, {} settings\n", loaded.settings.len())
    })
}

/// Prints the effective configuration.
#[must_use]
pub fn show(args: &ConfigArgs, environment: Vec<(OsString, OsString)>, with_origins: bool) -> Exit {
    answer(args, environment, |loaded| render(&loaded.settings, with_origins))
}

fn answer(
    args: &ConfigArgs,
    environment: Vec<(OsString, OsString)>,
    tell: impl FnOnce(&Loaded) -> String,
) -> Exit {
    match Config::load(&args.layers(environment)) {
        Ok(loaded) => print(&tell(&loaded)),
        Err(error) => {
            complain(&error);
            Exit::Config
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

        assert_eq!(check(&args, Vec::new()), Exit::Config);
        assert_eq!(check(&ConfigArgs::default(), Vec::new()), Exit::Ok);
        assert_eq!(
            check(&ConfigArgs::default(), vec![("ORCHESTRATOR__A__B".into(), "x".into())]),
            Exit::Config
        );
    }
}
