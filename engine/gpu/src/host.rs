//! The host's memory, for the message when there is not enough of it to pin.

use crate::MemoryInfo;

pub(crate) fn memory() -> MemoryInfo {
    // SAFETY: plain numbers, which the call fills.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe { libc::sysinfo(&mut info) };
    let unit = info.mem_unit as usize;
    MemoryInfo { free: info.freeram as usize * unit, total: info.totalram as usize * unit }
}
