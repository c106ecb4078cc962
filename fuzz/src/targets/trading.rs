//! What the trading plane reads: records of its journal, what they add up to, cron patterns, calendars.

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::json::canonical;
use orchestrator_kernel::trading::calendar::MarketCalendar;
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_kernel::trading::journal::audit::JournalAudit;
use orchestrator_kernel::trading::journal::{ChainHash, JournalIndex, SealedEntry, seal_entry};
use orchestrator_kernel::trading::schedule::CronTrigger;
use orchestrator_kernel::trading::zone::MarketZone;

use super::{check_error, check_line, choice};

/// Longest pattern of the target: its error names it whole.
const PATTERN_BYTES_MAX: usize = 200;
/// Moments around clock changes, leap days and the ends of time.
const MOMENTS: [i64; 7] =
    [0, 1_709_164_800_000, 1_741_503_599_000, 1_762_063_200_000, -1, i64::MAX, i64::MIN];

/// A record that can be read is the same when it is written again; sealed, it is the audit's to judge and never makes
/// it or the index stumble.
pub(super) fn journal_record(input: &[u8]) {
    let sealed = match SealedEntry::decode(input) {
        Ok(sealed) => sealed,
        Err(error) => return check_error(&error.to_string()),
    };
    let mut again = Vec::new();
    let hash = seal_entry(ChainHash::START, &sealed.entry, &mut again);
    assert!(again.len() <= input.len(), "it grew from {} to {} bytes", input.len(), again.len());
    let read = SealedEntry::decode_after(ChainHash::START, &again).expect("it was sealed");
    assert_eq!((&read.entry, read.hash), (&sealed.entry, hash));
    assert!(SealedEntry::decode(&[input, &[0]].concat()).is_err());
    let wire = sealed.entry.to_wire(JournalSeq(1), hash);
    assert_eq!(canonical(&wire).as_ref(), Ok(&wire), "the export form is canonical");
    if let Err(broken) = JournalAudit::default().take_record(JournalSeq(1), &again) {
        check_line(&broken.to_string());
    }
    let mut index = JournalIndex::default();
    index.take_entry(JournalSeq(1), &sealed.entry);
    let mut stored = Vec::new();
    index.encode_to(&mut stored);
    assert_eq!(JournalIndex::decode(&stored).as_ref(), Ok(&index));
}

/// The base of a trimmed journal and what its records add up to are read as they were stored, or refused.
pub(super) fn journal_checkpoints(input: &[u8]) {
    let (kind, content) = choice(input);
    let mut again = Vec::new();
    if kind.is_multiple_of(2) {
        match JournalAudit::decode(content) {
            Ok(audit) => {
                audit.encode_to(&mut again);
                assert_eq!(JournalAudit::decode(&again), Ok(audit));
            }
            Err(error) => check_error(&error.to_string()),
        }
    } else {
        match JournalIndex::decode(content) {
            Ok(index) => {
                index.encode_to(&mut again);
                assert_eq!(JournalIndex::decode(&again), Ok(index));
            }
            Err(error) => check_error(&error.to_string()),
        }
    }
}

/// A pattern that is taken fires later than asked, each time; one that is not says why in a line.
pub(super) fn cron_pattern(input: &[u8]) {
    let (kind, text) = choice(input);
    let text = String::from_utf8_lossy(text.get(..PATTERN_BYTES_MAX).unwrap_or(text)).into_owned();
    let zone = ["America/New_York", "UTC", "Europe/London"][usize::from(kind % 3)];
    let zone = MarketZone::find_zone(zone).expect("it is compiled in");
    match CronTrigger::parse(&text, zone) {
        Ok(trigger) => {
            for at in MOMENTS {
                let first = trigger.first_fire_after(TsMs(at));
                let second = first.and_then(|first| trigger.first_fire_after(first));
                assert!(first.is_none_or(|first| at < first.0), "{text:?} fires in the past");
                assert!(second.is_none_or(|second| first < Some(second)), "{text:?} fires twice at once");
            }
        }
        Err(error) => check_line(&error.to_string()),
    }
}

/// A calendar that is taken answers about any moment; one that is not names its faults.
pub(super) fn market_calendar(input: &[u8]) {
    match MarketCalendar::parse(input) {
        Ok(calendar) => {
            for at in MOMENTS.map(TsMs) {
                if let Ok(Some(session)) = calendar.session_at(at) {
                    assert!(session.contains(at));
                }
                if let Ok(next) = calendar.next_session(at) {
                    assert!(at < next.opens && next.opens < next.closes);
                }
                if let Err(error) = calendar.trading_date(at) {
                    check_error(&error.to_string());
                }
            }
        }
        Err(error) => check_line(&error.to_string()),
    }
}
