//! Pinned memory that copies work with while the host goes on.

use cudarc::driver::sys::CUresult;
use tokenflow_gpu_emulator::Progress;

use crate::{
    card::Card,
    process::{aborts, alone},
};

#[test]
fn written_while_it_is_read() {
    aborts(
        "pinned::written_while_it_is_read",
        "byte 8 of 100 of pinned memory, which operation 1 of stream 0 (copy to the device) is to read",
        || {
            let card = Card::open(Progress::Eager);
            let (memory, host, stream) = (card.allocate(100).unwrap(), card.pinned(100), card.stream());
            // SAFETY: pinned memory of that length; the second write is the mistake.
            unsafe {
                host.add(8).write_volatile(1);
                card.to_device(memory, host, 100, stream).unwrap();
                assert_eq!(host.add(8).read_volatile(), 1, "to read is allowed");
                host.add(8).write_volatile(2);
            }
        },
    );
}

#[test]
fn read_while_it_is_written() {
    aborts("pinned::read_while_it_is_written", "(copy to the host) is to write; nobody has waited for it", || {
        let card = Card::open(Progress::Mixed);
        let (memory, host, stream) = (card.allocate(100).unwrap(), card.pinned(100), card.stream());
        card.fill(memory, 1, 100, stream).unwrap();
        card.to_host(host, memory, 100, stream).unwrap();
        // SAFETY: pinned memory of that length; this is the mistake.
        unsafe { host.add(8).read_volatile() };
    });
}

/// An event behind the first of two copies says nothing of the second.
#[test]
fn waited_for_another_copy() {
    aborts("pinned::waited_for_another_copy", "byte 60 of 100", || {
        let card = Card::open(Progress::Mixed);
        let (memory, host, stream, event) = (card.allocate(100).unwrap(), card.pinned(100), card.stream(), card.event());
        card.fill(memory, 1, 100, stream).unwrap();
        card.to_host(host, memory, 50, stream).unwrap();
        card.record(event, stream).unwrap();
        // SAFETY: pinned memory of that length; the last read is the mistake.
        unsafe {
            card.to_host(host.add(50), memory, 50, stream).unwrap();
            card.wait_for_event(event).unwrap();
            assert_eq!(host.add(30).read_volatile(), 1);
            host.add(60).read_volatile();
        }
    });
}

/// A page is protected as a whole, but only what is under way is refused.
#[test]
fn neighbours_may_be_used() {
    alone("pinned::neighbours_may_be_used", || {
        let card = Card::open(Progress::Lazy);
        let (memory, host, stream) = (card.allocate(8192).unwrap(), card.pinned(8192), card.stream());
        card.fill(memory, 3, 8192, stream).unwrap();
        // SAFETY: pinned memory of that length, and only what is not under way is touched before the wait.
        unsafe {
            card.to_host(host.add(1000), memory, 100, stream).unwrap();
            card.to_host(host.add(4000), memory, 200, stream).unwrap();
            host.write_bytes(9, 1000);
            host.add(1100).cast::<u64>().write_unaligned(0x0909_0909_0909_0909);
            assert_eq!(host.add(999).read_volatile(), 9);
            std::ptr::copy_nonoverlapping(host.add(1), host.add(2000), 900);
            assert_eq!(host.add(2899).read_volatile(), 9);
            assert_eq!(card.free_pinned(host), Err(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        }
        card.has_told("pinned memory is freed while operation 2");
    });
}

#[test]
fn two_copies_of_two_streams() {
    alone("pinned::two_copies_of_two_streams", || {
        let card = Card::open(Progress::Eager);
        let (memory, host, one, other) = (card.allocate(8192).unwrap(), card.pinned(4096), card.stream(), card.stream());
        card.to_device(memory, host, 64, one).unwrap();
        card.to_device(memory + 4096, host, 64, other).unwrap();
        card.wait(other).unwrap();
        assert_eq!(card.to_host(host, memory + 4096, 64, other), Err(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        card.has_told("writes pinned memory that operation 1 of stream 0 (copy to the device) works with");
    });
}

#[test]
fn beyond_the_end() {
    alone("pinned::beyond_the_end", || {
        let card = Card::open(Progress::Eager);
        let (memory, host, stream) = (card.allocate(200).unwrap(), card.pinned(100), card.stream());
        assert_eq!(card.to_device(memory, host, 101, stream), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        card.has_told("beyond the end of pinned memory");
        card.to_device(memory, host, 100, stream).unwrap();
        assert_eq!(card.fill(memory + 100, 0, 101, stream), Err(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        card.has_told("beyond the end, in global memory, byte 100 of buffer 1 of 200 bytes");
    });
}
