//! AMD's compiler at run time.

use std::ffi::{c_char, c_int, c_void};

use crate::{
    GpuError,
    library::{self, Library, library},
    rtc::{Rtc, Unit},
};

library! {
    pub(super) struct LibHiprtc {
        fn hiprtcVersion(*mut c_int, *mut c_int) -> c_int;
        fn hiprtcGetErrorString(c_int) -> *const c_char;
        fn hiprtcCreateProgram(*mut *mut c_void, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> c_int;
        fn hiprtcDestroyProgram(*mut *mut c_void) -> c_int;
        fn hiprtcCompileProgram(*mut c_void, c_int, *const *const c_char) -> c_int;
        fn hiprtcGetCodeSize(*mut c_void, *mut usize) -> c_int;
        fn hiprtcGetCode(*mut c_void, *mut c_char) -> c_int;
        fn hiprtcGetProgramLogSize(*mut c_void, *mut usize) -> c_int;
        fn hiprtcGetProgramLog(*mut c_void, *mut c_char) -> c_int;
    }
}

pub(super) struct Hiprtc {
    lib: LibHiprtc,
    rtc: Rtc,
    version: (i32, i32),
}

impl Hiprtc {
    pub(super) fn find() -> Result<Self, String> {
        let names = ["libhiprtc.so.7", "libhiprtc.so.6", "libhiprtc.so"];
        let library = Library::find(&names, &library::rocm_folders()).map_err(|e| format!("kernels cannot be compiled: {e}"))?;
        let lib = LibHiprtc::load(library)?;
        let rtc = Rtc {
            create: lib.hiprtcCreateProgram,
            destroy: lib.hiprtcDestroyProgram,
            compile: lib.hiprtcCompileProgram,
            log_size: lib.hiprtcGetProgramLogSize,
            log: lib.hiprtcGetProgramLog,
            error_string: lib.hiprtcGetErrorString,
        };
        let mut version = (0, 0);
        // SAFETY: two numbers are written.
        match unsafe { (lib.hiprtcVersion)(&mut version.0, &mut version.1) } {
            0 => Ok(Self { lib, rtc, version }),
            code => Err(format!("{} does not work: {}", lib.library.path.display(), rtc.reason(code))),
        }
    }

    pub(super) fn describe(&self) -> String {
        format!("hiprtc {}.{}", self.version.0, self.version.1)
    }

    pub(super) fn compile(
        &self,
        arch: &str,
        file: &str,
        text: &str,
        headers: &[(&str, &str)],
        defines: &[&str],
    ) -> Result<Vec<u8>, GpuError> {
        let mut options = vec!["-std=c++17".to_string(), "-O3".into(), format!("--offload-arch={arch}")];
        options.extend(defines.iter().map(|define| format!("-D{define}")));
        let unit = Unit { arch, file, text, headers, options: &options };
        self.rtc.compile(&unit, self.lib.hiprtcGetCodeSize, self.lib.hiprtcGetCode)
    }
}
