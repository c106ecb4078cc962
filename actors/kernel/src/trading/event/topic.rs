//! Patterns of topics, as a broker matches them.

/// Tells whether a topic is one of `pattern`: `*` stands for one word, `#` for any number of them.
#[must_use]
pub fn matches_topic(pattern: &str, topic: &str) -> bool {
    fn words_match(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern.split_first(), topic.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => {
                words_match(rest, topic)
                    || topic.split_first().is_some_and(|(_, topic)| words_match(pattern, topic))
            }
            (Some((word, rest)), Some((named, topic))) if *word == "*" || word == named => {
                words_match(rest, topic)
            }
            (Some(_) | None, _) => false,
        }
    }
    let (pattern, topic): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), topic.split('.').collect());
    words_match(&pattern, &topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_words_as_a_broker_does() {
        for (pattern, topic, matches) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.#", "a.b.c", true),
            ("a.#", "a", true),
            ("#", "a.b", true),
            ("#.c", "a.b.c", true),
            ("a.b", "a.c", false),
            ("*.b", "b", false),
        ] {
            assert_eq!(matches_topic(pattern, topic), matches, "{pattern} {topic}");
        }
    }
}
