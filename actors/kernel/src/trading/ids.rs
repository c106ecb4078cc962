//! Names and identifiers of the trading plane. An identifier is derived from what it names, so that a crash keeps it.
//!
//! ```text
//! text ──SHA-256──▶ first 16 bytes ──version 8, variant 10──▶ UUID
//!   cycle    cycle|{strategy or nothing}|{schedule}|{planned_ts_ms}|{trigger}
//!   strategy strategy|{name}
//!   intent   intent|{cycle id}|{decision id}
//!   command  command|{idempotency key}   of an event: by event|{number}|{event's key}
//!            the next attempt of one that was not taken: attempt|{command id}
//!   event    event|{chain hash of its record}|{index}   event|request|{request}
//!   request  request|{cycle id}|{stage}|{strategy}|{symbol}
//!   row      row|agent   row|schedule|{strategy}|{schedule}   row|artifact|{cycle id}|{kind}
//! ```
//!
//! Names hold no `|`, and what may hold one (a trigger, a decision's id, a key) stands last: two different things never
//! have one text.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::engine::run_id::hex_digit;
use crate::ids::{Seq, Symbol, TsMs};

/// Bytes that a strategy's, schedule's, pipeline's or stage's name may have.
pub const TRADING_NAME_BYTES_MAX: usize = 64;
/// Bytes that an identifier of others may have: a decision's, an idempotency key, a correlation.
pub const FOREIGN_ID_BYTES_MAX: usize = 128;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $valid:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` if it can be one.
            #[must_use]
            pub fn new(text: &str) -> Option<Self> {
                $valid(text).then(|| Self(Arc::from(text)))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).ok_or_else(|| serde::de::Error::custom(concat!("no ", stringify!($name))))
            }
        }
    };
}

fn is_trading_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !text.is_empty() && text.len() <= TRADING_NAME_BYTES_MAX && text.bytes().all(is_part)
}

fn is_foreign_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= FOREIGN_ID_BYTES_MAX && !text.chars().any(char::is_control)
}

text_id! {
    /// Name of a strategy: 1 to 64 letters, digits, `_`, `-`, `.` of ASCII.
    StrategyName, is_trading_name
}
text_id! {
    /// Name of a schedule, formed as a strategy's.
    ScheduleName, is_trading_name
}
text_id! {
    /// Name of a pipeline, which is also the type of its cycles, formed as a strategy's.
    PipelineName, is_trading_name
}
text_id! {
    /// Name of a stage or of a hook, formed as a strategy's.
    StageName, is_trading_name
}
text_id! {
    /// Identifier of a decision as its maker gave it: 1 to 128 bytes without control characters.
    DecisionId, is_foreign_id
}
text_id! {
    /// What ties requests, events and records together: 1 to 128 bytes without control characters.
    CorrelationId, is_foreign_id
}

/// Position in the journal: 1, 2, 3 … without gap; 0 means "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JournalSeq(pub u64);

impl JournalSeq {
    /// The position right after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for JournalSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Seq> for JournalSeq {
    fn from(value: Seq) -> Self {
        Self(value.0)
    }
}

impl From<JournalSeq> for Seq {
    fn from(value: JournalSeq) -> Self {
        Self(value.0)
    }
}

/// A UUID whose value follows from a text (version 8), or one that was made up and recorded (version 4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TradingUuid([u8; 16]);

impl Serialize for TradingUuid {
    /// Text where people read it, 16 bytes in stored records.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for TradingUuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 16]>::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("no UUID"))
    }
}

impl TradingUuid {
    /// The first 16 bytes of the text's SHA-256, with version 8 and variant 10.
    ///
    /// Source: RFC 9562, section 5.8.
    #[must_use]
    fn derive(text: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let mut bytes = [0; 16];
        for (byte, of_digest) in bytes.iter_mut().zip(digest) {
            *byte = of_digest;
        }
        Self::mark_version(bytes, 8)
    }

    /// A UUID of these random bytes. Only for what a person asks for without an idempotency key, and then recorded.
    #[must_use]
    fn of_random(bytes: [u8; 16]) -> Self {
        Self::mark_version(bytes, 4)
    }

    fn mark_version(mut bytes: [u8; 16], version: u8) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | (version << 4);
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// Reads what [`Display`](fmt::Display) writes, in either case of letters.
    #[must_use]
    fn parse(text: &str) -> Option<Self> {
        let groups_end_right = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| matches!(at, 8 | 13 | 18 | 23) == (byte == b'-'));
        let digits: Vec<u8> = text
            .bytes()
            .filter(|byte| *byte != b'-')
            .map_while(|byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let (pairs, []) = digits.as_chunks::<2>() else { return None };
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        bytes.try_into().ok().filter(|_| groups_end_right).map(Self)
    }
}

impl fmt::Display for TradingUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(36);
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push(char::from(hex_digit(byte >> 4)));
            text.push(char::from(hex_digit(byte & 0xf)));
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for TradingUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(TradingUuid);

        impl $name {
            /// Reads the usual form of 36 characters.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                TradingUuid::parse(text).map(Self)
            }

            /// The 16 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// Key of an event of others: its source, and the identifier that the source gave it. Two different events have two
/// keys.
///
/// Of the source `/` and `%` are written as `%2F` and `%25`, so that the first `/` of the text ends it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForeignEventKey(String);

impl ForeignEventKey {
    /// The key of this event.
    #[must_use]
    pub fn new(source: &str, event_id: &str) -> Self {
        let source = source.replace('%', "%25").replace('/', "%2F");
        Self(format!("{source}/{event_id}"))
    }
}

impl fmt::Display for ForeignEventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

uuid_id! {
    /// Identifier of a cycle. A crash keeps it: the same trigger gives the same cycle.
    CycleId
}
uuid_id! {
    /// Identifier of a strategy in paths and tables; derived from its name.
    StrategyUuid
}
uuid_id! {
    /// Identifier of an order intent: one for each decision of a cycle.
    IntentId
}
uuid_id! {
    /// Identifier of a command: derived from its idempotency key, or made up and recorded.
    CommandId
}
uuid_id! {
    /// Identifier of a row of the SQL history that is no cycle's: derived, so that a rebuild gives the same one.
    HistoryRowId
}
uuid_id! {
    /// Identifier of a request for a decision: the same question again has the same one.
    AnalysisRequestId
}
uuid_id! {
    /// Identifier of a published event: derived from the record that it is a function of, so that it is the same
    /// whenever it is published.
    TradingEventId
}

impl CycleId {
    /// The cycle of one fire. `strategy` is nothing for a schedule that covers several.
    #[must_use]
    pub fn derive(
        strategy: Option<&StrategyName>,
        schedule: &ScheduleName,
        planned: TsMs,
        trigger: &str,
    ) -> Self {
        let strategy = strategy.map_or("", StrategyName::as_str);
        Self(TradingUuid::derive(&format!("cycle|{strategy}|{schedule}|{planned}|{trigger}")))
    }

    /// The cycle that a command asks for.
    #[must_use]
    pub fn of_command(command: CommandId) -> Self {
        Self(TradingUuid::derive(&format!("cycle|command|{command}")))
    }

    /// The correlation of everything that the cycle does.
    #[must_use]
    pub fn correlation_id(&self) -> CorrelationId {
        CorrelationId(Arc::from(self.to_string()))
    }
}

impl StrategyUuid {
    /// The identifier of the strategy of this name.
    #[must_use]
    pub fn derive(name: &StrategyName) -> Self {
        Self(TradingUuid::derive(&format!("strategy|{name}")))
    }
}

impl IntentId {
    /// The intent that this cycle makes of this decision.
    #[must_use]
    pub fn derive(cycle: CycleId, decision: &DecisionId) -> Self {
        Self(TradingUuid::derive(&format!("intent|{cycle}|{decision}")))
    }
}

impl CommandId {
    /// The command that carries this idempotency key.
    #[must_use]
    pub fn derive(idempotency_key: &str) -> Self {
        Self(TradingUuid::derive(&format!("command|{idempotency_key}")))
    }

    /// The command that an event asks for, in its own namespace: no idempotency key gives the same one. `number` counts
    /// the attempts.
    #[must_use]
    pub fn of_event(event: &ForeignEventKey, number: u32) -> Self {
        Self(TradingUuid::derive(&format!("by event|{number}|{event}")))
    }

    /// The command that tries this one anew: the plane had not taken it, and nothing was done.
    #[must_use]
    pub fn next_attempt(self) -> Self {
        Self(TradingUuid::derive(&format!("attempt|{self}")))
    }

    /// A command without a key; the caller brings the randomness, and the record keeps it.
    #[must_use]
    pub fn of_random(bytes: [u8; 16]) -> Self {
        Self(TradingUuid::of_random(bytes))
    }
}

impl HistoryRowId {
    /// The row of the one agent that there is.
    #[must_use]
    pub fn of_agent() -> Self {
        Self(TradingUuid::derive("row|agent"))
    }

    /// The row of a schedule, of those that its cycles work for.
    #[must_use]
    pub fn of_schedule(strategy: &StrategyName, schedule: &ScheduleName) -> Self {
        Self(TradingUuid::derive(&format!("row|schedule|{strategy}|{schedule}")))
    }

    /// The row of an artifact of a cycle.
    #[must_use]
    pub fn of_artifact(cycle: CycleId, kind: &str) -> Self {
        Self(TradingUuid::derive(&format!("row|artifact|{cycle}|{kind}")))
    }
}

impl AnalysisRequestId {
    /// The request of this cycle's stage for a decision of this strategy about this symbol.
    #[must_use]
    pub fn derive(cycle: CycleId, stage: &StageName, strategy: &StrategyName, symbol: &Symbol) -> Self {
        Self(TradingUuid::derive(&format!("request|{cycle}|{stage}|{strategy}|{}", symbol.as_str())))
    }
}

impl TradingEventId {
    /// The event that asks for a decision.
    #[must_use]
    pub fn of_request(request: AnalysisRequestId) -> Self {
        Self(TradingUuid::derive(&format!("event|request|{request}")))
    }

    /// The event at `index`, from 0, of those that the record with this chain hash gives. The hash names the journal
    /// and the position in it.
    #[must_use]
    pub fn derive(chain_hash: &[u8; 32], index: u32) -> Self {
        let hash: String = chain_hash
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 0xf])
            .map(|it| char::from(hex_digit(it)))
            .collect();
        Self(TradingUuid::derive(&format!("event|{hash}|{index}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strategy(name: &str) -> StrategyName {
        StrategyName::new(name).unwrap()
    }

    /// Vectors from outside: `hashlib.sha256(text).digest()[:16]` with version and variant set, in Python.
    #[test]
    fn derived_ids_match_the_golden_vectors() {
        let daily = ScheduleName::new("daily").unwrap();
        let cycle = CycleId::derive(Some(&strategy("momentum")), &daily, TsMs(1_768_002_660_000), "interval");
        let shared = CycleId::derive(None, &daily, TsMs(1_768_002_660_000), "interval");
        let decision = DecisionId::new("d-1").unwrap();

        assert_eq!(cycle.to_string(), "46caf363-a4a2-8864-9fb8-00b46d77ba14");
        assert_eq!(shared.to_string(), "a7fa3873-60e1-8ad3-a1f4-90d3cac56a31");
        assert_eq!(
            StrategyUuid::derive(&strategy("momentum")).to_string(),
            "d7859090-ea29-87a7-af4d-ab32b5350ae1"
        );
        assert_eq!(IntentId::derive(cycle, &decision).to_string(), "8c9fba0e-37c2-8e44-b253-cb7d75e61372");
        assert_eq!(CommandId::derive("key-1").to_string(), "ade0a519-d32b-81c6-af48-ea1289ff8f98");
        assert_eq!(
            CycleId::of_command(CommandId::derive("key-1")).to_string(),
            "ae3947c6-55a4-87dc-8d99-780dad37e0bc"
        );
        assert_eq!(
            CommandId::derive("key-1").next_attempt().to_string(),
            "887dbca0-f0e8-8013-b1b9-75da35332327"
        );
        assert_eq!(
            CommandId::of_event(&ForeignEventKey::new("a/b%", "e-1"), 0).to_string(),
            "98abdbf5-e2ca-82bf-b5d0-27093ca8b008"
        );
        assert_eq!(CommandId::of_random([0xff; 16]).to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(HistoryRowId::of_agent().to_string(), "645ba9cc-5384-8103-8af0-337d25eba6fd");
        assert_eq!(
            HistoryRowId::of_schedule(&strategy("momentum"), &daily).to_string(),
            "e0be5f93-b76a-822e-b7de-3d2e8694439b"
        );
        assert_eq!(
            HistoryRowId::of_artifact(cycle, "cycle_result").to_string(),
            "8238c2c5-f9c4-816b-a551-c21cafb1785c"
        );
    }

    /// A client that knows how events name their commands cannot answer for one by its idempotency key, and no two
    /// sources with the same letters have one event.
    #[test]
    fn a_command_of_an_event_is_none_of_a_key_and_of_no_other_event() {
        let event = ForeignEventKey::new("hub", "e-1");
        let commands = [
            CommandId::of_event(&event, 0),
            CommandId::of_event(&event, 1),
            CommandId::of_event(&ForeignEventKey::new("hub/e", "1"), 0),
            CommandId::of_event(&ForeignEventKey::new("hub", "e/1"), 0),
            CommandId::of_event(&ForeignEventKey::new("hub%2Fe", "1"), 0),
            CommandId::derive("event|0|hub|e-1"),
            CommandId::derive("by event|0|hub/e-1"),
            CommandId::derive("0|hub/e-1"),
            CommandId::derive("e-1"),
        ];
        for (at, command) in commands.iter().enumerate() {
            assert!(!commands[..at].contains(command), "command {at}");
        }
    }

    #[test]
    fn a_name_has_no_separator_and_an_id_of_others_no_control_character() {
        for bad in ["", "a|b", "a b", "é", "a\n", &"x".repeat(65)] {
            assert_eq!(StrategyName::new(bad), None, "{bad:?}");
        }
        for bad in ["", "a\nb", &"x".repeat(129)] {
            assert_eq!(DecisionId::new(bad), None, "{bad:?}");
        }
        assert!(StrategyName::new("open+15m").is_none() && StrategyName::new("Alpha_1.a-b").is_some());
        assert!(DecisionId::new("run 7|é").is_some());
    }

    #[test]
    fn only_a_whole_uuid_is_read() {
        for bad in [
            "",
            "ffffffff-ffff-4fff-bfff-fffffffffff",
            "ffffffff-ffff-4fff-bfff-ffffffffffffa",
            "ffffffffffff-4fff-bfff-ffffffff-ffff",
            "gfffffff-ffff-4fff-bfff-ffffffffffff",
            "fffffffffffffffffffffffffffffffffffff",
        ] {
            assert_eq!(CycleId::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_uuid_is_read_as_it_is_written(bytes in any::<[u8; 16]>()) {
            let id = CommandId::of_random(bytes);

            prop_assert_eq!(CommandId::parse(&id.to_string()), Some(id));
            prop_assert_eq!(CommandId::parse(&id.to_string().to_uppercase()), Some(id));
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(&json, &format!("\"{id}\""));
            prop_assert_eq!(serde_json::from_str::<CommandId>(&json).unwrap(), id);
        }

        #[test]
        fn another_fire_is_another_cycle(a in 0..3i64, b in 0..3i64, t in "[a|]{0,2}", u in "[a|]{0,2}") {
            let of = |at, trigger: &str| CycleId::derive(None, &ScheduleName::new("s").unwrap(), TsMs(at), trigger);

            prop_assert_eq!(of(a, &t) == of(b, &u), (a, &t) == (b, &u));
        }
    }
}
