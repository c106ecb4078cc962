//! Patterns of topics, as a broker matches them.

use std::collections::BTreeMap;

/// Tells whether a topic is one of `pattern`: `*` stands for one word, `#` for any number of them.
#[must_use]
pub fn matches_topic(pattern: &str, topic: &str) -> bool {
    let topic: Vec<_> = topic.split('.').collect();
    // Which beginnings of the topic the pattern's words so far stand for, by their length: one pass for each word,
    // because trying every length of every `#` would never end.
    let mut reached = vec![false; topic.len() + 1];
    if let Some(nothing) = reached.first_mut() {
        *nothing = true;
    }
    for word in pattern.split('.') {
        reached = match word {
            "#" => {
                let mut is_reached = false;
                let any_more = |reached: bool| {
                    is_reached |= reached;
                    is_reached
                };
                reached.into_iter().map(any_more).collect()
            }
            word => {
                let one_more = reached.iter().zip(&topic);
                let one_more = one_more.map(|(reached, named)| *reached && (word == "*" || word == *named));
                std::iter::once(false).chain(one_more).collect()
            }
        };
    }
    reached.last().copied().unwrap_or_default()
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
            ("a.#.#.c", "a.c", true),
            ("#.#", "a", true),
            ("*.#.*", "a", false),
            ("a.#.b.#.c", "a.b.c.b.c", true),
            ("a.#.b.#.c", "a.c.b", false),
        ] {
            assert_eq!(matches_topic(pattern, topic), matches, "{pattern} {topic}");
        }
        let many = ["#"; 100].join(".");
        assert!(!matches_topic(&format!("{many}.b"), &["a"; 100].join(".")));
    }
}
