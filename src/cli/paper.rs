//! `orchestrator paper`: Signal Service and Execution Gateway with a paper broker, until it is told to stop.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use orchestrator_kernel::trading::signing::SECRET_BYTES_MIN;
use tokio::runtime::Builder;

use super::run::RUNTIME_END_MAX;
use super::signals::StopSignals;
use super::{print_answer, print_complaint};
use crate::config::LogConfig;
use crate::process::exit::ProcessExit;
use crate::process::version::VERSION;
use crate::service::wiring::paper::{PaperListen, PaperServices, PaperSettings, PaperStartError};
use crate::telemetry::logs;

/// The variables that the secret of the signatures is taken from, the first one that is set.
const SECRET_VARIABLES: [&str; 2] = ["INTERNAL_TOKEN_SECRET_ORCHESTRATOR", "INTERNAL_TOKEN_SECRET"];
/// Most symbols of the paper market.
const SYMBOLS_MAX: usize = 10_000;
/// Longest symbol.
const SYMBOL_BYTES_MAX: usize = 32;
/// Longest time to a fill.
const FILL_AFTER_MAX: Duration = Duration::from_secs(600);
/// Most orders that are kept: about a kilobyte each.
const ORDERS_MAX: usize = 1_000_000;

/// Options of `paper`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct PaperArgs {
    /// Address and port of the Signal Service; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8001")]
    pub signals: SocketAddr,
    /// Address and port of the Execution Gateway; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8002")]
    pub gateway: SocketAddr,
    /// Listen also on an address that others can reach. There is no encryption, and whoever reaches it controls it.
    #[arg(long)]
    pub allow_public: bool,
    /// Seed of the market: the same seed gives the same prices, signals and broker's ids.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Symbols of the paper market.
    #[arg(
        long,
        value_name = "SYMBOL,…",
        value_delimiter = ',',
        default_value = "AAPL,MSFT,GOOGL,AMZN,TSLA,NVDA,META,NFLX,AMD,INTC"
    )]
    pub symbols: Vec<String>,
    /// So many further symbols: SYM0001, SYM0002 …
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub more_symbols: usize,
    /// Longs when a request for signals does not say; without it half of its symbols, at most 3.
    #[arg(long, value_name = "N")]
    pub top_n: Option<usize>,
    /// Shorts, likewise.
    #[arg(long, value_name = "N")]
    pub bottom_n: Option<usize>,
    /// The gateway's strategy, which is part of every client_order_id.
    #[arg(long, value_name = "NAME", default_value = "alpha_baseline")]
    pub strategy_id: String,
    /// Log orders and fill none, as the gateway does in dry run.
    #[arg(long)]
    pub dry_run: bool,
    /// Largest position of a symbol in shares.
    #[arg(long, value_name = "SHARES", default_value_t = 1_000)]
    pub position_limit: u64,
    /// Requests for orders in a minute; more are answered with 429.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub orders_per_minute: u64,
    /// Time from the acceptance of an order to its fill.
    #[arg(long, value_name = "DURATION", default_value = "20ms", value_parser = humantime::parse_duration)]
    pub fill_after: Duration,
    /// Orders that are kept; further ones are refused.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub orders_max: usize,
    /// A fault that is on from the start, as JSON. May be given several times.
    #[arg(long, value_name = "JSON")]
    pub fault: Vec<String>,
}

/// Serves both until a signal asks to stop.
///
/// The secret of the signatures is taken from the environment, as the real gateway does.
#[must_use]
pub fn run_paper(args: &PaperArgs, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    let variable = |name: &str| {
        let found = environment.iter().find(|(key, _)| key == name);
        found.and_then(|(_, value)| value.to_str()).filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let secret = SECRET_VARIABLES.iter().find_map(|name| variable(name).map(|secret| (*name, secret)));
    let problems = list_problems(args, secret.as_ref());
    if !problems.is_empty() {
        print_complaint(&format!("the paper services do not start:\n  {}", problems.join("\n  ")));
        return ProcessExit::Config;
    }
    if let Err(error) = logs::start_logging(&LogConfig::default(), variable("RUST_LOG").as_deref()) {
        print_complaint(&error);
        return ProcessExit::Config;
    }
    let settings = settings_of(args, secret.map(|(_, secret)| secret.into_bytes()));
    match Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(serve_until_stopped(settings, args));
            runtime.shutdown_timeout(RUNTIME_END_MAX);
            exit
        }
        Err(error) => {
            print_complaint(&format!("cannot start the runtime: {error}"));
            ProcessExit::Internal
        }
    }
}

/// Everything that is wrong with the options, with what to do.
fn list_problems(args: &PaperArgs, secret: Option<&(&str, String)>) -> Vec<String> {
    let mut problems = Vec::new();
    for (flag, address) in [("--signals", args.signals), ("--gateway", args.gateway)] {
        if !address.ip().is_loopback() && !args.allow_public {
            problems.push(format!("{flag} {address}: expected a loopback address, or --allow-public"));
        }
    }
    if let Some((name, secret)) = secret
        && secret.len() < SECRET_BYTES_MIN
    {
        problems.push(format!(
            "{name}: expected at least {SECRET_BYTES_MIN} characters, as the real gateway does, not {}",
            secret.len()
        ));
    }
    let is_symbol = |symbol: &String| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        (1..=SYMBOL_BYTES_MAX).contains(&symbol.len()) && symbol.bytes().all(is_plain)
    };
    for symbol in args.symbols.iter().filter(|symbol| !is_symbol(symbol)) {
        problems.push(format!(
            "--symbols: \"{symbol}\" is no symbol of 1 to {SYMBOL_BYTES_MAX} letters, digits, . - _"
        ));
    }
    if SYMBOLS_MAX < args.symbols.len().saturating_add(args.more_symbols) {
        problems.push(format!("--more-symbols: more than {SYMBOLS_MAX} symbols in all"));
    }
    if FILL_AFTER_MAX < args.fill_after {
        problems
            .push(format!("--fill-after: expected at most {}", humantime::format_duration(FILL_AFTER_MAX)));
    }
    if !(1..=ORDERS_MAX).contains(&args.orders_max) {
        problems.push(format!("--orders-max: expected 1 to {ORDERS_MAX}"));
    }
    problems
}

fn settings_of(args: &PaperArgs, secret: Option<Vec<u8>>) -> PaperSettings {
    let more = (1..=args.more_symbols).map(|number| format!("SYM{number:04}"));
    PaperSettings {
        seed: args.seed,
        symbols: args.symbols.iter().cloned().chain(more).collect(),
        strategy_id: args.strategy_id.clone(),
        dry_run: args.dry_run,
        alpaca_paper: true,
        position_limit: args.position_limit,
        orders_per_minute: args.orders_per_minute,
        fill_after_ms: i64::try_from(args.fill_after.as_millis()).unwrap_or(i64::MAX),
        orders_max: args.orders_max,
        top_n: args.top_n,
        bottom_n: args.bottom_n,
        secret,
        version: VERSION,
    }
}

async fn serve_until_stopped(settings: PaperSettings, args: &PaperArgs) -> ProcessExit {
    let signals = match StopSignals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            print_complaint(&format!("signals cannot be handled: {error}"));
            return ProcessExit::Internal;
        }
    };
    let is_signed = settings.secret.is_some();
    let listen = PaperListen { signals: args.signals, gateway: args.gateway };
    let services = match PaperServices::start(settings, &args.fault, listen).await {
        Ok(services) => services,
        Err(error) => {
            print_complaint(&error);
            return match error {
                PaperStartError::Fault { .. } => ProcessExit::Config,
                PaperStartError::Listen { .. } => ProcessExit::Unavailable,
            };
        }
    };
    let printed = print_answer(&welcome_text(services.listen(), is_signed, args.dry_run));
    if printed == ProcessExit::Ok {
        signals.asked_to_stop().await;
    }
    services.stop().await;
    tracing::info!("the paper services have stopped; their orders and positions are gone");
    printed
}

fn welcome_text(listen: PaperListen, is_signed: bool, dry_run: bool) -> String {
    let PaperListen { signals, gateway } = listen;
    let mut text = String::from(
        "Paper trading: a made-up market and a paper broker. No real money; nothing is kept after the end.\n",
    );
    let signatures = if is_signed {
        "Requests have to be signed."
    } else {
        "Signatures are not checked: INTERNAL_TOKEN_SECRET is not set."
    };
    let mode =
        if dry_run { "Orders are logged and never filled (dry run)." } else { "Orders are filled on paper." };
    // Writing to a text cannot fail.
    writeln!(
        text,
        "  Signal Service     http://{signals}\n  \
         Execution Gateway  http://{gateway}\n\
         {signatures} {mode}\n\
         What really happened to each order, and faults to switch on:\n  \
         curl -s http://{gateway}/ledger\n  \
         curl -s http://{gateway}/paper/faults -d '{{\"fault\":\"reset_after_acceptance\",\"nth\":1}}'"
    )
    .unwrap_or_default();
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        args: PaperArgs,
    }

    fn problems(arguments: &[&str], secret: Option<&str>) -> Vec<String> {
        let args = Only::try_parse_from(std::iter::once(&"paper").chain(arguments)).unwrap().args;
        list_problems(&args, secret.map(|secret| ("INTERNAL_TOKEN_SECRET", secret.to_owned())).as_ref())
    }

    #[test]
    fn the_defaults_are_right() {
        assert_eq!(problems(&[], None), Vec::<String>::new());
        assert_eq!(problems(&[], Some(&"s".repeat(64))), Vec::<String>::new());
        assert_eq!(problems(&["--gateway", "0.0.0.0:1", "--allow-public"], None), Vec::<String>::new());
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let found = problems(
            &[
                "--signals",
                "0.0.0.0:0",
                "--symbols",
                "A|B,",
                "--more-symbols",
                "9999",
                "--fill-after",
                "1h",
                "--orders-max",
                "0",
            ],
            Some("short"),
        );

        let starts = [
            "--signals",
            "INTERNAL_TOKEN_SECRET",
            "--symbols: \"A|B\"",
            "--symbols: \"\"",
            "--more-symbols",
            "--fill-after",
            "--orders-max",
        ];
        assert_eq!(found.len(), starts.len(), "{found:#?}");
        for (problem, start) in found.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem}");
        }
    }
}
