//! Threads that must wake on time on a busy machine: relays of packets, probes, readers whose clock is a measurement.

/// Asks the kernel to prefer this thread over ordinary ones. Without the privilege it stays as it is.
pub fn prefer_this_thread() {
    let parameters = libc::sched_param { sched_priority: 10 };
    // SAFETY: sched_setscheduler(2) on the calling thread with a valid parameter block.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameters) };
}
