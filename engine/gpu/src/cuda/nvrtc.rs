//! NVIDIA's compiler at run time, of CUDA 12 or 13.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr,
};

use crate::{
    GpuError,
    library::{self, Library, library},
};

library! {
    pub(super) struct LibNvrtc {
        fn nvrtcVersion(*mut c_int, *mut c_int) -> c_int;
        fn nvrtcGetErrorString(c_int) -> *const c_char;
        fn nvrtcGetNumSupportedArchs(*mut c_int) -> c_int;
        fn nvrtcGetSupportedArchs(*mut c_int) -> c_int;
        fn nvrtcCreateProgram(*mut *mut c_void, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> c_int;
        fn nvrtcDestroyProgram(*mut *mut c_void) -> c_int;
        fn nvrtcCompileProgram(*mut c_void, c_int, *const *const c_char) -> c_int;
        fn nvrtcGetCUBINSize(*mut c_void, *mut usize) -> c_int;
        fn nvrtcGetCUBIN(*mut c_void, *mut c_char) -> c_int;
        fn nvrtcGetPTXSize(*mut c_void, *mut usize) -> c_int;
        fn nvrtcGetPTX(*mut c_void, *mut c_char) -> c_int;
        fn nvrtcGetProgramLogSize(*mut c_void, *mut usize) -> c_int;
        fn nvrtcGetProgramLog(*mut c_void, *mut c_char) -> c_int;
    }
}

pub(super) struct Nvrtc {
    lib: LibNvrtc,
    version: (i32, i32),
    /// Numbers of architectures that it knows: 80, 90, 100.
    known: Vec<i32>,
}

/// A compiler's output: code for one architecture, or PTX that the driver compiles.
#[derive(Debug, PartialEq)]
enum Target {
    Exact(String),
    Ptx(i32),
}

impl Nvrtc {
    /// `driver` is the version of CUDA that the driver speaks: code of a newer one it may not load.
    pub(super) fn find(driver: (i32, i32)) -> Result<Self, String> {
        let newest_first = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
        let names = if driver >= (13, 0) { newest_first } else { ["libnvrtc.so.12", "libnvrtc.so", "libnvrtc.so.13"] };
        let library = Library::find(&names, &library::cuda_folders()).map_err(|e| {
            format!("kernels cannot be compiled: {e}; NVRTC comes with the CUDA toolkit, or from PyPI as nvidia-cuda-nvrtc")
        })?;
        Self::new(LibNvrtc::load(library)?)
    }

    fn new(lib: LibNvrtc) -> Result<Self, String> {
        let (mut major, mut minor, mut count) = (0, 0, 0);
        let fail = |code: c_int| format!("{} does not work: {}", lib.library.path.display(), reason(&lib, code));
        let ok = |code: c_int| if code == 0 { Ok(()) } else { Err(fail(code)) };
        // SAFETY: numbers are written, as many architectures as were counted.
        let known = unsafe {
            ok((lib.nvrtcVersion)(&mut major, &mut minor))?;
            ok((lib.nvrtcGetNumSupportedArchs)(&mut count))?;
            let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
            ok((lib.nvrtcGetSupportedArchs)(known.as_mut_ptr()))?;
            known
        };
        Ok(Self { version: (major, minor), known, lib })
    }

    pub(super) fn describe(&self) -> String {
        format!("NVRTC {}.{}", self.version.0, self.version.1)
    }

    pub(super) fn compile(
        &self,
        arch: &str,
        file: &str,
        text: &str,
        headers: &[(&str, &str)],
        defines: &[&str],
    ) -> Result<Vec<u8>, GpuError> {
        let target = target(arch, &self.known).map_err(|log| GpuError::Compile { file: file.into(), arch: arch.into(), log })?;
        let names = strings(headers.iter().map(|(name, _)| *name))?;
        let texts = strings(headers.iter().map(|(_, text)| *text))?;
        let mut options = vec!["--std=c++17".to_string(), "--diag-suppress=177".into()];
        options.push(match &target {
            Target::Exact(arch) => format!("--gpu-architecture={arch}"),
            Target::Ptx(number) => format!("--gpu-architecture=compute_{number}"),
        });
        options.extend(defines.iter().map(|define| format!("-D{define}")));
        let options = strings(options.iter().map(String::as_str))?;
        let (file_c, text_c) = (string(file)?, string(text)?);
        let (names, texts, options) = (pointers(&names), pointers(&texts), pointers(&options));

        let lib = &self.lib;
        let mut program = Program { lib, raw: ptr::null_mut() };
        // SAFETY: all strings end with 0 and outlive the calls; the program is destroyed by its owner.
        unsafe {
            let created = (lib.nvrtcCreateProgram)(
                &mut program.raw,
                text_c.as_ptr(),
                file_c.as_ptr(),
                headers.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            );
            program.check("nvrtcCreateProgram", created)?;
            let code = (lib.nvrtcCompileProgram)(program.raw, options.len() as c_int, options.as_ptr());
            if code != 0 {
                let mut log = program.bytes("nvrtcGetProgramLog", lib.nvrtcGetProgramLogSize, lib.nvrtcGetProgramLog)?;
                log.pop();
                let log = format!("{}\n{}", reason(lib, code), String::from_utf8_lossy(&log));
                return Err(GpuError::Compile { file: file.into(), arch: arch.into(), log: log.trim().into() });
            }
            match target {
                Target::Exact(_) => program.bytes("nvrtcGetCUBIN", lib.nvrtcGetCUBINSize, lib.nvrtcGetCUBIN),
                Target::Ptx(_) => program.bytes("nvrtcGetPTX", lib.nvrtcGetPTXSize, lib.nvrtcGetPTX),
            }
        }
    }
}

struct Program<'a> {
    lib: &'a LibNvrtc,
    raw: *mut c_void,
}

impl Program<'_> {
    fn check(&self, call: &'static str, code: c_int) -> Result<(), GpuError> {
        if code == 0 { Ok(()) } else { Err(GpuError::Call { call, reason: reason(self.lib, code) }) }
    }

    /// # Safety
    /// Both functions are this library's and belong together.
    unsafe fn bytes(
        &self,
        call: &'static str,
        size: unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int,
        get: unsafe extern "C" fn(*mut c_void, *mut c_char) -> c_int,
    ) -> Result<Vec<u8>, GpuError> {
        let mut length = 0;
        // SAFETY: the program is alive; as many bytes are written as it said.
        unsafe {
            self.check(call, size(self.raw, &mut length))?;
            let mut bytes = vec![0_u8; length];
            self.check(call, get(self.raw, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: created, and used no more.
            unsafe { (self.lib.nvrtcDestroyProgram)(&mut self.raw) };
        }
    }
}

fn reason(lib: &LibNvrtc, code: c_int) -> String {
    // SAFETY: returns a constant string for every number, or null.
    unsafe {
        let text = (lib.nvrtcGetErrorString)(code);
        if text.is_null() { format!("NVRTC error {code}") } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}

/// A card that is newer than the compiler gets PTX of the newest architecture that both know.
fn target(arch: &str, known: &[i32]) -> Result<Target, String> {
    let number = arch.trim_start_matches("sm_").trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse::<i32>();
    let Ok(number) = number else { return Err(format!("the architecture {arch} has no number")) };
    if known.contains(&number) {
        return Ok(Target::Exact(arch.into()));
    }
    let older = known.iter().copied().filter(|k| *k < number).max();
    older.map(Target::Ptx).ok_or_else(|| format!("NVRTC knows only newer cards: {known:?}"))
}

fn string(text: &str) -> Result<CString, GpuError> {
    CString::new(text).map_err(|_| GpuError::Call { call: "nvrtcCreateProgram", reason: "a zero byte in a source text".into() })
}

fn strings<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<CString>, GpuError> {
    texts.map(string).collect()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_card_gets_ptx_and_an_older_one_a_sentence() {
        let known = [80, 86, 89, 90];
        assert_eq!(target("sm_90a", &known), Ok(Target::Exact("sm_90a".into())));
        assert_eq!(target("sm_120", &known), Ok(Target::Ptx(90)));
        assert_eq!(target("sm_87", &known), Ok(Target::Ptx(86)));
        assert!(target("sm_75", &known).unwrap_err().contains("only newer"));
    }
}
