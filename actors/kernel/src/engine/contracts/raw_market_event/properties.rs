//! The envelope reader on anything that may come: it never panics, never alters a byte, and refuses with a reason.

use proptest::prelude::*;

use super::*;

/// JSON text that a parser with opinions would alter or refuse.
fn opaque_json() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "null",
        "true",
        "-0.0",
        "1.50",
        "1e400",
        "123456789012345678901234567890",
        r#""NaN""#,
        r#""Infinity""#,
        r#""\u0000\ud83d\ude00\/""#,
        r#""é""#,
        r#""}{][\"""#,
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" ,"))),
            prop::collection::vec((0..3u8, inner), 0..4).prop_map(|fields| object_text(&fields)),
        ]
    })
}

/// An object in which keys come twice.
fn object_text(fields: &[(u8, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(key, value)| format!("\"k{key}\" : {value}")).collect();
    format!("{{{}}}", fields.join(",\t"))
}

/// A valid event: its text, and what has to be read from it.
fn valid_event() -> impl Strategy<Value = (String, Receipt, String)> {
    let kind = prop_oneof![
        Just(SNAPSHOT_INPUTS.to_owned()),
        Just("TradeTick".to_owned()),
        Just("Brand/New".to_owned()),
        "\\PC{0,9}"
    ];
    let names = ("[A-Z0-9é:/.-]{1,12}", kind, "\\PC{0,9}");
    let snapshot = prop_oneof![Just(None), any::<i64>().prop_map(Some)];
    let normalized = (prop::collection::vec((0..3u8, opaque_json()), 0..4), snapshot);
    let payload = prop_oneof![any::<String>(), Just("x".repeat(72_000))];
    let extra = prop::collection::vec((0..3u8, opaque_json()), 0..3);
    let order = Just((0..9usize).collect::<Vec<_>>()).prop_shuffle();
    (names, any::<i64>(), any::<Option<i64>>(), payload, normalized, extra, order).prop_map(
        |((symbol, kind, source), received, exchange, payload, (fields, snapshot), extra, order)| {
            let json = |text: &str| serde_json::to_string(text).unwrap();
            let mut normalized = object_text(&fields);
            if let Some(ts) = snapshot {
                normalized.truncate(normalized.len() - 1);
                let comma = if fields.is_empty() { "" } else { "," };
                normalized.push_str(&format!("{comma}\"timestamp_ms\":{ts}}}"));
            }
            let exchange_text = exchange.map_or("null".to_owned(), |ts| ts.to_string());
            let mut parts = vec![
                "\"schema\":\"raw_market_event\"".to_owned(),
                "\"schema_version\" : \"1\"".to_owned(),
                format!("\"event_type\":{}", json(&kind)),
                format!("\"source_id\":{}", json(&source)),
                format!("\"symbol\":{}", json(&symbol)),
                format!("\"exchange_ts_ms\":{exchange_text}"),
                format!("\"recv_ts_ms\": {received}"),
                format!("\"raw_payload\":{}", json(&payload)),
                format!("\"normalized\":  {normalized}"),
            ];
            parts = order.into_iter().map(|index| parts[index].clone()).collect();
            // Known optional fields too, twice and of any type: nobody reads them, so they refuse nothing.
            let names = ["source_seq", "payload_hash", "new"];
            parts
                .extend(extra.iter().map(|(key, value)| format!("\"{}\":{value}", names[usize::from(*key)])));
            let text = format!("{{ {} }}\n", parts.join(", "));
            let receipt = Receipt {
                symbol: Symbol::from(symbol.as_str()),
                event_type: EventType::from(kind.as_str()),
                source_id: SourceId::from(source.as_str()),
                recv_ts_ms: TsMs(received),
                exchange_ts_ms: exchange.map(TsMs),
                snapshot_ts_ms: snapshot.filter(|_| kind == SNAPSHOT_INPUTS).map(TsMs),
                bytes: Bytes::from(text.clone()),
            };
            (text, receipt, normalized)
        },
    )
}

fn check_decode(bytes: &[u8]) -> Result<Receipt, NotAReceipt> {
    decode(Bytes::copy_from_slice(bytes), &mut Names::default())
}

proptest! {
    #[test]
    fn an_event_is_read_and_kept_byte_for_byte((text, receipt, normalized_text) in valid_event()) {
        prop_assert_eq!(check_decode(text.as_bytes()), Ok(receipt));
        prop_assert_eq!(normalized(text.as_bytes()), Some(normalized_text.as_str()));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in any::<Vec<u8>>()) {
        prop_assert!(check_decode(&bytes).is_err(), "random bytes are no envelope");
        prop_assert_eq!(normalized(&bytes), None);
    }

    /// Method: one byte of an event replaced or the event cut; it is a receipt of exactly these bytes, or refused.
    #[test]
    fn a_damaged_event_is_kept_as_it_is_or_refused(
        (text, _, _) in valid_event(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }

        match check_decode(&bytes) {
            Ok(receipt) => {
                prop_assert_eq!(&receipt.bytes, &bytes);
                prop_assert!(normalized(&bytes).is_some(), "what was stored can be run");
            }
            Err(refused) => {
                let known = ["not_utf8", "not_an_envelope", "other_schema", "bad_symbol"];
                prop_assert!(known.contains(&refused.reason()));
                prop_assert!(!refused.to_string().is_empty());
            }
        }
    }

    /// Two answers to one question are none: which one counts would depend on the parser.
    #[test]
    fn an_envelope_field_that_comes_twice_is_refused((text, _, _) in valid_event(), field in 0..9usize) {
        let field = ["schema", "schema_version", "event_type", "source_id", "symbol", "exchange_ts_ms",
            "recv_ts_ms", "raw_payload", "normalized"][field];
        let again = format!(",\"{field}\":{} }}\n", if field == "recv_ts_ms" { "1" } else { "\"1\"" });
        let twice = text.replacen(" }\n", &again, 1);
        prop_assume!(twice.ends_with(&again));

        let refused = check_decode(twice.as_bytes()).unwrap_err();

        prop_assert_eq!(refused.reason(), "not_an_envelope");
        prop_assert!(refused.to_string().contains(&format!("duplicate field `{field}`")), "{}", refused);
    }
}

#[test]
fn names_are_shared_up_to_a_bound() {
    let mut names = Names::default();

    let (first, again) = (names.share_name("BTCUSDT"), names.share_name("BTCUSDT"));
    assert!(Arc::ptr_eq(&first, &again));
    (0..Names::MAX).for_each(|n| drop(names.share_name(&n.to_string())));

    assert_eq!(names.0.len(), Names::MAX);
    assert_eq!(&*names.share_name("one more"), "one more");
    assert_eq!(names.0.len(), Names::MAX);
}

#[test]
fn a_symbol_has_1_to_128_bytes_without_control_characters() {
    for (name, valid) in [("A", true), ("", false), ("A\u{85}", false), ("A\n", false), ("🦀 X", true)] {
        assert_eq!(Symbol::is_valid(name), valid, "{name:?}");
    }
    assert!(Symbol::is_valid(&"A".repeat(128)));
    assert!(!Symbol::is_valid(&"A".repeat(129)));
}
