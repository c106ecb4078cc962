//! Patterns of topics, as a broker matches them.

use std::collections::BTreeMap;

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

/// Tells whether some topic is one of both patterns.
#[must_use]
pub fn patterns_meet(one: &str, other: &str) -> bool {
    /// `known` keeps each pair of rests from being looked at twice, which with many `#` would never end.
    fn rests_meet(one: &[&str], other: &[&str], known: &mut BTreeMap<(usize, usize), bool>) -> bool {
        let rests = (one.len(), other.len());
        if let Some(meet) = known.get(&rests) {
            return *meet;
        }
        let meet = match (one.split_first(), other.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), behind) => {
                rests_meet(rest, other, known)
                    || behind.is_some_and(|(_, behind)| rests_meet(one, behind, known))
            }
            (behind, Some((&"#", rest))) => {
                rests_meet(one, rest, known)
                    || behind.is_some_and(|(_, behind)| rests_meet(behind, other, known))
            }
            (Some((word, rest)), Some((named, behind))) => {
                let is_same = word == named || *word == "*" || *named == "*";
                is_same && rests_meet(rest, behind, known)
            }
            (Some(_), None) | (None, Some(_)) => false,
        };
        known.insert(rests, meet);
        meet
    }
    let (one, other): (Vec<_>, Vec<_>) = (one.split('.').collect(), other.split('.').collect());
    rests_meet(&one, &other, &mut BTreeMap::new())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_meet_where_one_topic_is_of_both() {
        for (one, other, meet) in [
            ("a.b", "a.b", true),
            ("a.*", "*.b", true),
            ("a.*", "b.*", false),
            ("a.#", "#.z", true),
            ("a.#.b", "a.b", true),
            ("a.*.b", "a.b", false),
            ("#", "a.b.c", true),
            ("ai.decison.*", "ai.decision.generated", false),
        ] {
            assert_eq!(patterns_meet(one, other), meet, "{one} {other}");
            assert_eq!(patterns_meet(other, one), meet, "{other} {one}");
        }
        let many = ["#"; 100].join(".");
        assert!(!patterns_meet(&format!("{many}.a"), &format!("{many}.b")));
    }

    proptest! {
        /// Whatever topic is of both patterns shows that they meet.
        #[test]
        fn a_topic_of_both_patterns_shows_that_they_meet(
            one in "[ab*#](\\.[ab*#]){0,3}",
            other in "[ab*#](\\.[ab*#]){0,3}",
            topic in "[ab](\\.[ab]){0,3}",
        ) {
            let of_both = matches_topic(&one, &topic) && matches_topic(&other, &topic);
            prop_assert!(!of_both || patterns_meet(&one, &other), "{one} {other} {topic}");
        }
    }

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
