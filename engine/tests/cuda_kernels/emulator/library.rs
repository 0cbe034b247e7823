//! The compiled kernels, loaded into this process.

use std::{
    ffi::{CStr, CString, c_char, c_uint, c_void},
    path::Path,
    sync::OnceLock,
};

use super::{
    WARPS,
    build::{Mutation, build},
};

type Create = unsafe extern "C" fn() -> *mut c_void;
type Destroy = unsafe extern "C" fn(*mut c_void);
type Allocate = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
type Launch =
    unsafe extern "C" fn(*mut c_void, *const c_char, *const c_uint, *const c_uint, usize, *const c_void, usize, u64) -> *const c_char;

/// The emulator's interface. Libraries stay loaded: there are few, and what they hand out must not outlive them.
pub struct Library {
    pub warp: u32,
    pub(super) create: Create,
    pub(super) destroy: Destroy,
    pub(super) allocate: Allocate,
    pub(super) launch: Launch,
}

/// The kernels as they are, for warps of this width.
pub fn library(warp: u32) -> &'static Library {
    static LIBRARIES: [OnceLock<Library>; WARPS.len()] = [const { OnceLock::new() }; WARPS.len()];
    let index = WARPS.iter().position(|&w| w == warp).expect("a width that is built for");
    LIBRARIES[index].get_or_init(|| Library::load(&build(warp, None), warp))
}

impl Library {
    /// With a mistake in one of the kernels.
    pub fn mutated(mutation: Mutation) -> Self {
        Self::load(&build(32, Some(mutation)), 32)
    }

    fn load(path: &Path, warp: u32) -> Self {
        let name = CString::new(path.to_str().expect("UTF-8")).expect("no NUL");
        // SAFETY: the library was built from this project's sources; its initialisers only fill a list.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: dlopen has just failed, so that there is a message.
            let message = unsafe { CStr::from_ptr(libc::dlerror()) };
            panic!("{}: {}", path.display(), message.to_string_lossy());
        }
        let symbol = |name: &CStr| {
            // SAFETY: the handle is that of an open library.
            let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
            assert!(!address.is_null(), "the emulator has no {name:?}");
            address
        };
        // SAFETY: these are the signatures that interface.cpp gives the functions of these names.
        unsafe {
            Self {
                warp,
                create: std::mem::transmute::<*mut c_void, Create>(symbol(c"emulator_create")),
                destroy: std::mem::transmute::<*mut c_void, Destroy>(symbol(c"emulator_destroy")),
                allocate: std::mem::transmute::<*mut c_void, Allocate>(symbol(c"emulator_allocate")),
                launch: std::mem::transmute::<*mut c_void, Launch>(symbol(c"emulator_launch")),
            }
        }
    }
}
