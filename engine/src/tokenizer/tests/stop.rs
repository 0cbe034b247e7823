use proptest::prelude::*;

use crate::tokenizer::{StopMatcher, StopStep};

/// The definition: the shortest beginning of the text that ends with a stop string, without that string; the longest such string.
fn naive(text: &str, stops: &[String]) -> (String, Option<usize>) {
    for end in (1..=text.len()).filter(|&end| text.is_char_boundary(end)) {
        let matches = stops.iter().enumerate().filter(|(_, stop)| text[..end].ends_with(stop.as_str()));
        if let Some((index, stop)) = matches.rev().max_by_key(|(_, stop)| stop.len()) {
            return (text[..end - stop.len()].to_owned(), Some(index));
        }
    }
    (text.to_owned(), None)
}

fn matched(pieces: &[String], stops: &[String]) -> (String, Option<usize>) {
    let mut matcher = StopMatcher::new(stops);
    let mut text = String::new();
    for piece in pieces {
        let step = matcher.push(piece);
        text += &step.text;
        if step.matched.is_some() {
            return (text, step.matched);
        }
    }
    text += &matcher.finish();
    (text, None)
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        pieces in prop::collection::vec("[abé]{0,5}", 0..20),
        stops in prop::collection::vec("[abé]{1,6}", 0..4),
    ) {
        prop_assert_eq!(matched(&pieces, &stops), naive(&pieces.concat(), &stops));
    }

    #[test]
    fn only_a_possible_beginning_is_held_back(text in "[ab]{0,20}", stops in prop::collection::vec("[ab]{1,6}", 1..3)) {
        let mut matcher = StopMatcher::new(&stops);
        let step = matcher.push(&text);
        if step.matched.is_none() {
            let held = matcher.finish();
            prop_assert_eq!(step.text + &held, text.clone());
            prop_assert!(held.is_empty() || stops.iter().any(|s| s.starts_with(&held)), "{} of {:?}", held, stops);
        }
    }
}

#[test]
fn text_is_held_only_while_it_may_be_a_stop_string() {
    let mut matcher = StopMatcher::new(&["\n\nEND".to_owned()]);
    let shown = |text: &str| StopStep { text: text.to_owned(), matched: None };
    assert_eq!(matcher.push("one\n"), shown("one"));
    assert_eq!(matcher.push("\nEN"), shown(""));
    assert_eq!(matcher.push("\nx"), shown("\n\nEN\nx"));
    assert_eq!(matcher.push("\n\nEND and more"), StopStep { text: String::new(), matched: Some(0) });
}

#[test]
fn after_a_match_it_begins_anew() {
    let mut matcher = StopMatcher::new(&["ab".to_owned(), "abab".to_owned(), "b".to_owned()]);
    for _ in 0..2 {
        assert_eq!(matcher.push("xabab"), StopStep { text: "x".to_owned(), matched: Some(0) });
    }
    assert_eq!(matcher.push("a"), StopStep::default());
    assert_eq!(matcher.finish(), "a");
}

#[test]
fn without_stop_strings_nothing_is_held() {
    assert_eq!(StopMatcher::new(&[]).push("abc").text, "abc");
}
