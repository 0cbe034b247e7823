//! The compiled kernels, loaded into this process.

use std::{
    ffi::{CStr, CString, c_char, c_uint, c_void},
    path::Path,
    sync::OnceLock,
};

use crate::build::{Mutation, WARPS, build, kernel_sources, mutate};

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

type Create = unsafe extern "C" fn() -> *mut c_void;
type Destroy = unsafe extern "C" fn(*mut c_void);
type Allocate = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
type Launch =
    unsafe extern "C" fn(*mut c_void, *const c_char, *const c_uint, *const c_uint, usize, *const c_void, usize, u64) -> *const c_char;

/// The emulator without a driver.
pub struct Library {
    pub warp: u32,
    pub(crate) create: Create,
    pub(crate) destroy: Destroy,
    pub(crate) allocate: Allocate,
    pub(crate) launch: Launch,
}

/// The engine's kernels as they are, for warps of this width.
pub fn library(warp: u32) -> &'static Library {
    static LIBRARIES: [OnceLock<Library>; WARPS.len()] = [const { OnceLock::new() }; WARPS.len()];
    let index = WARPS.iter().position(|&w| w == warp).expect("a width that is built for");
    LIBRARIES[index].get_or_init(|| Library::load(&build(warp, &kernel_sources()), warp))
}

impl Library {
    /// With a mistake in one of the kernels.
    pub fn mutated(mutation: Mutation) -> Self {
        let mut sources = kernel_sources();
        mutate(&mut sources, mutation);
        Self::load(&build(32, &sources), 32)
    }

    fn load(path: &Path, warp: u32) -> Self {
        let library = Loaded::open(path);
        // SAFETY: these are the signatures that interface.cpp gives the functions of these names.
        unsafe {
            Self {
                warp,
                create: library.function(c"emulator_create"),
                destroy: library.function(c"emulator_destroy"),
                allocate: library.function(c"emulator_allocate"),
                launch: library.function(c"emulator_launch"),
            }
        }
    }
}
