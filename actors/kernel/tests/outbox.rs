//! Holds against random histories: nothing overtakes, nothing is lost but by an act, and everything else flows.

#![expect(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use orchestrator_kernel::engine::contracts::manifest::OutputsAct;
use orchestrator_kernel::engine::contracts::orchestrator_event::event_type;
use orchestrator_kernel::engine::outbox::{
    Fate, HeldChoice, Holds, OutputRefusal, PublishCursor, PublishProgress, Skips, TooManyHeld,
};
use orchestrator_kernel::engine::run_id::RunId;
use orchestrator_kernel::ids::{EngineMode, IngestSeq, RunSeq, Symbol, TsMs};
use orchestrator_kernel::ports::fan_out::OutputMessage;
use proptest::prelude::*;

const FAN_OUT: &str = "broker";
const SYMBOLS: [&str; 3] = ["A", "B", "C"];
const HELD_MAX: usize = 2;

fn refusal<'a>(refused: &'a OutputMessage, reason: &'a str) -> OutputRefusal<'a> {
    OutputRefusal { fan_out: FAN_OUT, refused, reason, since: None }
}

/// The log: one record a run, two outputs a record; symbols by turns that the strategy chooses.
fn history(turns: &[usize]) -> Vec<Vec<OutputMessage>> {
    let mut numbers: BTreeMap<usize, u64> = BTreeMap::new();
    let record = |(run_seq, turn): (u64, &usize)| {
        let symbol = Symbol::from(SYMBOLS[*turn]);
        let first = numbers.entry(*turn).or_insert(1);
        let message = |index: u32| OutputMessage {
            run_seq: RunSeq(run_seq),
            index,
            run_id: RunId::derive(&symbol, TsMs(1), IngestSeq(run_seq), EngineMode::Truth),
            event_type: event_type::RUN_COMPLETED,
            symbol: symbol.clone(),
            symbol_seq: *first + u64::from(index),
            body: Bytes::new(),
        };
        let made = vec![message(0), message(1)];
        *first += 2;
        made
    };
    (1..).zip(turns).map(record).collect()
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// So many records are offered behind the cursor.
    Offer(usize),
    /// One page of so many records is offered again.
    Page(usize),
    /// The fan-out refuses this symbol from this number on, or takes everything of it.
    Refuse(usize, Option<u64>),
    Decide(usize, HeldChoice),
    /// The process ends; what was saved so many saves ago is gone on from.
    Crash,
    Save,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let symbol = 0..SYMBOLS.len();
    let choice = prop_oneof![Just(HeldChoice::Retry), Just(HeldChoice::SkipFirst), Just(HeldChoice::SkipAll)];
    let step = prop_oneof![
        4 => (1..4_usize).prop_map(Step::Offer),
        4 => (1..4_usize).prop_map(Step::Page),
        3 => (symbol.clone(), prop::option::of(1..12_u64)).prop_map(|(symbol, from)| Step::Refuse(symbol, from)),
        2 => (symbol, choice).prop_map(|(symbol, choice)| Step::Decide(symbol, choice)),
        1 => Just(Step::Crash),
        2 => Just(Step::Save),
    ];
    prop::collection::vec(step, 1..60)
}

/// A publisher in small: the product's is `orchestrator_engine_plane::publisher`.
#[derive(Default)]
struct Outbox {
    log: Vec<Vec<OutputMessage>>,
    progress: PublishProgress,
    saved: Vec<u8>,
    skips: Skips,
    refused: BTreeMap<String, u64>,
    /// Numbers that subscribers have, by symbol, at their first arrival.
    arrived: BTreeMap<String, Vec<u64>>,
    let_go: BTreeSet<(String, u64)>,
}

impl Outbox {
    fn takes(&mut self, message: &OutputMessage) -> bool {
        let symbol = message.symbol.to_string();
        if self.refused.get(&symbol).is_some_and(|from| *from <= message.symbol_seq) {
            return false;
        }
        let arrived = self.arrived.entry(symbol).or_default();
        if !arrived.contains(&message.symbol_seq) {
            arrived.push(message.symbol_seq);
        }
        true
    }

    /// As `publisher::offer`: says whether the cursor moved.
    fn offer(&mut self, records: usize) -> bool {
        let from = self.progress.cursor.run_seq.0 as usize;
        let batch: Vec<OutputMessage> = self.log.iter().skip(from).take(records).flatten().cloned().collect();
        for message in &batch {
            if self.progress.holds.fate_of_output(&self.skips, FAN_OUT, message) != Fate::Offer
                || self.takes(message)
            {
                continue;
            }
            if self.progress.holds.hold_symbol(refusal(message, "no"), HELD_MAX).is_err() {
                return false;
            }
        }
        batch.iter().for_each(|message| self.progress.holds.pass_output(message));
        let Some(last) = batch.last() else { return false };
        let outputs = self.progress.cursor.outputs + batch.len() as u64;
        self.progress.cursor = PublishCursor { run_seq: last.run_seq, outputs };
        true
    }

    /// As `publisher::held`.
    fn page(&mut self, records: usize) {
        let Some((symbol, fan_out, hold)) = self.progress.holds.next_retry(|_| true) else { return };
        let cursor = self.progress.cursor.run_seq;
        let through = RunSeq((hold.from.0 + records as u64 - 1).min(cursor.0));
        let page: Vec<OutputMessage> = self
            .log
            .iter()
            .flatten()
            .filter(|made| hold.from <= made.run_seq && made.run_seq <= through)
            .cloned()
            .collect();
        for message in page.iter().filter(|made| made.symbol == symbol && hold.first <= made.symbol_seq) {
            let is_let_go = self.skips.covers_output(&symbol, FAN_OUT, message.symbol_seq);
            if !is_let_go && !self.takes(message) {
                self.progress.holds.hold_symbol(refusal(message, "still no"), HELD_MAX).unwrap();
                return;
            }
            self.progress.holds.note_taken(&symbol, &fan_out, message.symbol_seq);
        }
        self.progress.holds.note_read(&symbol, &fan_out, through, cursor);
    }

    fn decide(&mut self, symbol: &str, choice: HeldChoice) {
        let symbol = Symbol::from(symbol);
        for act in self.progress.holds.acts_for_choice(&symbol, choice) {
            if let OutputsAct::Skip { first, last, .. } = &act {
                self.let_go.extend((*first..=*last).map(|number| (symbol.to_string(), number)));
            }
            self.skips.note_act(&act);
        }
        self.progress.holds.retry_symbol(&symbol);
    }

    fn crash(&mut self) {
        let saved = std::mem::take(&mut self.saved);
        self.progress = if saved.is_empty() {
            PublishProgress::default()
        } else {
            PublishProgress::decode(&saved).unwrap()
        };
        self.progress.holds.retry_all();
    }

    /// What the subscribers of a symbol lack up to a record, but for what was let go.
    fn missing(&self, through: RunSeq) -> Vec<&OutputMessage> {
        let has = |made: &&OutputMessage| {
            let symbol = made.symbol.as_str();
            self.arrived.get(symbol).is_some_and(|arrived| arrived.contains(&made.symbol_seq))
                || self.let_go.contains(&(symbol.to_owned(), made.symbol_seq))
        };
        let made = self.log.iter().flatten().filter(|made| made.run_seq <= through);
        made.filter(|made| !has(made)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_held_waits_in_order_is_kept_and_counted_and_the_others_flow(
        turns in prop::collection::vec(0..SYMBOLS.len(), 1..24), steps in steps()
    ) {
        let mut outbox = Outbox { log: history(&turns), ..Outbox::default() };
        for step in steps {
            match step {
                Step::Offer(records) => { outbox.offer(records); }
                Step::Page(records) => outbox.page(records),
                Step::Refuse(symbol, None) => { outbox.refused.remove(SYMBOLS[symbol]); }
                Step::Refuse(symbol, Some(from)) => { outbox.refused.insert(SYMBOLS[symbol].to_owned(), from); }
                Step::Decide(symbol, choice) => outbox.decide(SYMBOLS[symbol], choice),
                Step::Save => outbox.saved = outbox.progress.encode(),
                Step::Crash => outbox.crash(),
            }

            let PublishProgress { cursor, holds } = &outbox.progress;
            for missing in outbox.missing(cursor.run_seq) {
                prop_assert!(holds.holds_back(missing), "{missing:?} is lost");
                prop_assert!(outbox.progress.last_released() < missing.run_seq, "retention may let {missing:?} go");
            }
            prop_assert!(holds.symbol_count() <= HELD_MAX);
            for (symbol, arrived) in &outbox.arrived {
                prop_assert!(arrived.is_sorted(), "{symbol} is overtaken: {arrived:?}");
            }
            let encoded = outbox.progress.encode();
            let decoded = PublishProgress::decode(&encoded).unwrap();
            prop_assert_eq!(decoded.encode(), encoded);
        }

        // Nobody refuses any more, and everything is offered again.
        outbox.refused.clear();
        outbox.progress.holds.retry_all();
        while outbox.offer(3) {}
        while !outbox.progress.holds.is_empty() {
            outbox.page(3);
        }
        prop_assert_eq!(outbox.progress.cursor.run_seq.0 as usize, turns.len());
        prop_assert_eq!(outbox.missing(RunSeq(u64::MAX)), Vec::<&OutputMessage>::new());
    }

    #[test]
    fn skips_cover_what_was_let_go_and_nothing_else(
        acts in prop::collection::vec((0..20_u64, 0..6_u64), 0..12), asked in 0..30_u64
    ) {
        let (symbol, mut skips) = (Symbol::from("A"), Skips::default());
        for (first, more) in &acts {
            skips.add_range(&symbol, FAN_OUT, *first, first + more);
        }

        let is_let_go =
            |number: u64| acts.iter().any(|(first, more)| *first <= number && number <= first + more);
        let expected = is_let_go(asked);
        let stretch = asked..=asked + 3;

        prop_assert_eq!(
            skips.covers_all(&symbol, FAN_OUT, stretch.clone()),
            stretch.clone().all(is_let_go)
        );
        prop_assert_eq!(skips.covers_output(&symbol, FAN_OUT, asked), expected);
        prop_assert_eq!(skips.covers_anywhere(&symbol, asked), expected);
        prop_assert!(!skips.covers_output(&symbol, "another", asked) && !skips.covers_output(&"B".into(), FAN_OUT, asked));
    }
}

#[test]
fn a_saved_cursor_of_any_version_is_read_and_anything_else_is_refused() {
    let cursor = PublishCursor { run_seq: RunSeq(7), outputs: 14 };
    let plain = PublishProgress { cursor, holds: Holds::default() };
    assert_eq!(
        plain.encode(),
        [7, 0, 0, 0, 0, 0, 0, 0, 14, 0, 0, 0, 0, 0, 0, 0],
        "as it was before there were holds"
    );
    let mut held = plain.clone();
    held.holds
        .hold_symbol(OutputRefusal { since: Some(TsMs(5)), ..refusal(&history(&[0])[0][0], "403") }, 1)
        .unwrap();

    for progress in [plain, held] {
        let bytes = progress.encode();
        assert_eq!(PublishProgress::decode(&bytes).unwrap(), progress);
        for end in (0..bytes.len()).filter(|end| *end != 16) {
            PublishProgress::decode(&bytes[..end]).unwrap_err();
        }
    }
    PublishProgress::decode(&[0; 17]).unwrap_err();
}

#[test]
fn one_symbol_too_many_is_not_held_and_nothing_changes() {
    let log = history(&[0, 1, 2]);
    let mut holds = Holds::default();
    holds.hold_symbol(refusal(&log[0][0], "no"), HELD_MAX).unwrap();
    holds.hold_symbol(refusal(&log[1][1], "no"), HELD_MAX).unwrap();
    let before = holds.clone();

    let refused = holds.hold_symbol(refusal(&log[2][0], "no"), HELD_MAX).unwrap_err();

    assert_eq!((refused, &holds), (TooManyHeld { max: HELD_MAX }, &before));
    holds.hold_symbol(refusal(&log[0][1], &"x".repeat(9999)), HELD_MAX).unwrap();
    assert_eq!(holds.get(&"A".into(), FAN_OUT).unwrap().reason.len(), 512);
}
