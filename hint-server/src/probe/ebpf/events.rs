use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::maps::{Map, MapData, MapError, RingBuf};
use tokenflow_ebpf_common::Event;

/// What happened to connections, in order. Its descriptor is readable when there is something to [`Self::drain`].
pub struct EventRing(RingBuf<MapData>);

impl EventRing {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self(RingBuf::try_from(map)?))
    }

    /// Reads what is there without waiting; returns how many events there were.
    pub fn drain(&mut self, mut visit: impl FnMut(Event)) -> usize {
        let mut read = 0;
        while let Some(item) = self.0.next() {
            if let Some(event) = Event::from_bytes(&item) {
                visit(event);
                read += 1;
            }
        }
        read
    }
}

impl AsFd for EventRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for EventRing {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
