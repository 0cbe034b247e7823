//! What the server counts about itself, and `GET /metrics` in Prometheus' text format.

use std::{
    fmt::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokenflow_hint_api::Source;

use super::App;
use crate::probe::ProbeCounters;

#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn subtract(&self, n: u64) {
        self.0.fetch_sub(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug, Default)]
pub struct Metrics {
    /// Rounds of looks, failed ones included.
    pub looks: Count,
    pub look_errors: Count,
    /// Time spent in them, microseconds.
    pub look_us: Count,
    /// Looks at single connections in them.
    pub connection_looks: Count,
    /// Changes sent to subscribers.
    pub changes: Count,
    /// Open subscriptions.
    pub subscribers: Count,
    /// Times that a subscriber was too slow and got a snapshot instead of changes.
    pub subscribers_behind: Count,
    pub established_events: Count,
    pub retransmit_events: Count,
    pub rto_events: Count,
    pub closed_events: Count,
    /// As the probe last counted.
    probe: Mutex<ProbeCounters>,
}

impl Metrics {
    /// What the probe has counted so far.
    pub fn set_probe(&self, counters: &ProbeCounters) {
        *self.probe.lock().unwrap_or_else(PoisonError::into_inner) = *counters;
    }

    fn probe(&self) -> ProbeCounters {
        *self.probe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of a source in labels, in logs and in the line that says that the server is ready.
pub fn source_name(source: Source) -> &'static str {
    match source {
        Source::Ebpf => "ebpf",
        Source::SockDiag => "sock_diag",
        Source::Local => "local",
        Source::None => "none",
    }
}

/// Everything in Prometheus' text format.
pub fn render(app: &App) -> String {
    let feed = &app.feed;
    let hint = feed.hint();
    let (tracked, limited, delivered) = {
        let tracker = feed.tracker();
        (tracker.len(), tracker.network_limited(), tracker.delivered_bytes())
    };
    let metrics = &feed.metrics;
    let probe = metrics.probe();
    let mut page = Page::default();
    page.family("health_factor", "gauge", "Activity-weighted mean health of connections, 0 to 1.");
    page.sample("", hint.health_factor);
    page.family("probe_info", "gauge", "What measures.");
    page.sample(&format!("{{source=\"{}\"}}", source_name(hint.source)), 1.0);
    page.family("connections", "gauge", "Connections by what is known of them.");
    page.sample("{state=\"tracked\"}", tracked as f64);
    page.sample("{state=\"active\"}", hint.connections as f64);
    page.sample("{state=\"network_limited\"}", limited as f64);
    page.family("queued_bytes", "gauge", "Bytes written to connections and not acknowledged.");
    page.sample("", hint.metrics.queued_bytes as f64);
    page.family("delivered_bytes_total", "counter", "Bytes that peers acknowledged.");
    page.sample("", delivered as f64);
    page.family("delivery_rate_bytes_per_second", "gauge", "Sum of the delivery rates of active connections.");
    page.sample("", hint.metrics.delivery_rate as f64);
    page.family("looks_total", "counter", "Rounds of measurements.");
    page.sample("", metrics.looks.get() as f64);
    page.family("look_errors_total", "counter", "Rounds of measurements that failed.");
    page.sample("", metrics.look_errors.get() as f64);
    page.family("look_seconds_total", "counter", "Time spent measuring.");
    page.sample("", metrics.look_us.get() as f64 / 1e6);
    page.family("connection_looks_total", "counter", "Measurements of single connections.");
    page.sample("", metrics.connection_looks.get() as f64);
    page.family("events_total", "counter", "Events that the kernel program reported.");
    page.sample("{kind=\"established\"}", metrics.established_events.get() as f64);
    page.sample("{kind=\"retransmit\"}", metrics.retransmit_events.get() as f64);
    page.sample("{kind=\"rto\"}", metrics.rto_events.get() as f64);
    page.sample("{kind=\"closed\"}", metrics.closed_events.get() as f64);
    page.family("kernel_failures_total", "counter", "What the kernel program could not do: track a connection, hand over an event.");
    page.sample("{reason=\"map_full\"}", probe.kernel.map_full as f64);
    page.sample("{reason=\"callbacks_refused\"}", probe.kernel.callbacks_refused as f64);
    page.sample("{reason=\"ring_full\"}", probe.kernel.ring_full as f64);
    page.family("kernel_program_runs_total", "counter", "Runs of the kernel program; 0 unless counted (--bpf-stats).");
    page.sample("", probe.program_runs as f64);
    page.family("kernel_program_seconds_total", "counter", "Time that the kernel program ran; 0 unless counted (--bpf-stats).");
    page.sample("", probe.program_time.as_secs_f64());
    page.family("netlink_failures_total", "counter", "Rounds that socket diagnostics lost or had to repeat.");
    page.sample("{reason=\"overrun\"}", probe.netlink_overruns as f64);
    page.sample("{reason=\"interrupted\"}", probe.dumps_interrupted as f64);
    page.family("changes_total", "counter", "Changes sent to subscribers.");
    page.sample("", metrics.changes.get() as f64);
    page.family("subscribers", "gauge", "Open subscriptions to the hint stream.");
    page.sample("", metrics.subscribers.get() as f64);
    page.family("subscribers_behind_total", "counter", "Times that a subscriber was too slow and got a new snapshot.");
    page.sample("", metrics.subscribers_behind.get() as f64);
    if let Some(share) = &app.share {
        let status = &share.status;
        page.family("redis_connected", "gauge", "Whether the exchange with other hosts works.");
        page.sample("", f64::from(u8::from(status.connected.load(Relaxed))));
        page.family("redis_exchanges_total", "counter", "Exchanges with other hosts.");
        page.sample("", status.exchanges.load(Relaxed) as f64);
        page.family("redis_errors_total", "counter", "Failed exchanges and failed attempts to connect.");
        page.sample("", status.errors.load(Relaxed) as f64);
        page.family("redis_reports_refused_total", "counter", "Other hosts' reports that were not understood.");
        page.sample("", status.refused.load(Relaxed) as f64);
        page.family("peer_hosts", "gauge", "Other hosts whose connections are known.");
        page.sample("", share.table().hosts(feed.now()).count() as f64);
    }
    if let Some((seconds, bytes)) = process() {
        let _ = writeln!(
            page.text,
            "# HELP process_cpu_seconds_total User and system time.\n# TYPE process_cpu_seconds_total counter\n\
             process_cpu_seconds_total {seconds}\n\
             # HELP process_resident_memory_bytes Resident memory.\n# TYPE process_resident_memory_bytes gauge\n\
             process_resident_memory_bytes {bytes}"
        );
    }
    page.text
}

/// Processor time in seconds and resident bytes of this process, from proc(5).
fn process() -> Option<(f64, u64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.split_whitespace().next()?.parse().ok()?;
    // USER_HZ is 100 on every architecture that Linux runs on today.
    Some((ticks as f64 / 100.0, kib * 1024))
}

#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        let _ = writeln!(self.text, "# HELP tokenflow_hint_{name} {help}\n# TYPE tokenflow_hint_{name} {kind}");
    }

    fn sample(&mut self, labels: &str, value: f64) {
        let _ = writeln!(self.text, "tokenflow_hint_{}{labels} {value}", self.name);
    }
}
