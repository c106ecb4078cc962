//! Where the commands that read recorded logs find them: a data directory, a server, or what a configuration names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{ConfigArgs, print_complaint};
use crate::config::Config;
use crate::process::exit::ProcessExit;
use crate::service::wiring::reading::LogsPlace;

/// Options that name recorded logs.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct FromArgs {
    /// Data directory of a stopped service, or `redis://[user:password@]host[:port][/database]`; without it: what the
    /// configuration names.
    #[arg(long, visible_alias = "data", value_name = "DIR|URL")]
    pub from: Option<String>,
    /// With a URL: the namespace of the keys.
    #[arg(long, value_name = "NAME", requires = "from", default_value = "default")]
    pub namespace: String,
    /// With a URL: the data directory whose archive holds what moved out of the server; its service must be stopped.
    /// With a directory: where its archive is, when it is not in there.
    #[arg(long, value_name = "DIR", requires = "from")]
    pub archive: Option<PathBuf>,
    /// Where the configuration comes from that names the engine, and without --from the logs.
    #[command(flatten)]
    pub config: ConfigArgs,
}

impl FromArgs {
    /// The configuration and the place of the logs. What is wrong was said on standard error.
    ///
    /// # Errors
    ///
    /// The exit: the configuration is refused, or there are no logs.
    pub fn load_config_and_place(
        &self,
        environment: Vec<(OsString, OsString)>,
    ) -> Result<(Config, LogsPlace), ProcessExit> {
        let config = match Config::load(&self.config.config_layers(environment)) {
            Ok(loaded) => loaded.config,
            Err(error) => {
                print_complaint(&error);
                return Err(ProcessExit::Config);
            }
        };
        let place = self.logs_place(&config)?;
        Ok((config, place))
    }

    /// The place of the logs. What is wrong was said on standard error.
    ///
    /// # Errors
    ///
    /// The exit: there are no logs.
    pub(super) fn logs_place(&self, config: &Config) -> Result<LogsPlace, ProcessExit> {
        let place = match &self.from {
            None => LogsPlace::of_config(config),
            Some(url) if is_url(url) => {
                LogsPlace::on_server(url, &self.namespace, self.archive.clone(), config)
            }
            Some(dir) => match &self.archive {
                None => LogsPlace::DataDir(PathBuf::from(dir)),
                Some(archive) => LogsPlace::Archived { dir: PathBuf::from(dir), archive: archive.clone() },
            },
        };
        match &place {
            LogsPlace::DataDir(dir) | LogsPlace::Archived { dir, .. } if !holds_logs(dir) => {
                print_complaint(&format!(
                    "{} holds no logs; name the data directory with --from DIR",
                    dir.display()
                ));
                Err(ProcessExit::Unavailable)
            }
            LogsPlace::DataDir(_) | LogsPlace::Archived { .. } | LogsPlace::Redis { .. } => Ok(place),
        }
    }
}

/// Whether `text` is meant as a URL, be it a right one or not: one with a slip in it may hold a password, and must not
/// be taken for the name of a directory, which is shown.
pub(super) fn is_url(text: &str) -> bool {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme).trim();
    let is_known =
        ["redis", "rediss", "redis+unix", "unix"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    is_known || text.contains("://")
}

/// One of the logs is enough: that another one is missing is said when they are opened.
fn holds_logs(dir: &Path) -> bool {
    ["receipts", "runs"].iter().any(|log| dir.join(log).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_as_a_url_is_never_taken_for_a_directory() {
        for url in [
            "redis://u:p@host",
            "rediss://host:1/2",
            "unix:///run/redis",
            "REDIS://u:p@host",
            " redis://u:p@host",
            "redis:/u:p@host",
            "redis:u:p@host",
            "http://u:p@host",
        ] {
            assert!(is_url(url), "{url}");
        }
        for dir in ["day", "./redis", "/var/lib/redis", "a:b", "redis"] {
            assert!(!is_url(dir), "{dir}");
        }
    }
}
