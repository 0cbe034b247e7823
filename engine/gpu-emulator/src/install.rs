//! Emulated drivers in this process.

use std::{
    ffi::{CString, c_char, c_int},
    path::PathBuf,
    sync::{Mutex, OnceLock},
};

use crate::{
    build::{Sources, build, kernel_sources, read_sources},
    folder::{folder_of, names},
    library::Loaded,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vendor {
    Nvidia,
    Amd,
}

/// When operations run that were issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Some at once, some later, by the seed.
    Mixed,
    Eager,
    /// When the host waits for them.
    Lazy,
}

/// The card to be emulated.
#[derive(Clone, Debug)]
pub struct Options {
    pub vendor: Vendor,
    /// Lanes of a warp: 32 or 64.
    pub warp: u32,
    /// "sm_90", "gfx942"
    pub arch: String,
    pub name: String,
    pub devices: usize,
    pub multiprocessors: usize,
    pub memory_bytes: usize,
    /// Decides the order of operations, blocks and threads.
    pub seed: u64,
    pub progress: Progress,
    /// A folder of kernels instead of the engine's.
    pub kernels: Option<PathBuf>,
}

impl Options {
    /// A card of NVIDIA's with the engine's kernels and 2 GiB of memory.
    pub fn nvidia() -> Self {
        Self {
            vendor: Vendor::Nvidia,
            warp: 32,
            arch: "sm_90".into(),
            name: "Emulated GPU".into(),
            devices: 1,
            multiprocessors: 132,
            memory_bytes: 2 << 30,
            seed: 1,
            progress: Progress::Mixed,
            kernels: None,
        }
    }

    /// A large card of AMD's, with warps of 64 lanes.
    pub fn amd() -> Self {
        Self { vendor: Vendor::Amd, warp: 64, arch: "gfx942".into(), ..Self::nvidia() }
    }

    /// The variable by which another process's emulated card is as these options say, and its value.
    pub fn environment(&self) -> (&'static str, String) {
        ("TOKENFLOW_EMULATED_GPU", self.text())
    }

    fn text(&self) -> String {
        let Self { seed, memory_bytes, devices, multiprocessors, arch, name, .. } = self;
        let progress = format!("{:?}", self.progress).to_lowercase();
        format!(
            "seed={seed};memory={memory_bytes};devices={devices};multiprocessors={multiprocessors};arch={arch};name={name};progress={progress}"
        )
    }

    pub(crate) fn sources(&self) -> Sources {
        let mut sources = kernel_sources();
        if let Some(folder) = &self.kernels {
            sources.retain(|name, _| name.ends_with(".cuh"));
            sources.extend(read_sources(folder));
        }
        sources
    }
}

/// What happened on the emulated cards of a process since the counters were last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    pub allocations: u64,
    pub frees: u64,
    pub pinned_allocations: u64,
    pub pinned_frees: u64,
    /// How often the host waited for a stream, an event, everything.
    pub stream_waits: u64,
    pub event_waits: u64,
    pub context_waits: u64,
    /// How often it asked without waiting.
    pub event_queries: u64,
    /// Kernels, also those that were recorded instead of run; not those of graphs.
    pub launches: u64,
    pub graph_launches: u64,
    /// Graphs that were instantiated.
    pub graphs: u64,
    pub copies: u64,
    pub fills: u64,
    /// Products by the vendor's library.
    pub products: u64,
    /// How often it was asked for algorithms.
    pub heuristics: u64,
    pub modules: u64,
    pub compilations: u64,
    /// Whatever was told on standard error.
    pub errors: u64,
    /// Memory of the card, now and at most.
    pub bytes_in_use: u64,
    pub peak_bytes: u64,
}

impl Counters {
    const LEN: usize = size_of::<Self>() / size_of::<u64>();
}

/// The emulated driver that is loaded into this process.
pub struct Emulated {
    counters: unsafe extern "C" fn(*mut u64, usize) -> usize,
    reset_counters: unsafe extern "C" fn(),
    last_error: unsafe extern "C" fn(*mut c_char, usize) -> usize,
    limit_memory: unsafe extern "C" fn(usize),
    folder: PathBuf,
}

impl Emulated {
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        // SAFETY: the struct is as many words as it is told to be.
        let words = unsafe { (self.counters)((&raw mut counters).cast(), Counters::LEN) };
        assert_eq!(words, Counters::LEN, "the emulator counts what it did when this was compiled");
        counters
    }

    /// From now on they count anew.
    pub fn reset_counters(&self) {
        // SAFETY: no preconditions.
        unsafe { (self.reset_counters)() };
    }

    /// The latest message of what was done wrong; empty where nothing was.
    pub fn last_error(&self) -> String {
        let mut text = vec![0_u8; 4096];
        // SAFETY: there is room for as many bytes as it is told.
        let len = unsafe { (self.last_error)(text.as_mut_ptr().cast(), text.len()) };
        text.truncate(len);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// How much memory each card has from now on.
    pub fn limit_memory(&self, bytes: usize) {
        // SAFETY: no preconditions.
        unsafe { (self.limit_memory)(bytes) };
    }

    /// For the `LD_LIBRARY_PATH` of another process.
    pub fn library_folder(&self) -> &PathBuf {
        &self.folder
    }
}

/// Puts emulated drivers in the place of the vendor's in this process: whoever opens the vendor's libraries by name from now on gets these.
/// The first call for a vendor decides; later ones, with whatever options, return what is there.
///
/// # Panics
/// Where it cannot be compiled or loaded.
pub fn install(options: &Options) -> &'static Emulated {
    static INSTALLED: [OnceLock<Emulated>; 2] = [OnceLock::new(), OnceLock::new()];
    static LOADING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = LOADING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    INSTALLED[options.vendor as usize].get_or_init(|| load(options))
}

fn load(options: &Options) -> Emulated {
    let path = build(options.warp, &options.sources());
    let library = Loaded::open(&path);
    let folder = folder_of(&path, options.vendor);
    for name in names(options.vendor) {
        // The loader gives a library that is loaded to whoever asks for its name.
        Loaded::open(&folder.join(name));
    }
    // SAFETY: these are the signatures that state.cpp gives the functions of these names.
    let (emulated, configure) = unsafe {
        let emulated = Emulated {
            counters: library.function(c"emulator_counters"),
            reset_counters: library.function(c"emulator_reset_counters"),
            last_error: library.function(c"emulator_last_error"),
            limit_memory: library.function(c"emulator_limit_memory"),
            folder,
        };
        (emulated, library.function::<unsafe extern "C" fn(*const c_char) -> c_int>(c"emulator_configure"))
    };
    let text = CString::new(options.text()).expect("no NUL");
    // SAFETY: a text that lives as long as the call.
    let understood = unsafe { configure(text.as_ptr()) };
    assert_eq!(understood, 1, "the emulator understands {text:?}");
    emulated
}
