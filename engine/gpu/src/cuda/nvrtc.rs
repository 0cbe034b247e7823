//! NVIDIA's compiler at run time, of CUDA 12 or 13.

use std::ffi::{c_char, c_int, c_void};

use crate::{
    GpuError,
    library::{self, Library, library},
    rtc::{Rtc, Unit},
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
    rtc: Rtc,
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
        let nvrtc = Self::new(LibNvrtc::load(library)?)?;
        library::warn_if_newer(&nvrtc.lib.library.path, nvrtc.version.0, driver);
        Ok(nvrtc)
    }

    fn new(lib: LibNvrtc) -> Result<Self, String> {
        let rtc = Rtc {
            create: lib.nvrtcCreateProgram,
            destroy: lib.nvrtcDestroyProgram,
            compile: lib.nvrtcCompileProgram,
            log_size: lib.nvrtcGetProgramLogSize,
            log: lib.nvrtcGetProgramLog,
            error_string: lib.nvrtcGetErrorString,
        };
        let (mut major, mut minor, mut count) = (0, 0, 0);
        let path = lib.library.path.display();
        let ok = |code: c_int| if code == 0 { Ok(()) } else { Err(format!("{path} does not work: {}", rtc.reason(code))) };
        // SAFETY: numbers are written, as many architectures as were counted.
        let known = unsafe {
            ok((lib.nvrtcVersion)(&mut major, &mut minor))?;
            ok((lib.nvrtcGetNumSupportedArchs)(&mut count))?;
            let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
            ok((lib.nvrtcGetSupportedArchs)(known.as_mut_ptr()))?;
            known
        };
        Ok(Self { version: (major, minor), known, rtc, lib })
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
        let mut options = vec!["--std=c++17".to_string(), "--diag-suppress=177".into()];
        options.push(match &target {
            Target::Exact(arch) => format!("--gpu-architecture={arch}"),
            Target::Ptx(number) => format!("--gpu-architecture=compute_{number}"),
        });
        options.extend(defines.iter().map(|define| format!("-D{define}")));
        let unit = Unit { arch, file, text, headers, options: &options };
        match target {
            Target::Exact(_) => self.rtc.compile(&unit, self.lib.nvrtcGetCUBINSize, self.lib.nvrtcGetCUBIN),
            Target::Ptx(_) => self.rtc.compile(&unit, self.lib.nvrtcGetPTXSize, self.lib.nvrtcGetPTX),
        }
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

    /// NVIDIA's own compiler needs no card. Where it is not installed this says so and checks nothing, unless somebody says where it is.
    #[test]
    fn every_kernel_compiles_where_nvrtc_is_installed() {
        let nvrtc = match Nvrtc::find((13, 0)) {
            Ok(nvrtc) => nvrtc,
            Err(reason) if std::env::var_os("TOKENFLOW_CUDA_PATH").is_some_and(|path| !path.is_empty()) => panic!("{reason}"),
            Err(reason) => return eprintln!("skipped: {reason}"),
        };
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/backend/cuda/kernels");
        let mut texts: Vec<(String, String)> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap())
            .map(|file| (file.file_name().into_string().unwrap(), std::fs::read_to_string(file.path()).unwrap()))
            .collect();
        texts.sort();
        let (headers, files): (Vec<_>, Vec<_>) =
            texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).partition(|(name, _)| name.ends_with(".cuh"));
        assert!(!files.is_empty());
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some((name, text)) = files.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                        let start = std::time::Instant::now();
                        let binary = nvrtc.compile("sm_90a", name, text, &headers, &[]).unwrap();
                        println!("{name}: {} bytes in {:.1} s by {}", binary.len(), start.elapsed().as_secs_f32(), nvrtc.describe());
                        assert!(binary.starts_with(b"\x7fELF"), "{name}");
                    }
                });
            }
        });
        let error =
            nvrtc.compile("sm_90a", "wrong.cu", "#include \"device.cuh\"\n__global__ void f() { x = 1; }", &headers, &[]).unwrap_err();
        assert!(error.to_string().contains("wrong.cu does not compile for sm_90a") && error.to_string().contains("\"x\""), "{error}");
        let ptx = nvrtc.compile("sm_999", "one.cu", "#ifdef ONE\nextern \"C\" __global__ void one() {}\n#endif", &[], &["ONE=1"]).unwrap();
        assert!(ptx.ends_with(b"\0") && String::from_utf8_lossy(&ptx).contains(".entry one"));
    }
}
