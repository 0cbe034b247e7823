//! What the engine counts, and its Prometheus text: vLLM's names and buckets with the prefix `vllm:`, ours with `tokenflow:`.
//!
//! Every update is a few atomic operations on handles resolved at start; nothing is looked up by name and nothing grows.

mod buckets;
mod registry;
#[cfg(test)]
mod tests;

use std::{sync::OnceLock, time::Duration};

use prometheus::{Counter, Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder};

use crate::{config::EngineInfo, scheduler::FinishReason};
use registry::Registrar;

/// Totals of one step, and how things stand after it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepStats {
    /// Sequences that hold blocks.
    pub running: usize,
    pub waiting: usize,
    /// Used share of the KV blocks, 0..=1.
    pub kv_cache_usage: f64,
    /// Streams that sat this step out because their link is behind.
    pub paced: usize,
    /// Output of all streams that their clients have not acknowledged, at most.
    pub undelivered_bytes: u64,
    /// Requests that wait because their tenant, or their connection, has its share.
    pub tenant_capped: usize,
    pub connection_capped: usize,
    /// Stalled streams that keep their blocks, and sequences whose blocks are in host memory.
    pub parked: usize,
    pub offloaded: usize,
    /// Blocks of host memory in use, and blocks copied there and back.
    pub host_blocks: usize,
    pub offloaded_blocks: u64,
    pub onloaded_blocks: u64,
    /// Tokens that this step was allowed to compute.
    pub token_budget: usize,
    /// Tokens that it did compute, prompts' and outputs'.
    pub computed_tokens: usize,
    /// Prompt tokens of the sequences whose prefill this step completed.
    pub prompt_tokens: usize,
    /// Those of them that came from the prefix cache.
    pub prompt_tokens_cached: usize,
    /// Tokens sampled.
    pub generation_tokens: usize,
    /// Sequences that lost their blocks to make room.
    pub preemptions: usize,
    /// Tokens looked up in the prefix cache, and found there.
    pub prefix_cache_queries: usize,
    pub prefix_cache_hits: usize,
    /// Guesses at tokens to come, their tokens, and those of them that were right.
    pub drafts: u64,
    pub draft_tokens: u64,
    pub accepted_draft_tokens: u64,
}

/// One finished request, as the latency histograms see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RequestStats {
    pub reason: FinishReason,
    pub prompt_tokens: usize,
    /// Those of them that came from the prefix cache.
    pub cached_tokens: usize,
    pub output_tokens: usize,
    /// The most that it was allowed.
    pub max_tokens: usize,
    pub preemptions: u32,
    /// Arrival to last token.
    pub e2e: Duration,
    /// Arrival to first scheduled.
    pub queued: Duration,
    /// First scheduled to first token.
    pub prefill: Duration,
    /// First token to last.
    pub decode: Duration,
}

/// How the hint server stands at the moment of a scrape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HintStatus {
    /// The aggregate in use; 1 where nothing is known.
    pub health_factor: f64,
    /// Since the last hint; `None` before the first.
    pub age: Option<Duration>,
    pub connected: bool,
}

impl HintStatus {
    /// No hint server: the engine behaves as with health 1.
    pub const ABSENT: Self = Self { health_factor: 1.0, age: None, connected: false };
}

type HintSource = Box<dyn Fn() -> HintStatus + Send + Sync>;

/// Counters, gauges and histograms of one engine. Shared by its loop and by the HTTP API.
pub struct EngineMetrics {
    registry: Registry,
    hint_source: OnceLock<HintSource>,

    running: IntGauge,
    waiting: IntGauge,
    kv_cache_usage: Gauge,
    prefix_cache_queries: IntCounter,
    prefix_cache_hits: IntCounter,
    preemptions: IntCounter,
    drafts: IntCounter,
    draft_tokens: IntCounter,
    accepted_draft_tokens: IntCounter,
    prompt_tokens: IntCounter,
    prompt_tokens_cached: IntCounter,
    generation_tokens: IntCounter,
    request_success: IntCounterVec,

    time_to_first_token: Histogram,
    inter_token_latency: Histogram,
    time_per_output_token: Histogram,
    e2e_latency: Histogram,
    queue_time: Histogram,
    prefill_time: Histogram,
    decode_time: Histogram,
    inference_time: Histogram,
    request_prompt_tokens: Histogram,
    request_generation_tokens: Histogram,
    request_params_max_tokens: Histogram,
    request_prefill_kv_computed_tokens: Histogram,
    request_preemptions: Histogram,
    iteration_tokens: Histogram,

    health_factor: Gauge,
    step_token_budget: IntGauge,
    paced_requests: IntGauge,
    undelivered_bytes: IntGauge,
    paced_steps: IntCounter,
    coalesced_tokens: IntCounter,
    parked: IntGauge,
    offloaded: IntGauge,
    host_blocks: IntGauge,
    offload_bytes: IntCounter,
    onload_bytes: IntCounter,
    /// Of one block, over all layers.
    block_bytes: u64,
    tenant_capped: IntGauge,
    connection_capped: IntGauge,
    hint_age: Gauge,
    hint_connected: IntGauge,
    step_seconds: Counter,
}

impl EngineMetrics {
    pub fn new(model_name: &str, info: &EngineInfo) -> Self {
        let r = Registrar::new(model_name);
        let lengths = buckets::one_two_five(info.max_model_len);
        r.cache_config(info);
        let max_num_batched_tokens = r.int_gauge("tokenflow:max_num_batched_tokens", "Step token budget where every link is healthy.");
        max_num_batched_tokens.set(info.max_num_batched_tokens as i64);

        Self {
            hint_source: OnceLock::new(),
            running: r.int_gauge("vllm:num_requests_running", "Number of requests in model execution batches."),
            waiting: r.int_gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed."),
            kv_cache_usage: r.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage."),
            prefix_cache_queries: r
                .counter("vllm:prefix_cache_queries_total", "Prefix cache queries, in terms of number of queried tokens."),
            prefix_cache_hits: r.counter("vllm:prefix_cache_hits_total", "Prefix cache hits, in terms of number of cached tokens."),
            preemptions: r.counter("vllm:num_preemptions_total", "Cumulative number of preemptions from the engine."),
            drafts: r.counter("vllm:spec_decode_num_drafts_total", "Number of spec decoding drafts."),
            draft_tokens: r.counter("vllm:spec_decode_num_draft_tokens_total", "Number of draft tokens."),
            accepted_draft_tokens: r.counter("vllm:spec_decode_num_accepted_tokens_total", "Number of accepted tokens."),
            prompt_tokens: r.counter("vllm:prompt_tokens_total", "Number of prefill tokens processed."),
            prompt_tokens_cached: r.counter("vllm:prompt_tokens_cached_total", "Number of prompt tokens found in the prefix cache."),
            generation_tokens: r.counter("vllm:generation_tokens_total", "Number of generation tokens processed."),
            request_success: r.request_success(),

            time_to_first_token: r.histogram(
                "vllm:time_to_first_token_seconds",
                "Histogram of time to first token in seconds.",
                buckets::TIME_TO_FIRST_TOKEN,
            ),
            inter_token_latency: r.histogram(
                "vllm:inter_token_latency_seconds",
                "Histogram of inter-token latency in seconds.",
                buckets::PER_TOKEN,
            ),
            time_per_output_token: r.histogram(
                "vllm:request_time_per_output_token_seconds",
                "Histogram of time per output token in seconds, per request.",
                buckets::PER_TOKEN,
            ),
            e2e_latency: r.histogram("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", buckets::REQUEST),
            queue_time: r.histogram(
                "vllm:request_queue_time_seconds",
                "Histogram of time spent in WAITING phase for request.",
                buckets::REQUEST,
            ),
            prefill_time: r.histogram(
                "vllm:request_prefill_time_seconds",
                "Histogram of time spent in PREFILL phase for request.",
                buckets::REQUEST,
            ),
            decode_time: r.histogram(
                "vllm:request_decode_time_seconds",
                "Histogram of time spent in DECODE phase for request.",
                buckets::REQUEST,
            ),
            inference_time: r.histogram(
                "vllm:request_inference_time_seconds",
                "Histogram of time spent in RUNNING phase for request.",
                buckets::REQUEST,
            ),
            request_prompt_tokens: r.histogram("vllm:request_prompt_tokens", "Number of prefill tokens processed.", &lengths),
            request_generation_tokens: r.histogram("vllm:request_generation_tokens", "Number of generation tokens processed.", &lengths),
            request_params_max_tokens: r.histogram(
                "vllm:request_params_max_tokens",
                "Histogram of the max_tokens request parameter.",
                &lengths,
            ),
            request_prefill_kv_computed_tokens: r.histogram(
                "vllm:request_prefill_kv_computed_tokens",
                "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
                &lengths,
            ),
            request_preemptions: r.histogram(
                "vllm:request_num_preemptions",
                "Number of preemptions that a finished request went through.",
                buckets::PREEMPTIONS,
            ),
            iteration_tokens: r.histogram(
                "vllm:iteration_tokens_total",
                "Histogram of number of tokens per engine step.",
                buckets::STEP_TOKENS,
            ),

            health_factor: r.gauge("tokenflow:health_factor", "Aggregate health of the links that carry token streams; 1 where unknown."),
            step_token_budget: r.int_gauge("tokenflow:step_token_budget", "Tokens that the last step was allowed to compute."),
            undelivered_bytes: r.int_gauge(
                "tokenflow:undelivered_bytes",
                "Output of all streams that their clients have not acknowledged: waiting here, in sockets, in flight.",
            ),
            paced_requests: r.int_gauge("tokenflow:paced_requests", "Streams that sat the last step out because their link is behind."),
            paced_steps: r.counter("tokenflow:paced_steps_total", "Steps sat out by streams because their link was behind."),
            coalesced_tokens: r.counter(
                "tokenflow:coalesced_tokens_total",
                "Tokens that shared an event with others because their stream's link was behind.",
            ),
            parked: r.int_gauge("tokenflow:parked_requests", "Stalled streams that keep their KV blocks."),
            offloaded: r.int_gauge("tokenflow:offloaded_requests", "Waiting requests whose KV blocks are in host memory."),
            host_blocks: r.int_gauge("tokenflow:offloaded_blocks", "KV blocks in host memory."),
            offload_bytes: r.counter("tokenflow:kv_offload_bytes_total", "Bytes of KV blocks copied to host memory."),
            onload_bytes: r.counter("tokenflow:kv_onload_bytes_total", "Bytes of KV blocks copied back from host memory."),
            block_bytes: (info.loaded.kv_cache_bytes / info.num_blocks.max(1)) as u64,
            tenant_capped: r.int_gauge("tokenflow:tenant_capped_requests", "Requests that wait because their tenant has its share."),
            connection_capped: r
                .int_gauge("tokenflow:connection_capped_requests", "Requests that wait because their connection has its share."),
            hint_age: r.gauge("tokenflow:hint_age_seconds", "Time since the last hint from the hint server; -1 before the first."),
            hint_connected: r.int_gauge("tokenflow:hint_connected", "Whether the hint server is connected; without it health counts as 1."),
            step_seconds: r.seconds_counter("tokenflow:step_seconds_total", "Time spent executing steps."),
            registry: r.into_inner(),
        }
    }

    /// Asked for the hint server's state at every scrape, so that its age is true also while no step runs. The first source stays.
    pub fn set_hint_source(&self, source: impl Fn() -> HintStatus + Send + Sync + 'static) {
        let _ = self.hint_source.set(Box::new(source));
    }

    /// Once after every step; once more when the engine falls idle, so that the gauges read zero.
    pub fn step(&self, stats: &StepStats, took: Duration) {
        self.running.set(stats.running as i64);
        self.waiting.set(stats.waiting as i64);
        self.kv_cache_usage.set(stats.kv_cache_usage);
        self.paced_requests.set(stats.paced as i64);
        self.undelivered_bytes.set(stats.undelivered_bytes as i64);
        self.parked.set(stats.parked as i64);
        self.offloaded.set(stats.offloaded as i64);
        self.host_blocks.set(stats.host_blocks as i64);
        self.offload_bytes.inc_by(stats.offloaded_blocks * self.block_bytes);
        self.onload_bytes.inc_by(stats.onloaded_blocks * self.block_bytes);
        self.tenant_capped.set(stats.tenant_capped as i64);
        self.connection_capped.set(stats.connection_capped as i64);
        if stats.computed_tokens > 0 {
            self.paced_steps.inc_by(stats.paced as u64);
        }
        self.step_token_budget.set(stats.token_budget as i64);
        self.prompt_tokens.inc_by(stats.prompt_tokens as u64);
        self.prompt_tokens_cached.inc_by(stats.prompt_tokens_cached as u64);
        self.generation_tokens.inc_by(stats.generation_tokens as u64);
        self.preemptions.inc_by(stats.preemptions as u64);
        self.prefix_cache_queries.inc_by(stats.prefix_cache_queries as u64);
        self.prefix_cache_hits.inc_by(stats.prefix_cache_hits as u64);
        self.drafts.inc_by(stats.drafts);
        self.draft_tokens.inc_by(stats.draft_tokens);
        self.accepted_draft_tokens.inc_by(stats.accepted_draft_tokens);
        self.step_seconds.inc_by(took.as_secs_f64());
        if stats.computed_tokens > 0 {
            self.iteration_tokens.observe(stats.computed_tokens as f64);
        }
    }

    /// A request's first token came `since_arrival` after the request.
    pub fn first_token(&self, since_arrival: Duration) {
        self.time_to_first_token.observe(since_arrival.as_secs_f64());
    }

    /// A later token came `since_previous` after the one before.
    pub fn inter_token(&self, since_previous: Duration) {
        self.inter_token_latency.observe(since_previous.as_secs_f64());
    }

    pub fn finished(&self, request: &RequestStats) {
        self.request_success.with_label_values(&[request.reason.as_str()]).inc();
        self.e2e_latency.observe(request.e2e.as_secs_f64());
        self.queue_time.observe(request.queued.as_secs_f64());
        self.prefill_time.observe(request.prefill.as_secs_f64());
        self.decode_time.observe(request.decode.as_secs_f64());
        self.inference_time.observe((request.prefill + request.decode).as_secs_f64());
        self.request_prompt_tokens.observe(request.prompt_tokens as f64);
        self.request_generation_tokens.observe(request.output_tokens as f64);
        self.request_params_max_tokens.observe(request.max_tokens as f64);
        self.request_prefill_kv_computed_tokens.observe(request.prompt_tokens.saturating_sub(request.cached_tokens) as f64);
        self.request_preemptions.observe(f64::from(request.preemptions));
        if request.output_tokens > 1 {
            self.time_per_output_token.observe(request.decode.as_secs_f64() / (request.output_tokens - 1) as f64);
        }
    }

    /// Tokens that went out in another's event because their link was behind.
    pub fn coalesced(&self, tokens: u64) {
        self.coalesced_tokens.inc_by(tokens);
    }

    /// A request ended because the engine failed.
    pub fn failed(&self) {
        self.request_success.with_label_values(&["error"]).inc();
    }

    /// Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        let hint = self.hint_source.get().map_or(HintStatus::ABSENT, |source| source());
        self.health_factor.set(hint.health_factor);
        self.hint_age.set(hint.age.map_or(-1.0, |age| age.as_secs_f64()));
        self.hint_connected.set(i64::from(hint.connected));
        let mut text = String::with_capacity(32 * 1024);
        // Gathered families are well formed by construction and a String takes every write.
        TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text).expect("metrics render");
        text
    }
}
