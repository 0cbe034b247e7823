//! How much waits at a bottleneck, asked of the kernel by rtnetlink: costs the link nothing, unlike a probe.

use std::{
    ffi::CString,
    fs::File,
    io::{Read, Write},
    os::fd::{FromRawFd, OwnedFd},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use socket2::SockRef;

/// A bottleneck's queue at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    pub bytes: u64,
    pub packets: u32,
    /// Since the link got its first rate.
    pub dropped: u32,
    /// How long a packet that comes now will wait, at the link's present rate.
    pub delay: Duration,
}

// linux/rtnetlink.h, linux/gen_stats.h
const RTM_GETQDISC: u16 = 38;
const RTM_NEWQDISC: u16 = 36;
const TCA_STATS2: u16 = 7;
const TCA_STATS_QUEUE: u16 = 3;
const HEADER: usize = 16;
const TCMSG: usize = 20;
/// `1:`, which the testbed gives its root queues.
const HANDLE: u32 = 0x0001_0000;

/// A netlink socket in the namespace of the thread that opened it, for one device there.
pub(super) struct QueueReader {
    device: i32,
    socket: Mutex<File>,
}

impl QueueReader {
    pub(super) fn open(device: &str) -> anyhow::Result<Self> {
        let name = CString::new(device)?;
        // SAFETY: if_nametoindex(3) with a string that outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        ensure!(index != 0, "there is no device {device}");
        // SAFETY: socket(2) has no preconditions.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
        ensure!(fd >= 0, "netlink: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        SockRef::from(&socket).set_read_timeout(Some(Duration::from_secs(1)))?;
        let socket = File::from(socket);
        Ok(Self { device: index as i32, socket: Mutex::new(socket) })
    }

    /// The device's root queue now; its `delay` is left at zero.
    pub(super) fn read(&self) -> anyhow::Result<QueueState> {
        let mut socket = self.socket.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut request = Vec::with_capacity(HEADER + TCMSG);
        request.extend(((HEADER + TCMSG) as u32).to_ne_bytes());
        request.extend(RTM_GETQDISC.to_ne_bytes());
        // Without the echo the answer goes to subscribers only.
        request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_ECHO) as u16).to_ne_bytes());
        request.extend([0; 8]);
        // struct tcmsg: family and padding, device, handle, parent, info
        request.extend([0; 4]);
        request.extend(self.device.to_ne_bytes());
        request.extend(HANDLE.to_ne_bytes());
        request.extend([0; 8]);
        socket.write_all(&request)?;
        let mut answer = vec![0; 8192];
        let length = socket.read(&mut answer)?;
        parse(&answer[..length])
    }
}

fn parse(message: &[u8]) -> anyhow::Result<QueueState> {
    let kind = message.get(4..6).map(u16_at).context("a netlink message was cut off")?;
    if kind != RTM_NEWQDISC {
        let code = message.get(HEADER..HEADER + 4).map_or(0, |bytes| u32_at(bytes) as i32);
        bail!("the kernel does not tell about the queue: {}", std::io::Error::from_raw_os_error(-code));
    }
    let attributes = message.get(HEADER + TCMSG..).context("a netlink message was cut off")?;
    let stats = attribute(attributes, TCA_STATS2).context("the queue has no statistics")?;
    // struct gnet_stats_queue: qlen, backlog, drops, requeues, overlimits
    let queue = attribute(stats, TCA_STATS_QUEUE).filter(|q| q.len() >= 12).context("the queue has no length")?;
    let field = |n: usize| u32_at(&queue[n * 4..n * 4 + 4]);
    Ok(QueueState { packets: field(0), bytes: field(1).into(), dropped: field(2), delay: Duration::ZERO })
}

/// The payload of the first attribute of a kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while attributes.len() >= 4 {
        let length = usize::from(u16_at(&attributes[0..2]));
        let payload = attributes.get(4..length)?;
        if u16_at(&attributes[2..4]) == wanted {
            return Some(payload);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn u16_at(bytes: &[u8]) -> u16 {
    u16::from_ne_bytes([bytes[0], bytes[1]])
}

fn u32_at(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_off_message_is_an_error() {
        let mut message = vec![0; HEADER + TCMSG];
        message[4..6].copy_from_slice(&RTM_NEWQDISC.to_ne_bytes());
        let queue: Vec<u8> = [3u32, 400, 5, 0, 0].iter().flat_map(|n| n.to_ne_bytes()).collect();
        let mut nested = Vec::new();
        push(&mut nested, TCA_STATS_QUEUE, &queue);
        push(&mut message, 1, b"tbf\0");
        push(&mut message, TCA_STATS2, &nested);
        let whole = QueueState { bytes: 400, packets: 3, dropped: 5, delay: Duration::ZERO };
        assert_eq!(parse(&message).unwrap(), whole);
        for cut in 0..message.len() {
            assert!(parse(&message[..cut]).is_err(), "cut at {cut}");
        }
    }

    fn push(to: &mut Vec<u8>, kind: u16, payload: &[u8]) {
        to.extend((payload.len() as u16 + 4).to_ne_bytes());
        to.extend(kind.to_ne_bytes());
        to.extend(payload);
        to.resize(to.len().next_multiple_of(4), 0);
    }
}
