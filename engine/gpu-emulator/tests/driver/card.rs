//! The few calls that the tests make, as their own words.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    path::Path,
    ptr::null_mut,
};

use cudarc::driver::sys::{self, CUresult};
use tokenflow_gpu_emulator::{Emulated, Options, Progress, install};

pub struct Card {
    pub emulated: &'static Emulated,
}

pub type Result<T = ()> = std::result::Result<T, CUresult>;

fn check(result: CUresult) -> Result {
    if result == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(result) }
}

pub fn options(progress: Progress) -> Options {
    let kernels = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels"));
    Options { progress, kernels, memory_bytes: 64 << 20, ..Options::nvidia() }
}

/// Kernels of tests/kernels take all of these.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Args {
    pub to: u64,
    pub from: u64,
    pub count: u32,
    pub value: u32,
}

// SAFETY (all below): handles and addresses are the emulated driver's, which checks what it is given.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Card {
    pub fn open(progress: Progress) -> Self {
        let emulated = install(&options(progress));
        let mut context = null_mut();
        unsafe {
            check(sys::cuInit(0)).unwrap();
            check(sys::cuDevicePrimaryCtxRetain(&mut context, 0)).unwrap();
            check(sys::cuCtxSetCurrent(context)).unwrap();
        }
        Self { emulated }
    }

    pub fn stream(&self) -> sys::CUstream {
        let mut stream = null_mut();
        unsafe { check(sys::cuStreamCreate(&mut stream, 1)).unwrap() };
        stream
    }

    pub fn event(&self) -> sys::CUevent {
        let mut event = null_mut();
        unsafe { check(sys::cuEventCreate(&mut event, 2)).unwrap() };
        event
    }

    pub fn allocate(&self, bytes: usize) -> Result<u64> {
        let mut address = 0;
        unsafe { check(sys::cuMemAlloc_v2(&mut address, bytes))? };
        Ok(address)
    }

    pub fn free(&self, address: u64) -> Result {
        unsafe { check(sys::cuMemFree_v2(address)) }
    }

    pub fn pinned(&self, bytes: usize) -> *mut u8 {
        let mut address = null_mut();
        unsafe { check(sys::cuMemHostAlloc(&mut address, bytes, 0)).unwrap() };
        address.cast()
    }

    pub fn free_pinned(&self, address: *mut u8) -> Result {
        unsafe { check(sys::cuMemFreeHost(address.cast())) }
    }

    pub fn to_device(&self, to: u64, from: *const u8, bytes: usize, stream: sys::CUstream) -> Result {
        unsafe { check(sys::cuMemcpyHtoDAsync_v2(to, from.cast(), bytes, stream)) }
    }

    pub fn to_host(&self, to: *mut u8, from: u64, bytes: usize, stream: sys::CUstream) -> Result {
        unsafe { check(sys::cuMemcpyDtoHAsync_v2(to.cast(), from, bytes, stream)) }
    }

    pub fn on_device(&self, to: u64, from: u64, bytes: usize, stream: sys::CUstream) -> Result {
        unsafe { check(sys::cuMemcpyDtoDAsync_v2(to, from, bytes, stream)) }
    }

    pub fn fill(&self, to: u64, value: u8, bytes: usize, stream: sys::CUstream) -> Result {
        unsafe { check(sys::cuMemsetD8Async(to, value, bytes, stream)) }
    }

    pub fn record(&self, event: sys::CUevent, stream: sys::CUstream) -> Result {
        unsafe { check(sys::cuEventRecord(event, stream)) }
    }

    pub fn wait_on_stream(&self, stream: sys::CUstream, event: sys::CUevent) -> Result {
        unsafe { check(sys::cuStreamWaitEvent(stream, event, 0)) }
    }

    pub fn wait_for_event(&self, event: sys::CUevent) -> Result {
        unsafe { check(sys::cuEventSynchronize(event)) }
    }

    pub fn query(&self, event: sys::CUevent) -> Result {
        unsafe { check(sys::cuEventQuery(event)) }
    }

    pub fn wait(&self, stream: sys::CUstream) -> Result {
        unsafe { check(sys::cuStreamSynchronize(stream)) }
    }

    pub fn begin(&self, stream: sys::CUstream) -> Result {
        unsafe { check(sys::cuStreamBeginCapture_v2(stream, sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)) }
    }

    pub fn end(&self, stream: sys::CUstream) -> Result<sys::CUgraphExec> {
        let (mut graph, mut executable) = (null_mut(), null_mut());
        unsafe {
            check(sys::cuStreamEndCapture(stream, &mut graph))?;
            check(sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0))?;
            check(sys::cuGraphDestroy(graph))?;
        }
        Ok(executable)
    }

    pub fn replay(&self, executable: sys::CUgraphExec, stream: sys::CUstream) -> Result {
        unsafe { check(sys::cuGraphLaunch(executable, stream)) }
    }

    /// As the real code does: text through NVRTC, its image to the driver.
    pub fn function(&self, name: &CStr) -> Result<sys::CUfunction> {
        let text = std::fs::read_to_string(options(Progress::Mixed).kernels.unwrap().join("simple.cu")).unwrap();
        let image = compile(&text, &tokenflow_gpu_emulator::kernel_sources()["device.cuh"]).unwrap();
        let (mut module, mut function) = (null_mut(), null_mut());
        unsafe {
            check(sys::cuModuleLoadData(&mut module, image.as_ptr().cast()))?;
            check(sys::cuModuleGetFunction(&mut function, module, name.as_ptr()))?;
        }
        Ok(function)
    }

    pub fn launch(
        &self,
        function: sys::CUfunction,
        blocks: [u32; 3],
        threads: u32,
        dynamic: u32,
        args: Args,
        stream: sys::CUstream,
    ) -> Result {
        let mut args = args;
        let mut params = [(&raw mut args).cast::<c_void>()];
        let [x, y, z] = blocks;
        unsafe { check(sys::cuLaunchKernel(function, x, y, z, threads, 1, 1, dynamic, stream, params.as_mut_ptr(), null_mut())) }
    }

    pub fn has_told(&self, words: &str) {
        let told = self.emulated.last_error();
        assert!(told.contains(words), "{told:?} does not say {words:?}");
    }
}

/// A function of NVRTC, which programs open by its name.
macro_rules! nvrtc {
    ($name:ident($($type:ty),*)) => {{
        let library = libc::dlopen(c"libnvrtc.so.12".as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null(), "NVRTC is there by its name");
        let name = CString::new(stringify!($name)).unwrap();
        std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> c_int>(libc::dlsym(library, name.as_ptr()))
    }};
}

/// The image, or NVRTC's log.
#[allow(clippy::undocumented_unsafe_blocks)]
pub fn compile(text: &str, header: &str) -> std::result::Result<Vec<u8>, String> {
    type Text = *const c_char;
    type Program = *mut c_void;
    let (text, header) = (CString::new(text).unwrap(), CString::new(header).unwrap());
    let mut program = null_mut();
    let (headers, names) = ([header.as_ptr()], [c"device.cuh".as_ptr()]);
    let options = [c"--gpu-architecture=sm_90".as_ptr()];
    unsafe {
        let create = nvrtc!(nvrtcCreateProgram(*mut Program, Text, Text, c_int, *const Text, *const Text));
        assert_eq!(create(&mut program, text.as_ptr(), c"simple.cu".as_ptr(), 1, headers.as_ptr(), names.as_ptr()), 0);
        let failed = nvrtc!(nvrtcCompileProgram(Program, c_int, *const Text))(program, 1, options.as_ptr()) != 0;
        let (size, get) = if failed {
            (nvrtc!(nvrtcGetProgramLogSize(Program, *mut usize)), nvrtc!(nvrtcGetProgramLog(Program, *mut u8)))
        } else {
            (nvrtc!(nvrtcGetCUBINSize(Program, *mut usize)), nvrtc!(nvrtcGetCUBIN(Program, *mut u8)))
        };
        let mut len = 0;
        assert_eq!(size(program, &mut len), 0);
        let mut bytes = vec![0_u8; len];
        assert_eq!(get(program, bytes.as_mut_ptr()), 0);
        assert_eq!(nvrtc!(nvrtcDestroyProgram(*mut Program))(&mut program), 0);
        if failed { Err(String::from_utf8(bytes).unwrap()) } else { Ok(bytes) }
    }
}
