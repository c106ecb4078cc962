//! Recorded frames of Binance: `<recv_ns> <json>` a line, the JSON a combined stream's `{"stream","data"}` or plain.
//!
//! | frame | events |
//! |---|---|
//! | `trade`, `aggTrade` | TradeTick; the side is the taker's |
//! | `depthUpdate` | BookDelta |
//! | `bookTicker` (with or without its name) | BookTop |
//! | `kline` | Candle |
//! | `markPriceUpdate` | MarkPrice, and IndexPrice and FundingRate where the frame has them |
//! | `forceOrder` | LiquidationPrint: average price and filled quantity |
//! | open interest (of a REST poll) | OpenInterest |
//! | any other | its own name as event type, `normalized` empty |
//! | no JSON, or without the fields of its name | DecodeFailure |
//!
//! Nothing is dropped: every event has the frame as its `raw_payload`. A frame that is an array is taken element by
//! element.

mod kinds;

use std::borrow::Cow;

use orchestrator_kernel::ids::Symbol;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::event::{Event, Fields};
use super::number::Unit;
use super::{Problem, Take};

/// The symbol of frames that name none.
const NO_SYMBOL: &str = "UNKNOWN";
/// The event type of frames that have no name.
const NO_NAME: &str = "Unknown";

/// Turns lines into events.
pub(super) struct Frames<'a> {
    /// `source_id` of the events.
    pub(super) source_id: &'a str,
    /// Symbol of frames that name none.
    pub(super) symbol: Option<&'a str>,
}

impl Frames<'_> {
    /// Takes one line.
    pub(super) fn take_line(&self, line: &str, take: Take<'_>) -> Result<(), Problem> {
        let refused = |detail: String| Problem { column: "1".to_owned(), detail };
        let (recv, frame) = line.split_once(' ').ok_or_else(|| {
            refused("expected a receive time in nanoseconds, a space and a frame".to_owned())
        })?;
        let recv_ns: i64 =
            recv.parse().map_err(|_| refused(format!("{recv:?} is no receive time in nanoseconds")))?;
        Unit::Ns.check_plausible(recv_ns.div_euclid(1_000_000)).map_err(refused)?;
        self.take_frame(recv_ns, frame.trim(), take)
    }

    fn take_frame(&self, recv_ns: i64, frame: &str, take: Take<'_>) -> Result<(), Problem> {
        #[derive(Deserialize)]
        struct Combined<'a> {
            #[serde(borrow)]
            stream: Cow<'a, str>,
            #[serde(borrow)]
            data: &'a RawValue,
        }
        let (stream, data) = match serde_json::from_str::<Combined<'_>>(frame) {
            Ok(combined) => (Some(combined.stream), combined.data.get()),
            Err(_) => (None, frame),
        };
        let one = One { frames: self, recv_ns, stream: stream.as_deref() };
        match serde_json::from_str::<Vec<&RawValue>>(data) {
            Ok(elements) if !elements.is_empty() => {
                elements.iter().try_for_each(|element| one.convert_frame(element.get(), element.get(), take))
            }
            Ok(_) | Err(_) => one.convert_frame(data, frame, take),
        }
    }
}

/// One frame, with what stands around it.
struct One<'a> {
    frames: &'a Frames<'a>,
    recv_ns: i64,
    stream: Option<&'a str>,
}

/// A converter: the frame's data and the frame, to events.
type Convert = fn(&One<'_>, &str, &str, Take<'_>) -> Result<(), Bad>;

/// Reason for which a frame of a known name was not converted.
enum Bad {
    /// It has not the fields of its name.
    Fields(serde_json::Error),
    /// The event was not taken.
    Problem(Problem),
}

impl From<serde_json::Error> for Bad {
    fn from(error: serde_json::Error) -> Self {
        Self::Fields(error)
    }
}

impl From<Problem> for Bad {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl One<'_> {
    fn convert_frame(&self, data: &str, frame: &str, take: Take<'_>) -> Result<(), Problem> {
        let head = match serde_json::from_str::<Head<'_>>(data) {
            Ok(head) => head,
            Err(error) => return self.keep_undecodable(("not_a_frame", &error), None, frame, take),
        };
        let known: Convert = match self.frame_name(&head) {
            "trade" | "aggTrade" => kinds::convert_trade,
            "depthUpdate" => kinds::convert_depth,
            "bookTicker" => kinds::convert_book_ticker,
            "kline" => kinds::convert_kline,
            "markPriceUpdate" => kinds::mark_price,
            "forceOrder" => kinds::force_order,
            "openInterest" => kinds::open_interest,
            name => {
                let symbol = self.symbol_or_given(head.symbol_text());
                return self.hand_on_event(Event::new(name, &symbol, 0, frame), head.event_time_ms(), take);
            }
        };
        match known(self, data, frame, take) {
            Ok(()) => Ok(()),
            Err(Bad::Problem(problem)) => Err(problem),
            Err(Bad::Fields(error)) => {
                self.keep_undecodable(("bad_fields", &error), head.symbol_text(), frame, take)
            }
        }
    }

    /// The frame's name: what it says itself, or what gives it away.
    fn frame_name<'n>(&'n self, head: &'n Head<'_>) -> &'n str {
        if let Some(name) = head.e.as_deref().filter(|name| !name.is_empty()) {
            return name;
        }
        let of_stream = self.stream.and_then(|stream| stream.split('@').nth(1));
        match (of_stream, head.best_bid.is_some() && head.best_ask.is_some(), head.open_interest.is_some()) {
            (Some("bookTicker"), _, _) | (_, true, _) => "bookTicker",
            (_, _, true) => "openInterest",
            (of_stream, _, _) => of_stream.filter(|name| !name.is_empty()).unwrap_or(NO_NAME),
        }
    }

    fn symbol_or_given<'s>(&'s self, own: Option<&'s str>) -> Cow<'s, str> {
        if let Some(own) = own.filter(|own| Symbol::is_valid(own)) {
            return Cow::Borrowed(own);
        }
        let of_stream = self.stream.and_then(|stream| stream.split('@').next());
        match of_stream.filter(|name| !name.starts_with('!') && Symbol::is_valid(name)) {
            Some(name) => Cow::Owned(name.to_uppercase()),
            None => Cow::Borrowed(self.frames.symbol.unwrap_or(NO_SYMBOL)),
        }
    }

    /// What cannot be read is kept, with the reason.
    fn keep_undecodable(
        &self,
        (kind, error): (&str, &serde_json::Error),
        symbol: Option<&str>,
        frame: &str,
        take: Take<'_>,
    ) -> Result<(), Problem> {
        let symbol = self.symbol_or_given(symbol);
        let mut event = Event::new("DecodeFailure", &symbol, 0, frame);
        let fields = Fields::default().with_text("error_kind", Some(kind));
        event.normalized = fields.with_text("error_detail", Some(&error.to_string())).into_object();
        self.hand_on_event(event, None, take)
    }

    /// Fills in what all frames have, and hands the event on.
    fn hand_on_event<'e>(
        &'e self,
        mut event: Event<'e>,
        exchange_ts_ms: Option<i64>,
        take: Take<'_>,
    ) -> Result<(), Problem> {
        event.source_id = self.frames.source_id;
        event.recv_ts_ms = self.recv_ns.div_euclid(1_000_000);
        event.recv_ts_ns = (self.recv_ns.rem_euclid(1_000_000) != 0).then_some(self.recv_ns);
        event.exchange_ts_ms = exchange_ts_ms;
        event.payload_content_type = Some("application/json");
        take(&event)
    }
}

/// Members of a frame that tell its kind, symbol and time.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    e: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    s: Option<&'a RawValue>,
    #[serde(borrow, default)]
    symbol: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "B")]
    best_bid: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "A")]
    best_ask: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "openInterest")]
    open_interest: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "E")]
    event_time: Option<&'a RawValue>,
}

impl<'a> Head<'a> {
    fn symbol_text(&self) -> Option<&'a str> {
        self.s.or(self.symbol)?.get().strip_prefix('"')?.strip_suffix('"')
    }

    fn event_time_ms(&self) -> Option<i64> {
        self.event_time?.get().parse().ok()
    }
}

#[cfg(test)]
mod tests;
