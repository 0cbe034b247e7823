use std::sync::Arc;

use proptest::prelude::*;

use super::{byte_fallback, fixture};
use crate::tokenizer::Tokenizer;

fn streamed(tokenizer: &Arc<Tokenizer>, ids: &[u32], skip_special: bool) -> (Vec<String>, String) {
    let mut detokenizer = tokenizer.detokenizer(skip_special);
    let pieces: Vec<String> = ids.iter().filter_map(|&id| detokenizer.push(id)).collect();
    let rest = detokenizer.finish().unwrap_or_default();
    (pieces, rest)
}

proptest! {
    #[test]
    fn pieces_of_random_ids_add_up_to_the_whole(ids in prop::collection::vec(0u32..1100, 0..200), skip in any::<bool>()) {
        let tokenizer = fixture();
        let (pieces, rest) = streamed(&tokenizer, &ids, skip);
        prop_assert_eq!(pieces.concat() + &rest, tokenizer.decode(&ids, skip).unwrap());
    }

    #[test]
    fn half_a_character_is_never_shown(text in "[a-c é漢👋🏽\u{301}]{0,40}") {
        for tokenizer in [fixture(), byte_fallback()] {
            let ids = tokenizer.encode(&text, false).unwrap();
            let (pieces, rest) = streamed(&tokenizer, &ids, true);
            prop_assert!(pieces.iter().all(|p| !p.contains('\u{fffd}')), "{pieces:?}");
            prop_assert_eq!(pieces.concat() + &rest, tokenizer.decode(&ids, true).unwrap());
            prop_assert_eq!(rest, "");
        }
    }

    #[test]
    fn words_and_valid_bytes_of_other_decoders_add_up_too(
        parts in prop::collection::vec(prop_oneof![(259u32..269).prop_map(|id| vec![id]),
            any::<char>().prop_map(|c| c.to_string().bytes().map(|b| u32::from(b) + 3).collect())], 0..60)
    ) {
        let tokenizer = byte_fallback();
        let ids = parts.concat();
        let (pieces, rest) = streamed(&tokenizer, &ids, true);
        prop_assert_eq!(pieces.concat() + &rest, tokenizer.decode(&ids, true).unwrap());
    }

    #[test]
    fn no_ids_break_any_decoder(ids in prop::collection::vec(0u32..300, 0..200), skip in any::<bool>()) {
        streamed(&byte_fallback(), &ids, skip);
    }

    #[test]
    fn tokens_bytes_are_the_whole_texts_bytes(text in "\\PC{0,60}") {
        let tokenizer = fixture();
        let ids = tokenizer.encode(&text, false).unwrap();
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id)).collect();
        prop_assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }
}

#[test]
fn a_replacement_character_that_the_model_says_is_a_character_like_others() {
    let tokenizer = byte_fallback();
    let ids: Vec<u32> = "\u{fffd}\u{fffd}\u{800}".bytes().map(|b| u32::from(b) + 3).collect();
    let (pieces, rest) = streamed(&tokenizer, &ids, true);
    assert_eq!((pieces, rest.as_str()), (vec!["\u{fffd}".to_owned(), "\u{fffd}".to_owned(), "\u{800}".to_owned()], ""));
}

#[test]
fn a_character_cut_short_is_told_at_the_end() {
    let tokenizer = byte_fallback();
    let ids = [0xF0u32, 0x9F].map(|b| b + 3);
    assert_eq!(streamed(&tokenizer, &ids, true), (vec![], "\u{fffd}\u{fffd}".to_owned()));

    let tokenizer = fixture();
    let ids = tokenizer.encode("👋", false).unwrap();
    assert!(ids.len() > 1);
    assert_eq!(streamed(&tokenizer, &ids[..ids.len() - 1], true), (vec![], "\u{fffd}".to_owned()));
}

#[test]
fn endless_broken_bytes_are_not_hoarded() {
    let tokenizer = byte_fallback();
    let mut detokenizer = tokenizer.detokenizer(true);
    let shown: String = (0..1000).filter_map(|_| detokenizer.push(0x80 + 3)).collect();
    assert!(shown.chars().count() > 900);
}

#[test]
fn a_leading_space_of_a_later_word_is_kept() {
    let tokenizer = byte_fallback();
    let ids = [260, 261, 260];
    assert_eq!(streamed(&tokenizer, &ids, true).0, ["hello", " world", " hello"]);
}

#[test]
fn special_tokens_show_only_when_asked_for() {
    let tokenizer = fixture();
    let ids = tokenizer.encode("<|im_start|>hi<|im_end|>", true).unwrap();
    assert_eq!(streamed(&tokenizer, &ids, true).0.concat(), "hi");
    assert_eq!(streamed(&tokenizer, &ids, false).0.concat(), "<|im_start|>hi<|im_end|>");
}
