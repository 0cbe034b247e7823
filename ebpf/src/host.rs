//! The maps, the ring, the counters and the clock that the handler works with.

use core::ptr::read_volatile;

use aya_ebpf::{
    Global,
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{LruHashMap, PerCpuArray, RingBuf},
    programs::SockOpsContext,
};
use aya_log_ebpf::warn;
use tokenflow_ebpf_common::{Config, ConnectionStats, Counter, EVENT_RING_BYTES, Event, MAX_CONNECTIONS, handler::Host};

/// Set by the loader; constant to the verifier.
#[unsafe(no_mangle)]
static CONFIG: Global<Config> = Global::new(Config::DEFAULT);

#[map]
static CONNECTIONS: LruHashMap<u64, ConnectionStats> = LruHashMap::with_max_entries(MAX_CONNECTIONS, 0);

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_RING_BYTES, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

pub struct Kernel<'a>(pub &'a SockOpsContext);

/// One field of [`CONFIG`], without loading the others.
macro_rules! config {
    ($field:ident) => {
        // SAFETY: `Global` is a transparent wrapper of an initialised value that nobody writes once the program is loaded.
        unsafe { read_volatile(&raw const (*(&raw const CONFIG).cast::<Config>()).$field) }
    };
}

impl Host for Kernel<'_> {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: the helper has no arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn watches(&self, local_port: u32) -> bool {
        CONFIG.load().watches(local_port)
    }

    #[inline(always)]
    fn update_interval_ns(&self) -> u64 {
        config!(update_interval_ns)
    }

    #[inline(always)]
    fn event_interval_ns(&self) -> u64 {
        config!(event_interval_ns)
    }

    #[inline(always)]
    fn entry(&mut self, cookie: u64) -> Option<&mut ConnectionStats> {
        // SAFETY: the entry outlives the call (RCU), and a socket's callbacks run one at a time under its lock. Should the map drop the
        // entry as least recently used and reuse it for another connection meanwhile, that one is refreshed within an update interval.
        CONNECTIONS.get_ptr_mut(cookie).map(|stats| unsafe { &mut *stats })
    }

    #[inline(always)]
    fn insert(&mut self, stats: &ConnectionStats) -> Result<(), i64> {
        CONNECTIONS.insert(stats.cookie, stats, 0).map_err(i64::from)
    }

    #[inline(always)]
    fn remove(&mut self, cookie: u64) -> bool {
        CONNECTIONS.remove(cookie).is_ok()
    }

    #[inline(always)]
    fn emit(&mut self, event: &Event) -> bool {
        EVENTS.output::<Event>(event, 0).is_ok()
    }

    #[inline(always)]
    fn count(&mut self, counter: Counter) {
        increment(counter);
    }

    #[inline(never)]
    fn refused(&mut self, counter: Counter, cookie: u64, error: i64) {
        // Each further message takes twice as many occasions, so that a full map cannot flood the log.
        if !increment(counter).is_power_of_two() {
            return;
        }
        match counter {
            Counter::CallbacksRefused => warn!(self.0, "connection {} is not tracked: bpf_sock_ops_cb_flags_set: {}", cookie, error),
            _ => warn!(self.0, "connection {} is not tracked: bpf_map_update_elem: {}", cookie, error),
        }
    }
}

/// Returns this CPU's count. A program that interrupts another on the same CPU may cost one count.
#[inline(always)]
fn increment(counter: Counter) -> u64 {
    let Some(count) = COUNTERS.get_ptr_mut(counter as u32) else { return 0 };
    // SAFETY: the slot is this CPU's own.
    unsafe {
        *count += 1;
        *count
    }
}
