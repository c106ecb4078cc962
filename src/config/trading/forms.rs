//! Forms of settings that only the trading plane has: names, money, times of day, edges of a session, stage budgets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::trading::decision::Confidence;
use orchestrator_kernel::trading::ids::StageName;
use orchestrator_kernel::trading::schedule::{SESSION_OFFSET_MAX_MS, SessionEdge};
use orchestrator_kernel::trading::zone::MarketZone;
use rust_decimal::Decimal;

use crate::config::reader::forms::{
    DurationForm, Real, SettingForm, TextForm, Texts, duration_text, quote_toml, text_of,
};
use crate::config::reader::tree::Value;

/// Names that a user gives: of pipelines, stages, schedules, strategies, providers, calendars. Narrower than the
/// kernel's, so that each is a key of TOML as it stands.
pub(super) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Accepted by [`is_name`].
pub(super) const NAME_ALLOWED: &str = "1 to 64 letters, digits, _ -";
/// What is said of a name that [`is_name`] does not take.
pub(super) const NAME_REFUSAL: &str = "cannot be a name";
/// One name.
pub(super) const TRADING_NAME: TextForm = TextForm { accepts: is_name, allowed: NAME_ALLOWED };

/// A list of names.
pub(super) const fn names_form(items_max: usize) -> Texts {
    Texts { item: TRADING_NAME, items_max }
}

/// A time of day, `HH:MM`.
pub(super) const CLOCK_TIME: TextForm = TextForm {
    accepts: |text| {
        let number = |digits: &str, below: u8| {
            let is_two = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_two && digits.parse::<u8>().is_ok_and(|number| number < below)
        };
        text.split_once(':').is_some_and(|(hour, minute)| number(hour, 24) && number(minute, 60))
    },
    allowed: "time of day HH:MM",
};

/// A time zone that is compiled in.
pub(super) const ZONE: TextForm = TextForm {
    accepts: |text| MarketZone::find_zone(text).is_ok(),
    allowed: "time zone of the IANA database, for example America/New_York",
};

/// A topic, or a pattern of topics: words with dots between, `*` for one word, `#` for any number of them.
pub(super) const TOPIC_PATTERN: TextForm = TextForm {
    accepts: |text| {
        let is_word = |word: &str| {
            word == "*"
                || word == "#"
                || (!word.is_empty()
                    && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')))
        };
        text.len() <= 200 && text.split('.').all(is_word)
    },
    allowed: "words of letters, digits, _ - with dots between, * for one word, # for any number",
};

/// Words that stand before every name of an event, or nothing.
pub(super) const TOPIC_PREFIX: TextForm = TextForm {
    accepts: |text| text.is_empty() || (text.len() <= 100 && text.split('.').all(is_name)),
    allowed: "words of letters, digits, _ - with dots between, \"\" for none",
};

/// An amount of money.
pub(super) struct Money {
    /// Whether nothing at all is an amount here.
    pub(super) may_be_zero: bool,
}

/// More than anybody has.
const MONEY_MAX: Decimal = Decimal::from_parts(3_567_587_328, 232, 0, false, 0);

impl SettingForm<Decimal> for Money {
    fn parse_value(&self, value: &Value) -> Result<Decimal, String> {
        let amount = match value {
            Value::Text(text) | Value::Word(text) => Decimal::from_str_exact(text.trim()).ok(),
            Value::Integer(number) => i64::try_from(*number).ok().map(Decimal::from),
            Value::Float(_) => {
                return Err("is a binary fraction, which is no amount: put it in quotes".to_owned());
            }
            Value::Bool(_) | Value::List(_) | Value::Table(_) | Value::DateTime(_) => None,
        };
        let amount = amount.ok_or("is no amount")?;
        let is_enough = match self.may_be_zero {
            true => Decimal::ZERO <= amount,
            false => Decimal::ZERO < amount,
        };
        if is_enough && amount <= MONEY_MAX { Ok(amount) } else { Err("is out of range".to_owned()) }
    }

    fn render_value(&self, value: &Decimal) -> String {
        quote_toml(&value.to_string())
    }

    fn allowed_text(&self) -> String {
        let least = if self.may_be_zero { "0" } else { "more than 0" };
        format!("amount, {least} to {MONEY_MAX}")
    }
}

/// Shares of the capital by symbol, less than zero for short ones.
pub(super) type TargetWeights = BTreeMap<Symbol, Decimal>;

/// Weights, each −1 to 1.
pub(super) struct Weights;

impl Weights {
    fn take_weight(weights: &mut TargetWeights, symbol: &str, weight: &Value) -> Result<(), String> {
        if !Symbol::is_valid(symbol) {
            return Err(format!("names {symbol:?}, which is no symbol"));
        }
        let digits = match weight {
            Value::Text(text) | Value::Word(text) => Decimal::from_str_exact(text.trim()).ok(),
            Value::Integer(number) => i64::try_from(*number).ok().map(Decimal::from),
            Value::Float(_) | Value::Bool(_) | Value::List(_) | Value::Table(_) | Value::DateTime(_) => None,
        };
        let within = digits.filter(|weight| weight.abs() <= Decimal::ONE);
        let weight =
            within.ok_or_else(|| format!("gives {symbol:?} {weight}, which is no weight in quotes"))?;
        weights.insert(Symbol::from(symbol), weight);
        Ok(())
    }
}

impl SettingForm<TargetWeights> for Weights {
    fn parse_value(&self, value: &Value) -> Result<TargetWeights, String> {
        let mut weights = TargetWeights::new();
        match value {
            Value::Table(named) => {
                for (symbol, node) in named {
                    Self::take_weight(&mut weights, symbol, &node.value)?;
                }
            }
            Value::Word(word) => {
                for part in word.split(',').filter(|part| !part.trim().is_empty()) {
                    let (symbol, weight) = part.split_once('=').ok_or("is no list of SYMBOL=weight")?;
                    Self::take_weight(&mut weights, symbol.trim(), &Value::Word(weight.trim().to_owned()))?;
                }
            }
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Bool(_)
            | Value::List(_)
            | Value::DateTime(_) => return Err("is no table of weights".to_owned()),
        }
        Ok(weights)
    }

    fn render_value(&self, value: &TargetWeights) -> String {
        let weights = value.iter().map(|(symbol, weight)| {
            format!("{} = {}", quote_toml(symbol.as_str()), quote_toml(&weight.to_string()))
        });
        format!("{{{}}}", weights.collect::<Vec<_>>().join(", "))
    }

    fn allowed_text(&self) -> String {
        "table of symbols, each a number from -1 to 1 in quotes".to_owned()
    }
}

/// A confidence, 0 to 1.
pub(super) struct ConfidenceForm;

impl SettingForm<Confidence> for ConfidenceForm {
    fn parse_value(&self, value: &Value) -> Result<Confidence, String> {
        let number = Real(0.0..=1.0).parse_value(value)?;
        Confidence::new(number).ok_or_else(|| "is out of range".to_owned())
    }

    fn render_value(&self, value: &Confidence) -> String {
        Real(0.0..=1.0).render_value(&value.get())
    }

    fn allowed_text(&self) -> String {
        Real(0.0..=1.0).allowed_text()
    }
}

/// A distance from an edge of a session, such as `open+15m` or `close-10m`.
pub(super) struct SessionEdgeForm;

impl SettingForm<(SessionEdge, i64)> for SessionEdgeForm {
    fn parse_value(&self, value: &Value) -> Result<(SessionEdge, i64), String> {
        const NONE: &str = "is no distance from an edge of a session";
        let text = text_of(value).ok_or("is not text")?.trim();
        let (edge, distance) = match (text.strip_prefix("open"), text.strip_prefix("close")) {
            (Some(distance), _) => (SessionEdge::Open, distance),
            (None, Some(distance)) => (SessionEdge::Close, distance),
            (None, None) => return Err(NONE.to_owned()),
        };
        let (sign, length) = match (distance.strip_prefix('+'), distance.strip_prefix('-')) {
            (Some(length), _) => (1, length),
            (None, Some(length)) => (-1, length),
            (None, None) if distance.is_empty() => return Ok((edge, 0)),
            (None, None) => return Err(NONE.to_owned()),
        };
        let day = DurationForm(Duration::ZERO..=Duration::from_millis(SESSION_OFFSET_MAX_MS.unsigned_abs()));
        let length = day.parse_value(&Value::Text(length.to_owned())).map_err(|_| NONE)?;
        Ok((edge, sign * i64::try_from(length.as_millis()).map_err(|_| NONE)?))
    }

    fn render_value(&self, (edge, offset_ms): &(SessionEdge, i64)) -> String {
        let edge = match edge {
            SessionEdge::Open => "open",
            SessionEdge::Close => "close",
        };
        let length = duration_text(Duration::from_millis(offset_ms.unsigned_abs()));
        match offset_ms.signum() {
            0 => quote_toml(edge),
            1 => quote_toml(&format!("{edge}+{length}")),
            _ => quote_toml(&format!("{edge}-{length}")),
        }
    }

    fn allowed_text(&self) -> String {
        "open or close, + or - a duration of at most 1day, for example \"open+15m\"".to_owned()
    }
}

/// Budgets of stages by their names.
pub(super) type StageBudgets = BTreeMap<StageName, Duration>;

/// Budget of one stage: 1ms to 1h.
pub(super) const STAGE_BUDGET: DurationForm =
    DurationForm(Duration::from_millis(1)..=Duration::from_secs(3600));

/// Budgets that are named, over those that are there anyhow.
pub(super) struct StageBudgetsForm {
    /// Budgets of stages that a value does not name.
    pub(super) unnamed: StageBudgets,
}

impl StageBudgetsForm {
    fn take_budget(budgets: &mut StageBudgets, name: &str, budget: &Value) -> Result<(), String> {
        let stage = StageName::new(name).filter(|_| is_name(name));
        let stage = stage.ok_or_else(|| format!("names {name:?}, which is no stage's name"))?;
        let budget =
            STAGE_BUDGET.parse_value(budget).map_err(|why| format!("gives {name} {budget}, which {why}"))?;
        budgets.insert(stage, budget);
        Ok(())
    }
}

impl SettingForm<StageBudgets> for StageBudgetsForm {
    fn parse_value(&self, value: &Value) -> Result<StageBudgets, String> {
        let mut budgets = self.unnamed.clone();
        match value {
            Value::Table(named) => {
                for (name, node) in named {
                    Self::take_budget(&mut budgets, name, &node.value)?;
                }
            }
            Value::Word(word) => {
                let mut named = BTreeSet::new();
                for part in word.split(',').filter(|part| !part.trim().is_empty()) {
                    let (name, budget) = part.split_once('=').ok_or("is no list of STAGE=duration")?;
                    if !named.insert(name.trim()) {
                        return Err(format!("names {} twice", name.trim()));
                    }
                    Self::take_budget(&mut budgets, name.trim(), &Value::Word(budget.trim().to_owned()))?;
                }
            }
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Bool(_)
            | Value::List(_)
            | Value::DateTime(_) => return Err("is no table of budgets".to_owned()),
        }
        Ok(budgets)
    }

    fn render_value(&self, value: &StageBudgets) -> String {
        let budgets = value.iter().map(|(name, budget)| format!("{name} = \"{}\"", duration_text(*budget)));
        format!("{{{}}}", budgets.collect::<Vec<_>>().join(", "))
    }

    fn allowed_text(&self) -> String {
        format!("table of stages, each {}", STAGE_BUDGET.allowed_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn money_is_decimal_digits_and_never_a_binary_fraction() {
        let money = Money { may_be_zero: false };

        assert_eq!(money.parse_value(&text("0.1")), Ok(Decimal::new(1, 1)));
        assert_eq!(money.parse_value(&Value::Integer(20_000)), Ok(Decimal::from(20_000)));
        assert_eq!(money.parse_value(&Value::Integer(1_000_000_000_000)), Ok(MONEY_MAX));
        assert!(money.parse_value(&Value::Float(0.1)).unwrap_err().contains("put it in quotes"));
        for bad in ["", "0", "-1", "1e3", "1,5", "NaN", "1000000000001", "0.00000000000000000000000000001"] {
            assert!(money.parse_value(&text(bad)).is_err(), "{bad}");
        }
        assert_eq!(Money { may_be_zero: true }.parse_value(&text("0")), Ok(Decimal::ZERO));
    }

    #[test]
    fn weights_are_decimal_digits_of_at_most_one() {
        let weights = Weights.parse_value(&Value::Word("AAPL=0.25, BTC USD = -1".to_owned())).unwrap();

        assert_eq!(Weights.render_value(&weights), "{\"AAPL\" = \"0.25\", \"BTC USD\" = \"-1\"}");
        for bad in ["AAPL", "AAPL=", "AAPL=1.01", "AAPL=half", "=0.5"] {
            assert!(Weights.parse_value(&Value::Word(bad.to_owned())).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_of_day_has_two_digits_each() {
        for good in ["00:00", "09:30", "23:59"] {
            assert!((CLOCK_TIME.accepts)(good), "{good}");
        }
        for bad in ["", "9:30", "24:00", "12:60", "12:5", "12:00:00", "+9:30", "1200"] {
            assert!(!(CLOCK_TIME.accepts)(bad), "{bad}");
        }
    }

    #[test]
    fn a_distance_from_an_edge_is_read_as_it_is_written() {
        for (written, edge, offset_ms) in [
            ("open", SessionEdge::Open, 0),
            ("open+15m", SessionEdge::Open, 900_000),
            ("close-10m", SessionEdge::Close, -600_000),
            ("close+1day", SessionEdge::Close, 86_400_000),
        ] {
            let parsed = SessionEdgeForm.parse_value(&text(written)).unwrap();
            assert_eq!(parsed, (edge, offset_ms), "{written}");
            assert_eq!(SessionEdgeForm.render_value(&parsed), format!("\"{written}\""));
        }
        for bad in ["", "15m", "open15m", "open+", "open+2days", "opening", "close--1m", "noon+1m"] {
            assert!(SessionEdgeForm.parse_value(&text(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn named_budgets_stand_over_those_that_are_not_named() {
        let stage = |name: &str| StageName::new(name).unwrap();
        let form = StageBudgetsForm {
            unnamed: [("ING", 500), ("SIG", 1000)]
                .map(|(name, ms)| (stage(name), Duration::from_millis(ms)))
                .into(),
        };

        let budgets = form.parse_value(&Value::Word("SIG=2s, OPT=10ms".to_owned())).unwrap();

        let ms: Vec<_> = budgets.iter().map(|(name, budget)| (name.as_str(), budget.as_millis())).collect();
        assert_eq!(ms, [("ING", 500), ("OPT", 10), ("SIG", 2000)]);
        assert_eq!(form.render_value(&budgets), "{ING = \"500ms\", OPT = \"10ms\", SIG = \"2s\"}");
        for bad in ["SIG", "SIG=", "SIG=5", "SIG=0s", "a b=1s", "SIG=2h"] {
            assert!(form.parse_value(&Value::Word(bad.to_owned())).is_err(), "{bad}");
        }
    }

    #[test]
    fn topics_and_prefixes_are_words_with_dots_between() {
        for good in ["system.heartbeat", "market.session.*", "#", "ordinis.ops.kill.*.requested"] {
            assert!((TOPIC_PATTERN.accepts)(good), "{good}");
        }
        for bad in ["", ".", "a..b", "a.", "a b", "a*.b"] {
            assert!(!(TOPIC_PATTERN.accepts)(bad), "{bad}");
        }
        assert!((TOPIC_PREFIX.accepts)("") && (TOPIC_PREFIX.accepts)("ai-trader"));
        assert!(!(TOPIC_PREFIX.accepts)("ai-trader.") && !(TOPIC_PREFIX.accepts)("*"));
    }
}
