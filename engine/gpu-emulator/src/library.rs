//! Shared libraries in this process.

use std::{
    ffi::{CStr, CString, c_void},
    path::Path,
};

/// A library that stays loaded: there are few, and what they hand out must not outlive them.
pub(crate) struct Loaded {
    handle: *mut c_void,
    path: String,
}

impl Loaded {
    pub(crate) fn open(path: &Path) -> Self {
        let path = path.to_str().expect("UTF-8").to_owned();
        let name = CString::new(path.as_str()).expect("no NUL");
        // SAFETY: the library was built from this project's sources; its initialisers only fill lists.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: dlopen has just failed, so that there is a message.
            let message = unsafe { CStr::from_ptr(libc::dlerror()) };
            panic!("{path}: {}", message.to_string_lossy());
        }
        Self { handle, path }
    }

    /// # Safety
    /// `F` is the type of the function of this name.
    pub(crate) unsafe fn function<F: Copy>(&self, name: &CStr) -> F {
        assert_eq!(size_of::<F>(), size_of::<*mut c_void>());
        // SAFETY: the handle is that of an open library.
        let address = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        assert!(!address.is_null(), "{} has no {name:?}", self.path);
        // SAFETY: by the caller's word.
        unsafe { std::mem::transmute_copy(&address) }
    }
}
