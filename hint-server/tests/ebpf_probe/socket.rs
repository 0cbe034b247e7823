//! What a process can learn of its own socket.

use std::{
    mem::{offset_of, size_of, zeroed},
    os::fd::AsRawFd,
};

/// `SO_COOKIE`.
pub fn cookie(socket: &impl AsRawFd) -> u64 {
    let mut cookie = 0;
    // SAFETY: the option is a u64.
    let length = unsafe { option(socket, libc::SOL_SOCKET, libc::SO_COOKIE, &mut cookie) };
    assert_eq!(length, size_of::<u64>());
    cookie
}

/// `TCP_INFO`; the fields that this kernel does not have are zero.
pub fn tcp_info(socket: &impl AsRawFd) -> libc::tcp_info {
    // SAFETY: integers only.
    let mut info = unsafe { zeroed() };
    // SAFETY: the kernel writes a prefix of the struct.
    let length = unsafe { option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info) };
    assert!(length >= offset_of!(libc::tcp_info, tcpi_delivery_rate), "older than Linux 4.6");
    info
}

/// Returns how many bytes the kernel wrote.
///
/// # Safety
///
/// The option must be a prefix of `T`, and any bytes there a value of `T`.
unsafe fn option<T>(socket: &impl AsRawFd, level: i32, name: i32, value: &mut T) -> usize {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes into `value`.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut *value).cast(), &raw mut length) };
    assert_eq!(result, 0, "getsockopt {level} {name}: {}", std::io::Error::last_os_error());
    length as usize
}
