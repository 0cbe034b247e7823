//! The functions of NVIDIA's driver that are used, all of them there since CUDA 12.0; types and constants are cudarc's. They are looked up
//! here because cudarc ends the process where a library or function is missing, and because results come as numbers: a newer driver may
//! return some that its enum does not know.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};

use cudarc::driver::sys::{
    CUcontext, CUdevice_attribute, CUdeviceptr, CUevent, CUfunction, CUfunction_attribute, CUgraph, CUgraphExec, CUmodule, CUresult,
    CUstream, CUstreamCaptureMode,
};

use crate::{GpuError, library::library};

library! {
    pub(super) struct LibCuda {
        fn cuInit(c_uint) -> c_int;
        fn cuDriverGetVersion(*mut c_int) -> c_int;
        fn cuGetErrorName(c_int, *mut *const c_char) -> c_int;
        fn cuGetErrorString(c_int, *mut *const c_char) -> c_int;
        fn cuDeviceGetCount(*mut c_int) -> c_int;
        fn cuDeviceGet(*mut c_int, c_int) -> c_int;
        fn cuDeviceGetName(*mut c_char, c_int, c_int) -> c_int;
        fn cuDeviceGetAttribute(*mut c_int, CUdevice_attribute, c_int) -> c_int;
        fn cuDeviceTotalMem_v2(*mut usize, c_int) -> c_int;
        fn cuDevicePrimaryCtxSetFlags_v2(c_int, c_uint) -> c_int;
        fn cuDevicePrimaryCtxRetain(*mut CUcontext, c_int) -> c_int;
        fn cuDevicePrimaryCtxRelease_v2(c_int) -> c_int;
        fn cuCtxSetCurrent(CUcontext) -> c_int;
        fn cuMemGetInfo_v2(*mut usize, *mut usize) -> c_int;
        fn cuMemAlloc_v2(*mut CUdeviceptr, usize) -> c_int;
        fn cuMemFree_v2(CUdeviceptr) -> c_int;
        fn cuMemHostAlloc(*mut *mut c_void, usize, c_uint) -> c_int;
        fn cuMemFreeHost(*mut c_void) -> c_int;
        fn cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream) -> c_int;
        fn cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream) -> c_int;
        fn cuMemcpyDtoDAsync_v2(CUdeviceptr, CUdeviceptr, usize, CUstream) -> c_int;
        fn cuMemsetD8Async(CUdeviceptr, u8, usize, CUstream) -> c_int;
        fn cuStreamCreate(*mut CUstream, c_uint) -> c_int;
        fn cuStreamDestroy_v2(CUstream) -> c_int;
        fn cuStreamSynchronize(CUstream) -> c_int;
        fn cuStreamWaitEvent(CUstream, CUevent, c_uint) -> c_int;
        fn cuStreamBeginCapture_v2(CUstream, CUstreamCaptureMode) -> c_int;
        fn cuStreamEndCapture(CUstream, *mut CUgraph) -> c_int;
        fn cuEventCreate(*mut CUevent, c_uint) -> c_int;
        fn cuEventDestroy_v2(CUevent) -> c_int;
        fn cuEventRecord(CUevent, CUstream) -> c_int;
        fn cuEventSynchronize(CUevent) -> c_int;
        fn cuEventQuery(CUevent) -> c_int;
        fn cuEventElapsedTime(*mut f32, CUevent, CUevent) -> c_int;
        fn cuGraphInstantiateWithFlags(*mut CUgraphExec, CUgraph, c_ulonglong) -> c_int;
        fn cuGraphLaunch(CUgraphExec, CUstream) -> c_int;
        fn cuGraphDestroy(CUgraph) -> c_int;
        fn cuGraphExecDestroy(CUgraphExec) -> c_int;
        fn cuModuleLoadData(*mut CUmodule, *const c_void) -> c_int;
        fn cuModuleUnload(CUmodule) -> c_int;
        fn cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char) -> c_int;
        fn cuFuncGetAttribute(*mut c_int, CUfunction_attribute, CUfunction) -> c_int;
        fn cuFuncSetAttribute(CUfunction, CUfunction_attribute, c_int) -> c_int;
        fn cuLaunchKernel(
            CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void, *mut *mut c_void,
        ) -> c_int;
    }
}

pub(super) const SUCCESS: c_int = CUresult::CUDA_SUCCESS as c_int;
pub(super) const OUT_OF_MEMORY: c_int = CUresult::CUDA_ERROR_OUT_OF_MEMORY as c_int;
pub(super) const NOT_FOUND: c_int = CUresult::CUDA_ERROR_NOT_FOUND as c_int;
pub(super) const NOT_READY: c_int = CUresult::CUDA_ERROR_NOT_READY as c_int;
pub(super) const NO_DEVICE: c_int = CUresult::CUDA_ERROR_NO_DEVICE as c_int;

impl LibCuda {
    pub(super) fn check(&self, call: &'static str, code: c_int) -> Result<(), GpuError> {
        if code == SUCCESS { Ok(()) } else { Err(GpuError::Call { call, reason: self.reason(code) }) }
    }

    /// "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"
    pub(super) fn reason(&self, code: c_int) -> String {
        let text = |get: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int| {
            let mut text = std::ptr::null();
            // SAFETY: the driver writes the address of a constant string, or null.
            unsafe {
                let known = get(code, &mut text) == SUCCESS && !text.is_null();
                known.then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            }
        };
        match (text(self.cuGetErrorName), text(self.cuGetErrorString)) {
            (Some(name), Some(what)) => format!("{name}: {what}"),
            (Some(name), None) => name,
            _ => format!("CUDA error {code}"),
        }
    }
}

/// Calls a function of the driver's table, and makes an error with its name of what is no success.
macro_rules! cu {
    ($lib:expr, $call:ident($($arg:expr),* $(,)?)) => { $lib.check(stringify!($call), ($lib.$call)($($arg),*)) };
}
pub(super) use cu;
