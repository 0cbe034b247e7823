//! Graphs: recorded once, run often.

use crate::card::{download, on_each, upload};

#[test]
fn what_is_recorded_runs_when_it_is_replayed() {
    on_each(|gpu, emulated| {
        let stream = gpu.stream().unwrap();
        let memory = upload(gpu, &stream, &[1_u32; 100]);
        let other = upload(gpu, &stream, &[2_u32; 100]);
        // SAFETY: in bounds, alive until the last wait.
        let graph = stream.capture(|| unsafe {
            stream.fill(memory.start(), 0, 200)?;
            stream.copy_on_device(other.start(), memory.start(), 400)
        });
        let graph = graph.unwrap();
        assert_eq!(download::<u32>(gpu, &stream, &memory), [1; 100], "recorded is not run");
        assert_eq!(download::<u32>(gpu, &stream, &other), [2; 100]);

        emulated.reset_counters();
        for value in [3_u8, 4] {
            // SAFETY: as above.
            unsafe {
                stream.fill(memory.start(), value, 400).unwrap();
                stream.replay(&graph).unwrap();
            }
        }
        let counters = emulated.counters();
        assert_eq!((counters.graph_launches, counters.allocations, counters.stream_waits), (2, 0, 0));
        let copied = download::<u32>(gpu, &stream, &other);
        assert!(copied[..50] == [0; 50] && copied[50..] == [0x0404_0404; 50]);
    });
}

#[test]
fn what_cannot_be_recorded_ends_the_recording() {
    on_each(|gpu, _| {
        let stream = gpu.stream().unwrap();
        let memory = gpu.allocate(100).unwrap();
        assert!(stream.capture(|| gpu.allocate(100).map(drop)).is_err(), "allocations");
        assert!(stream.capture(|| stream.wait()).is_err(), "waits");
        // SAFETY: in bounds, and waited for.
        unsafe { stream.fill(memory.start(), 5, 100).unwrap() };
        assert_eq!(download::<u8>(gpu, &stream, &memory), [5; 100], "the stream works as before");
    });
}
