//! Libraries under the vendors' names, all of which lead to one that has everything.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Options, Vendor,
    build::{build, cache, publish, run},
};

/// The names under which programs look for a vendor's libraries.
pub(crate) fn names(vendor: Vendor) -> &'static [&'static str] {
    match vendor {
        Vendor::Nvidia => &[
            "libcuda.so",
            "libcuda.so.1",
            "libnvrtc.so",
            "libnvrtc.so.12",
            "libnvrtc.so.13",
            "libcublasLt.so",
            "libcublasLt.so.12",
            "libcublasLt.so.13",
        ],
        Vendor::Amd => &["libamdhip64.so", "libamdhip64.so.6", "libamdhip64.so.7", "libhiprtc.so", "libhiprtc.so.6", "libhiprtc.so.7"],
    }
}

/// A folder for another process's `LD_LIBRARY_PATH`, in which the vendor's libraries are the emulated ones; [`Options::environment`] is
/// what that process should have in its environment besides.
///
/// # Panics
/// Where it cannot be compiled.
pub fn library_folder(options: &Options) -> PathBuf {
    folder_of(&build(options.warp, &options.sources()), options.vendor)
}

pub(crate) fn folder_of(library: &Path, vendor: Vendor) -> PathBuf {
    let name = library.file_stem().and_then(|stem| stem.to_str()).expect("a name");
    let folder = cache().join(format!("{name}-{vendor:?}").to_lowercase());
    if !folder.exists() {
        let unfinished = tempfile::tempdir_in(cache()).expect("a folder");
        for name in names(vendor) {
            publish(&unfinished.path().join(name), |to| {
                let mut command = Command::new("c++");
                command.args(["-shared", "-Wl,--no-as-needed", "-o"]).arg(to).arg(format!("-Wl,-soname,{name}")).arg(library);
                run(command);
            });
        }
        // Somebody else may have been faster.
        if let Err(error) = fs::rename(unfinished.path(), &folder) {
            assert!(folder.exists(), "{}: {error}", folder.display());
        }
    }
    folder
}
