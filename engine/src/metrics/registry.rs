//! Makes and registers metrics with the labels that all of them carry.

use prometheus::{Counter, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

use crate::config::{DeviceSummary, EngineInfo};

const FINISHED_REASONS: [&str; 4] = ["stop", "length", "abort", "error"];

pub(super) struct Registrar {
    registry: Registry,
    model_name: String,
}

impl Registrar {
    pub(super) fn new(model_name: &str) -> Self {
        Self { registry: Registry::new(), model_name: model_name.to_owned() }
    }

    pub(super) fn into_inner(self) -> Registry {
        self.registry
    }

    // Not the registry's common labels: those come out in a random order.
    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help).const_label("engine", "0").const_label("model_name", &self.model_name)
    }

    // Names are literals of this module and its parent, so that a bad or repeated one shows in the first test.
    fn register<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("a valid metric name");
        self.registry.register(Box::new(metric.clone())).expect("a metric name used once");
        metric
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::with_opts(self.opts(name, help)))
    }

    pub(super) fn int_gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(self.opts(name, help)))
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(self.opts(name, help)))
    }

    pub(super) fn seconds_counter(&self, name: &str, help: &str) -> Counter {
        self.register(Counter::with_opts(self.opts(name, help)))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.register(Histogram::with_opts(HistogramOpts::from(self.opts(name, help)).buckets(buckets.to_vec())))
    }

    pub(super) fn request_success(&self) -> IntCounterVec {
        let opts = self.opts("vllm:request_success_total", "Count of successfully processed requests.");
        let counters = self.register(IntCounterVec::new(opts, &["finished_reason"]));
        for reason in FINISHED_REASONS {
            counters.with_label_values(&[reason]);
        }
        counters
    }

    /// A constant 1 whose labels tell inference gateways how large the cache is.
    pub(super) fn cache_config(&self, info: &EngineInfo) {
        let mut opts = self
            .opts("vllm:cache_config_info", "Information of the LLMEngine CacheConfig")
            .const_label("block_size", info.block_size.to_string())
            .const_label("num_gpu_blocks", info.num_blocks.to_string())
            .const_label("cache_dtype", &info.loaded.kv_cache_dtype)
            .const_label("enable_prefix_caching", python_bool(info.loaded.enable_prefix_caching))
            .const_label("kv_cache_size_tokens", info.kv_cache_tokens().to_string())
            .const_label("kv_cache_max_concurrency", format!("{:.2}", info.max_concurrency()));
        if let DeviceSummary::Gpu { memory, .. } = &info.loaded.device {
            opts = opts.const_label("gpu_memory_utilization", memory.utilization.to_string());
        }
        self.register(IntGauge::with_opts(opts)).set(1);
    }
}

/// vLLM's labels are Python's words.
fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}
