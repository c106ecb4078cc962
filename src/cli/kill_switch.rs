//! `orchestrator kill-switch`: what an operator does with the kill switch. Works while the service runs and while not.

use std::ffi::OsString;
use std::future::Future;
use std::sync::Arc;

use clap::{Args, Subcommand};
use orchestrator_kernel::kill_switch::{
    Applied, KillSwitchReadError, OperatorCommand, Refusal, TradingState, UnknownReason,
};
use orchestrator_kernel::ports::kill_switch::{ApplyError, KillSwitchStore};
use serde_json::{Map, Value, json};

use super::{ConfigArgs, print_answer, print_complaint};
use crate::config::{Config, ConfigError, FlagSetting, Layers};
use crate::process::exit::ProcessExit;
use crate::process::explain::explain_error;
use crate::process::time::wall_now;
use crate::service::wiring;

/// Lines of history that `status` shows.
const HISTORY_SHOWN: usize = 10;

/// Commands on the kill switch.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum KillSwitchCommand {
    /// Say that trading is allowed while nothing is stored: once at the start, or after the value was lost.
    Init {
        /// Which kill switch.
        #[command(flatten)]
        place: KillSwitchPlace,
        /// Who you are; it stands in the history.
        #[arg(long, value_name = "NAME")]
        operator: String,
    },
    /// Stop all effects, whatever is stored.
    Engage {
        /// Which kill switch.
        #[command(flatten)]
        place: KillSwitchPlace,
        /// Who you are; it stands in the history.
        #[arg(long, value_name = "NAME")]
        operator: String,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// More about it, as a JSON object.
        #[arg(long, value_name = "JSON", value_parser = parse_object)]
        details: Option<Map<String, Value>>,
    },
    /// Allow effects again.
    Disengage {
        /// Which kill switch.
        #[command(flatten)]
        place: KillSwitchPlace,
        /// Who you are; it stands in the history.
        #[arg(long, value_name = "NAME")]
        operator: String,
        /// What was found and done.
        #[arg(long, value_name = "TEXT")]
        notes: Option<String>,
    },
    /// Read it; exit code 0 when trading is allowed, 1 when it is halted, 2 when that is unknown.
    Status {
        /// Which kill switch.
        #[command(flatten)]
        place: KillSwitchPlace,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Place of the kill switch that is meant.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct KillSwitchPlace {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The kill switch of this Redis, for example redis://127.0.0.1:6379/0. A password belongs into the configuration:
    /// other users of the machine can see the command line.
    #[arg(long, value_name = "URL", conflicts_with = "file")]
    pub url: Option<String>,
    /// The kill switch in this file.
    #[arg(long, value_name = "PATH")]
    pub file: Option<String>,
}

impl KillSwitchPlace {
    /// The layers of the configuration, with these environment variables.
    fn config_layers(&self, environment: Vec<(OsString, OsString)>) -> Layers {
        let mut layers = self.config.config_layers(environment);
        let mut set = |flag: &str, key: &str, value: &str| {
            let path = format!("kill_switch.{key}");
            layers.flags.push(FlagSetting { flag: flag.to_owned(), path, value: value.to_owned() });
        };
        if let Some(url) = &self.url {
            set("--url", "kind", "redis");
            set("--url", "url", url);
            // Not the one of the file, which is of the server named there.
            set("--url", "operator_url", "");
        }
        if let Some(file) = &self.file {
            // Relative to where the operator stands, not to the data directory.
            let absolute = std::path::absolute(file).unwrap_or_else(|_| file.into());
            set("--file", "kind", "file");
            set("--file", "file", &absolute.to_string_lossy());
        }
        layers
    }
}

impl KillSwitchCommand {
    const fn kill_switch_place(&self) -> &KillSwitchPlace {
        match self {
            Self::Init { place, .. }
            | Self::Engage { place, .. }
            | Self::Disengage { place, .. }
            | Self::Status { place, .. } => place,
        }
    }
}

impl KillSwitchCommand {
    /// Whether it can make nothing less safe. It then needs to know no more than where the kill switch is.
    const fn is_safe(&self) -> bool {
        match self {
            Self::Engage { .. } | Self::Status { .. } => true,
            Self::Init { .. } | Self::Disengage { .. } => false,
        }
    }

    fn load_config(&self, environment: Vec<(OsString, OsString)>) -> Result<Config, ConfigError> {
        let layers = self.kill_switch_place().config_layers(environment);
        if !self.is_safe() {
            return Config::load(&layers).map(|loaded| loaded.config);
        }
        let (config, others) = Config::load_kill_switch_place(&layers)?;
        for violation in others {
            print_complaint(&format!("not needed for this, but wrong in the configuration: {violation}"));
        }
        Ok(config)
    }
}

fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("is not a JSON object: {error}"))
}

/// Carries out the command. The exit code is a number of its own for `status`.
#[must_use]
pub fn kill_switch(command: &KillSwitchCommand, environment: Vec<(OsString, OsString)>) -> u8 {
    let config = match command.load_config(environment) {
        Ok(config) => config,
        Err(error) => {
            print_complaint(&error);
            return ProcessExit::Config.code();
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_complaint(&format!("cannot start the runtime: {error}"));
            return ProcessExit::Internal.code();
        }
    };
    let code = runtime.block_on(async {
        match wiring::kill_switch::open_store(&config).await {
            Ok(store) => carry_out(command, &store).await,
            Err(error) => {
                print_complaint(&explain_error(&error));
                error.to_exit().code()
            }
        }
    });
    // A read of a disk that hangs must not hold up the end.
    runtime.shutdown_background();
    code
}

async fn carry_out(command: &KillSwitchCommand, store: &Arc<dyn KillSwitchStore>) -> u8 {
    let act = match command.clone() {
        KillSwitchCommand::Init { operator, .. } => OperatorCommand::Init { operator },
        KillSwitchCommand::Engage { operator, reason, details, .. } => {
            OperatorCommand::Engage { operator, reason, details }
        }
        KillSwitchCommand::Disengage { operator, notes, .. } => {
            OperatorCommand::Disengage { operator, notes }
        }
        KillSwitchCommand::Status { json, .. } => return print_status(store.as_ref(), json).await,
    };
    match store.apply_command(&act, wall_now()).await {
        Ok(applied) => print_applied(&act, &applied).code(),
        Err(error) => {
            print_complaint(&error);
            let exit = exit_of_refusal(&error);
            if act.only_blocks() && exit == ProcessExit::Unavailable {
                tell_what_holds(store.as_ref()).await;
            }
            exit.code()
        }
    }
}

/// Prints what is in force now.
fn print_applied(act: &OperatorCommand, applied: &Applied) -> ProcessExit {
    for shortfall in &applied.shortfalls {
        print_complaint(shortfall);
    }
    let printed =
        applied.value_in_force().map_or(ProcessExit::Ok, |value| print_answer(&format!("{value}\n")));
    // A stop that nobody could be told of is a stop.
    if act.only_blocks() { ProcessExit::Ok } else { printed }
}

/// Says what holds after a stop that could not be carried out, and what is left to do.
async fn tell_what_holds(store: &dyn KillSwitchStore) {
    let state = read_state(store).await;
    let place = store.place_text();
    print_complaint(&match &state {
        TradingState::Trading => format!(
            "the state stays `trading` ({place}). To stop effects all the same: engage it where {place} can be written, \
             take it away from the services (one that cannot read it blocks within kill_switch.lease), or stop the services"
        ),
        TradingState::Halted(_) => format!("the state is `halted` ({place}): effects are blocked"),
        TradingState::Unknown(why) => format!("the state is `unknown` from here ({place}): {why}"),
    });
}

/// The state, as far as the store tells.
async fn read_state(store: &dyn KillSwitchStore) -> TradingState {
    match read_within_timeout(store.read_value()).await {
        Ok(stored) => TradingState::of_stored(&stored),
        Err(error) => TradingState::Unknown(UnknownReason::Refused(error.to_string())),
    }
}

const fn exit_of_refusal(error: &ApplyError) -> ProcessExit {
    match error {
        ApplyError::Refused(Refusal::Unfit { .. }) => ProcessExit::Usage,
        ApplyError::Refused(
            Refusal::AlreadyEngaged | Refusal::NotEngaged | Refusal::NotKnown(_) | Refusal::NotMissing,
        ) => ProcessExit::Different,
        ApplyError::Unchanged(_) | ApplyError::Unknown(_) => ProcessExit::Unavailable,
    }
}

async fn print_status(store: &dyn KillSwitchStore, as_json: bool) -> u8 {
    let state = read_state(store).await;
    let history = read_within_timeout(store.read_history(HISTORY_SHOWN)).await.unwrap_or_default();
    let text = if as_json {
        let lines: Vec<Value> = history
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| json!({"unreadable": line})))
            .collect();
        let (by, at) = match &state {
            TradingState::Halted(halt) => (halt.by.clone(), halt.at.clone()),
            TradingState::Trading | TradingState::Unknown(_) => (None, None),
        };
        let report = json!({
            "state": state.state_word(), "reason": state.block_reason(), "place": store.place_text(),
            "engaged_by": by, "engaged_at": at, "history": lines,
        });
        format!("{report:#}\n")
    } else {
        let mut text = format!("{}\n", state.state_word());
        for line in state.block_reason().into_iter().chain([store.place_text()]).chain(history) {
            text.push_str(&format!("  {line}\n"));
        }
        text
    };
    let printed = print_answer(&text);
    match (printed, state) {
        (ProcessExit::Ok, TradingState::Trading) => 0,
        (ProcessExit::Ok, TradingState::Halted(_)) => 1,
        (ProcessExit::Ok, TradingState::Unknown(_)) => 2,
        (failed, _) => failed.code(),
    }
}

/// Time for one look.
const LOOK_MAX: std::time::Duration = std::time::Duration::from_secs(3);

async fn read_within_timeout<T>(
    look: impl Future<Output = Result<T, KillSwitchReadError>>,
) -> Result<T, KillSwitchReadError> {
    match tokio::time::timeout(LOOK_MAX, look).await {
        Ok(seen) => seen,
        Err(_) => Err(KillSwitchReadError::NoAnswer(format!("none within {LOOK_MAX:?}"))),
    }
}
