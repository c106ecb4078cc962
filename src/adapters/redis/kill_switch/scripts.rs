//! The scripts of an operator's command: look, then write if nothing has changed since.
//!
//! What is written is decided between them, by the kernel; the second script only makes sure that it was decided on
//! what is still there. Each is one atomic step of the server.

use bytes::Bytes;
use fred::types::Value;
use orchestrator_kernel::kill_switch::Stored;

/// `KEYS key`, `ARGV longest` → `{kind, value}`: the kind is `none`, `string`, `long`, or another type's name.
pub(super) const INSPECT: &str = r"
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'string' then return {kind, ''} end
if redis.call('STRLEN', KEYS[1]) > tonumber(ARGV[1]) then return {'long', ''} end
return {kind, redis.call('GET', KEYS[1])}";

/// `KEYS key history`, `ARGV kind value new entry kept longest first` → `{1}`, `{1, why the history failed}` or `{0}`.
///
/// With `first` = `history` the entry comes first, so that nothing is allowed without a record: a history that cannot
/// be written fails the script before the value. With `value` the value comes first, so that nothing stops a stop.
pub(super) const WRITE: &str = r"
local function changed()
  if ARGV[1] == 'anything' then return false end
  local kind = redis.call('TYPE', KEYS[1]).ok
  if kind == 'string' and redis.call('STRLEN', KEYS[1]) > tonumber(ARGV[6]) then kind = 'long' end
  return kind ~= ARGV[1] or (kind == 'string' and redis.call('GET', KEYS[1]) ~= ARGV[2])
end
if changed() then return {0} end
if ARGV[7] == 'history' then redis.call('RPUSH', KEYS[2], ARGV[4]) end
redis.call('SET', KEYS[1], ARGV[3])
if ARGV[7] == 'value' then
  local pushed = redis.pcall('RPUSH', KEYS[2], ARGV[4])
  if type(pushed) == 'table' and pushed.err then return {1, pushed.err} end
end
redis.call('LTRIM', KEYS[2], -tonumber(ARGV[5]), -1)
return {1}";

/// [`WRITE`] for a stop: it does not ask a server above `maxmemory` for room.
pub(super) fn write_without_memory() -> String {
    format!("#!lua flags=allow-oom{WRITE}")
}

/// State of the key that [`WRITE`] must find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Whatever is there.
    Anything,
    /// What [`INSPECT`] found.
    Found {
        /// The kind, as the scripts name it.
        kind: String,
        /// The value of a string; empty for everything else.
        value: Bytes,
    },
}

impl Expected {
    /// What [`INSPECT`] answered.
    pub(super) fn from_answer(answer: &[Value]) -> Option<Self> {
        let [kind, value] = answer else { return None };
        Some(Self::Found { kind: kind.as_string()?, value: value.clone().into_bytes()? })
    }

    pub(super) fn kind_word(&self) -> &str {
        match self {
            Self::Anything => "anything",
            Self::Found { kind, .. } => kind,
        }
    }

    pub(super) fn value_bytes(&self) -> Bytes {
        match self {
            Self::Anything => Bytes::new(),
            Self::Found { value, .. } => value.clone(),
        }
    }

    /// The same as a read would say it.
    pub(super) fn to_stored(&self) -> Stored {
        match self {
            Self::Found { kind, value } => match kind.as_str() {
                "none" => Stored::Missing,
                "string" if value.is_empty() => Stored::Missing,
                "string" => Stored::Value(value.clone()),
                "long" => Stored::TooLong,
                _ => Stored::NotText,
            },
            Self::Anything => Stored::NotText,
        }
    }
}
