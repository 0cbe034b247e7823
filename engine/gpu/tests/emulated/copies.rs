//! Copies, streams and events.

use std::thread;

use crate::card::{download, on_each, upload};

#[test]
fn operations_of_a_stream_run_in_order() {
    on_each(|gpu, _| {
        let stream = gpu.stream().unwrap();
        let values: Vec<u32> = (0..1000).collect();
        let a = upload(gpu, &stream, &values);
        let b = gpu.allocate(a.bytes()).unwrap();
        // SAFETY: both are as long, and outlive the wait.
        unsafe {
            stream.fill(b.start(), 0xab, b.bytes()).unwrap();
            stream.copy_on_device(b.start(), a.start(), 400).unwrap();
            stream.fill(a.start(), 7, 40).unwrap();
        }
        let copied: Vec<u32> = download(gpu, &stream, &b);
        assert!(copied[..100] == values[..100] && copied[100..].iter().all(|&v| v == 0xabab_abab));
        let filled: Vec<u32> = download(gpu, &stream, &a);
        assert!(filled[..10] == [0x0707_0707; 10] && filled[10..] == values[10..]);
    });
}

#[test]
fn a_stream_waits_for_another_ones_event() {
    on_each(|gpu, _| {
        let (first, second) = (gpu.stream().unwrap(), gpu.stream().unwrap());
        let (event, read) = (gpu.event().unwrap(), gpu.event().unwrap());
        let memory = gpu.allocate(4096).unwrap();
        let copy = gpu.allocate(4096).unwrap();
        for byte in 1..20_u8 {
            // SAFETY: in bounds; the second stream reads after the first wrote, and before it writes again.
            unsafe {
                first.fill(memory.start(), byte, 4096).unwrap();
                first.record(&event).unwrap();
                second.wait_for(&event).unwrap();
                second.copy_on_device(copy.start(), memory.start(), 4096).unwrap();
                second.record(&read).unwrap();
                first.wait_for(&read).unwrap();
            }
        }
        read.wait().unwrap();
        assert!(read.is_reached().unwrap() && event.is_reached().unwrap());
        assert_eq!(download::<u8>(gpu, &second, &copy), [19; 4096]);
        first.wait().unwrap();
    });
}

#[test]
fn time_passes_between_timed_events_only() {
    on_each(|gpu, _| {
        let stream = gpu.stream().unwrap();
        let memory = gpu.allocate(1 << 20).unwrap();
        let (start, end) = (gpu.timed_event().unwrap(), gpu.timed_event().unwrap());
        stream.record(&start).unwrap();
        // SAFETY: in bounds, and waited for.
        unsafe { stream.fill(memory.start(), 1, memory.bytes()).unwrap() };
        stream.record(&end).unwrap();
        end.wait().unwrap();
        let seconds = end.seconds_since(&start).unwrap();
        assert!((0.0..60.0).contains(&seconds), "{seconds}");
        let untimed = gpu.event().unwrap();
        stream.record(&untimed).unwrap();
        untimed.wait().unwrap();
        let error = untimed.seconds_since(&start).unwrap_err().to_string();
        assert!(error.contains("EventElapsedTime failed: "), "{error}");
    });
}

#[test]
fn threads_have_a_card_in_common() {
    on_each(|gpu, _| {
        thread::scope(|scope| {
            for byte in 1..5_u8 {
                scope.spawn(move || {
                    let stream = gpu.stream().unwrap();
                    let memory = gpu.allocate(10_000).unwrap();
                    // SAFETY: in bounds, and waited for.
                    unsafe { stream.fill(memory.start(), byte, memory.bytes()).unwrap() };
                    assert_eq!(download::<u8>(gpu, &stream, &memory), [byte; 10_000]);
                });
            }
        });
    });
}
