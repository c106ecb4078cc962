//! `[trading.providers.<name>]`: who does the work of stages and answers for hooks, besides this service.

use std::collections::BTreeMap;

use orchestrator_kernel::trading::journal::StageErrorKind;
use orchestrator_kernel::trading::stage::StageProvider;
use orchestrator_kernel::trading::stage_protocol::read_fixed_answer;

use super::forms::{NAME_REFUSAL, is_name};
use crate::config::engine::{HttpEngineConfig, ProcessConfig};
use crate::config::reader::forms::{OneOf, TextForm};
use crate::config::reader::section::Section;

/// One provider, by its `kind`. The options are those of an engine of the same kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageProviderConfig {
    /// `kind = "http"`: a service behind HTTP.
    Http(HttpEngineConfig),
    /// `kind = "worker"`: worker processes that speak the engines' protocol.
    Worker(ProcessConfig),
    /// `kind = "fixed"`: always this answer, a JSON object in the protocol's form.
    Fixed(String),
}

impl StageProviderConfig {
    /// The kind, as a pipeline has it.
    #[must_use]
    pub const fn kind(&self) -> StageProvider {
        match self {
            Self::Http(_) => StageProvider::Http,
            Self::Worker(_) => StageProvider::Worker,
            Self::Fixed(_) => StageProvider::Fixed,
        }
    }

    /// The part of it that decides, for the record. Secrets are not in it.
    pub(super) fn describe_provider(&self) -> String {
        match self {
            Self::Http(http) => format!("http {}", http.url),
            Self::Worker(worker) => format!("worker {}", worker.command.join(" ")),
            Self::Fixed(answer) => format!("fixed {answer}"),
        }
    }
}

/// Word of a stage whose work is done by this service.
pub(super) const BUILT_IN: &str = "builtin";
/// Word of a stage whose answers come over the event bus.
pub(super) const BY_EVENT: &str = "event";

/// The providers as they are read: what is wrong with one is not told again of every stage that names it.
#[derive(Default)]
pub(super) struct ReadProviders {
    /// Those that are accepted.
    pub(super) accepted: BTreeMap<String, StageProviderConfig>,
    /// Kinds by name, also of what is refused.
    kinds: BTreeMap<String, StageProvider>,
}

impl ReadProviders {
    /// Finds the kind that a stage's or hook's `provider` means.
    pub(super) fn find_kind(&self, word: &str) -> Option<StageProvider> {
        match word {
            BUILT_IN => Some(StageProvider::BuiltIn),
            BY_EVENT => Some(StageProvider::Event),
            name => self.kinds.get(name).copied(),
        }
    }

    /// Names that a `provider` may have, for messages.
    pub(super) fn list_words(&self) -> String {
        let named = self.kinds.keys().map(String::as_str);
        [BUILT_IN, BY_EVENT].into_iter().chain(named).take(WORDS_LISTED_MAX).collect::<Vec<_>>().join(", ")
    }
}

/// Words that a message lists.
const WORDS_LISTED_MAX: usize = 12;

const FIXED_ANSWER: TextForm = TextForm {
    // One that says that the stage failed is an answer too.
    accepts: |text| {
        let read = read_fixed_answer(text, None);
        text.len() <= 64 << 10 && read.err().is_none_or(|error| error.kind == StageErrorKind::Provider)
    },
    allowed: "JSON object of at most 64KiB with data, decisions, verdicts, failures, or ok and error_detail",
};

/// Reads all providers.
pub(super) fn read_providers(section: &mut Section<'_>) -> ReadProviders {
    let mut read = ReadProviders::default();
    let names: Vec<&str> = section.given_keys().into_iter().filter(|name| is_provider_name(name)).collect();
    section.read_sections(&names, (NAME_REFUSAL, PROVIDER_NAME_ALLOWED), |name, section| {
        let (kind, accepted) = read_provider(section);
        read.kinds.insert(name.to_owned(), kind);
        read.accepted.extend(accepted.map(|provider| (name.to_owned(), provider)));
    });
    read
}

fn is_provider_name(name: &str) -> bool {
    is_name(name) && name != BUILT_IN && name != BY_EVENT
}

/// Accepted by [`is_provider_name`].
const PROVIDER_NAME_ALLOWED: &str = "1 to 64 letters, digits, _ -, and neither builtin nor event";

fn read_provider(section: &mut Section<'_>) -> (StageProvider, Option<StageProviderConfig>) {
    let kinds = OneOf(&[
        ("http", StageProvider::Http),
        ("worker", StageProvider::Worker),
        ("fixed", StageProvider::Fixed),
    ]);
    match section.read_required("kind", "it says what the provider is", &kinds) {
        Some(StageProvider::Http) => {
            let http = HttpEngineConfig::from_section(section);
            if http.url.is_empty() && section.is_accepted("url") {
                section.refuse_key(
                    "url",
                    "is missing: it says where stages are posted".to_owned(),
                    "http://host or https://host",
                );
            } else if http.url.has_credentials() {
                let what = "holds a user or password".to_owned();
                section.refuse_key("url", what, "a URL without them, and a token");
            }
            (StageProvider::Http, Some(StageProviderConfig::Http(http)))
        }
        Some(StageProvider::Worker) => {
            let worker = ProcessConfig::from_section(section);
            let program = worker.command.first().is_some_and(|program| !program.is_empty());
            if !program && section.is_accepted("command") {
                let what = "is missing: it says which program does the work".to_owned();
                section.refuse_key("command", what, "program and arguments");
            }
            (StageProvider::Worker, Some(StageProviderConfig::Worker(worker)))
        }
        Some(StageProvider::Fixed) => {
            let answer = section.read_required("answer", "it says what is answered", &FIXED_ANSWER);
            (StageProvider::Fixed, answer.map(StageProviderConfig::Fixed))
        }
        // Which keys it may have is unknown without the kind.
        Some(StageProvider::BuiltIn | StageProvider::Event) | None => {
            section.ignore_rest();
            (StageProvider::Http, None)
        }
    }
}
