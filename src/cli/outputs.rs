//! `orchestrator outputs`: what an operator does with outputs that a fan-out refuses for good.
//!
//! A running service is asked over HTTP; the logs of a stopped one are opened, and its next start does what was
//! recorded.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::{Args, Subcommand};
use orchestrator_kernel::engine::contracts::manifest::OperatorRecord;
use orchestrator_kernel::engine::outbox::HeldChoice;
use serde_json::{Value, json};

use super::ask::{Ask, HttpUrl, ask_http};
use super::{ConfigArgs, print_answer, print_complaint};
use crate::api::held_outputs;
use crate::config::Config;
use crate::process::exit::ProcessExit;
use crate::process::explain::explain_error;
use crate::service::wiring::outputs::{HeldDecision, HeldOutputsError, read_held, record_decision};

/// The path of held outputs on the HTTP interface.
const PATH: &str = "/api/v1/outputs/held";
/// Bytes of an answer: a thousand held symbols with their reasons.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Time for an answer: longer than a request may take there.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Commands on held outputs.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum OutputsCommand {
    /// List the symbols of which an output is refused for good: their outputs wait.
    List {
        /// Which service.
        #[command(flatten)]
        place: OutputsPlace,
    },
    /// Offer what waits of a symbol again, once the reason is mended.
    Retry {
        /// Which service.
        #[command(flatten)]
        place: OutputsPlace,
        /// Whose outputs, and who decides why.
        #[command(flatten)]
        about: DecisionArgs,
    },
    /// Let the refused output of a symbol go unpublished, and offer what waits behind it. The run log keeps it.
    Skip {
        /// Which service.
        #[command(flatten)]
        place: OutputsPlace,
        /// Whose outputs, and who decides why.
        #[command(flatten)]
        about: DecisionArgs,
        /// Let everything go that waits of it now.
        #[arg(long)]
        all: bool,
    },
}

/// Subject of a decision on held outputs, its operator and its reason.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct DecisionArgs {
    /// The symbol, as `outputs list` names it.
    #[arg(long, value_name = "SYMBOL")]
    pub symbol: String,
    /// Who you are; it is recorded.
    #[arg(long, value_name = "NAME")]
    pub operator: String,
    /// Why; it is recorded.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Service that is meant.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputsPlace {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Where the running service is reached; without it: as configured. Plain HTTP only.
    #[arg(long, value_name = "http://HOST:PORT")]
    pub url: Option<HttpUrl>,
}

impl OutputsCommand {
    const fn outputs_place(&self) -> &OutputsPlace {
        match self {
            Self::List { place } | Self::Retry { place, .. } | Self::Skip { place, .. } => place,
        }
    }

    /// What is to be decided; nothing to be listed.
    fn to_decision(&self) -> Option<HeldDecision> {
        let (about, choice) = match self {
            Self::List { .. } => return None,
            Self::Retry { about, .. } => (about, HeldChoice::Retry),
            Self::Skip { about, all: false, .. } => (about, HeldChoice::SkipFirst),
            Self::Skip { about, all: true, .. } => (about, HeldChoice::SkipAll),
        };
        let DecisionArgs { symbol, operator, reason } = about.clone();
        Some(HeldDecision { symbol, choice, operator, reason })
    }
}

/// Carries out the command.
#[must_use]
pub fn run_outputs(command: &OutputsCommand, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    let decision = command.to_decision();
    let objection =
        decision.as_ref().and_then(|known| OperatorRecord::find_objection(&known.operator, &known.reason));
    if let Some(objection) = objection {
        print_complaint(&format!("--{objection}"));
        return ProcessExit::Usage;
    }
    let place = command.outputs_place();
    let config = match Config::load(&place.config.config_layers(environment)) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            print_complaint(&error);
            return ProcessExit::Config;
        }
    };
    if let Some(url) = &place.url {
        return super::block_on(ask_service(url, decision.as_ref()));
    }
    super::block_on(async {
        let done = match &decision {
            None => read_held(&config).await.map(|holds| json!({ "held": held_outputs(&holds) })),
            Some(decision) => record_decision(&config, decision).await.map(|acts| {
                let acts: Vec<String> = acts.iter().map(ToString::to_string).collect();
                json!({ "recorded": acts, "done": "at the next start" })
            }),
        };
        match done {
            Ok(report) => print_answer(&format!("{report:#}\n")),
            // Whoever holds the logs knows more than they say.
            Err(HeldOutputsError::Wiring(error)) if error.to_exit() == ProcessExit::Held => {
                let url = HttpUrl::at_address(on_this_machine(config.http.listen), PATH);
                ask_service(&url, decision.as_ref()).await
            }
            Err(error) => {
                print_complaint(&explain_error(&error));
                error.to_exit()
            }
        }
    })
}

/// Where this machine reaches what listens there.
const fn on_this_machine(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    };
    SocketAddr::new(address, listen.port())
}

async fn ask_service(url: &HttpUrl, decision: Option<&HeldDecision>) -> ProcessExit {
    let url = url.with_path(PATH);
    let body = decision.map(|HeldDecision { symbol, choice, operator, reason }| {
        let action = match choice {
            HeldChoice::Retry => "retry",
            HeldChoice::SkipFirst => "skip",
            HeldChoice::SkipAll => "skip_all",
        };
        json!({ "symbol": symbol, "action": action, "operator": operator, "reason": reason }).to_string()
    });
    let question =
        Ask { url: &url, json: body.as_deref(), timeout: ANSWER_MAX, answer_bytes_max: ANSWER_BYTES_MAX };
    match ask_http(&question).await {
        Ok(answer) if answer.status == 200 => match serde_json::from_str::<Value>(&answer.body) {
            Ok(report) => print_answer(&format!("{report:#}\n")),
            Err(_) => print_answer(&format!("{}\n", answer.body.trim_end())),
        },
        Ok(answer) => {
            print_complaint(&format!("{url} answered {}: {}", answer.status, answer.body.trim_end()));
            match answer.status {
                409 => ProcessExit::Different,
                400..=499 => ProcessExit::Usage,
                _ => ProcessExit::Unavailable,
            }
        }
        Err(error) => {
            print_complaint(&format!(
                "a service holds the logs, and {url} cannot be asked: {error}; name it with --url"
            ));
            ProcessExit::Unavailable
        }
    }
}
