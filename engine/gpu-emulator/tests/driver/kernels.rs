//! Modules, launches, and what kernels do wrong.

use std::ffi::CStr;

use cudarc::driver::sys::{self, CUresult};
use tokenflow_gpu_emulator::{Progress, kernel_sources};

use crate::{
    card::{Args, Card, Result, compile, options},
    process::alone,
};

const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;

/// Launches a kernel on buffers of 256 words.
fn launch(card: &Card, name: &CStr, blocks: [u32; 3], threads: u32, dynamic: u32, value: u32) -> Result {
    let (function, stream) = (card.function(name)?, card.stream());
    let (from, to) = (card.allocate(1024)?, card.allocate(1024)?);
    card.launch(function, blocks, threads, dynamic, Args { to, from, count: 256, value }, stream)?;
    card.wait(stream)
}

fn wrong(name: &str, kernel: &CStr, blocks: u32, threads: u32, value: u32, words: &str) {
    alone(name, || {
        let card = Card::open(Progress::Mixed);
        assert_eq!(launch(&card, kernel, [blocks, 1, 1], threads, 1024, value), Err(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        card.has_told(words);
        card.has_told(&format!("{} (operation 1 of stream 0)", kernel.to_str().unwrap()));
    });
}

#[test]
fn out_of_bounds() {
    wrong("kernels::out_of_bounds", c"add_all", 2, 256, 0, "out of bounds of every buffer, in global memory");
}

#[test]
fn race_of_threads() {
    wrong("kernels::race_of_threads", c"same_place", 1, 64, 0, "writes what thread");
}

#[test]
fn race_of_blocks() {
    wrong("kernels::race_of_blocks", c"same_place_of_blocks", 2, 64, 0, "a thread of another block wrote");
}

#[test]
fn barrier_left_out() {
    wrong("kernels::barrier_left_out", c"neighbours", 1, 256, 1, "nobody has written");
}

#[test]
fn barrier_in_place() {
    alone("kernels::barrier_in_place", || {
        let card = Card::open(Progress::Mixed);
        assert_eq!(launch(&card, c"neighbours", [1, 1, 1], 256, 1024, 0), Ok(()));
    });
}

#[test]
fn shared_memory_that_nobody_has_written() {
    wrong("kernels::shared_memory_that_nobody_has_written", c"unwritten", 1, 64, 0, "nobody has written");
}

#[test]
fn barrier_that_some_miss() {
    wrong("kernels::barrier_that_some_miss", c"half_barrier", 1, 128, 0, "divergence");
}

#[test]
fn limits_of_a_launch() {
    alone("kernels::limits_of_a_launch", || {
        let card = Card::open(Progress::Mixed);
        let try_out = |blocks, threads, dynamic| launch(&card, c"add", blocks, threads, dynamic, 0);
        assert_eq!(try_out([1, 1, 1], 1056, 0), Err(INVALID));
        assert_eq!(try_out([1, 1, 1], 0, 0), Err(INVALID));
        assert_eq!(try_out([1, 1, 1], 288, 0), Err(CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES));
        card.has_told("launch of add: a block of 288 threads, where the kernel is made for 256");
        assert_eq!(try_out([0, 1, 1], 256, 0), Err(INVALID));
        assert_eq!(try_out([1, 65536, 1], 256, 0), Err(INVALID));
        assert_eq!(try_out([1, 1, 65536], 256, 0), Err(INVALID));
        assert_eq!(try_out([1, 1, 1], 256, 49153), Err(INVALID));
        card.has_told("49153 bytes of dynamic shared memory, where 49152 are allowed");
        assert_eq!(try_out([1, 1, 1], 256, 49152), Ok(()));
    });
}

/// Launches `add` with more shared memory, after `attribute` bytes were allowed.
#[test]
fn shared_memory_above_48_kb() {
    alone("kernels::shared_memory_above_48_kb", || {
        let card = Card::open(Progress::Mixed);
        let (function, stream, memory) = (card.function(c"add").unwrap(), card.stream(), card.allocate(16).unwrap());
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let args = Args { to: memory, from: memory, count: 0, value: 0 };
        // SAFETY: the function is alive.
        unsafe {
            assert_eq!(sys::cuFuncSetAttribute(function, attribute, 228 << 10), INVALID);
            assert_eq!(sys::cuFuncSetAttribute(function, attribute, 227 << 10), CUresult::CUDA_SUCCESS);
        }
        card.launch(function, [1, 1, 1], 64, 227 << 10, args, stream).unwrap();
        card.wait(stream).unwrap();
    });
}

#[test]
fn arguments_of_another_size() {
    alone("kernels::arguments_of_another_size", || {
        let card = Card::open(Progress::Mixed);
        let (function, stream) = (card.function(c"add").unwrap(), card.stream());
        let (mut args, mut bytes) = ([0_u8; 32], 32_usize);
        let word = std::ptr::without_provenance_mut;
        let mut extra = [word(1), (&raw mut args).cast(), word(2), (&raw mut bytes).cast(), std::ptr::null_mut()];
        let none = std::ptr::null_mut();
        // SAFETY: the argument is as long as it is said to be.
        let result = unsafe { sys::cuLaunchKernel(function, 1, 1, 1, 64, 1, 1, 0, stream, none, extra.as_mut_ptr()) };
        assert_eq!(result, INVALID);
        card.has_told("arguments of 32 bytes, where the kernel takes 24");
    });
}

#[test]
fn the_compiler_has_only_what_was_compiled() {
    alone("kernels::the_compiler_has_only_what_was_compiled", || {
        let card = Card::open(Progress::Mixed);
        let text = std::fs::read_to_string(options(Progress::Mixed).kernels.unwrap().join("simple.cu")).unwrap();
        let header = &kernel_sources()["device.cuh"];
        assert!(compile(&text, header).is_ok());
        assert!(compile(&(text.clone() + " "), header).unwrap_err().contains("no kernels of this text"));
        assert!(compile(&text, &(header.clone() + " ")).unwrap_err().contains("another text of device.cuh"));
        assert_eq!(card.function(c"no_such_kernel"), Err(CUresult::CUDA_ERROR_NOT_FOUND));
        let mut module = std::ptr::null_mut();
        // SAFETY: a text with its end.
        let result = unsafe { sys::cuModuleLoadData(&mut module, c"\x7fELF".as_ptr().cast()) };
        assert_eq!(result, CUresult::CUDA_ERROR_INVALID_IMAGE);
    });
}
