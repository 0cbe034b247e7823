//! What the kernel program does at each callback of a TCP connection: track it, refresh it, tell of its losses, forget it.
//!
//! The logic sees a connection as [`SockOps`] and everything else as [`Host`], so that it runs unchanged on the host with a mock of both.

mod snapshot;
#[cfg(test)]
mod tests;
mod traits;

pub use traits::{Host, SockOps, op, state};

use crate::{ConnectionStats, Counter, Event, EventKind};

/// Handles one callback. The callbacks that a socket asks for are shared by all attached programs, so those of unwatched connections come
/// here too where another program wants them; every place that starts an entry checks the port.
#[inline(always)]
pub fn handle(ctx: &impl SockOps, host: &mut impl Host) {
    match ctx.op() {
        op::ACTIVE_ESTABLISHED | op::PASSIVE_ESTABLISHED => established(ctx, host),
        op::RTT => rtt_measured(ctx, host),
        op::RETRANS => retransmitted(ctx, host),
        op::RTO => timed_out(ctx, host),
        op::STATE => state_changed(ctx, host),
        _ => {}
    }
}

#[inline(always)]
fn established(ctx: &impl SockOps, host: &mut impl Host) {
    if !host.watches(ctx.local_port()) {
        return;
    }
    let cookie = ctx.cookie();
    if let Err(error) = ctx.enable_callbacks() {
        return host.refused(Counter::CallbacksRefused, cookie, error);
    }
    let now_ns = host.now_ns();
    if track(ctx, host, cookie, now_ns) {
        emit(host, Event::new(EventKind::Established, cookie, now_ns, ctx.local_port()));
    }
}

#[inline(always)]
fn rtt_measured(ctx: &impl SockOps, host: &mut impl Host) {
    let (cookie, now_ns) = (ctx.cookie(), host.now_ns());
    let interval_ns = host.update_interval_ns();
    match host.entry(cookie) {
        Some(stats) if now_ns.wrapping_sub(stats.last_update_ns) < interval_ns => {}
        Some(stats) => snapshot::refresh(stats, ctx, now_ns),
        None => _ = track(ctx, host, cookie, now_ns),
    }
}

#[inline(always)]
fn retransmitted(ctx: &impl SockOps, host: &mut impl Host) {
    let (cookie, now_ns) = (ctx.cookie(), host.now_ns());
    let (update_ns, event_ns) = (host.update_interval_ns(), host.event_interval_ns());
    let Some(stats) = host.entry(cookie) else {
        _ = track(ctx, host, cookie, now_ns);
        return;
    };
    stats.retransmit_events = stats.retransmit_events.wrapping_add(1);
    stats.total_retrans = ctx.total_retrans();
    if now_ns.wrapping_sub(stats.last_update_ns) >= update_ns {
        snapshot::refresh(stats, ctx, now_ns);
    }
    if now_ns.wrapping_sub(stats.last_retransmit_event_ns) < event_ns {
        return;
    }
    stats.last_retransmit_event_ns = now_ns;
    let total_retrans = stats.total_retrans;
    emit(host, Event::new(EventKind::Retransmit, cookie, now_ns, total_retrans));
}

/// Timeouts back off exponentially, so their events need no limit.
#[inline(always)]
fn timed_out(ctx: &impl SockOps, host: &mut impl Host) {
    let (cookie, now_ns) = (ctx.cookie(), host.now_ns());
    if host.entry(cookie).is_none() && !track(ctx, host, cookie, now_ns) {
        return;
    }
    let Some(stats) = host.entry(cookie) else { return };
    stats.rto_count = stats.rto_count.wrapping_add(1);
    snapshot::refresh(stats, ctx, now_ns);
    let rto_count = stats.rto_count;
    emit(host, Event::new(EventKind::Rto, cookie, now_ns, rto_count));
}

#[inline(always)]
fn state_changed(ctx: &impl SockOps, host: &mut impl Host) {
    let (cookie, now_ns) = (ctx.cookie(), host.now_ns());
    let (old_state, new_state) = (ctx.arg0(), ctx.arg1());
    if new_state != state::CLOSE {
        if let Some(stats) = host.entry(cookie) {
            stats.state = new_state;
        }
        return;
    }
    if host.remove(cookie) {
        emit(host, Event::new(EventKind::Closed, cookie, now_ns, old_state));
    }
}

/// Starts an entry, also for a connection that comes back after the map dropped it as least recently used; false where there is none.
#[inline(always)]
fn track(ctx: &impl SockOps, host: &mut impl Host, cookie: u64, now_ns: u64) -> bool {
    if !host.watches(ctx.local_port()) {
        return false;
    }
    let mut stats = ConnectionStats { cookie, created_ns: now_ns, ..Default::default() };
    snapshot::identify(&mut stats, ctx);
    snapshot::refresh(&mut stats, ctx, now_ns);
    match host.insert(&stats) {
        Ok(()) => true,
        Err(error) => {
            host.refused(Counter::MapFull, cookie, error);
            false
        }
    }
}

#[inline(always)]
fn emit(host: &mut impl Host, event: Event) {
    if !host.emit(&event) {
        host.count(Counter::RingFull);
    }
}
