//! From the kernel's fields to [`ConnectionStats`]: units, byte orders and "not yet measured" are settled here.

use super::{SockOps, op};
use crate::{ConnectionStats, Endpoint};

const AF_INET: u32 = 2;

/// Writes what never changes in a connection's life.
#[inline(always)]
pub(super) fn identify(stats: &mut ConnectionStats, ctx: &impl SockOps) {
    let (local_port, remote_port) = (ctx.local_port(), u32::from_be(ctx.remote_port()));
    if ctx.family() == AF_INET {
        stats.local = Endpoint::v4(ctx.local_ip4(), local_port);
        stats.remote = Endpoint::v4(ctx.remote_ip4(), remote_port);
    } else {
        stats.local = Endpoint { ip6: ctx.local_ip6(), port: local_port };
        stats.remote = Endpoint { ip6: ctx.remote_ip6(), port: remote_port };
    }
}

/// Writes what the kernel measures.
#[inline(always)]
pub(super) fn refresh(stats: &mut ConnectionStats, ctx: &impl SockOps, now_ns: u64) {
    stats.last_update_ns = now_ns;
    stats.srtt_us = srtt_us(ctx);
    stats.min_rtt_us = match ctx.rtt_min() {
        u32::MAX => 0,
        measured => measured,
    };
    stats.snd_cwnd = ctx.snd_cwnd();
    stats.snd_ssthresh = ctx.snd_ssthresh();
    stats.mss = ctx.mss_cache();
    stats.packets_out = ctx.packets_out();
    stats.retrans_out = ctx.retrans_out();
    stats.total_retrans = ctx.total_retrans();
    stats.lost_out = ctx.lost_out();
    stats.sacked_out = ctx.sacked_out();
    stats.rate_delivered = ctx.rate_delivered();
    stats.rate_interval_us = ctx.rate_interval_us();
    stats.data_segs_out = ctx.data_segs_out();
    stats.bytes_acked = ctx.bytes_acked();
    stats.bytes_received = ctx.bytes_received();
    stats.state = ctx.state();
}

/// The RTT callback runs before the kernel stores the new value; where it is passed along, it is the fresher one.
#[inline(always)]
fn srtt_us(ctx: &impl SockOps) -> u32 {
    let passed = if ctx.op() == op::RTT { ctx.arg1() } else { 0 };
    (if passed != 0 { passed } else { ctx.srtt_us() }) >> 3
}
