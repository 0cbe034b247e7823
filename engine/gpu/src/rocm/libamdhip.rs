//! The functions of AMD's runtime that are used, as ROCm 6 and 7 have them.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};

use crate::{GpuError, library::library};

library! {
    pub(super) struct LibHip {
        fn hipInit(c_uint) -> c_int;
        fn hipGetErrorName(c_int) -> *const c_char;
        fn hipGetErrorString(c_int) -> *const c_char;
        fn hipGetDeviceCount(*mut c_int) -> c_int;
        fn hipGetDevicePropertiesR0600(*mut Properties, c_int) -> c_int;
        fn hipSetDevice(c_int) -> c_int;
        fn hipMemGetInfo(*mut usize, *mut usize) -> c_int;
        fn hipMalloc(*mut u64, usize) -> c_int;
        fn hipFree(u64) -> c_int;
        fn hipHostMalloc(*mut *mut c_void, usize, c_uint) -> c_int;
        fn hipHostFree(*mut c_void) -> c_int;
        fn hipMemcpyAsync(*mut c_void, *const c_void, usize, c_int, *mut c_void) -> c_int;
        fn hipMemsetAsync(u64, c_int, usize, *mut c_void) -> c_int;
        fn hipStreamCreateWithFlags(*mut *mut c_void, c_uint) -> c_int;
        fn hipStreamDestroy(*mut c_void) -> c_int;
        fn hipStreamSynchronize(*mut c_void) -> c_int;
        fn hipStreamWaitEvent(*mut c_void, *mut c_void, c_uint) -> c_int;
        fn hipStreamBeginCapture(*mut c_void, c_int) -> c_int;
        fn hipStreamEndCapture(*mut c_void, *mut *mut c_void) -> c_int;
        fn hipEventCreateWithFlags(*mut *mut c_void, c_uint) -> c_int;
        fn hipEventDestroy(*mut c_void) -> c_int;
        fn hipEventRecord(*mut c_void, *mut c_void) -> c_int;
        fn hipEventSynchronize(*mut c_void) -> c_int;
        fn hipEventQuery(*mut c_void) -> c_int;
        fn hipEventElapsedTime(*mut f32, *mut c_void, *mut c_void) -> c_int;
        fn hipGraphInstantiateWithFlags(*mut *mut c_void, *mut c_void, c_ulonglong) -> c_int;
        fn hipGraphLaunch(*mut c_void, *mut c_void) -> c_int;
        fn hipGraphDestroy(*mut c_void) -> c_int;
        fn hipGraphExecDestroy(*mut c_void) -> c_int;
        fn hipModuleLoadData(*mut *mut c_void, *const c_void) -> c_int;
        fn hipModuleUnload(*mut c_void) -> c_int;
        fn hipModuleGetFunction(*mut *mut c_void, *mut c_void, *const c_char) -> c_int;
        fn hipModuleLaunchKernel(
            *mut c_void, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, *mut c_void, *mut *mut c_void, *mut *mut c_void,
        ) -> c_int;
    }
}

/// `hipDeviceProp_tR0600`: what is read of it, and gaps for the rest.
#[repr(C)]
pub(super) struct Properties {
    pub name: [c_char; 256],
    uuid_and_luid: [u8; 32],
    pub total_global_mem: usize,
    pub shared_mem_per_block: usize,
    regs_per_block: c_int,
    pub warp_size: c_int,
    limits: [u8; 76],
    pub multi_processor_count: c_int,
    more: [u8; 768],
    pub gcn_arch_name: [c_char; 256],
    rest: [u8; 56],
}

const _: () = assert!(
    std::mem::offset_of!(Properties, total_global_mem) == 288
        && std::mem::offset_of!(Properties, warp_size) == 308
        && std::mem::offset_of!(Properties, multi_processor_count) == 388
        && std::mem::offset_of!(Properties, gcn_arch_name) == 1160
        && size_of::<Properties>() == 1472
);

pub(super) const SUCCESS: c_int = 0;
pub(super) const OUT_OF_MEMORY: c_int = 2;
pub(super) const NO_DEVICE: c_int = 100;
pub(super) const NOT_FOUND: c_int = 500;
pub(super) const NOT_READY: c_int = 600;

pub(super) const HOST_TO_DEVICE: c_int = 1;
pub(super) const DEVICE_TO_HOST: c_int = 2;
pub(super) const DEVICE_TO_DEVICE: c_int = 3;

pub(super) const STREAM_NON_BLOCKING: c_uint = 1;
pub(super) const EVENT_BLOCKING_SYNC: c_uint = 1;
pub(super) const EVENT_DISABLE_TIMING: c_uint = 2;
pub(super) const HOST_MALLOC_PORTABLE: c_uint = 1;
pub(super) const CAPTURE_MODE_THREAD_LOCAL: c_int = 1;

impl LibHip {
    pub(super) fn check(&self, call: &'static str, code: c_int) -> Result<(), GpuError> {
        if code == SUCCESS { Ok(()) } else { Err(GpuError::Call { call, reason: self.reason(code) }) }
    }

    /// "hipErrorIllegalAddress: an illegal memory access was encountered"
    pub(super) fn reason(&self, code: c_int) -> String {
        let text = |get: unsafe extern "C" fn(c_int) -> *const c_char| {
            // SAFETY: returns a constant string for every number, or null.
            unsafe {
                let text = get(code);
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            }
        };
        match (text(self.hipGetErrorName), text(self.hipGetErrorString)) {
            (Some(name), Some(what)) => format!("{name}: {what}"),
            _ => format!("HIP error {code}"),
        }
    }
}

/// Calls a function of the runtime's table, and makes an error with its name of what is no success.
macro_rules! hip {
    ($lib:expr, $call:ident($($arg:expr),* $(,)?)) => { $lib.check(stringify!($call), ($lib.$call)($($arg),*)) };
}
pub(super) use hip;
