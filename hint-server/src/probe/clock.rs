//! Clocks that the standard library does not have.

use std::time::Duration;

/// `CLOCK_MONOTONIC`: the clock of the kernel program.
pub fn monotonic() -> Duration {
    read(libc::CLOCK_MONOTONIC)
}

/// What this thread has spent on a processor, in the kernel too; it stands still while others run.
pub fn thread_cpu() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for what the call writes.
    let result = unsafe { libc::clock_gettime(clock, &raw mut now) };
    assert_eq!(result, 0, "both clocks always exist");
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_costs_no_processor_time() {
        let (wall, cpu) = (monotonic(), thread_cpu());
        std::thread::sleep(Duration::from_millis(50));
        assert!(monotonic() - wall >= Duration::from_millis(50));
        assert!(thread_cpu() - cpu < Duration::from_millis(40));
    }
}
