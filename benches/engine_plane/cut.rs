//! The cost of a cut must not depend on the length of the log (CUT-3): the same cut of 100 symbols, with a different
//! number of receipts before it. The naive way, which scans them all, is the baseline.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::cut::{CutBook, CutRequest, SymbolCut};
use orchestrator_kernel::ids::{IngestSeq, Symbol, TsMs};

use super::feed::{EVENT_BYTES, symbol};
use super::support::{Bar, Options, Outcome, Row, ensure, median, percentile};

const SYMBOLS: usize = 100;
/// Receipts of each symbol in each cut; the last one is its snapshot.
const SLICE: usize = 20;
const TICK_MS: i64 = 1000;

/// A log that only has receipts' headers, and the book that follows it.
struct Log {
    before: u64,
    book: CutBook,
    names: Vec<Symbol>,
    tick: i64,
    /// Where the next cuts start; `None` before the first.
    next_start: Option<IngestSeq>,
    /// Microseconds of each cut.
    took: Vec<f64>,
}

pub(super) fn measure(options: Options) -> Outcome<Vec<Row>> {
    let lengths: [u64; 4] =
        options.size([10_000, 100_000, 1_000_000, 10_000_000], [1000, 2000, 4000, 10_000]);
    let rounds = options.size(1001, 51);
    let mut logs: Vec<Log> = lengths.iter().map(|length| Log::with(*length)).collect();
    let naive = naive_us(lengths.first().copied().unwrap_or_default())?;
    for _ in 0..rounds {
        // In turn, so that whatever else the machine does meets all of them.
        for log in &mut logs {
            log.cut()?;
        }
    }
    let mut typical: Vec<f64> = logs.iter_mut().map(|log| median(&mut log.took)).collect();
    let mut rows: Vec<Row> = logs
        .iter()
        .zip(&typical)
        .map(|(log, cut)| Row {
            what: format!("cut of {SYMBOLS} symbols after {} receipts", log.before),
            value: *cut,
            unit: "µs",
            baseline: "scan of all receipts of the shortest log",
            baseline_value: naive,
            bar: Bar::None,
        })
        .collect();
    rows.push(Row {
        what: "cut, dearest length against cheapest".to_owned(),
        value: percentile(&mut typical, 100.0) / percentile(&mut typical, 0.0),
        unit: "×",
        baseline: "flat",
        baseline_value: 1.0,
        bar: Bar::Below(1.2),
    });
    Ok(rows)
}

impl Log {
    fn with(before: u64) -> Self {
        let names = (0..SYMBOLS as u64).map(|index| Symbol::from(symbol(index).as_str())).collect();
        let mut log =
            Self { before, book: CutBook::default(), names, tick: 0, next_start: None, took: Vec::new() };
        log.fill(before / SYMBOLS as u64);
        log.seal();
        log
    }

    /// `each` receipts of every symbol; the last one of each is its snapshot for the next tick.
    fn fill(&mut self, each: u64) {
        let event = [b'x'; EVENT_BYTES];
        let ts = (self.tick + 1) * TICK_MS;
        for round in 1..=each {
            for name in &self.names {
                let is_snapshot = round == each;
                let record = ReceiptRecord {
                    ingest_seq: self.book.tail().next(),
                    ingest_ts_ms: TsMs(ts - 1),
                    origin: "bench",
                    position: self.book.tail().next().0,
                    symbol: name.as_str(),
                    event_type: if is_snapshot { "SnapshotInputs" } else { "TradeTick" },
                    snapshot_ts_ms: is_snapshot.then_some(TsMs(ts)),
                    event: &event,
                };
                self.book.observe_receipt(&record);
            }
        }
    }

    fn seal(&mut self) -> Vec<SymbolCut> {
        self.tick += 1;
        let (now, next) = (TsMs(self.tick * TICK_MS), TsMs((self.tick + 1) * TICK_MS));
        let request = |name: &Symbol| CutRequest {
            symbol: name.clone(),
            start: self.next_start,
            floor: Some(TsMs(now.0 - TICK_MS)),
            only_if_seen: true,
        };
        let requests = self.names.iter().map(request).collect();
        let begin = Instant::now();
        let sealed = self.book.seal_tick(now, now, requests, Some(next));
        self.took.push(begin.elapsed().as_secs_f64() * 1e6);
        self.next_start = sealed.end.map(|end| end.next());
        sealed.cuts
    }

    /// A cut with a slice of the usual size; fails unless it holds exactly that.
    fn cut(&mut self) -> Outcome<()> {
        let start = self.book.tail().next();
        self.fill(SLICE as u64);
        let cuts = self.seal();
        let end = self.book.tail();
        let is_right = |cut: &SymbolCut| {
            let snapshot = cut.snapshot.as_ref().map(|snapshot| snapshot.seq);
            let is_last = snapshot.is_some_and(|seq| end.0 - SYMBOLS as u64 <= seq.0);
            cut.start == start
                && cut.end == end
                && cut.counts.values().sum::<u64>() == SLICE as u64
                && is_last
        };
        ensure(cuts.len() == SYMBOLS && cuts.iter().all(is_right), || {
            format!("the cuts of {start} to {end} are wrong: {:?}", cuts.first())
        })
    }
}

/// What the naive way keeps of a receipt.
struct Kept {
    seq: IngestSeq,
    symbol: Symbol,
    event_type: &'static str,
}

/// Microseconds of one tick's cuts by scanning all receipts for each symbol.
fn naive_us(receipts: u64) -> Outcome<f64> {
    let names: Vec<Symbol> = (0..SYMBOLS as u64).map(|index| Symbol::from(symbol(index).as_str())).collect();
    let kept: Vec<Kept> = (1..=receipts)
        .zip(names.iter().cycle())
        .map(|(seq, name)| Kept { seq: IngestSeq(seq), symbol: name.clone(), event_type: "TradeTick" })
        .collect();
    let start = IngestSeq(receipts.saturating_sub((SLICE * SYMBOLS) as u64) + 1);
    let mut took = Vec::new();
    for _ in 0..21 {
        let begin = Instant::now();
        let mut found = 0;
        for name in &names {
            let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
            for receipt in kept.iter().filter(|receipt| start <= receipt.seq && receipt.symbol == *name) {
                *counts.entry(receipt.event_type).or_default() += 1;
            }
            found += black_box(counts).values().sum::<u64>();
        }
        took.push(begin.elapsed().as_secs_f64() * 1e6);
        ensure(found == receipts.min((SLICE * SYMBOLS) as u64), || format!("the scan found {found}"))?;
    }
    Ok(median(&mut took))
}
