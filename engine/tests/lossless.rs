//! Cached prefixes, shared prompts, guesses and copies in host memory save work and change nothing: the same tokens with the same log-probabilities, to the bit.

use tokenflow_engine::{
    EngineConfig,
    cli::DeviceArg,
    engine::{GenerateRequest, Generation},
    sampling::{SampledToken, SamplingParams},
    scheduler::NgramConfig,
    text::Engine,
};

fn engine(change: impl FnOnce(&mut EngineConfig)) -> Engine {
    let mut config =
        EngineConfig { device: DeviceArg::Cpu, num_blocks: Some(128), max_model_len: Some(512), threads: 2, ..EngineConfig::demo() };
    change(&mut config);
    Engine::load(config).unwrap()
}

fn without_cache(config: &mut EngineConfig) {
    config.scheduling.enable_prefix_caching = false;
}

fn request(engine: &Engine, text: &str, max_tokens: usize, sampling: SamplingParams) -> GenerateRequest {
    let prompt = engine.tokenizer().encode(text, false).unwrap();
    GenerateRequest { ignore_eos: true, ..GenerateRequest::new(prompt, max_tokens, sampling) }
}

fn greedy() -> SamplingParams {
    SamplingParams { logprobs: Some(2), ..SamplingParams::greedy() }
}

fn sampled(seed: u64) -> SamplingParams {
    SamplingParams { temperature: 0.9, top_p: 0.95, seed, ..greedy() }
}

/// All tokens, and how many of the prompt's were found.
async fn collect(mut generation: Generation) -> (Vec<SampledToken>, usize) {
    let (mut tokens, mut cached) = (Vec::new(), 0);
    while let Some(step) = generation.next().await {
        let step = step.unwrap();
        cached += step.first.map_or(0, |first| first.cached_tokens);
        tokens.push(step.token);
    }
    (tokens, cached)
}

fn counter(engine: &Engine, name: &str) -> u64 {
    let text = engine.metrics().render();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

const TEXT: &str = "fn area(shape: &Shape) -> f64 {\n    match shape {\n        Shape::Circle { radius } => PI * radius * radius,\n        Shape::Square { side } => side * side,\n";

#[tokio::test]
async fn a_cached_prefix_gives_the_same_answer() {
    let (cached, plain) = (engine(|_| ()), engine(without_cache));
    for sampling in [greedy(), sampled(7)] {
        let ask = async |engine: &Engine| collect(engine.core().submit(request(engine, TEXT, 24, sampling.clone())).unwrap()).await;
        let (expected, none) = ask(&plain).await;
        let (first, _) = ask(&cached).await;
        let (second, found) = ask(&cached).await;
        assert_eq!((&first, &second), (&expected, &expected));
        assert_eq!(none, 0);
        assert!(found >= 16, "{found} tokens were found");
    }
}

#[tokio::test]
async fn a_group_answers_as_its_members_would_alone() {
    let seeds = [3, 1, 4, 1];
    let plain = engine(without_cache);
    let mut expected = Vec::new();
    for seed in seeds {
        expected.push(collect(plain.core().submit(request(&plain, TEXT, 20, sampled(seed))).unwrap()).await.0);
    }
    assert_ne!(expected[0], expected[1], "the seeds make a difference");
    for change in [without_cache as fn(&mut EngineConfig), |_| ()] {
        let engine = engine(change);
        let group = engine.core().submit_group(request(&engine, TEXT, 20, sampled(0)), &seeds).unwrap();
        let mut answers = Vec::new();
        for generation in group {
            answers.push(collect(generation).await.0);
        }
        assert_eq!(answers, expected);
    }
}

#[tokio::test]
async fn guesses_change_no_token() {
    let ngram = NgramConfig { num_speculative_tokens: 5, prompt_lookup_max: 3, prompt_lookup_min: 1, disable_by_batch_size: 8 };
    let (plain, guessing) = (engine(|_| ()), engine(|config| config.scheduling.speculative = Some(ngram)));
    let repetitive = TEXT.repeat(2);
    for sampling in [greedy(), sampled(1), sampled(2)] {
        let ask =
            async |engine: &Engine| collect(engine.core().submit(request(engine, &repetitive, 60, sampling.clone())).unwrap()).await.0;
        assert_eq!(ask(&guessing).await, ask(&plain).await);
    }
    let count = |name: &str| counter(&guessing, &format!("vllm:spec_decode_num_{name}_total"));
    let (drafts, proposed, accepted) = (count("drafts"), count("draft_tokens"), count("accepted_tokens"));
    assert!(0 < accepted && accepted <= proposed && drafts <= proposed, "{accepted} of {proposed} in {drafts} drafts");
    assert_eq!(counter(&plain, "vllm:spec_decode_num_drafts_total"), 0);
}

#[tokio::test]
async fn what_gives_way_comes_back_the_same() {
    let scarce = |kv_offloading_bytes: usize, caches: bool| {
        engine(|config| {
            (config.num_blocks, config.max_model_len, config.kv_offloading_bytes) = (Some(12), Some(160), kv_offloading_bytes);
            config.scheduling.enable_prefix_caching = caches;
        })
    };
    let answers = async |engine: &Engine| {
        let asked = (0..4).map(|i| engine.core().submit(request(engine, &format!("// {i}\n{TEXT}"), 70, greedy())).unwrap());
        let mut answers = Vec::new();
        for generation in asked.collect::<Vec<_>>() {
            answers.push(collect(generation).await.0);
        }
        answers
    };
    let expected = answers(&engine(without_cache)).await;
    for caches in [false, true] {
        let (recomputes, copies) = (scarce(0, caches), scarce(64 << 20, caches));
        assert_eq!(answers(&recomputes).await, expected);
        assert_eq!(answers(&copies).await, expected);
        let bytes = |engine: &Engine, name: &str| counter(engine, &format!("tokenflow:kv_{name}_bytes_total"));
        assert!(counter(&recomputes, "vllm:num_preemptions_total") > 0);
        assert_eq!((bytes(&recomputes, "offload"), bytes(&recomputes, "onload")), (0, 0));
        assert!(bytes(&copies, "offload") > 0 && bytes(&copies, "onload") > 0);
    }
}
