//! The same driver by AMD's names, with warps of 64 lanes.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    ptr::null_mut,
};

use tokenflow_gpu_emulator::{Options, Progress, install, kernel_sources};

use crate::{
    card::{Args, options},
    process::alone,
};

type Handle = *mut c_void;
type Text = *const c_char;

/// # Safety
/// `F` is the type of the function of this name.
unsafe fn function<F: Copy>(library: &CStr, name: &CStr) -> F {
    // SAFETY: both names end; the library stays loaded.
    unsafe {
        let library = libc::dlopen(library.as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null(), "the library is there by its name");
        let address = libc::dlsym(library, name.as_ptr());
        assert!(!address.is_null(), "{name:?} is there");
        std::mem::transmute_copy(&address)
    }
}

/// Calls a function of the runtime with arguments of these types.
macro_rules! hip {
    ($name:ident($($arg:expr => $type:ty),*)) => {{
        let name = CString::new(stringify!($name)).unwrap();
        function::<unsafe extern "C" fn($($type),*) -> c_int>(c"libamdhip64.so.6", &name)($($arg),*)
    }};
}
macro_rules! rtc {
    ($name:ident($($arg:expr => $type:ty),*)) => {{
        let name = CString::new(stringify!($name)).unwrap();
        assert_eq!(function::<unsafe extern "C" fn($($type),*) -> c_int>(c"libhiprtc.so.6", &name)($($arg),*), 0)
    }};
}

/// What hiprtc makes of the tests' kernels.
fn image() -> Vec<u8> {
    let folder = options(Progress::Mixed).kernels.unwrap();
    let text = CString::new(std::fs::read_to_string(folder.join("simple.cu")).unwrap()).unwrap();
    let header = CString::new(kernel_sources()["device.cuh"].as_str()).unwrap();
    let (headers, names, flags) = ([header.as_ptr()], [c"device.cuh".as_ptr()], [c"--offload-arch=gfx942".as_ptr()]);
    let (mut program, mut len) = (null_mut(), 0);
    // SAFETY: the functions have these types, and all texts end.
    unsafe {
        rtc!(hiprtcCreateProgram(&mut program => *mut Handle, text.as_ptr() => Text, c"simple.cu".as_ptr() => Text, 1 => c_int,
            headers.as_ptr() => *const Text, names.as_ptr() => *const Text));
        rtc!(hiprtcCompileProgram(program => Handle, 1 => c_int, flags.as_ptr() => *const Text));
        rtc!(hiprtcGetCodeSize(program => Handle, &mut len => *mut usize));
        let mut image = vec![0_u8; len];
        rtc!(hiprtcGetCode(program => Handle, image.as_mut_ptr() => *mut u8));
        rtc!(hiprtcDestroyProgram(&mut program => *mut Handle));
        image
    }
}

#[test]
fn a_kernel_runs() {
    alone("amd::a_kernel_runs", || {
        let emulated = install(&Options { kernels: options(Progress::Mixed).kernels, ..Options::amd() });
        let image = image();
        let (mut module, mut kernel, mut stream) = (null_mut(), null_mut(), null_mut());
        let (mut from, mut to, mut host) = (0_u64, 0_u64, null_mut());
        // SAFETY: the functions have these types; memory is alive and large enough.
        unsafe {
            assert_eq!(hip!(hipModuleLoadData(&mut module => *mut Handle, image.as_ptr() => *const u8)), 0);
            assert_eq!(hip!(hipModuleGetFunction(&mut kernel => *mut Handle, module => Handle, c"add".as_ptr() => Text)), 0);
            assert_eq!(hip!(hipStreamCreateWithFlags(&mut stream => *mut Handle, 1 => c_uint)), 0);
            assert_eq!(hip!(hipMalloc(&mut from => *mut u64, 512 => usize)), 0);
            assert_eq!(hip!(hipMalloc(&mut to => *mut u64, 512 => usize)), 0);
            assert_eq!(hip!(hipHostMalloc(&mut host => *mut Handle, 512 => usize, 0 => c_uint)), 0);
            assert_eq!(hip!(hipMemsetAsync(from => u64, 1 => c_int, 512 => usize, stream => Handle)), 0);
            let mut args = Args { to, from, count: 128, value: 1 };
            let mut bytes = size_of::<Args>();
            let word = std::ptr::without_provenance_mut;
            let mut extra = [word(1), (&raw mut args).cast(), word(2), (&raw mut bytes).cast(), word(3)];
            let launch = |threads: c_uint, extra: &mut [*mut c_void; 5]| {
                hip!(hipModuleLaunchKernel(kernel => Handle, 1 => c_uint, 1 => c_uint, 1 => c_uint, threads => c_uint, 1 => c_uint, 1 => c_uint,
                    0 => c_uint, stream => Handle, null_mut() => *mut Handle, extra.as_mut_ptr() => *mut Handle))
            };
            assert_eq!(launch(96, &mut extra), 1, "no whole warps of 64");
            assert_eq!(launch(128, &mut extra), 0);
            assert_eq!(hip!(hipMemcpyAsync(host => Handle, to as Handle => Handle, 512 => usize, 2 => c_int, stream => Handle)), 0);
            assert_eq!(hip!(hipStreamSynchronize(stream => Handle)), 0);
            assert_eq!(host.cast::<u32>().add(127).read(), 0x0101_0102);
            assert_eq!(hip!(hipFree(from => u64)), 0);
            assert_eq!(hip!(hipFree(from => u64)), 1);
        }
        assert!(emulated.last_error().contains("freed twice"));
    });
}
