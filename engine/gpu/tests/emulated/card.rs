//! Emulated cards, and what tests read and write there.

use std::path::Path;

use bytemuck::Pod;
use parking_lot::Mutex;
use tokenflow_gpu::{DeviceChoice, DeviceMemory, Gpu, Stream};
use tokenflow_gpu_emulator::{Emulated, Options, install};

/// Calls `test` with a card of each vendor; one test at a time, since what the emulator counts is of the whole process.
pub fn on_each(test: impl Fn(&Gpu, &'static Emulated)) {
    on_nvidia(&test);
    on(&Options::amd(), DeviceChoice::Rocm(Some(0)), &test);
}

pub fn on_nvidia(test: impl Fn(&Gpu, &'static Emulated)) {
    on(&Options::nvidia(), DeviceChoice::Cuda(Some(0)), test);
}

fn on(options: &Options, choice: DeviceChoice, test: impl Fn(&Gpu, &'static Emulated)) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock();
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels");
    let emulated = install(&Options { kernels: Some(kernels), ..options.clone() });
    emulated.reset_counters();
    let before = emulated.counters().bytes_in_use;
    let gpu = Gpu::open(choice).unwrap();
    test(&gpu, emulated);
    drop(gpu);
    assert_eq!(emulated.counters().bytes_in_use, before, "memory was not given back");
}

/// Memory of the card with these values.
pub fn upload<T: Pod>(gpu: &Gpu, stream: &Stream, values: &[T]) -> DeviceMemory {
    let bytes: &[u8] = bytemuck::cast_slice(values);
    let memory = gpu.allocate(bytes.len()).unwrap();
    let mut pinned = gpu.allocate_pinned(bytes.len()).unwrap();
    // SAFETY: nothing else works with either, and both outlive the copy.
    unsafe {
        pinned.write(0..bytes.len()).copy_from_slice(bytes);
        stream.copy_to_device(memory.start(), pinned.as_ptr(), bytes.len()).unwrap();
    }
    stream.wait().unwrap();
    memory
}

/// What the card's memory holds once the stream has come so far.
pub fn download<T: Pod>(gpu: &Gpu, stream: &Stream, memory: &DeviceMemory) -> Vec<T> {
    let pinned = gpu.allocate_pinned(memory.bytes()).unwrap();
    // SAFETY: as above.
    unsafe { stream.copy_to_host(pinned.as_ptr(), memory.start(), memory.bytes()).unwrap() };
    stream.wait().unwrap();
    // SAFETY: the copy is over.
    let bytes = unsafe { pinned.read(0..memory.bytes()) };
    let mut values = vec![T::zeroed(); bytes.len() / size_of::<T>()];
    bytemuck::cast_slice_mut(&mut values).copy_from_slice(bytes);
    values
}
