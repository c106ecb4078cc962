//! `[sources.<name>]` of kind `redis_stream`: a Redis Stream, read as one consumer of a group.

use std::time::Duration;

use super::reader::forms::{Count, DurationForm, TextForm, is_line};
use super::reader::secret::SecretUrl;
use super::reader::section::Section;
use super::storage::REDIS_URL;

/// Options of a Redis Stream source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisStreamConfig {
    /// The server. May be another one than that of the logs.
    pub url: SecretUrl,
    /// Key of the stream, 1 to 512 bytes.
    pub stream: String,
    /// The consumer group, 1 to 512 bytes. Every group gets every entry.
    pub group: String,
    /// Our name in the group, 1 to 512 bytes. No two processes may have the same.
    pub consumer: String,
    /// The field of an entry that holds the event, 1 to 512 bytes.
    pub field: String,
    /// Where a group begins that is not there yet: `0`, `$`, or behind an entry id.
    pub start: String,
    /// Entries of one read at most, 1 to 65536; fewer when they are large.
    pub count_max: usize,
    /// How long an entry may be unacknowledged before another consumer takes it over, 1s to 1day.
    pub claim_idle: Duration,
}

/// What names a key, a group, a consumer or a field.
const REDIS_NAME: TextForm = TextForm {
    accepts: |text| (1..=512).contains(&text.len()) && is_line(text),
    allowed: "1 to 512 bytes without control characters",
};

/// Where a consumer group begins.
const GROUP_START: TextForm =
    TextForm { accepts: is_group_start, allowed: "\"0\", \"$\", or an id such as \"1768002660000-0\"" };

fn is_group_start(text: &str) -> bool {
    let is_number = |digits: &str| digits.parse::<u64>().is_ok() && !digits.starts_with('+');
    match text.split_once('-') {
        Some((ms, number)) => is_number(ms) && is_number(number),
        None => text == "0" || text == "$",
    }
}

impl RedisStreamConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Option<Self> {
        let url = section.read_required("url", "it says where the server is", &REDIS_URL);
        let stream = section.read_required("stream", "it says which key holds the stream", &REDIS_NAME);
        let name = || "orchestrator".to_owned();
        let (mut group, mut consumer) = (name(), name());
        let (mut field, mut start) = ("event".to_owned(), "0".to_owned());
        let (mut count_max, mut claim_idle) = (1000, Duration::from_secs(30));
        section.read_value("group", &mut group, &REDIS_NAME);
        section.read_value("consumer", &mut consumer, &REDIS_NAME);
        section.read_value("field", &mut field, &REDIS_NAME);
        section.read_value("start", &mut start, &GROUP_START);
        section.read_value("count_max", &mut count_max, &Count(1..=65_536));
        let idle = DurationForm(Duration::from_secs(1)..=Duration::from_secs(86_400));
        section.read_value("claim_idle", &mut claim_idle, &idle);
        Some(Self { url: url?, stream: stream?, group, consumer, field, start, count_max, claim_idle })
    }
}
