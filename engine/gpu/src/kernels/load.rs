//! Finds or makes each file's binary and hands it to the driver: the prebuilt one, else the one kept on disk, else a new one.

use std::{
    fs,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use parking_lot::Mutex;

use super::{
    cache::{Cache, default_folder},
    source::{Source, Sources, key_of, stem},
};
use crate::{Driver, Gpu, GpuError, RawModule};

/// Compilers take 150 MB each.
const MAX_THREADS: usize = 16;

/// Where a file's binary came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Prebuilt,
    Kept,
    Compiled,
}

/// One more file is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    pub file: &'a str,
    pub origin: Origin,
    pub done: usize,
    pub total: usize,
}

pub struct LoadOptions<'a> {
    /// A folder of binaries that were made elsewhere, by [`Sources::prebuilt_name`].
    pub prebuilt: Option<PathBuf>,
    /// Where compiled files are kept; nowhere if none.
    pub cache: Option<PathBuf>,
    /// Hears of each file, in the thread that made it ready.
    pub progress: &'a (dyn Fn(Progress) + Sync),
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        Self { prebuilt: None, cache: default_folder(), progress: &|_| {} }
    }
}

struct Loader<'a> {
    driver: &'a dyn Driver,
    sources: &'a Sources<'a>,
    options: &'a LoadOptions<'a>,
    cache: Cache,
    /// Asked for when the first file is not prebuilt.
    compiler: OnceLock<Result<String, GpuError>>,
}

pub(super) fn load(gpu: &Gpu, sources: &Sources, options: &LoadOptions, modules: &mut Vec<RawModule>) -> Result<(), GpuError> {
    // Several cards of one process need the same binaries: the first compiles them, and the others find them kept.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock();

    let cache = Cache::new(options.cache.clone());
    let loader = Loader { driver: &**gpu.driver(), sources, options, cache, compiler: OnceLock::new() };
    let total = sources.files.len();
    let (next, results) = (AtomicUsize::new(0), Mutex::new((Vec::new(), None)));
    let work = || {
        while let Some(file) = sources.files.get(next.fetch_add(1, Relaxed)) {
            let loaded = loader.load_file(*file);
            let mut results = results.lock();
            match loaded {
                Ok((module, origin)) => {
                    results.0.push(module);
                    (options.progress)(Progress { file: file.name, origin, done: results.0.len(), total });
                }
                Err(error) => {
                    results.1.get_or_insert(error);
                    next.store(total, Relaxed);
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS).min(total);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let (loaded, error) = results.into_inner();
    modules.extend(loaded);
    error.map_or(Ok(()), Err)
}

impl Loader<'_> {
    fn load_file(&self, file: Source) -> Result<(RawModule, Origin), GpuError> {
        if let Some(module) = self.prebuilt(file) {
            return Ok((module, Origin::Prebuilt));
        }
        let compiler = self.compiler.get_or_init(|| self.driver.compiler()).clone()?;
        let arch = &self.driver.info().arch;
        let name = format!("{}-{arch}-{}.bin", stem(file.name), key_of(&[&self.sources.key(file), arch, &compiler]));
        if let Some(binary) = self.cache.load(&name) {
            match self.driver.load_module(&binary) {
                Ok(module) => return Ok((module, Origin::Kept)),
                Err(error) => tracing::warn!("{}, kept from an earlier start, is compiled again: {error}", file.name),
            }
        }
        let headers: Vec<(&str, &str)> = self.sources.headers_of(file).iter().map(|h| (h.name, h.text)).collect();
        let defines: Vec<&str> = self.sources.defines.iter().map(String::as_str).collect();
        let binary = self.driver.compile(file.name, file.text, &headers, &defines)?;
        let module = self.driver.load_module(&binary).map_err(|error| match error {
            GpuError::Call { .. } => {
                let log = format!("the driver refuses what {compiler} made: {error}");
                GpuError::Compile { file: file.name.into(), arch: arch.clone(), log }
            }
            error => error,
        })?;
        // Only now: what the driver refuses is not worth keeping.
        self.cache.store(&name, &binary);
        Ok((module, Origin::Compiled))
    }

    fn prebuilt(&self, file: Source) -> Option<RawModule> {
        let path = self.options.prebuilt.as_ref()?.join(self.sources.prebuilt_name(file));
        let binary = fs::read(&path).ok()?;
        match self.driver.load_module(&binary) {
            Ok(module) => Some(module),
            Err(error) => {
                tracing::info!("{} does not serve {}: {error}", path.display(), self.driver.info().arch);
                None
            }
        }
    }
}
