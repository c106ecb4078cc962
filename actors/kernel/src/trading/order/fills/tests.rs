//! Fills in every order, twice, late and contradicting each other: each share is counted once.

use proptest::prelude::*;

use super::*;

const ID: &str = "479131535213089960f7eebb";

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn fill(cumulative: u32, qty: u32, price: &str) -> FillReport {
    FillReport { cumulative: cumulative.into(), qty: qty.into(), price: decimal(price) }
}

fn total(filled_qty: &str, average_price: Option<&str>) -> FillTotal {
    FillTotal { filled_qty: decimal(filled_qty), average_price: average_price.map(decimal) }
}

fn take(book: &mut FillBook, report: &FillReport) -> (Decimal, Option<FillContradiction>) {
    let taken = book.take_report(report, FillMoment::Open);
    (taken.qty, taken.contradiction)
}

#[test]
fn a_fill_is_read_with_its_cumulative_quantity() {
    let id = ClientOrderId::from_hex(ID).unwrap();
    let read =
        |fill: serde_json::Value| FillReport::of_json(id, &serde_json::value::to_raw_value(&fill).unwrap());
    let whole = serde_json::json!({
        "fill_id": format!("{ID}_10"), "fill_qty": 5, "fill_price": "150.25", "realized_pl": "0",
        "timestamp": "2025-01-02T15:00:01Z",
    });
    let with = |key: &str, value: serde_json::Value| {
        let mut changed = whole.clone();
        changed[key] = value;
        changed
    };

    assert_eq!(read(whole.clone()), Ok(fill(10, 5, "150.25")));
    assert_eq!(read(with("fill_id", "dbc1c3abf98c0cb5561d131a_10".into())), Err(NotAFill::ForeignId));
    assert_eq!(read(with("fill_id", ID.into())), Err(NotAFill::ForeignId));
    assert_eq!(read(with("fill_id", format!("{ID}_x").into())), Err(NotAFill::Unreadable("fill_id")));
    assert_eq!(read(with("fill_qty", "NaN".into())), Err(NotAFill::Unreadable("fill_qty")));
    assert_eq!(read(with("fill_price", serde_json::Value::Null)), Err(NotAFill::Unreadable("fill_price")));
    assert_eq!(read(serde_json::json!(5)), Err(NotAFill::Unreadable("shape")));
}

/// T18: three parts, doubled, the old ones after the new ones.
#[test]
fn parts_that_come_twice_and_backwards_are_counted_once() {
    let mut book = FillBook::new(10);
    let parts = [fill(10, 3, "102"), fill(2, 2, "100"), fill(7, 5, "101")];

    let counted: Vec<_> = parts.iter().chain(&parts).map(|part| take(&mut book, part)).collect();

    let [none, two, three, five] = [0, 2, 3, 5].map(Decimal::from);
    assert_eq!(counted, [(three, None), (two, None), (five, None), (none, None), (none, None), (none, None)]);
    assert_eq!((book.filled_qty(), book.total_cost()), (decimal("10"), decimal("1011")));
    assert_eq!(book.average_price(), Some(decimal("101.1")));
    assert!(!book.has_gap());
}

#[test]
fn a_part_that_is_missing_before_a_known_one_is_seen() {
    let mut book = FillBook::new(10);

    assert!(!book.has_gap());
    take(&mut book, &fill(7, 2, "100"));
    assert!(book.has_gap());
    take(&mut book, &fill(5, 5, "100"));
    assert!(!book.has_gap());
}

#[test]
fn contradictions_are_told_and_count_no_share_twice() {
    use FillContradiction::{BeyondOrder, Impossible, OtherPrice, Overlap};
    for (report, qty, why) in [
        (fill(5, 5, "101"), 0, OtherPrice),
        (fill(5, 3, "100"), 0, Overlap),
        (fill(8, 8, "100"), 3, Overlap),
        (fill(4, 4, "100"), 0, Overlap),
        (fill(12, 4, "100"), 4, BeyondOrder),
        (fill(5, 0, "100"), 0, Impossible),
        (fill(5, 6, "100"), 0, Impossible),
        (fill(10, 5, "0"), 0, Impossible),
        (fill(10, 5, "-1"), 0, Impossible),
        (fill(10, 5, "79228162514264337593543950335"), 0, Impossible),
    ] {
        let mut book = FillBook::new(10);
        take(&mut book, &fill(5, 5, "100"));

        assert_eq!(take(&mut book, &report), (Decimal::from(qty), Some(why)), "{report:?}");
        assert_eq!(book.filled_qty(), Decimal::from(5 + qty));
    }
}

#[test]
fn what_no_fill_covers_of_the_total_is_filled_at_the_price_that_is_left() {
    let mut book = FillBook::new(10);
    take(&mut book, &fill(5, 5, "99"));

    let taken = book.take_total(&total("10", Some("100")), FillMoment::AfterEnd).unwrap();

    assert_eq!((taken.qty, taken.price), (decimal("5"), decimal("101")));
    assert_eq!((taken.moment, taken.contradiction), (FillMoment::AfterEnd, None));
    // The fill that it stood for comes later.
    assert_eq!(take(&mut book, &fill(10, 5, "101.01")), (Decimal::ZERO, None));
    assert_eq!(book.total_cost(), decimal("1000"));
}

#[test]
fn a_total_that_says_nothing_new_adds_nothing() {
    let mut book = FillBook::new(10);
    take(&mut book, &fill(5, 5, "99"));

    for (filled, average) in [
        ("0", None),
        ("5", Some("99")),
        ("3", Some("1")),
        ("10", None),
        ("10", Some("0")),
        ("79228162514264337593543950335", Some("1")),
    ] {
        let taken = book.take_total(&total(filled, average), FillMoment::Open);
        assert_eq!(taken, None, "{filled} at {average:?}");
    }
    assert_eq!(book.filled_qty(), decimal("5"));
}

#[test]
fn a_total_beyond_the_order_is_counted_and_told() {
    let mut book = FillBook::new(10);

    let taken = book.take_total(&total("11", Some("1")), FillMoment::Open).unwrap();

    assert_eq!((taken.qty, taken.contradiction), (decimal("11"), Some(FillContradiction::BeyondOrder)));
}

#[test]
fn a_book_holds_no_more_spans_than_its_limit() {
    let mut book = FillBook::new(u64::MAX);
    for at in 1..=u32::try_from(SPANS_MAX).unwrap() {
        book.spans.push(Span {
            from: at.into(),
            to: (at + 1).into(),
            price: Decimal::ONE,
            source: SpanSource::Told,
        });
    }

    let refused = take(&mut book, &fill(50_000, 1, "1"));

    assert_eq!(refused, (Decimal::ZERO, Some(FillContradiction::TooMany)));
}

/// Fills that tile an order: their quantities.
fn parts() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(1..50u32, 1..8)
}

proptest! {
    /// Method: the fills of an order are told in any order, each any number of times, with totals between them.
    #[test]
    fn any_telling_of_the_same_fills_counts_the_same(
        parts in parts(), telling in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..40),
    ) {
        let ordered: u32 = parts.iter().sum();
        let mut cumulative = 0;
        let fills: Vec<FillReport> = parts.iter().zip(100..).map(|(qty, price)| {
            cumulative += qty;
            FillReport { cumulative: cumulative.into(), qty: (*qty).into(), price: Decimal::from(price) }
        }).collect();
        let mut book = FillBook::new(ordered.into());
        let mut counted = Decimal::ZERO;
        for (index, with_total) in &telling {
            let at = index.index(fills.len());
            let taken = book.take_report(&fills[at], FillMoment::Open);
            prop_assert_eq!(taken.contradiction, None);
            counted += taken.qty;
            if *with_total {
                let reached = &fills[..=at];
                let cost: Decimal = reached.iter().map(|fill| fill.qty * fill.price).sum();
                let filled_qty = fills[at].cumulative;
                let total = FillTotal { filled_qty, average_price: Some(cost / filled_qty) };
                let taken = book.take_total(&total, FillMoment::Open);
                counted += taken.map_or(Decimal::ZERO, |taken| taken.qty);
            }
            prop_assert!(counted <= ordered.into());
            prop_assert_eq!(counted, book.filled_qty());
        }
        for fill in &fills {
            counted += book.take_report(fill, FillMoment::Open).qty;
        }

        prop_assert_eq!(counted, Decimal::from(ordered));
        prop_assert_eq!(book.filled_qty(), Decimal::from(ordered));
        let cost: Decimal = fills.iter().map(|fill| fill.qty * fill.price).sum();
        prop_assert!((book.total_cost() - cost).abs() < Decimal::new(1, 10));
    }

    /// Whatever is told, no share is counted twice and the spans stay sorted and apart.
    #[test]
    fn no_telling_counts_a_share_twice(
        reports in prop::collection::vec((0..60u32, 0..30u32, -1..3i32), 0..30),
    ) {
        let mut book = FillBook::new(40);
        let mut counted = Decimal::ZERO;
        for (cumulative, qty, price) in reports {
            let report = FillReport { cumulative: cumulative.into(), qty: qty.into(), price: price.into() };
            counted += book.take_report(&report, FillMoment::Open).qty;

            prop_assert_eq!(counted, book.filled_qty());
            prop_assert!(counted <= Decimal::from(60));
            prop_assert!(book.spans.windows(2).all(|pair| pair[0].to <= pair[1].from));
        }
    }
}
