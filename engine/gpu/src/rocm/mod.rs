//! ROCm, as the [`Driver`] of AMD's cards: each function sets the card on its thread and makes one call of the runtime. It is the CUDA
//! driver's twin, without a library of products.

mod hiprtc;
mod libamdhip;
mod open;

use std::{
    ffi::{CString, c_int, c_void},
    ptr,
    sync::OnceLock,
};

use self::{
    hiprtc::Hiprtc,
    libamdhip::{
        CAPTURE_MODE_THREAD_LOCAL, DEVICE_TO_DEVICE, DEVICE_TO_HOST, EVENT_BLOCKING_SYNC, EVENT_DISABLE_TIMING, HOST_MALLOC_PORTABLE,
        HOST_TO_DEVICE, LibHip, NOT_FOUND, NOT_READY, OUT_OF_MEMORY, STREAM_NON_BLOCKING, SUCCESS, hip,
    },
};
use crate::{
    DeviceInfo, DevicePtr, Driver, GpuError, Grid, MemoryInfo, Product, RawEvent, RawFunction, RawGraph, RawModule, RawStream, host,
};

/// A card of AMD's.
pub struct RocmDriver {
    lib: LibHip,
    info: DeviceInfo,
    /// Looked for when the first kernel is compiled: binaries that are there need none.
    hiprtc: OnceLock<Result<Hiprtc, String>>,
}

impl RocmDriver {
    fn new(lib: LibHip, info: DeviceInfo) -> Self {
        Self { lib, info, hiprtc: OnceLock::new() }
    }

    /// The runtime, once this card is this thread's.
    fn here(&self) -> Result<&LibHip, GpuError> {
        // SAFETY: a number.
        unsafe { hip!(self.lib, hipSetDevice(self.info.ordinal as c_int))? };
        Ok(&self.lib)
    }

    /// For what returns nothing: a card that is lost has lost what was to be freed too.
    fn quietly(&self, call: impl FnOnce(&LibHip) -> Result<(), GpuError>) {
        if let Err(error) = self.here().and_then(call) {
            tracing::debug!("{error}");
        }
    }

    fn hiprtc(&self) -> Result<&Hiprtc, GpuError> {
        self.hiprtc.get_or_init(Hiprtc::find).as_ref().map_err(|e| GpuError::Unavailable(e.clone()))
    }

    /// # Safety
    /// As the trait's copies.
    unsafe fn copy(&self, to: u64, from: u64, bytes: usize, kind: c_int, stream: RawStream) -> Result<(), GpuError> {
        // SAFETY: the caller's word.
        unsafe { hip!(self.here()?, hipMemcpyAsync(raw(to), raw(from), bytes, kind, raw(stream.0))) }
    }
}

fn raw(handle: u64) -> *mut c_void {
    handle as *mut c_void
}

// SAFETY, of every block below: handles are this driver's and alive, and addresses valid, by the word of the trait's callers; results are
// written into locals.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Driver for RocmDriver {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn memory(&self) -> Result<MemoryInfo, GpuError> {
        let (mut free, mut total) = (0, 0);
        unsafe { hip!(self.here()?, hipMemGetInfo(&mut free, &mut total))? };
        Ok(MemoryInfo { free, total })
    }

    fn allocate(&self, bytes: usize) -> Result<DevicePtr, GpuError> {
        let lib = self.here()?;
        let mut start = 0;
        match unsafe { (lib.hipMalloc)(&mut start, bytes) } {
            OUT_OF_MEMORY => {
                let MemoryInfo { free, total } = self.memory()?;
                Err(GpuError::OutOfMemory { place: "device", bytes, free, total })
            }
            code => lib.check("hipMalloc", code).map(|()| DevicePtr(start)),
        }
    }

    unsafe fn free(&self, memory: DevicePtr) {
        self.quietly(|lib| unsafe { hip!(lib, hipFree(memory.0)) });
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8, GpuError> {
        let lib = self.here()?;
        let mut start = ptr::null_mut();
        match unsafe { (lib.hipHostMalloc)(&mut start, bytes, HOST_MALLOC_PORTABLE) } {
            OUT_OF_MEMORY => {
                let MemoryInfo { free, total } = host::memory();
                Err(GpuError::OutOfMemory { place: "pinned host", bytes, free, total })
            }
            code => lib.check("hipHostMalloc", code).map(|()| start.cast()),
        }
    }

    unsafe fn free_pinned(&self, memory: *mut u8) {
        self.quietly(|lib| unsafe { hip!(lib, hipHostFree(memory.cast())) });
    }

    fn create_stream(&self) -> Result<RawStream, GpuError> {
        let mut stream = ptr::null_mut();
        unsafe { hip!(self.here()?, hipStreamCreateWithFlags(&mut stream, STREAM_NON_BLOCKING))? };
        Ok(RawStream(stream as u64))
    }

    unsafe fn destroy_stream(&self, stream: RawStream) {
        self.quietly(|lib| unsafe { hip!(lib, hipStreamDestroy(raw(stream.0))) });
    }

    unsafe fn wait_for_stream(&self, stream: RawStream) -> Result<(), GpuError> {
        unsafe { hip!(self.here()?, hipStreamSynchronize(raw(stream.0))) }
    }

    unsafe fn copy_to_device(&self, to: DevicePtr, from: *const u8, bytes: usize, stream: RawStream) -> Result<(), GpuError> {
        unsafe { self.copy(to.0, from as u64, bytes, HOST_TO_DEVICE, stream) }
    }

    unsafe fn copy_to_host(&self, to: *mut u8, from: DevicePtr, bytes: usize, stream: RawStream) -> Result<(), GpuError> {
        unsafe { self.copy(to as u64, from.0, bytes, DEVICE_TO_HOST, stream) }
    }

    unsafe fn copy_on_device(&self, to: DevicePtr, from: DevicePtr, bytes: usize, stream: RawStream) -> Result<(), GpuError> {
        unsafe { self.copy(to.0, from.0, bytes, DEVICE_TO_DEVICE, stream) }
    }

    unsafe fn fill(&self, to: DevicePtr, byte: u8, bytes: usize, stream: RawStream) -> Result<(), GpuError> {
        unsafe { hip!(self.here()?, hipMemsetAsync(to.0, c_int::from(byte), bytes, raw(stream.0))) }
    }

    fn create_event(&self, timed: bool) -> Result<RawEvent, GpuError> {
        let untimed = if timed { 0 } else { EVENT_DISABLE_TIMING };
        let mut event = ptr::null_mut();
        unsafe { hip!(self.here()?, hipEventCreateWithFlags(&mut event, EVENT_BLOCKING_SYNC | untimed))? };
        Ok(RawEvent(event as u64))
    }

    unsafe fn destroy_event(&self, event: RawEvent) {
        self.quietly(|lib| unsafe { hip!(lib, hipEventDestroy(raw(event.0))) });
    }

    unsafe fn record(&self, event: RawEvent, stream: RawStream) -> Result<(), GpuError> {
        unsafe { hip!(self.here()?, hipEventRecord(raw(event.0), raw(stream.0))) }
    }

    unsafe fn wait_on_stream(&self, stream: RawStream, event: RawEvent) -> Result<(), GpuError> {
        unsafe { hip!(self.here()?, hipStreamWaitEvent(raw(stream.0), raw(event.0), 0)) }
    }

    unsafe fn wait_for_event(&self, event: RawEvent) -> Result<(), GpuError> {
        unsafe { hip!(self.here()?, hipEventSynchronize(raw(event.0))) }
    }

    unsafe fn is_reached(&self, event: RawEvent) -> Result<bool, GpuError> {
        let lib = self.here()?;
        match unsafe { (lib.hipEventQuery)(raw(event.0)) } {
            NOT_READY => Ok(false),
            code => lib.check("hipEventQuery", code).map(|()| true),
        }
    }

    unsafe fn seconds_between(&self, first: RawEvent, second: RawEvent) -> Result<f64, GpuError> {
        let mut milliseconds = 0.0;
        unsafe { hip!(self.here()?, hipEventElapsedTime(&mut milliseconds, raw(first.0), raw(second.0)))? };
        Ok(f64::from(milliseconds) / 1e3)
    }

    unsafe fn begin_capture(&self, stream: RawStream) -> Result<(), GpuError> {
        unsafe { hip!(self.here()?, hipStreamBeginCapture(raw(stream.0), CAPTURE_MODE_THREAD_LOCAL)) }
    }

    unsafe fn end_capture(&self, stream: RawStream) -> Result<RawGraph, GpuError> {
        let lib = self.here()?;
        let (mut graph, mut executable) = (ptr::null_mut(), ptr::null_mut());
        unsafe {
            hip!(lib, hipStreamEndCapture(raw(stream.0), &mut graph))?;
            let instantiated = hip!(lib, hipGraphInstantiateWithFlags(&mut executable, graph, 0));
            hip!(lib, hipGraphDestroy(graph))?;
            instantiated?;
        }
        Ok(RawGraph(executable as u64))
    }

    unsafe fn launch_graph(&self, graph: RawGraph, stream: RawStream) -> Result<(), GpuError> {
        unsafe { hip!(self.here()?, hipGraphLaunch(raw(graph.0), raw(stream.0))) }
    }

    unsafe fn destroy_graph(&self, graph: RawGraph) {
        self.quietly(|lib| unsafe { hip!(lib, hipGraphExecDestroy(raw(graph.0))) });
    }

    fn compile(&self, file: &str, text: &str, headers: &[(&str, &str)], defines: &[&str]) -> Result<Vec<u8>, GpuError> {
        self.hiprtc()?.compile(&self.info.arch, file, text, headers, defines)
    }

    fn compiler(&self) -> Result<String, GpuError> {
        Ok(self.hiprtc()?.describe())
    }

    fn load_module(&self, image: &[u8]) -> Result<RawModule, GpuError> {
        let mut module = ptr::null_mut();
        unsafe { hip!(self.here()?, hipModuleLoadData(&mut module, image.as_ptr().cast()))? };
        Ok(RawModule(module as u64))
    }

    unsafe fn unload_module(&self, module: RawModule) {
        self.quietly(|lib| unsafe { hip!(lib, hipModuleUnload(raw(module.0))) });
    }

    // All shared memory that a block can have may be asked for at launch without further ado.
    unsafe fn function(&self, module: RawModule, name: &str) -> Result<Option<RawFunction>, GpuError> {
        let lib = self.here()?;
        let Ok(name) = CString::new(name) else { return Ok(None) };
        let mut function = ptr::null_mut();
        match unsafe { (lib.hipModuleGetFunction)(&mut function, raw(module.0), name.as_ptr()) } {
            SUCCESS => Ok(Some(RawFunction(function as u64))),
            NOT_FOUND => Ok(None),
            code => lib.check("hipModuleGetFunction", code).map(|()| None),
        }
    }

    unsafe fn launch(&self, function: RawFunction, grid: Grid, args: &[u8], stream: RawStream) -> Result<(), GpuError> {
        let lib = self.here()?;
        let [x, y, z] = grid.blocks;
        let mut bytes = args.len();
        // HIP_LAUNCH_PARAM_BUFFER_POINTER, HIP_LAUNCH_PARAM_BUFFER_SIZE, HIP_LAUNCH_PARAM_END: the runtime copies the bytes.
        let mut extra = [
            ptr::without_provenance_mut(1),
            args.as_ptr().cast_mut().cast::<c_void>(),
            ptr::without_provenance_mut(2),
            (&raw mut bytes).cast(),
            ptr::without_provenance_mut(3),
        ];
        unsafe {
            hip!(
                lib,
                hipModuleLaunchKernel(
                    raw(function.0),
                    x,
                    y,
                    z,
                    grid.threads,
                    1,
                    1,
                    grid.shared_bytes,
                    raw(stream.0),
                    ptr::null_mut(),
                    extra.as_mut_ptr(),
                )
            )
        }
    }

    fn has_products(&self) -> bool {
        false
    }

    unsafe fn product(&self, _: &Product, _: DevicePtr, _: DevicePtr, _: DevicePtr, _: RawStream) -> Result<(), GpuError> {
        Err(GpuError::Unavailable("no library of products is used on AMD's cards".into()))
    }
}
