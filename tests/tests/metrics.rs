//! `/metrics` of both servers: well formed in Prometheus' own eyes, and with the names that dashboards and gateways made for vLLM ask for.

use std::{collections::BTreeMap, net::TcpStream};

use serde_json::json;
use tokenflow_tests::{daemon, http, promtool};

/// vLLM's, each with the type that it has there.
const VLLM: &[(&str, &str)] = &[
    ("num_requests_running", "gauge"),
    ("num_requests_waiting", "gauge"),
    ("kv_cache_usage_perc", "gauge"),
    ("cache_config_info", "gauge"),
    ("prefix_cache_queries_total", "counter"),
    ("prefix_cache_hits_total", "counter"),
    ("num_preemptions_total", "counter"),
    ("prompt_tokens_total", "counter"),
    ("prompt_tokens_cached_total", "counter"),
    ("generation_tokens_total", "counter"),
    ("request_success_total", "counter"),
    ("time_to_first_token_seconds", "histogram"),
    ("inter_token_latency_seconds", "histogram"),
    ("request_time_per_output_token_seconds", "histogram"),
    ("e2e_request_latency_seconds", "histogram"),
    ("request_queue_time_seconds", "histogram"),
    ("request_prefill_time_seconds", "histogram"),
    ("request_decode_time_seconds", "histogram"),
    ("request_inference_time_seconds", "histogram"),
    ("request_prompt_tokens", "histogram"),
    ("request_generation_tokens", "histogram"),
    ("request_num_preemptions", "histogram"),
    ("request_params_max_tokens", "histogram"),
    ("request_prefill_kv_computed_tokens", "histogram"),
    ("iteration_tokens_total", "histogram"),
    ("spec_decode_num_drafts_total", "counter"),
    ("spec_decode_num_draft_tokens_total", "counter"),
    ("spec_decode_num_accepted_tokens_total", "counter"),
];

/// Ours.
const TOKENFLOW: &[(&str, &str)] = &[
    ("health_factor", "gauge"),
    ("step_token_budget", "gauge"),
    ("max_num_batched_tokens", "gauge"),
    ("paced_requests", "gauge"),
    ("undelivered_bytes", "gauge"),
    ("parked_requests", "gauge"),
    ("offloaded_requests", "gauge"),
    ("offloaded_blocks", "gauge"),
    ("kv_offload_bytes_total", "counter"),
    ("kv_onload_bytes_total", "counter"),
    ("tenant_capped_requests", "gauge"),
    ("connection_capped_requests", "gauge"),
    ("paced_steps_total", "counter"),
    ("hint_age_seconds", "gauge"),
    ("hint_connected", "gauge"),
    ("step_seconds_total", "counter"),
];

/// Types by name, as the `# TYPE` lines say.
fn types(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

fn served() -> (daemon::Daemon, String) {
    let engine = daemon::engine(&["--hint-url", "none", "--served-model-name", "a \"quoted\" name"]).unwrap();
    let (status, _) = http::post_json(&engine.url, "/v1/completions", &json!({"prompt": "What is", "max_tokens": 8})).unwrap();
    assert_eq!(status, 200);
    let text = http::get_text(&engine.url, "/metrics").unwrap();
    (engine, text)
}

#[test]
fn the_engine_exports_every_name_of_vllms_and_every_series_says_whose_it_is() {
    let (_engine, text) = served();
    let types = types(&text);
    let listed = |prefix: &str, list: &[(&str, &str)]| {
        for (name, kind) in list {
            assert_eq!(types.get(format!("{prefix}{name}").as_str()), Some(kind), "{prefix}{name}");
        }
    };
    listed("vllm:", VLLM);
    listed("tokenflow:", TOKENFLOW);
    for name in types.keys() {
        assert!(name.starts_with("vllm:") || name.starts_with("tokenflow:"), "{name} has no prefix");
    }
    let known = VLLM.iter().map(|(name, _)| format!("vllm:{name}"));
    let unknown: Vec<_> = types.keys().filter(|name| name.starts_with("vllm:") && !known.clone().any(|known| known == **name)).collect();
    assert!(unknown.is_empty(), "under vLLM's prefix, and not on the list of its names: {unknown:?}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.contains(r#"model_name="a \"quoted\" name""#) && line.contains(r#"engine="0""#), "{line}");
    }
    for reason in ["stop", "length", "abort", "error"] {
        assert!(text.contains(&format!("vllm:request_success_total{{engine=\"0\",finished_reason=\"{reason}\"")), "{reason}");
    }
}

fn promtool() -> Option<std::path::PathBuf> {
    match promtool::find() {
        Ok(program) => Some(program),
        Err(reason) => {
            assert!(std::env::var_os("CI").is_none(), "in CI it must be there: {reason}");
            eprintln!("skipped: {reason}");
            None
        }
    }
}

#[test]
fn prometheus_own_checker_objects_to_nothing_but_vllms_spelling() {
    let Some(promtool) = promtool() else { return };
    let (_engine, text) = served();
    let remarks = promtool::check_metrics(&promtool, &text).unwrap();
    // Colons are for recording rules, and `_total` is for counters: vLLM's names break both rules, and dashboards want them as they are.
    let ours = |line: &&String| {
        !line.ends_with("metric names should not contain ':'")
            && *line != "vllm:iteration_tokens_total non-counter metrics should not have \"_total\" suffix"
    };
    assert_eq!(remarks.iter().filter(ours).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn prometheus_own_checker_has_no_remark_on_the_hint_server() {
    let Some(promtool) = promtool() else { return };
    let server = daemon::hint_server(&["--probe", "sock-diag"]).unwrap();
    let _connection = TcpStream::connect(http::address(&server.url).unwrap()).unwrap();
    let text = http::get_text(&server.url, "/metrics").unwrap();
    assert!(types(&text).len() > 5, "{text}");
    assert_eq!(promtool::check_metrics(&promtool, &text).unwrap(), Vec::<String>::new());
}
