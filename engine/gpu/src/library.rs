//! Vendors' libraries, found at run time: by the loader's own search, in the usual folders, and where Python's packages put them. A table of
//! functions is looked up as a whole, so that a library that lacks one is told at once and by name.

use std::{
    env,
    ffi::c_void,
    fs, mem,
    path::{Path, PathBuf},
};

use libloading::os::unix::{Library as Loaded, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};

/// Folders of libraries that are looked at before all others, separated by colons; site-packages will do.
pub(crate) const FOLDERS_VARIABLE: &str = "TOKENFLOW_CUDA_PATH";

/// A library that stays loaded until the process ends: drivers do not survive being unloaded.
pub(crate) struct Library {
    loaded: mem::ManuallyDrop<Loaded>,
    /// As it was found: a name that the loader resolved, or a path.
    pub path: PathBuf,
}

impl Library {
    /// The first that loads of `names` in the folders that the user names, by the loader's search, and in `folders`.
    ///
    /// # Errors
    /// One sentence: which names were looked for and where, and what the loader said of one that is there and does not load.
    pub(crate) fn find(names: &[&str], folders: &[PathBuf]) -> Result<Self, String> {
        let asked = asked_folders();
        let mut refused = None;
        for folder in &asked {
            if let Some(library) = find_in(folder, names, &mut refused) {
                return Ok(library);
            }
        }
        for name in names {
            if let Some(library) = load(Path::new(name), &mut refused) {
                return Ok(library);
            }
        }
        for folder in folders {
            if let Some(library) = find_in(folder, names, &mut refused) {
                return Ok(library);
            }
        }
        let mut places = vec!["the loader's path (LD_LIBRARY_PATH, ld.so.conf)".to_string()];
        places.extend(asked.iter().chain(folders).map(|folder| folder.display().to_string()));
        if asked.is_empty() {
            places.push(format!("{FOLDERS_VARIABLE}, which is not set"));
        }
        let refused = refused.map(|reason| format!("; {reason}")).unwrap_or_default();
        Err(format!("{} not found in {}{refused}", list(names, "or"), list(&places, "and")))
    }

    /// The address of a function.
    pub(crate) fn symbol(&self, name: &str) -> Option<*mut c_void> {
        // SAFETY: only the address is taken; whoever calls it gives it its type.
        unsafe { self.loaded.get::<*mut c_void>(name.as_bytes()).ok().map(|symbol| symbol.into_raw()) }
    }
}

fn find_in(folder: &Path, names: &[&str], refused: &mut Option<String>) -> Option<Library> {
    names.iter().map(|name| folder.join(name)).filter(|path| path.exists()).find_map(|path| {
        preload_companions(folder, &path);
        load(&path, refused)
    })
}

fn load(path: &Path, refused: &mut Option<String>) -> Option<Library> {
    // SAFETY: initialisers of the vendor's library run; it is trusted as the driver is.
    match unsafe { Loaded::open(Some(path), RTLD_NOW | RTLD_LOCAL) } {
        Ok(loaded) => Some(Library { loaded: mem::ManuallyDrop::new(loaded), path: path.into() }),
        Err(error) => {
            // That a plain name is nowhere says nothing; that a library is there and does not load does.
            let reason = loader_message(&error);
            if !reason.contains("cannot open shared object file") || path.exists() {
                refused.get_or_insert(reason);
            }
            None
        }
    }
}

/// NVRTC opens its builtins by name, which the loader finds only when they are loaded already.
fn preload_companions(folder: &Path, library: &Path) {
    let Some(stem) = library.file_name().and_then(|name| name.to_str()).and_then(|name| name.split(".so").next()) else { return };
    let prefix = format!("{stem}-builtins.so");
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            // SAFETY: as in `load`; global, because it is looked for by its name later.
            if let Ok(loaded) = unsafe { Loaded::open(Some(entry.path()), RTLD_NOW | RTLD_GLOBAL) } {
                mem::forget(loaded);
            }
        }
    }
}

fn loader_message(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn asked_folders() -> Vec<PathBuf> {
    env::var_os(FOLDERS_VARIABLE)
        .iter()
        .flat_map(|paths| env::split_paths(paths).collect::<Vec<_>>())
        .flat_map(|f| with_insides(&f))
        .collect()
}

/// Where CUDA's libraries lie besides the loader's path.
pub(crate) fn cuda_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(home) = env::var_os(variable).filter(|home| !home.is_empty()) {
            folders.extend(["lib64", "lib"].map(|inside| Path::new(&home).join(inside)));
        }
    }
    folders.push("/usr/local/cuda/lib64".into());
    for variable in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        if let Some(home) = env::var_os(variable).filter(|home| !home.is_empty()) {
            let lib = Path::new(&home).join("lib");
            folders.push(lib.clone());
            for python in sorted_folders(&lib).into_iter().filter(|f| file_name(f).starts_with("python3")) {
                folders.extend(wheels(&python.join("site-packages")));
            }
        }
    }
    folders.dedup();
    folders
}

/// Says so where nothing older was found than a library of a newer CUDA than the driver speaks.
pub(crate) fn warn_if_newer(path: &Path, major: i32, driver: (i32, i32)) {
    if let Some(sentence) = newer_than_driver(path, major, driver) {
        tracing::warn!("{sentence}");
    }
}

fn newer_than_driver(path: &Path, major: i32, driver: (i32, i32)) -> Option<String> {
    let (path, (own, minor)) = (path.display(), driver);
    let why = format!("the driver speaks CUDA {own}.{minor} and may refuse it");
    (major > own).then(|| format!("{path} is of CUDA {major}, but {why}: install a library of CUDA {own}, or a newer driver"))
}

/// Where ROCm's libraries lie besides the loader's path.
pub(crate) fn rocm_folders() -> Vec<PathBuf> {
    let home = env::var_os("ROCM_PATH").filter(|home| !home.is_empty());
    let homes = home.map(PathBuf::from).into_iter().chain(["/opt/rocm".into()]);
    homes.map(|home| home.join("lib")).collect()
}

/// A folder, and where libraries lie inside of it when it is a toolkit's or Python's.
fn with_insides(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_path_buf()];
    all.extend(["lib64", "lib"].map(|inside| folder.join(inside)).into_iter().filter(|f| f.is_dir()));
    all.extend(wheels(folder));
    all
}

/// `nvidia/*/lib` of Python's site-packages.
fn wheels(site_packages: &Path) -> Vec<PathBuf> {
    sorted_folders(&site_packages.join("nvidia")).into_iter().map(|package| package.join("lib")).filter(|lib| lib.is_dir()).collect()
}

fn sorted_folders(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|p| p.is_dir()).collect();
    all.sort();
    all
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub(crate) fn list<S: AsRef<str>>(items: &[S], last: &str) -> String {
    match items {
        [] => String::new(),
        [one] => one.as_ref().to_string(),
        [first @ .., end] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} {last} {}", first.join(", "), end.as_ref())
        }
    }
}

/// A struct of a library's functions, each under its own name, and `load`, which looks all of them up or names those that are missing.
macro_rules! library {
    ($(#[$meta:meta])* $vis:vis struct $Table:ident { $(fn $name:ident($($arg:ty),* $(,)?) $(-> $result:ty)?;)* }) => {
        $(#[$meta])*
        #[allow(non_snake_case, dead_code)]
        $vis struct $Table {
            $(pub $name: unsafe extern "C" fn($($arg),*) $(-> $result)?,)*
            pub library: $crate::library::Library,
        }

        impl $Table {
            #[allow(non_snake_case)]
            $vis fn load(library: $crate::library::Library) -> Result<Self, String> {
                let mut missing: Vec<&str> = Vec::new();
                $(let $name = library.symbol(stringify!($name)).unwrap_or_else(|| { missing.push(stringify!($name)); std::ptr::null_mut() });)*
                if !missing.is_empty() {
                    return Err(format!("{} is too old: it lacks {}", library.path.display(), $crate::library::list(&missing, "and")));
                }
                // SAFETY: each address is that of the function of this name, which the vendor's header declares like this.
                Ok(unsafe { Self {
                    $($name: std::mem::transmute::<*mut std::ffi::c_void, unsafe extern "C" fn($($arg),*) $(-> $result)?>($name),)*
                    library,
                } })
            }
        }
    };
}
pub(crate) use library;

#[cfg(test)]
mod tests {
    use super::*;

    library! {
        struct Math { fn cos(f64) -> f64; }
    }
    library! {
        struct Wrong { fn cos(f64) -> f64; fn tokenflow_sine(f64) -> f64; }
    }

    #[test]
    fn functions_are_found_or_named() {
        let math = Math::load(Library::find(&["libnothing-tokenflow.so", "libm.so.6"], &[]).unwrap()).unwrap();
        // SAFETY: the C library's cosine.
        assert_eq!(unsafe { (math.cos)(0.0) }, 1.0);
        let error = Wrong::load(Library::find(&["libm.so.6"], &[]).unwrap()).err().unwrap();
        assert_eq!(error, "libm.so.6 is too old: it lacks tokenflow_sine");
    }

    #[test]
    fn a_missing_library_is_told_by_its_names_and_places() {
        let folder = tempfile::tempdir().unwrap();
        let error = Library::find(&["libtokenflow-a.so.1", "libtokenflow-a.so"], &[folder.path().into()]).err().unwrap();
        assert!(error.starts_with("libtokenflow-a.so.1 or libtokenflow-a.so not found in the loader's path"), "{error}");
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        fs::write(folder.path().join("libtokenflow-a.so"), "no library").unwrap();
        let error = Library::find(&["libtokenflow-a.so.1", "libtokenflow-a.so"], &[folder.path().into()]).err().unwrap();
        assert!(error.contains("libtokenflow-a.so: ") && error.contains("too short"), "{error}");
    }

    #[test]
    fn a_library_of_a_newer_cuda_than_the_drivers_is_told() {
        let said = |major, driver| newer_than_driver(Path::new("libcublasLt.so.13"), major, driver);
        assert_eq!((said(12, (12, 0)), said(12, (13, 0))), (None, None));
        let expected = "libcublasLt.so.13 is of CUDA 13, but the driver speaks CUDA 12.4 and may refuse it: install a library of CUDA 12, or a \
                        newer driver";
        assert_eq!(said(13, (12, 4)).as_deref(), Some(expected));
    }

    #[test]
    fn folders_of_python_packages_are_found() {
        let site = tempfile::tempdir().unwrap();
        for package in ["cublas", "cuda_nvrtc"] {
            fs::create_dir_all(site.path().join("nvidia").join(package).join("lib")).unwrap();
        }
        let expected = [site.path().into(), site.path().join("nvidia/cublas/lib"), site.path().join("nvidia/cuda_nvrtc/lib")];
        assert_eq!(with_insides(site.path()), expected);
    }
}
