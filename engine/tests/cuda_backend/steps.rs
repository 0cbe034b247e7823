//! Steps as the scheduler makes them: recorded as graphs or not, two in flight, with drafts, scores and whole prompts to embed.

use std::fs;

use tokenflow_engine::{
    backend::cuda::CudaConfig,
    executor::{Executor, LocalExecutor},
    sampling::SamplingParams,
    scheduler::{PromptScores, StepPlan},
};

use crate::{
    device::{bf16, exact, exactly_on_cpu, on_gpu, plan, prompt, share, tokens, with_logprobs},
    weights::Model,
};

const BLOCKS: [[u32; 4]; 3] = [[4, 1, 6, 11], [9, 2, 3, 12], [0, 8, 20, 13]];

fn sampled_params(seed: u64) -> SamplingParams {
    SamplingParams { temperature: 0.9, top_p: 0.95, top_k: 40, seed, logprobs: Some(3), ..SamplingParams::greedy() }
}

/// Three sequences for `steps` steps, at most `depth` of them in flight; the third joins later, so that prompts run beside decodes. `before`
/// hears of each step before it is submitted.
pub fn serve(executor: &mut dyn Executor, steps: usize, depth: usize, before: &mut dyn FnMut(usize)) -> Vec<Vec<u32>> {
    let mut known: Vec<Vec<u32>> = (0..3).map(|i| prompt(i + 7, 3 + 4 * i as usize)).collect();
    let prompts: Vec<usize> = known.iter().map(Vec::len).collect();
    // Tokens that were asked for, and those of them that are known.
    let mut asked = [0usize; 3];
    let mut in_flight = 0;
    let mut rows: Vec<usize> = Vec::new();
    let params: Vec<_> = (0..3).map(|i| if i == 1 { SamplingParams::greedy() } else { sampled_params(i) }).collect();
    let collect = |executor: &mut dyn Executor, known: &mut Vec<Vec<u32>>| {
        for (id, token) in executor.collect().unwrap().sampled {
            known[id.0 as usize].push(token.token);
        }
    };
    for step in 0..steps {
        before(step);
        let present: Vec<usize> = (0..3).filter(|&i| i < 2 || step > 2).collect();
        let sequence = |&i: &usize| {
            let is_pending = prompts[i] + asked[i] > known[i].len();
            let mut all = known[i].clone();
            if is_pending {
                all.push(0);
            }
            let start = if asked[i] == 0 { 0 } else { all.len() - 1 };
            let mut share = share(i as u64, &all, start, &BLOCKS[i], Some((&params[i], asked[i])));
            share.pending = is_pending.then(|| rows.iter().position(|&row| row == i).unwrap());
            share
        };
        executor.submit(&StepPlan { step: step as u64, ..plan(present.iter().map(sequence).collect()) }).unwrap();
        present.iter().for_each(|&i| asked[i] += 1);
        rows = present;
        in_flight += 1;
        if in_flight == depth {
            collect(executor, &mut known);
            in_flight -= 1;
        }
    }
    (0..in_flight).for_each(|_| collect(executor, &mut known));
    known
}

#[test]
fn graphs_and_steps_in_flight_change_nothing() {
    for name in ["mistral", "qwen3-moe"] {
        let model = Model::new(name);
        for config in [exact(), bf16()] {
            let run = |enforce_eager, depth| {
                let executor: &mut LocalExecutor<_> = &mut on_gpu(&model.folder(), CudaConfig { enforce_eager, ..config.clone() });
                assert_eq!(executor.max_in_flight(), 2);
                serve(executor, 9, depth, &mut |_| ())
            };
            let one_by_one = run(true, 1);
            assert_eq!(run(false, 1), one_by_one, "{name}: graphs");
            assert_eq!(run(false, 2), one_by_one, "{name}: graphs of steps in flight");
            assert_eq!(run(true, 2), one_by_one, "{name}: steps in flight");
        }
    }
}

#[test]
fn drafts_and_scores_are_the_cpus() {
    let model = Model::new("mistral");
    let folder = &model.folder();
    let greedy = SamplingParams::greedy();
    let run = |executor: &mut dyn Executor| {
        let (one, two) = (prompt(1, 9), prompt(2, 5));
        let mut drafted = share(1, &one, 0, &[3, 4], Some((&greedy, 0)));
        drafted.num_draft_tokens = 3;
        let scored = share(2, &two, 0, &[5], Some((&greedy, 0)));
        let scores = vec![PromptScores { sequence: 1, targets: two[1..].to_vec(), top: 2 }];
        executor.execute(&StepPlan { scores, ..plan(vec![drafted, scored]) }).unwrap()
    };
    let (ours, theirs) = (run(&mut on_gpu(folder, exact())), run(&mut exactly_on_cpu(folder)));
    assert_eq!(tokens(&ours).len(), 5);
    assert_eq!(tokens(&ours), tokens(&theirs));
    for (ours, theirs) in ours.scored[0].iter().zip(&theirs.scored[0]) {
        assert_eq!((ours.token.token, ours.rank, ours.token.top.len()), (theirs.token.token, theirs.rank, 2));
        assert!((ours.token.logprob.unwrap() - theirs.token.logprob.unwrap()).abs() < 1e-3);
    }
}

/// A prompt longer than a split of the context, and a step with more rows than a block of products takes.
#[test]
fn long_contexts_are_split() {
    let model = Model::new("yarn");
    let folder = &model.folder();
    let params = with_logprobs();
    let blocks: Vec<u32> = (0..20).rev().collect();
    for (config, tolerance) in [(exact(), 1e-3), (bf16(), 0.5)] {
        let run = |executor: &mut dyn Executor, chunk: usize| {
            let all = prompt(8, 135);
            let mut last = None;
            for start in (0..all.len()).step_by(chunk) {
                let end = (start + chunk).min(all.len());
                let sample = (end == all.len()).then_some((&params, 0));
                last = executor.execute(&plan(vec![share(1, &all[..end], start, &blocks, sample)])).unwrap().sampled.pop();
            }
            let token = last.unwrap().1;
            let decoded = executor.execute(&plan(vec![share(1, &[&all[..], &[17]].concat(), 135, &blocks, Some((&params, 1)))])).unwrap();
            [token, decoded.sampled[0].1.clone()]
        };
        let (ours, theirs) = (run(&mut on_gpu(folder, config), 45), run(&mut exactly_on_cpu(folder), 135));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let near = |(id, one): &(u32, f32)| {
                theirs.top.iter().find(|(other, _)| other == id).is_none_or(|(_, two)| (one - two).abs() < tolerance)
            };
            assert!(ours.top.iter().all(near), "{ours:?} {theirs:?}");
        }
    }
}

#[test]
fn models_that_embed_return_the_cpus_vectors() {
    let model = Model::new("qwen3-embedding");
    let folder = &model.folder();
    let modules = r#"[{"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;
    fs::write(folder.join("modules.json"), modules).unwrap();
    fs::create_dir(folder.join("1_Pooling")).unwrap();
    fs::write(folder.join("1_Pooling/config.json"), r#"{"pooling_mode_lasttoken": true}"#).unwrap();
    let greedy = SamplingParams::greedy();
    let run = |executor: &mut dyn Executor| {
        let of = |i: u64, len| share(i, &prompt(i as u32, len), 0, &BLOCKS[i as usize], Some((&greedy, 0)));
        executor.execute(&plan(vec![of(0, 6), of(1, 1), of(2, 11)])).unwrap().pooled
    };
    let (ours, theirs) = (run(&mut on_gpu(folder, exact())), run(&mut exactly_on_cpu(folder)));
    assert_eq!(ours.len(), 3);
    for ((id, ours), (other, theirs)) in ours.iter().zip(&theirs) {
        assert_eq!((id, ours.len()), (other, theirs.len()));
        assert!(ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}

#[test]
fn a_request_repeats_by_its_seed() {
    let model = Model::new("mistral");
    let executor = &mut on_gpu(&model.folder(), exact());
    let mut run = |seed, others: u64| {
        let params = SamplingParams { temperature: 2.0, seed, ..SamplingParams::greedy() };
        let other = SamplingParams { temperature: 1.0, seed: 99 + others, ..SamplingParams::greedy() };
        let all = prompt(1, 6);
        let beside = (0..others).map(|i| share(5 + i, &prompt(9, 4), 0, &[20 + i as u32], Some((&other, 0))));
        let own = share(1, &all, 0, &[3], Some((&params, 0)));
        tokens(&executor.execute(&plan(beside.chain([own]).collect())).unwrap()).pop().unwrap()
    };
    let first: Vec<u32> = (0..6).map(|seed| run(seed, 0)).collect();
    assert_eq!((0..6).map(|seed| run(seed, 2)).collect::<Vec<_>>(), first);
    assert!(first.iter().any(|token| *token != first[0]));
}
