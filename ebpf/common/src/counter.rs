/// What the program could not do, counted per CPU; the discriminant is the index in the counters' array.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// A connection is not tracked because the map refused it.
    MapFull = 0,
    /// An event was dropped because nobody read the ring in time.
    RingFull = 1,
    /// A connection is not tracked because the kernel refused its callbacks.
    CallbacksRefused = 2,
}

impl Counter {
    pub const ALL: [Self; 3] = [Self::MapFull, Self::RingFull, Self::CallbacksRefused];
}
