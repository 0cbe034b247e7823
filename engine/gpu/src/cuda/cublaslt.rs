//! The functions of cublasLt that are used, of CUDA 12 or 13.

use std::ffi::{CStr, c_char, c_int, c_void};

use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtMatmulAlgo_t, cublasLtMatmulAlgoConfigAttributes_t, cublasLtMatmulDescAttributes_t,
    cublasLtMatmulPreferenceAttributes_t, cublasLtMatrixLayoutAttribute_t, cudaDataType_t,
};

use crate::{
    GpuError,
    library::{self, Library, library},
};

library! {
    pub(super) struct LibCublasLt {
        fn cublasLtGetVersion() -> usize;
        fn cublasLtGetStatusString(c_int) -> *const c_char;
        fn cublasLtCreate(*mut *mut c_void) -> c_int;
        fn cublasLtDestroy(*mut c_void) -> c_int;
        fn cublasLtMatmulDescCreate(*mut *mut c_void, cublasComputeType_t, cudaDataType_t) -> c_int;
        fn cublasLtMatmulDescDestroy(*mut c_void) -> c_int;
        fn cublasLtMatmulDescSetAttribute(*mut c_void, cublasLtMatmulDescAttributes_t, *const c_void, usize) -> c_int;
        fn cublasLtMatrixLayoutCreate(*mut *mut c_void, cudaDataType_t, u64, u64, i64) -> c_int;
        fn cublasLtMatrixLayoutDestroy(*mut c_void) -> c_int;
        fn cublasLtMatrixLayoutSetAttribute(*mut c_void, cublasLtMatrixLayoutAttribute_t, *const c_void, usize) -> c_int;
        fn cublasLtMatmulPreferenceCreate(*mut *mut c_void) -> c_int;
        fn cublasLtMatmulPreferenceDestroy(*mut c_void) -> c_int;
        fn cublasLtMatmulPreferenceSetAttribute(*mut c_void, cublasLtMatmulPreferenceAttributes_t, *const c_void, usize) -> c_int;
        fn cublasLtMatmulAlgoGetHeuristic(
            *mut c_void, *mut c_void, *mut c_void, *mut c_void, *mut c_void, *mut c_void, *mut c_void, c_int, *mut Heuristic, *mut c_int,
        ) -> c_int;
        fn cublasLtMatmulAlgoCheck(
            *mut c_void, *mut c_void, *mut c_void, *mut c_void, *mut c_void, *mut c_void, *const cublasLtMatmulAlgo_t, *mut Heuristic,
        ) -> c_int;
        fn cublasLtMatmulAlgoConfigGetAttribute(
            *const cublasLtMatmulAlgo_t, cublasLtMatmulAlgoConfigAttributes_t, *mut c_void, usize, *mut usize,
        ) -> c_int;
        fn cublasLtMatmul(
            *mut c_void, *mut c_void, *const c_void, *const c_void, *mut c_void, *const c_void, *mut c_void, *const c_void, *const c_void,
            *mut c_void, *mut c_void, *mut c_void, *const cublasLtMatmulAlgo_t, *mut c_void, usize, *mut c_void,
        ) -> c_int;
    }
}

/// `cublasLtMatmulHeuristicResult_t`, with its state as a number.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Heuristic {
    pub algo: cublasLtMatmulAlgo_t,
    pub workspace_bytes: usize,
    pub state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

impl Heuristic {
    pub(super) const EMPTY: Self =
        Self { algo: cublasLtMatmulAlgo_t { data: [0; 8] }, workspace_bytes: 0, state: -1, waves: 0.0, reserved: [0; 4] };
}

impl LibCublasLt {
    /// `driver` is the version of CUDA that the driver speaks.
    pub(super) fn find(driver: (i32, i32)) -> Result<Self, String> {
        let newest_first = ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"];
        let names = if driver >= (13, 0) { newest_first } else { ["libcublasLt.so.12", "libcublasLt.so", "libcublasLt.so.13"] };
        let lib = Self::load(Library::find(&names, &library::cuda_folders())?)?;
        // SAFETY: no preconditions.
        let major = unsafe { (lib.cublasLtGetVersion)() } / 10_000;
        library::warn_if_newer(&lib.library.path, major as i32, driver);
        Ok(lib)
    }

    pub(super) fn check(&self, call: &'static str, code: c_int) -> Result<(), GpuError> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: returns a constant string for every number, or null.
        let reason = unsafe {
            let text = (self.cublasLtGetStatusString)(code);
            if text.is_null() { format!("cublasLt error {code}") } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        };
        Err(GpuError::Call { call, reason })
    }
}

/// Calls a function of the library's table, and makes an error with its name of what is no success.
macro_rules! lt {
    ($lib:expr, $call:ident($($arg:expr),* $(,)?)) => { $lib.check(stringify!($call), ($lib.$call)($($arg),*)) };
}
pub(super) use lt;
