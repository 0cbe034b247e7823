use std::{path::Path, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::sampling::SamplingParams;

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_dir(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/qwen3"))).unwrap())
}

fn params(stop: &[&str], logprobs: Option<u32>) -> Params {
    let stop = stop.iter().map(|&s| s.to_owned()).collect();
    Params { sampling: SamplingParams { logprobs, ..SamplingParams::greedy() }, stop, ..Params::default() }
}

fn step(id: u32, finish: Option<FinishReason>, link: LinkState) -> StepToken {
    StepToken {
        token: SampledToken { token: id, logprob: Some(-1.0), top: Vec::new() },
        finish,
        link,
        first: None,
        embedding: None,
        prompt_logprobs: None,
    }
}

const HEALTHY: LinkState = LinkState { health: 1.0, rate: 10.0, paced: false };
const PACED: LinkState = LinkState { health: 1.0, rate: 10.0, paced: true };
const SICK: LinkState = LinkState { health: 0.3, rate: 10.0, paced: false };

/// Feeds `ids`, looking after every `cut` tokens, until the end or a stop.
fn assembled(ids: &[u32], last: FinishReason, cut: usize, link: LinkState, params: &Params) -> Vec<Delta> {
    let mut assembler = Assembler::new(&tokenizer(), params);
    let mut deltas = Vec::new();
    for (chunk_index, chunk) in ids.chunks(cut).enumerate() {
        let mut pieces: Vec<Delta> = Vec::new();
        for (i, &id) in chunk.iter().enumerate() {
            let is_last = chunk_index * cut + i + 1 == ids.len();
            assembler.add(step(id, is_last.then_some(last), link), &mut pieces);
            if pieces.last().unwrap().finish.is_some() {
                deltas.append(&mut pieces);
                return deltas;
            }
        }
        deltas.append(&mut pieces);
    }
    deltas
}

#[test]
fn waiting_tokens_share_a_piece_only_where_the_link_is_behind() {
    let ids = tokenizer().encode("one two three four", false).unwrap();
    let pieces = |link| assembled(&ids, FinishReason::Length, ids.len(), link, &params(&[], None)).len();
    assert_eq!(pieces(HEALTHY), ids.len());
    assert_eq!(pieces(PACED), 1);
    assert_eq!(pieces(SICK), 1);
}

#[test]
fn tokens_share_a_piece_up_to_what_the_link_takes_in_a_moment() {
    let shared = |shared_bytes, top, coalesces| {
        let mut assembler = Assembler::new(&tokenizer(), &params(&[], Some(0)));
        (assembler.shared_bytes, assembler.coalesces) = (shared_bytes, coalesces);
        let mut pieces = Vec::new();
        for _ in 0..60 {
            let mut step = step(tokenizer().encode("x", false).unwrap()[0], None, HEALTHY);
            step.token.top = (0..top).map(|id| (id, -1.0)).collect();
            assembler.add(step, &mut pieces);
        }
        pieces.iter().map(|piece| piece.num_tokens).max().unwrap()
    };
    assert_eq!(shared(0, 0, true), 1, "a healthy link");
    assert_eq!(shared(2_000, 0, true), 2_000 / 81);
    assert_eq!(shared(2_000, 9, true), 2_000 / 801);
    assert_eq!(shared(2_000, 20, true), 1, "a token that is longer goes alone");
    assert_eq!(shared(2_000, 20, false), 1);
}

fn text(deltas: &[Delta]) -> String {
    deltas.iter().map(|d| d.text.as_str()).collect()
}

#[test]
fn a_stop_string_across_tokens_ends_the_text_before_it() {
    let ids = tokenizer().encode("one two\nthree four", false).unwrap();
    let deltas = assembled(&ids, FinishReason::Length, 1, HEALTHY, &params(&["\nthr"], None));
    assert_eq!(text(&deltas), "one two");
    assert_eq!(deltas.last().unwrap().finish, Some(FinishReason::Stop));
    assert!(deltas.len() < ids.len());
}

#[test]
fn what_was_held_back_comes_with_the_last_token() {
    let ids = tokenizer().encode("a\nth", false).unwrap();
    let deltas = assembled(&ids, FinishReason::Length, 1, HEALTHY, &params(&["\nthree"], None));
    assert_eq!(text(&deltas), "a\nth");
    assert_eq!(deltas.last().unwrap().finish, Some(FinishReason::Length));
}

#[test]
fn a_stop_token_is_counted_and_not_shown() {
    let mut ids = tokenizer().encode("abc", false).unwrap();
    ids.push(tokenizer().encode("x", false).unwrap()[0]);
    let deltas = assembled(&ids, FinishReason::Stop, 1, HEALTHY, &params(&[], Some(0)));
    assert_eq!(text(&deltas), "abc");
    assert_eq!(deltas.iter().map(|d| d.num_tokens).sum::<usize>(), ids.len());
    assert_eq!(deltas.iter().map(|d| d.tokens.len()).sum::<usize>(), ids.len());
}

proptest! {
    #[test]
    fn how_many_tokens_share_a_piece_changes_nothing_but_that(
        ids in prop::collection::vec(0u32..1024, 1..60), cut in 1usize..9, stop in "[a-e ]{1,2}", finish in any::<bool>()
    ) {
        let params = params(&[&stop], Some(1));
        let last = if finish { FinishReason::Stop } else { FinishReason::Length };
        let one_by_one = assembled(&ids, last, 1, HEALTHY, &params);
        let together = assembled(&ids, last, cut, PACED, &params);
        prop_assert_eq!(text(&together), text(&one_by_one));
        prop_assert_eq!(together.last().unwrap().finish, one_by_one.last().unwrap().finish);
        let tokens = |deltas: &[Delta]| deltas.iter().flat_map(|d| d.tokens.clone()).collect::<Vec<_>>();
        prop_assert_eq!(tokens(&together), tokens(&one_by_one));
        prop_assert!(!text(&together).contains(&stop));
    }
}
