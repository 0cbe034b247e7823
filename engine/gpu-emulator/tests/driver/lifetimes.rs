//! Memory and handles that are used too late, and contexts that are missing.

use cudarc::driver::sys::{self, CUresult};
use tokenflow_gpu_emulator::Progress;

use crate::{
    card::{Args, Card},
    process::alone,
};

const ILLEGAL: CUresult = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;

#[test]
fn use_after_free() {
    alone("lifetimes::use_after_free", || {
        let card = Card::open(Progress::Eager);
        let stream = card.stream();
        let (from, to) = (card.allocate(256).unwrap(), card.allocate(256).unwrap());
        card.free(from).unwrap();
        let add = card.function(c"add").unwrap();
        let args = Args { to, from, count: 64, value: 0 };
        assert_eq!(card.launch(add, [1, 1, 1], 64, 0, args, stream), Err(ILLEGAL));
        card.has_told("add (operation 1 of stream 0): read after free, in global memory, byte ");
        card.has_told("of buffer 1 of 256 bytes");
    });
}

#[test]
fn frees_that_are_wrong() {
    alone("lifetimes::frees_that_are_wrong", || {
        let card = Card::open(Progress::Eager);
        let memory = card.allocate(256).unwrap();
        assert_eq!(card.free(memory + 16), Err(INVALID));
        card.has_told("not a buffer's first");
        card.free(memory).unwrap();
        assert_eq!(card.free(memory), Err(INVALID));
        card.has_told("freed twice");
        assert_eq!(card.free(12345), Err(INVALID));
        card.has_told("never allocated");
    });
}

#[test]
fn freed_while_work_is_pending() {
    alone("lifetimes::freed_while_work_is_pending", || {
        let card = Card::open(Progress::Lazy);
        let stream = card.stream();
        let (from, to) = (card.allocate(256).unwrap(), card.allocate(256).unwrap());
        card.fill(from, 0, 256, stream).unwrap();
        let add = card.function(c"add").unwrap();
        card.launch(add, [1, 1, 1], 64, 0, Args { to, from, count: 64, value: 0 }, stream).unwrap();
        assert_eq!(card.free(to), Err(ILLEGAL));
        card.has_told("freed while add (operation 2 of stream 0) has yet to work with it");
    });
}

#[test]
fn freed_before_anybody_waited() {
    alone("lifetimes::freed_before_anybody_waited", || {
        let card = Card::open(Progress::Eager);
        let stream = card.stream();
        let memory = card.allocate(256).unwrap();
        card.fill(memory, 0, 256, stream).unwrap();
        assert_eq!(card.free(memory), Err(ILLEGAL));
        card.has_told("for which nobody has waited");
    });
}

#[test]
fn buffers_that_are_left() {
    alone("lifetimes::buffers_that_are_left", || {
        let card = Card::open(Progress::Eager);
        let memory = card.allocate(100).unwrap();
        card.allocate(200).unwrap();
        card.free(memory).unwrap();
        // SAFETY: retained once.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(0) };
        card.has_told("still allocated when the context is destroyed: buffer 2 of 200 bytes");
        assert_eq!(card.emulated.counters().errors, 1);
    });
}

#[test]
fn handles_that_are_gone() {
    alone("lifetimes::handles_that_are_gone", || {
        let card = Card::open(Progress::Mixed);
        let (stream, event) = (card.stream(), card.event());
        // SAFETY: both are alive.
        unsafe {
            sys::cuEventDestroy_v2(event);
            sys::cuStreamDestroy_v2(stream);
        }
        assert_eq!(card.wait(stream), Err(CUresult::CUDA_ERROR_INVALID_HANDLE));
        assert_eq!(card.wait_for_event(event), Err(CUresult::CUDA_ERROR_INVALID_HANDLE));
        assert_eq!(card.wait(std::ptr::null_mut()), Err(CUresult::CUDA_ERROR_NOT_SUPPORTED));
        card.has_told("every operation must name its stream");
    });
}

#[test]
fn a_thread_without_context() {
    alone("lifetimes::a_thread_without_context", || {
        let card = Card::open(Progress::Mixed);
        let result = std::thread::scope(|scope| scope.spawn(|| card.allocate(16)).join().unwrap());
        assert_eq!(result, Err(CUresult::CUDA_ERROR_INVALID_CONTEXT));
    });
}
