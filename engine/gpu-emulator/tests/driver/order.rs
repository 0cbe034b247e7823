//! Operations of several streams with nothing to order them: told even where they ran in the right order.

use cudarc::driver::sys::{CUresult, CUstream};
use tokenflow_gpu_emulator::Progress;

use crate::{
    card::{Args, Card, Result},
    process::alone,
};

fn unordered(name: &str, first: impl Fn(&Card, u64, CUstream) -> Result, second: impl Fn(&Card, u64, CUstream) -> Result) {
    alone(name, || {
        let card = Card::open(Progress::Eager);
        let (one, other) = (card.stream(), card.stream());
        let memory = card.allocate(4096).unwrap();
        card.fill(memory, 0, 4096, one).unwrap();
        card.wait(one).unwrap();
        first(&card, memory, one).unwrap();
        assert_eq!(second(&card, memory, other), Err(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        card.has_told("nothing orders the two");
        card.has_told("of buffer 1 of 4096 bytes");
        assert_eq!(card.wait(one), Err(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS), "the error stays");
        assert!(card.allocate(16).is_err());
    });
}

fn read(card: &Card, memory: u64, stream: CUstream) -> Result {
    let to = card.allocate(16)?;
    card.on_device(to, memory + 64, 16, stream)
}

fn write(card: &Card, memory: u64, stream: CUstream) -> Result {
    card.fill(memory, 1, 128, stream)
}

fn write_by_kernel(card: &Card, memory: u64, stream: CUstream) -> Result {
    let from = card.allocate(256)?;
    let add = card.function(c"add")?;
    card.launch(add, [1, 1, 1], 64, 0, Args { to: memory, from, count: 64, value: 0 }, stream)
}

#[test]
fn write_and_write() {
    unordered("order::write_and_write", write, write);
}

#[test]
fn write_and_read() {
    unordered("order::write_and_read", write, read);
}

#[test]
fn read_and_write() {
    unordered("order::read_and_write", read, write);
}

#[test]
fn kernel_and_copy() {
    unordered("order::kernel_and_copy", write_by_kernel, read);
}

#[test]
fn copy_and_kernel() {
    unordered("order::copy_and_kernel", read, write_by_kernel);
}

/// The first reader is remembered when another one has read the same after it.
#[test]
fn a_writer_that_waits_for_one_of_two_readers() {
    alone("order::a_writer_that_waits_for_one_of_two_readers", || {
        let card = Card::open(Progress::Eager);
        let (one, other, writer, event) = (card.stream(), card.stream(), card.stream(), card.event());
        let memory = card.allocate(4096).unwrap();
        card.fill(memory, 0, 4096, one).unwrap();
        card.wait(one).unwrap();
        read(&card, memory, one).unwrap();
        read(&card, memory, other).unwrap();
        card.record(event, other).unwrap();
        card.wait_on_stream(writer, event).unwrap();
        card.fill(memory, 0, 64, writer).unwrap();
        assert_eq!(card.fill(memory + 64, 0, 1, writer), Err(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        card.has_told("on stream 0 reads");
    });
}

#[test]
fn neighbours_are_no_conflict() {
    alone("order::neighbours_are_no_conflict", || {
        let card = Card::open(Progress::Mixed);
        let (one, other) = (card.stream(), card.stream());
        let memory = card.allocate(4096).unwrap();
        for i in 0..100 {
            card.fill(memory + 2 * i, 0, 1, one).unwrap();
            card.fill(memory + 2 * i + 1, 0, 1, other).unwrap();
        }
        card.wait(one).unwrap();
        card.wait(other).unwrap();
        card.fill(memory, 0, 4096, one).unwrap();
        card.wait(one).unwrap();
    });
}

/// What the host has waited for comes before all that it issues then.
#[test]
fn the_host_orders() {
    alone("order::the_host_orders", || {
        let card = Card::open(Progress::Mixed);
        let (one, other, event) = (card.stream(), card.stream(), card.event());
        let memory = card.allocate(4096).unwrap();
        write(&card, memory, one).unwrap();
        card.record(event, one).unwrap();
        card.wait_for_event(event).unwrap();
        write(&card, memory, other).unwrap();
        card.wait(other).unwrap();
    });
}
