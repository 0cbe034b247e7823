use crate::{ConnectionStats, Counter, Event};

/// Why the program was called: `BPF_SOCK_OPS_*_CB` of `include/uapi/linux/bpf.h`.
pub mod op {
    pub const ACTIVE_ESTABLISHED: u32 = 4;
    pub const PASSIVE_ESTABLISHED: u32 = 5;
    /// The retransmission timer fired.
    pub const RTO: u32 = 8;
    /// Segments were retransmitted.
    pub const RETRANS: u32 = 9;
    /// Arguments: old state, new state.
    pub const STATE: u32 = 10;
    /// Arguments since Linux 6.11: the sample in microseconds, the new smoothed time in eighths of one; zeros before.
    pub const RTT: u32 = 12;

    /// `BPF_SOCK_OPS_{RTO,RETRANS,STATE,RTT}_CB_FLAG`: what a watched connection asks for.
    pub const CALLBACK_FLAGS: u32 = 1 | 1 << 1 | 1 << 2 | 1 << 3;
}

/// TCP states of `include/net/tcp_states.h` that matter here.
pub mod state {
    pub const ESTABLISHED: u32 = 1;
    pub const CLOSE: u32 = 7;
}

/// The connection in hand: `struct bpf_sock_ops`, each method one field as the kernel gives it.
pub trait SockOps {
    fn op(&self) -> u32;
    fn arg0(&self) -> u32;
    fn arg1(&self) -> u32;
    /// `bpf_get_socket_cookie`.
    fn cookie(&self) -> u64;
    /// Asks for [`op::CALLBACK_FLAGS`] besides what others asked for; the error is a negative errno or the flags unknown to the kernel.
    fn enable_callbacks(&self) -> Result<(), i64>;

    fn family(&self) -> u32;
    /// Network byte order.
    fn local_ip4(&self) -> u32;
    /// Network byte order.
    fn remote_ip4(&self) -> u32;
    /// Network byte order; only an IPv6 socket has it.
    fn local_ip6(&self) -> [u32; 4];
    /// Network byte order; only an IPv6 socket has it.
    fn remote_ip6(&self) -> [u32; 4];
    /// Host byte order.
    fn local_port(&self) -> u32;
    /// Network byte order, in the 32-bit word's last two bytes.
    fn remote_port(&self) -> u32;

    fn state(&self) -> u32;
    /// Eighths of a microsecond.
    fn srtt_us(&self) -> u32;
    /// Microseconds; all ones before the first sample.
    fn rtt_min(&self) -> u32;
    fn snd_cwnd(&self) -> u32;
    fn snd_ssthresh(&self) -> u32;
    fn mss_cache(&self) -> u32;
    fn packets_out(&self) -> u32;
    fn retrans_out(&self) -> u32;
    fn total_retrans(&self) -> u32;
    fn lost_out(&self) -> u32;
    fn sacked_out(&self) -> u32;
    fn rate_delivered(&self) -> u32;
    fn rate_interval_us(&self) -> u32;
    fn data_segs_out(&self) -> u32;
    fn bytes_acked(&self) -> u64;
    fn bytes_received(&self) -> u64;
}

/// What the program keeps and tells: maps, ring, counters, clock.
pub trait Host {
    /// `CLOCK_MONOTONIC`.
    fn now_ns(&self) -> u64;
    /// See [`crate::Config`], of which these three are the parts.
    fn watches(&self, local_port: u32) -> bool;
    fn update_interval_ns(&self) -> u64;
    fn event_interval_ns(&self) -> u64;
    fn entry(&mut self, cookie: u64) -> Option<&mut ConnectionStats>;
    /// The error is a negative errno.
    fn insert(&mut self, stats: &ConnectionStats) -> Result<(), i64>;
    /// Whether there was such an entry.
    fn remove(&mut self, cookie: u64) -> bool;
    /// False where the ring is full.
    fn emit(&mut self, event: &Event) -> bool;
    fn count(&mut self, counter: Counter);
    /// A connection will not be tracked: counts it and says so.
    fn refused(&mut self, counter: Counter, cookie: u64, error: i64);
}
