//! Uses that are right, in every order that the emulator can choose.

use std::slice::from_raw_parts_mut;

use cudarc::driver::sys::CUresult;
use tokenflow_gpu_emulator::Progress;

use crate::{
    card::{Args, Card},
    process::alone,
};

fn copies_and_kernels(progress: Progress) {
    let card = Card::open(progress);
    let add = card.function(c"add").unwrap();
    let stream = card.stream();
    let count = 1000_u32;
    let bytes = count as usize * 4;
    let (from, to) = (card.allocate(bytes).unwrap(), card.allocate(bytes).unwrap());
    let (input, output) = (card.pinned(bytes), card.pinned(bytes));
    // SAFETY: pinned memory of that many words.
    let words = unsafe { from_raw_parts_mut(input.cast::<u32>(), count as usize) };
    words.iter_mut().enumerate().for_each(|(i, word)| *word = i as u32);
    card.to_device(from, input, bytes, stream).unwrap();
    card.launch(add, [4, 1, 1], 256, 0, Args { to, from, count, value: 7 }, stream).unwrap();
    card.to_host(output, to, bytes, stream).unwrap();
    card.wait(stream).unwrap();
    // SAFETY: as above, and the copy is complete.
    let words = unsafe { from_raw_parts_mut(output.cast::<u32>(), count as usize) };
    assert!(words.iter().enumerate().all(|(i, &word)| word == i as u32 + 7));
    card.free(from).unwrap();
    card.free(to).unwrap();
    card.free_pinned(input).unwrap();
    card.free_pinned(output).unwrap();
    let counters = card.emulated.counters();
    assert_eq!((counters.copies, counters.launches, counters.stream_waits, counters.errors), (2, 1, 1, 0));
    assert_eq!((counters.allocations, counters.frees, counters.bytes_in_use, counters.peak_bytes), (2, 2, 0, 8000));
    card.emulated.reset_counters();
    assert_eq!(card.emulated.counters(), Default::default());
}

#[test]
fn eager() {
    alone("right::eager", || copies_and_kernels(Progress::Eager));
}

#[test]
fn lazy() {
    alone("right::lazy", || copies_and_kernels(Progress::Lazy));
}

#[test]
fn mixed() {
    alone("right::mixed", || copies_and_kernels(Progress::Mixed));
}

#[test]
fn an_event_orders_two_streams() {
    alone("right::an_event_orders_two_streams", || {
        let card = Card::open(Progress::Mixed);
        let (first, second, event) = (card.stream(), card.stream(), card.event());
        let memory = card.allocate(4096).unwrap();
        let output = card.pinned(4096);
        for round in 0..50 {
            card.fill(memory, round, 4096, first).unwrap();
            card.record(event, first).unwrap();
            card.wait_on_stream(second, event).unwrap();
            card.to_host(output, memory, 4096, second).unwrap();
            card.record(event, second).unwrap();
            card.wait_for_event(event).unwrap();
            // SAFETY: the copy is complete.
            assert_eq!(unsafe { (output.read(), output.add(4095).read()) }, (round, round));
        }
        assert_eq!(card.emulated.counters().event_waits, 50);
    });
}

#[test]
fn what_nobody_waits_for_may_be_late() {
    alone("right::what_nobody_waits_for_may_be_late", || {
        let card = Card::open(Progress::Lazy);
        let (stream, event) = (card.stream(), card.event());
        let memory = card.allocate(16).unwrap();
        (0..8).for_each(|i| card.fill(memory, i, 16, stream).unwrap());
        card.record(event, stream).unwrap();
        let mut asked = 1;
        while let Err(status) = card.query(event) {
            assert_eq!(status, CUresult::CUDA_ERROR_NOT_READY);
            asked += 1;
        }
        assert!(asked > 8, "one operation at most each time");
        card.free(memory).unwrap();
    });
}

#[test]
fn memory_that_is_not_pinned_is_staged() {
    alone("right::memory_that_is_not_pinned_is_staged", || {
        let card = Card::open(Progress::Lazy);
        let stream = card.stream();
        let memory = card.allocate(100).unwrap();
        let mut bytes = [1_u8; 100];
        card.to_device(memory, bytes.as_ptr(), 100, stream).unwrap();
        bytes.fill(2);
        let mut back = vec![0_u8; 100];
        card.to_host(back.as_mut_ptr(), memory, 100, stream).unwrap();
        assert_eq!(back, [1; 100]);
    });
}

#[test]
fn memory_is_as_large_as_it_was_said_to_be() {
    alone("right::memory_is_as_large_as_it_was_said_to_be", || {
        let card = Card::open(Progress::Mixed);
        assert_eq!(card.allocate((64 << 20) + 1), Err(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        let most = card.allocate(63 << 20).unwrap();
        assert_eq!(card.allocate(2 << 20), Err(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        card.free(most).unwrap();
        let less = card.allocate(2 << 20).unwrap();
        card.emulated.limit_memory(1 << 20);
        assert_eq!(card.allocate(1), Err(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        card.free(less).unwrap();
        assert_eq!(card.emulated.counters().errors, 0, "to be short of memory is no mistake");
    });
}
