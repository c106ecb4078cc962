//! Values as people read them.

/// Characters of a value that are shown in one line.
const SHOWN_MAX: usize = 200;

/// The beginning of a value that may be long.
pub(super) fn shorten_value(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    shown = shown.replace("\\\"", "\"");
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// JSON over several lines; as it is when it is none.
pub(super) fn pretty_json(json: &str) -> String {
    // Numbers stay digit for digit: a value would round them.
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for character in json.chars() {
        if in_string {
            out.push(character);
            match (escaped, character) {
                (true, _) => escaped = false,
                (false, '\\') => escaped = true,
                (false, '"') => in_string = false,
                (false, _) => {}
            }
            continue;
        }
        match character {
            '{' | '[' => {
                depth += 1;
                out.push(character);
                new_line(&mut out, depth);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(',');
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            '"' => {
                in_string = true;
                out.push('"');
            }
            other => out.push(other),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// The difference of two JSON texts, line by line.
pub(super) fn line_difference(recorded: &str, replayed: &str) -> String {
    let (recorded, replayed) = (pretty_json(recorded), pretty_json(replayed));
    let (recorded, replayed) = (format!("{recorded}\n"), format!("{replayed}\n"));
    let diff = similar::TextDiff::from_lines(&recorded, &replayed);
    diff.unified_diff().context_radius(2).header("recorded", "replayed").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_digit_for_digit_and_strings_as_they_are() {
        let shown = pretty_json(r#"{"a":1.50,"b":["x,{\"}",2e3]}"#);

        assert_eq!(shown, "{\n  \"a\": 1.50,\n  \"b\": [\n    \"x,{\\\"}\",\n    2e3\n  ]\n}");
    }

    #[test]
    fn a_difference_shows_both_lines() {
        let shown = line_difference(r#"{"a":1,"b":2.0}"#, r#"{"a":1,"b":2.5}"#);

        assert!(shown.contains("-  \"b\": 2.0") && shown.contains("+  \"b\": 2.5"), "{shown}");
    }

    #[test]
    fn long_values_are_cut_and_control_characters_escaped() {
        assert_eq!(shorten_value(b"{\"a\":1}\n"), "{\"a\":1}\\n");
        assert_eq!(shorten_value(&[b'x'; 300]).chars().count(), SHOWN_MAX + 1);
    }
}
