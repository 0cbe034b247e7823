//! What a GPU's driver does for the engine. Handles are raw here; `memory` and `stream` own them.

use crate::GpuError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    Nvidia,
    Amd,
}

/// What is fixed about a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    pub vendor: Vendor,
    /// As the driver numbers it, among those that are visible to this process.
    pub ordinal: usize,
    /// "NVIDIA H200"
    pub name: String,
    /// What kernels are compiled for: "sm_90a", "gfx942".
    pub arch: String,
    /// Threads of a warp: 32, or 64 on some of AMD's.
    pub warp: usize,
    pub num_multiprocessors: usize,
    /// Most bytes of shared memory that a block may ask for at launch.
    pub max_shared_bytes: usize,
    pub total_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    pub free: usize,
    pub total: usize,
}

/// An address in the card's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    pub const NULL: Self = Self(0);

    /// As pointers do it.
    #[must_use]
    #[allow(clippy::should_implement_trait)]
    pub fn add(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

macro_rules! handle {
    ($($name:ident)*) => {$(
        /// A driver's handle. Whoever holds it does not own it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(pub u64);
    )*};
}
handle!(RawStream RawEvent RawGraph RawModule RawFunction);

/// Blocks of a launch, their threads, and bytes of dynamic shared memory of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub blocks: [u32; 3],
    pub threads: u32,
    pub shared_bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    F32,
    F16,
    BF16,
}

/// `out[row][feature] = sum of x[row][i] * weight[feature][i]` over `inner`, all row-major without gaps, added up in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    pub rows: usize,
    pub features: usize,
    pub inner: usize,
    /// Of `x` and `weight`.
    pub element: Element,
    pub out: Element,
}

/// A card through its driver. Operations on one stream run in order; the host waits only where a function says so.
///
/// Functions that take addresses are unsafe: memory must be alive, in bounds, and not be written or read by the host, until the stream
/// has come to the operation.
#[allow(clippy::missing_safety_doc)]
pub trait Driver: Send + Sync + 'static {
    fn info(&self) -> &DeviceInfo;

    fn memory(&self) -> Result<MemoryInfo, GpuError>;

    fn allocate(&self, bytes: usize) -> Result<DevicePtr, GpuError>;
    unsafe fn free(&self, memory: DevicePtr);
    fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8, GpuError>;
    unsafe fn free_pinned(&self, memory: *mut u8);

    fn create_stream(&self) -> Result<RawStream, GpuError>;
    unsafe fn destroy_stream(&self, stream: RawStream);
    /// Waits for all that was issued on the stream.
    unsafe fn wait_for_stream(&self, stream: RawStream) -> Result<(), GpuError>;

    unsafe fn copy_to_device(&self, to: DevicePtr, from: *const u8, bytes: usize, stream: RawStream) -> Result<(), GpuError>;
    unsafe fn copy_to_host(&self, to: *mut u8, from: DevicePtr, bytes: usize, stream: RawStream) -> Result<(), GpuError>;
    unsafe fn copy_on_device(&self, to: DevicePtr, from: DevicePtr, bytes: usize, stream: RawStream) -> Result<(), GpuError>;
    unsafe fn fill(&self, to: DevicePtr, byte: u8, bytes: usize, stream: RawStream) -> Result<(), GpuError>;

    /// Seconds can be asked of events that are timed; others cost less.
    fn create_event(&self, timed: bool) -> Result<RawEvent, GpuError>;
    unsafe fn destroy_event(&self, event: RawEvent);
    unsafe fn record(&self, event: RawEvent, stream: RawStream) -> Result<(), GpuError>;
    /// What is issued on the stream from now on comes after the event.
    unsafe fn wait_on_stream(&self, stream: RawStream, event: RawEvent) -> Result<(), GpuError>;
    /// Waits, without spinning, until the event's record has been reached.
    unsafe fn wait_for_event(&self, event: RawEvent) -> Result<(), GpuError>;
    unsafe fn is_reached(&self, event: RawEvent) -> Result<bool, GpuError>;
    /// Seconds between two timed events that were reached.
    unsafe fn seconds_between(&self, first: RawEvent, second: RawEvent) -> Result<f64, GpuError>;

    /// What the stream is given from now on is recorded and not run.
    unsafe fn begin_capture(&self, stream: RawStream) -> Result<(), GpuError>;
    unsafe fn end_capture(&self, stream: RawStream) -> Result<RawGraph, GpuError>;
    unsafe fn launch_graph(&self, graph: RawGraph, stream: RawStream) -> Result<(), GpuError>;
    unsafe fn destroy_graph(&self, graph: RawGraph);

    /// Compiles one file of kernels for this card; headers are found by name.
    fn compile(&self, file: &str, text: &str, headers: &[(&str, &str)], defines: &[&str]) -> Result<Vec<u8>, GpuError>;
    /// What must be part of a compiled file's key besides its text: the compiler's version.
    fn compiler(&self) -> Result<String, GpuError>;
    fn load_module(&self, image: &[u8]) -> Result<RawModule, GpuError>;
    unsafe fn unload_module(&self, module: RawModule);
    /// Allows launches with up to `max_shared_bytes` of dynamic shared memory; `None` where the module has no such kernel.
    unsafe fn function(&self, module: RawModule, name: &str) -> Result<Option<RawFunction>, GpuError>;
    /// `args` are the bytes of the kernel's one argument.
    unsafe fn launch(&self, function: RawFunction, grid: Grid, args: &[u8], stream: RawStream) -> Result<(), GpuError>;

    /// Whether [`Driver::product`] works: the vendor's library of products is there. The first call, which must not be during a capture,
    /// loads it and allocates the 32 MiB of the card's memory that all products share.
    fn has_products(&self) -> bool;
    /// A product by the vendor's library, without split sums. The algorithm is chosen once for `features`, `inner`, the types and a bucket of
    /// rows: up to 64, up to 256, up to 1024, above. A row's bits depend on its own values, the weights and the bucket, not on what else is in
    /// the batch; a number of rows that the bucket's algorithm does not do has one of its own. Allocates nothing on the card after
    /// [`Driver::has_products`]. Products share a workspace: those of different streams must not overlap in time.
    unsafe fn product(&self, product: &Product, x: DevicePtr, weight: DevicePtr, out: DevicePtr, stream: RawStream)
    -> Result<(), GpuError>;
}
