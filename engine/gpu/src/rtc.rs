//! Compilers at run time: NVIDIA's and AMD's differ in names and options only.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr,
};

use crate::GpuError;

type Size = unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int;
type Get = unsafe extern "C" fn(*mut c_void, *mut c_char) -> c_int;

/// One library's functions for programs.
pub(crate) struct Rtc {
    pub create:
        unsafe extern "C" fn(*mut *mut c_void, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> c_int,
    pub destroy: unsafe extern "C" fn(*mut *mut c_void) -> c_int,
    pub compile: unsafe extern "C" fn(*mut c_void, c_int, *const *const c_char) -> c_int,
    pub log_size: Size,
    pub log: Get,
    pub error_string: unsafe extern "C" fn(c_int) -> *const c_char,
}

/// One file to be compiled.
pub(crate) struct Unit<'a> {
    pub arch: &'a str,
    pub file: &'a str,
    pub text: &'a str,
    /// Found by name where a text includes them.
    pub headers: &'a [(&'a str, &'a str)],
    pub options: &'a [String],
}

impl Rtc {
    /// Compiles and takes what `size` and `get` of this library give.
    pub(crate) fn compile(&self, unit: &Unit, size: Size, get: Get) -> Result<Vec<u8>, GpuError> {
        let names = strings(unit.headers.iter().map(|(name, _)| *name))?;
        let texts = strings(unit.headers.iter().map(|(_, text)| *text))?;
        let options = strings(unit.options.iter().map(String::as_str))?;
        let (file, text) = (string(unit.file)?, string(unit.text)?);
        let (names, texts, options) = (pointers(&names), pointers(&texts), pointers(&options));
        let mut program = Program { rtc: self, raw: ptr::null_mut() };
        // SAFETY: all strings end with 0 and outlive the calls; the program is destroyed by its owner.
        unsafe {
            let count = names.len() as c_int;
            let created = (self.create)(&mut program.raw, text.as_ptr(), file.as_ptr(), count, texts.as_ptr(), names.as_ptr());
            self.check("the creation of a program", created)?;
            let code = (self.compile)(program.raw, options.len() as c_int, options.as_ptr());
            if code != 0 {
                let log = program.bytes(self.log_size, self.log)?;
                let log = format!("{}\n{}", self.reason(code), String::from_utf8_lossy(&log).trim_end_matches('\0'));
                return Err(GpuError::Compile { file: unit.file.into(), arch: unit.arch.into(), log: log.trim().into() });
            }
            program.bytes(size, get)
        }
    }

    pub(crate) fn check(&self, call: &'static str, code: c_int) -> Result<(), GpuError> {
        if code == 0 { Ok(()) } else { Err(GpuError::Call { call, reason: self.reason(code) }) }
    }

    pub(crate) fn reason(&self, code: c_int) -> String {
        // SAFETY: returns a constant string, or null for numbers that it does not know.
        unsafe {
            let text = (self.error_string)(code);
            if text.is_null() { format!("error {code} of the compiler") } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    }
}

struct Program<'a> {
    rtc: &'a Rtc,
    raw: *mut c_void,
}

impl Program<'_> {
    /// # Safety
    /// Both functions are of the program's library and belong together.
    unsafe fn bytes(&self, size: Size, get: Get) -> Result<Vec<u8>, GpuError> {
        let mut length = 0;
        // SAFETY: the program is alive; as many bytes are written as it said.
        unsafe {
            self.rtc.check("the size of what was compiled", size(self.raw, &mut length))?;
            let mut bytes = vec![0_u8; length];
            self.rtc.check("taking what was compiled", get(self.raw, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: created, and used no more.
            unsafe { (self.rtc.destroy)(&mut self.raw) };
        }
    }
}

fn string(text: &str) -> Result<CString, GpuError> {
    CString::new(text).map_err(|_| GpuError::Call { call: "the creation of a program", reason: "a zero byte in a source text".into() })
}

fn strings<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<CString>, GpuError> {
    texts.map(string).collect()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).collect()
}
