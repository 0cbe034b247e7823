//! CUDA, as the [`Driver`] of NVIDIA's cards: each function sets the card's primary context on its thread and makes one call of the driver.

mod cublaslt;
mod libcuda;
mod nvrtc;
mod open;
mod products;

use std::{
    ffi::{CString, c_int, c_void},
    ptr,
    sync::OnceLock,
};

use cudarc::driver::sys::{
    CU_MEMHOSTALLOC_PORTABLE, CUcontext, CUevent, CUevent_flags, CUfunction, CUfunction_attribute, CUgraphExec, CUmodule, CUstream,
    CUstream_flags, CUstreamCaptureMode,
};

use self::{
    cublaslt::LibCublasLt,
    libcuda::{LibCuda, NOT_FOUND, NOT_READY, OUT_OF_MEMORY, SUCCESS, cu},
    nvrtc::Nvrtc,
    products::{Products, WORKSPACE_BYTES},
};
use crate::{
    DeviceInfo, DevicePtr, Driver, GpuError, Grid, MemoryInfo, Product, RawEvent, RawFunction, RawGraph, RawModule, RawStream, host,
};

/// A card of NVIDIA's.
pub struct CudaDriver {
    lib: LibCuda,
    info: DeviceInfo,
    device: c_int,
    context: CUcontext,
    /// Of CUDA, that the driver speaks.
    version: (i32, i32),
    /// Looked for when the first kernel is compiled: binaries that are there need none.
    nvrtc: OnceLock<Result<Nvrtc, String>>,
    products: OnceLock<Option<Products>>,
}

// SAFETY: the context may be current in any number of threads, and the driver's functions are thread-safe.
unsafe impl Send for CudaDriver {}
// SAFETY: as above.
unsafe impl Sync for CudaDriver {}

impl CudaDriver {
    fn new(lib: LibCuda, info: DeviceInfo, device: c_int, context: CUcontext, version: (i32, i32)) -> Self {
        Self { lib, info, device, context, version, nvrtc: OnceLock::new(), products: OnceLock::new() }
    }

    /// The driver, once this card's context is this thread's.
    fn here(&self) -> Result<&LibCuda, GpuError> {
        // SAFETY: the context is retained until this is dropped.
        unsafe { cu!(self.lib, cuCtxSetCurrent(self.context))? };
        Ok(&self.lib)
    }

    /// For what returns nothing: a card that is lost has lost what was to be freed too.
    fn quietly(&self, call: impl FnOnce(&LibCuda) -> Result<(), GpuError>) {
        if let Err(error) = self.here().and_then(call) {
            tracing::debug!("{error}");
        }
    }

    fn nvrtc(&self) -> Result<&Nvrtc, GpuError> {
        self.nvrtc.get_or_init(|| Nvrtc::find(self.version)).as_ref().map_err(|e| GpuError::Unavailable(e.clone()))
    }

    fn products(&self) -> Option<&Products> {
        let open = || {
            let lib = LibCublasLt::find(self.version).map_err(GpuError::Unavailable)?;
            self.here()?;
            let mut products = Products::new(lib)?;
            match self.allocate(WORKSPACE_BYTES) {
                Ok(start) => products.workspace = (start, WORKSPACE_BYTES),
                Err(error) => tracing::warn!("cublasLt has no workspace, which may make its products slower: {error}"),
            }
            Ok(products)
        };
        let slow = |reason: &GpuError| tracing::warn!("cublasLt is not used, and products of more than 8 rows are slower for it: {reason}");
        let opened = || open().inspect_err(slow).ok();
        self.products.get_or_init(opened).as_ref()
    }
}

impl Drop for CudaDriver {
    fn drop(&mut self) {
        if self.here().is_ok()
            && let Some(products) = self.products.take().flatten()
        {
            let (workspace, bytes) = products.workspace;
            drop(products);
            if bytes > 0 {
                // SAFETY: allocated in `products`, and streams that worked with it are gone.
                unsafe { self.free(workspace) };
            }
        }
        // SAFETY: retained in `open`, once.
        unsafe { (self.lib.cuDevicePrimaryCtxRelease_v2)(self.device) };
    }
}

fn stream_of(raw: RawStream) -> CUstream {
    raw.0 as CUstream
}

fn event_of(raw: RawEvent) -> CUevent {
    raw.0 as CUevent
}

// SAFETY, of every block below: handles are this driver's and alive, and addresses valid, by the word of the trait's callers; results are
// written into locals.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Driver for CudaDriver {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn memory(&self) -> Result<MemoryInfo, GpuError> {
        let (mut free, mut total) = (0, 0);
        unsafe { cu!(self.here()?, cuMemGetInfo_v2(&mut free, &mut total))? };
        Ok(MemoryInfo { free, total })
    }

    fn allocate(&self, bytes: usize) -> Result<DevicePtr, GpuError> {
        let lib = self.here()?;
        let mut start = 0;
        match unsafe { (lib.cuMemAlloc_v2)(&mut start, bytes) } {
            OUT_OF_MEMORY => {
                let MemoryInfo { free, total } = self.memory()?;
                Err(GpuError::OutOfMemory { place: "device", bytes, free, total })
            }
            code => lib.check("cuMemAlloc_v2", code).map(|()| DevicePtr(start)),
        }
    }

    unsafe fn free(&self, memory: DevicePtr) {
        self.quietly(|lib| unsafe { cu!(lib, cuMemFree_v2(memory.0)) });
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8, GpuError> {
        let lib = self.here()?;
        let mut start = ptr::null_mut();
        match unsafe { (lib.cuMemHostAlloc)(&mut start, bytes, CU_MEMHOSTALLOC_PORTABLE) } {
            OUT_OF_MEMORY => {
                let MemoryInfo { free, total } = host::memory();
                Err(GpuError::OutOfMemory { place: "pinned host", bytes, free, total })
            }
            code => lib.check("cuMemHostAlloc", code).map(|()| start.cast()),
        }
    }

    unsafe fn free_pinned(&self, memory: *mut u8) {
        self.quietly(|lib| unsafe { cu!(lib, cuMemFreeHost(memory.cast())) });
    }

    fn create_stream(&self) -> Result<RawStream, GpuError> {
        let mut stream = ptr::null_mut();
        unsafe { cu!(self.here()?, cuStreamCreate(&mut stream, CUstream_flags::CU_STREAM_NON_BLOCKING as u32))? };
        Ok(RawStream(stream as u64))
    }

    unsafe fn destroy_stream(&self, stream: RawStream) {
        self.quietly(|lib| unsafe { cu!(lib, cuStreamDestroy_v2(stream_of(stream))) });
    }

    unsafe fn wait_for_stream(&self, stream: RawStream) -> Result<(), GpuError> {
        unsafe { cu!(self.here()?, cuStreamSynchronize(stream_of(stream))) }
    }

    unsafe fn copy_to_device(&self, to: DevicePtr, from: *const u8, bytes: usize, stream: RawStream) -> Result<(), GpuError> {
        unsafe { cu!(self.here()?, cuMemcpyHtoDAsync_v2(to.0, from.cast(), bytes, stream_of(stream))) }
    }

    unsafe fn copy_to_host(&self, to: *mut u8, from: DevicePtr, bytes: usize, stream: RawStream) -> Result<(), GpuError> {
        unsafe { cu!(self.here()?, cuMemcpyDtoHAsync_v2(to.cast(), from.0, bytes, stream_of(stream))) }
    }

    unsafe fn copy_on_device(&self, to: DevicePtr, from: DevicePtr, bytes: usize, stream: RawStream) -> Result<(), GpuError> {
        unsafe { cu!(self.here()?, cuMemcpyDtoDAsync_v2(to.0, from.0, bytes, stream_of(stream))) }
    }

    unsafe fn fill(&self, to: DevicePtr, byte: u8, bytes: usize, stream: RawStream) -> Result<(), GpuError> {
        unsafe { cu!(self.here()?, cuMemsetD8Async(to.0, byte, bytes, stream_of(stream))) }
    }

    fn create_event(&self, timed: bool) -> Result<RawEvent, GpuError> {
        let untimed = if timed { 0 } else { CUevent_flags::CU_EVENT_DISABLE_TIMING as u32 };
        let mut event = ptr::null_mut();
        unsafe { cu!(self.here()?, cuEventCreate(&mut event, CUevent_flags::CU_EVENT_BLOCKING_SYNC as u32 | untimed))? };
        Ok(RawEvent(event as u64))
    }

    unsafe fn destroy_event(&self, event: RawEvent) {
        self.quietly(|lib| unsafe { cu!(lib, cuEventDestroy_v2(event_of(event))) });
    }

    unsafe fn record(&self, event: RawEvent, stream: RawStream) -> Result<(), GpuError> {
        unsafe { cu!(self.here()?, cuEventRecord(event_of(event), stream_of(stream))) }
    }

    unsafe fn wait_on_stream(&self, stream: RawStream, event: RawEvent) -> Result<(), GpuError> {
        unsafe { cu!(self.here()?, cuStreamWaitEvent(stream_of(stream), event_of(event), 0)) }
    }

    unsafe fn wait_for_event(&self, event: RawEvent) -> Result<(), GpuError> {
        unsafe { cu!(self.here()?, cuEventSynchronize(event_of(event))) }
    }

    unsafe fn is_reached(&self, event: RawEvent) -> Result<bool, GpuError> {
        let lib = self.here()?;
        match unsafe { (lib.cuEventQuery)(event_of(event)) } {
            NOT_READY => Ok(false),
            code => lib.check("cuEventQuery", code).map(|()| true),
        }
    }

    unsafe fn seconds_between(&self, first: RawEvent, second: RawEvent) -> Result<f64, GpuError> {
        let mut milliseconds = 0.0;
        unsafe { cu!(self.here()?, cuEventElapsedTime(&mut milliseconds, event_of(first), event_of(second)))? };
        Ok(f64::from(milliseconds) / 1e3)
    }

    unsafe fn begin_capture(&self, stream: RawStream) -> Result<(), GpuError> {
        // Of this thread: others may allocate meanwhile.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        unsafe { cu!(self.here()?, cuStreamBeginCapture_v2(stream_of(stream), mode)) }
    }

    unsafe fn end_capture(&self, stream: RawStream) -> Result<RawGraph, GpuError> {
        let lib = self.here()?;
        let (mut graph, mut executable): (_, CUgraphExec) = (ptr::null_mut(), ptr::null_mut());
        unsafe {
            cu!(lib, cuStreamEndCapture(stream_of(stream), &mut graph))?;
            let instantiated = cu!(lib, cuGraphInstantiateWithFlags(&mut executable, graph, 0));
            cu!(lib, cuGraphDestroy(graph))?;
            instantiated?;
        }
        Ok(RawGraph(executable as u64))
    }

    unsafe fn launch_graph(&self, graph: RawGraph, stream: RawStream) -> Result<(), GpuError> {
        unsafe { cu!(self.here()?, cuGraphLaunch(graph.0 as CUgraphExec, stream_of(stream))) }
    }

    unsafe fn destroy_graph(&self, graph: RawGraph) {
        self.quietly(|lib| unsafe { cu!(lib, cuGraphExecDestroy(graph.0 as CUgraphExec)) });
    }

    fn compile(&self, file: &str, text: &str, headers: &[(&str, &str)], defines: &[&str]) -> Result<Vec<u8>, GpuError> {
        self.nvrtc()?.compile(&self.info.arch, file, text, headers, defines)
    }

    fn compiler(&self) -> Result<String, GpuError> {
        Ok(self.nvrtc()?.describe())
    }

    fn load_module(&self, image: &[u8]) -> Result<RawModule, GpuError> {
        // PTX, which is text, must end with a zero byte.
        let mut ended = Vec::new();
        let image = if image.last() == Some(&0) {
            image
        } else {
            ended.extend_from_slice(image);
            ended.push(0);
            &ended
        };
        let mut module = ptr::null_mut();
        unsafe { cu!(self.here()?, cuModuleLoadData(&mut module, image.as_ptr().cast()))? };
        Ok(RawModule(module as u64))
    }

    unsafe fn unload_module(&self, module: RawModule) {
        self.quietly(|lib| unsafe { cu!(lib, cuModuleUnload(module.0 as CUmodule)) });
    }

    unsafe fn function(&self, module: RawModule, name: &str) -> Result<Option<RawFunction>, GpuError> {
        let lib = self.here()?;
        let Ok(name) = CString::new(name) else { return Ok(None) };
        let mut function: CUfunction = ptr::null_mut();
        match unsafe { (lib.cuModuleGetFunction)(&mut function, module.0 as CUmodule, name.as_ptr()) } {
            SUCCESS => {}
            NOT_FOUND => return Ok(None),
            code => lib.check("cuModuleGetFunction", code)?,
        }
        let mut fixed = 0;
        let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        unsafe {
            cu!(lib, cuFuncGetAttribute(&mut fixed, CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function))?;
            cu!(lib, cuFuncSetAttribute(function, most, self.info.max_shared_bytes as c_int - fixed))?;
        }
        Ok(Some(RawFunction(function as u64)))
    }

    unsafe fn launch(&self, function: RawFunction, grid: Grid, args: &[u8], stream: RawStream) -> Result<(), GpuError> {
        let lib = self.here()?;
        let [x, y, z] = grid.blocks;
        let mut bytes = args.len();
        // CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE, CU_LAUNCH_PARAM_END: the driver copies the bytes.
        let mut extra = [
            ptr::without_provenance_mut(1),
            args.as_ptr().cast_mut().cast::<c_void>(),
            ptr::without_provenance_mut(2),
            (&raw mut bytes).cast(),
            ptr::null_mut(),
        ];
        unsafe {
            cu!(
                lib,
                cuLaunchKernel(
                    function.0 as CUfunction,
                    x,
                    y,
                    z,
                    grid.threads,
                    1,
                    1,
                    grid.shared_bytes,
                    stream_of(stream),
                    ptr::null_mut(),
                    extra.as_mut_ptr(),
                )
            )
        }
    }

    fn has_products(&self) -> bool {
        self.products().is_some()
    }

    unsafe fn product(
        &self,
        product: &Product,
        x: DevicePtr,
        weight: DevicePtr,
        out: DevicePtr,
        stream: RawStream,
    ) -> Result<(), GpuError> {
        let Some(products) = self.products() else {
            return Err(GpuError::Unavailable("cublasLt is not there".into()));
        };
        self.here()?;
        unsafe { products.product(product, x, weight, out, stream_of(stream).cast()) }
    }
}
