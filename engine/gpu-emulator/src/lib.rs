//! An emulated GPU. It takes the place of the vendors' libraries (libcuda, NVRTC and cublasLt; libamdhip64 and hiprtc), so that the code that
//! talks to a card is tested as it is, on machines without one.
//!
//! [`install`] compiles the kernels and the drivers as C++, once, and loads them under the vendors' names; [`Emulated`] says what happened
//! there. [`library_folder`] is the same for other processes.

mod build;
mod folder;
mod install;
mod library;

pub use build::kernel_sources;
pub use folder::library_folder;
pub use install::{Counters, Emulated, Options, Progress, Vendor, install};
