//! The stored record as other programs of the family know it: its own fields, under its own names.

use serde_json::{Map, Value};

use super::reading::{ACTIVE, ENGAGED, Stored, TradingState};

/// Fields of a record, beside `state`. One that a value does not have is `null`.
///
/// Source: CONTRACTS §4.
const FIELDS: [&str; 8] = [
    "engaged_at",
    "engaged_by",
    "engagement_reason",
    "engagement_details",
    "disengaged_at",
    "disengaged_by",
    "disengagement_notes",
    "engagement_count_today",
];

/// The fields of a stored value that says whether trading is allowed: `state` is `ACTIVE` or `ENGAGED`, also of a plain
/// word. Nothing of a value that means nothing.
#[must_use]
pub fn recorded_fields(stored: &Stored) -> Option<Map<String, Value>> {
    let state = match TradingState::of_stored(stored) {
        TradingState::Trading => ACTIVE,
        TradingState::Halted(_) => ENGAGED,
        TradingState::Unknown(_) => return None,
    };
    let mut fields = match stored {
        // A plain word is no object.
        Stored::Value(value) => serde_json::from_slice::<Map<String, Value>>(value).unwrap_or_default(),
        Stored::Missing | Stored::TooLong | Stored::NotText => Map::new(),
    };
    for name in FIELDS {
        fields.entry(name).or_insert(Value::Null);
    }
    fields.insert("state".to_owned(), state.into());
    Some(fields)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn fields_of(value: &str) -> Option<Value> {
        recorded_fields(&Stored::Value(Bytes::copy_from_slice(value.as_bytes()))).map(Value::Object)
    }

    #[test]
    fn a_record_is_shown_as_it_is_stored_and_a_plain_word_with_nothing_known() {
        let engaged = json!({
            "state": "ENGAGED", "engaged_at": "2026-01-01T00:00:00+00:00", "engaged_by": "ops_team",
            "engagement_reason": "Market anomaly", "engagement_details": {"why": [1, null]},
            "disengaged_at": null, "disengaged_by": null, "disengagement_notes": null,
            "engagement_count_today": 1, "of_another_program": true,
        });
        assert_eq!(fields_of(&engaged.to_string()), Some(engaged));

        for (word, state) in [("engaged", "ENGAGED"), ("1", "ENGAGED"), ("off", "ACTIVE"), ("0", "ACTIVE")] {
            let shown = fields_of(word).unwrap();
            assert_eq!((&shown["state"], &shown["engaged_by"]), (&json!(state), &json!(null)), "{word}");
            assert_eq!(shown.as_object().unwrap().len(), FIELDS.len() + 1);
        }
    }

    #[test]
    fn what_means_nothing_has_no_fields() {
        for value in
            ["ACTIVE", "{}", "[]", r#"{"state":"active"}"#, r#"{"state":"ACTIVE","state":"ENGAGED"}"#]
        {
            assert_eq!(fields_of(value), None, "{value}");
        }
        assert_eq!(recorded_fields(&Stored::Missing), None);
    }
}
