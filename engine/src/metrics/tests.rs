use std::time::Duration;

use super::{EngineMetrics, HintStatus, RequestStats, StepStats};
use crate::{
    config::{EngineInfo, LoadSummary, TimeLimits},
    scheduler::FinishReason,
};

fn metrics() -> EngineMetrics {
    let info = EngineInfo {
        max_model_len: 2048,
        vocab_size: 100,
        block_size: 16,
        num_blocks: 512,
        max_num_batched_tokens: 2048,
        max_num_seqs: 256,
        eos_token_ids: vec![1],
        max_logprobs: 20,
        limits: TimeLimits::default(),
        embedding_size: None,
        loaded: LoadSummary { kv_cache_dtype: "bfloat16".to_owned(), enable_prefix_caching: true, ..LoadSummary::default() },
    };
    EngineMetrics::new("q", &info)
}

fn line<'a>(text: &'a str, name_and_labels: &str) -> &'a str {
    let mut found = text.lines().filter(|l| l.rsplit_once(' ').is_some_and(|(n, _)| n == name_and_labels));
    let line = found.next().unwrap_or_else(|| panic!("{name_and_labels} in\n{text}"));
    assert_eq!(found.next(), None);
    line.rsplit_once(' ').unwrap().1
}

#[test]
fn every_name_that_dashboards_and_gateways_ask_for_is_there_before_the_first_request() {
    let text = metrics().render();
    for gauge in ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"] {
        assert!(text.contains(&format!("# TYPE vllm:{gauge} gauge\n")), "{gauge}");
        assert_eq!(line(&text, &format!("vllm:{gauge}{{engine=\"0\",model_name=\"q\"}}")), "0");
    }
    for counter in [
        "prefix_cache_queries",
        "prefix_cache_hits",
        "num_preemptions",
        "prompt_tokens",
        "prompt_tokens_cached",
        "generation_tokens",
        "request_success",
    ] {
        assert!(text.contains(&format!("# TYPE vllm:{counter}_total counter\n")), "{counter}");
    }
    for histogram in [
        "time_to_first_token_seconds",
        "inter_token_latency_seconds",
        "request_time_per_output_token_seconds",
        "e2e_request_latency_seconds",
        "request_queue_time_seconds",
        "request_prefill_time_seconds",
        "request_decode_time_seconds",
        "request_inference_time_seconds",
        "request_prompt_tokens",
        "request_generation_tokens",
        "request_params_max_tokens",
        "request_prefill_kv_computed_tokens",
        "request_num_preemptions",
        "iteration_tokens_total",
    ] {
        assert!(text.contains(&format!("# TYPE vllm:{histogram} histogram\n")), "{histogram}");
        assert_eq!(line(&text, &format!("vllm:{histogram}_count{{engine=\"0\",model_name=\"q\"}}")), "0");
    }
    let cache_config = concat!(
        r#"vllm:cache_config_info{block_size="16",cache_dtype="bfloat16",enable_prefix_caching="True",engine="0","#,
        r#"kv_cache_max_concurrency="4.00",kv_cache_size_tokens="8192",model_name="q",num_gpu_blocks="512"}"#
    );
    assert_eq!(line(&text, cache_config), "1");
    assert_eq!(line(&text, r#"tokenflow:max_num_batched_tokens{engine="0",model_name="q"}"#), "2048");
}

#[test]
fn each_series_has_one_help_and_one_type_before_its_samples() {
    let text = metrics().render();
    let mut described = None;
    for l in text.lines() {
        if let Some(rest) = l.strip_prefix("# HELP ") {
            described = Some(rest.split(' ').next().unwrap());
        } else if let Some(rest) = l.strip_prefix("# TYPE ") {
            assert_eq!(rest.split(' ').next(), described);
        } else {
            assert!(l.starts_with(described.unwrap()), "{l}");
        }
    }
}

#[test]
fn a_step_and_a_finished_request_are_counted_once() {
    let m = metrics();
    let stats = StepStats {
        running: 3,
        waiting: 2,
        kv_cache_usage: 0.25,
        paced: 1,
        token_budget: 1024,
        computed_tokens: 40,
        prompt_tokens: 38,
        generation_tokens: 3,
        preemptions: 1,
        ..StepStats::default()
    };
    m.step(&stats, Duration::from_millis(20));
    m.first_token(Duration::from_millis(30));
    m.inter_token(Duration::from_millis(12));
    m.finished(&RequestStats {
        reason: FinishReason::Length,
        prompt_tokens: 38,
        output_tokens: 5,
        cached_tokens: 6,
        max_tokens: 5,
        preemptions: 1,
        e2e: Duration::from_secs(3),
        queued: Duration::from_secs(1),
        prefill: Duration::from_secs(1),
        decode: Duration::from_secs(1),
    });
    let text = m.render();
    let value = |name: &str| line(&text, &format!("{name}{{engine=\"0\",model_name=\"q\"}}"));
    assert_eq!(value("vllm:num_requests_running"), "3");
    assert_eq!(value("vllm:kv_cache_usage_perc"), "0.25");
    assert_eq!(value("vllm:generation_tokens_total"), "3");
    assert_eq!(value("vllm:iteration_tokens_total_sum"), "40");
    assert_eq!(value("vllm:request_time_per_output_token_seconds_sum"), "0.25");
    assert_eq!(value("vllm:request_inference_time_seconds_sum"), "2");
    assert_eq!(value("vllm:request_prefill_kv_computed_tokens_sum"), "32");
    assert_eq!(value("vllm:request_params_max_tokens_sum"), "5");
    assert_eq!(value("tokenflow:step_token_budget"), "1024");
    assert_eq!(value("tokenflow:paced_requests"), "1");
    let success = |reason| line(&text, &format!(r#"vllm:request_success_total{{engine="0",finished_reason="{reason}",model_name="q"}}"#));
    assert_eq!((success("length"), success("stop"), success("error")), ("1", "0", "0"));
}

#[test]
fn the_hint_source_is_asked_at_every_scrape() {
    let m = metrics();
    m.set_hint_source(|| HintStatus { health_factor: 0.5, age: Some(Duration::from_millis(250)), connected: true });
    let text = m.render();
    let value = |name: &str| line(&text, &format!("{name}{{engine=\"0\",model_name=\"q\"}}"));
    assert_eq!(value("tokenflow:health_factor"), "0.5");
    assert_eq!(value("tokenflow:hint_age_seconds"), "0.25");
    assert_eq!(value("tokenflow:hint_connected"), "1");
}
