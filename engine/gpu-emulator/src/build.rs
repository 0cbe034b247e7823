//! Compiles kernels, emulator and drivers as C++. Objects are kept by what they were made of, so that only what changed is compiled again.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

const FLAGS: [&str; 6] = ["-std=c++17", "-fPIC", "-fno-strict-aliasing", "-ftls-model=initial-exec", "-fno-gnu-unique", "-Wall"];

/// Loads and stores call the emulator; arithmetic is done as it is written.
const KERNEL_FLAGS: [&str; 9] = [
    "-O1",
    "-fsanitize=thread",
    "-ffp-contract=off",
    "-Wno-unused-function",
    "-Wno-unknown-pragmas",
    "-Werror",
    "-DTOKENFLOW_EMULATOR",
    "-x",
    "c++",
];

const RUNTIME_FLAGS: [&str; 3] = ["-O2", "-ffp-contract=off", "-Werror"];

/// Threads that compile at the same time.
const COMPILERS: usize = 2;

/// Texts by name.
pub(crate) type Sources = BTreeMap<String, String>;

fn device_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("device")
}

/// All `.cu` and `.cuh` of a folder.
pub(crate) fn read_sources(folder: &Path) -> Sources {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.expect("readable").path());
    let kernels = paths.filter(|path| path.extension().is_some_and(|e| e == "cu" || e == "cuh"));
    let name = |path: &PathBuf| path.file_name().and_then(|n| n.to_str()).map(str::to_owned).expect("a name");
    kernels.map(|path| (name(&path), fs::read_to_string(&path).expect("readable"))).collect()
}

/// Text of all the engine's kernels and their headers, by name.
pub fn kernel_sources() -> BTreeMap<String, String> {
    read_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/backend/cuda/kernels"))
}

/// Where compiled files are kept: in the target folder of whoever runs, else among temporary files.
pub(crate) fn cache() -> PathBuf {
    let executable = env::current_exe().unwrap_or_default();
    let target = executable.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    let folder = target.map_or_else(env::temp_dir, |target| target.join("tmp")).join("gpu-emulator");
    fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    folder
}

enum Task {
    /// A file of the emulator's own.
    Runtime(PathBuf),
    Kernel(String),
    /// What the library says of the texts that it was made of.
    Table(String),
}

/// The path of the library with these kernels.
pub(crate) fn build(warp: u32, sources: &Sources) -> PathBuf {
    let runtime = runtime_files();
    let emulator = runtime.iter().find(|(path, _)| path.ends_with("kernels/emulator.h")).map(|(_, text)| text.as_str());
    let key_for = |warp: Option<u32>, content: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        (warp, FLAGS, KERNEL_FLAGS, RUNTIME_FLAGS).hash(&mut hasher);
        content(&mut hasher);
        format!("{:016x}", hasher.finish())
    };
    let key = |content: &dyn Fn(&mut DefaultHasher)| key_for(Some(warp), content);
    let folder = cache();
    let mut tasks = Vec::new();
    let is = |path: &Path, extension| path.extension().is_some_and(|e| e == extension);
    let headers: Vec<_> = runtime.iter().filter(|(path, _)| is(path, "h")).collect();
    for file in runtime.iter().filter(|(path, _)| is(path, "cpp")) {
        let warp = knows_warp(&file.0).then_some(warp);
        tasks.push((Task::Runtime(file.0.clone()), folder.join(key_for(warp, &|h| (file, &headers).hash(h)) + ".o")));
    }
    for (name, text) in sources.iter().filter(|(name, _)| name.ends_with(".cu")) {
        tasks.push((Task::Kernel(name.clone()), folder.join(key(&|h| (name, with_headers(text, sources), emulator).hash(h)) + ".o")));
    }
    let table = table(sources);
    let path = folder.join(key(&|h| table.hash(h)) + ".o");
    tasks.push((Task::Table(table), path));
    // Processes that want the same wait for the first of them instead of compiling it as well.
    let lock = File::create(folder.join("lock")).and_then(|file| file.lock().map(|()| file)).expect("a lock");
    compile_all(warp, sources, &tasks);

    let objects: Vec<_> = tasks.into_iter().map(|(_, object)| object).collect();
    let library = folder.join(key(&|h| objects.hash(h)) + ".so");
    if !library.exists() {
        publish(&library, |to| {
            let mut command = Command::new("c++");
            command.args(["-shared", "-Wl,-z,defs", "-Wl,-Bsymbolic", "-o"]).arg(to).args(&objects);
            run(command);
        });
    }
    drop(lock);
    library
}

/// What runs the kernels is compiled for each width of warps; the drivers are the same.
fn knows_warp(path: &Path) -> bool {
    path.starts_with(device_folder().join("kernels"))
}

/// Path and text of what kernels run on.
fn runtime_files() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for part in ["kernels", "driver", "cuda", "rocm"] {
        let entries = fs::read_dir(device_folder().join(part)).expect("the emulator's sources are there");
        let paths = entries.map(|entry| entry.expect("readable").path());
        files.extend(paths.map(|path| (path.clone(), fs::read_to_string(&path).expect("readable"))));
    }
    files.sort();
    files
}

/// A text and all that it includes.
fn with_headers<'a>(text: &'a str, sources: &'a Sources) -> Vec<&'a str> {
    let mut all = vec![text];
    let mut next = 0;
    while next < all.len() {
        let names = all[next].lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'));
        let headers: Vec<&str> = names.filter_map(|name| Some(sources.get(name)?.as_str())).collect();
        headers.into_iter().for_each(|header| {
            if !all.contains(&header) {
                all.push(header)
            }
        });
        next += 1;
    }
    all
}

/// "file hash file hash ..." as the emulator reads it, with FNV-1a.
fn table(sources: &Sources) -> String {
    let hash =
        |text: &str| text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let lines: Vec<String> = sources.iter().map(|(name, text)| format!("{name} {} ", hash(text))).collect();
    format!("namespace emulator {{ extern const char* const SOURCES; const char* const SOURCES = \"{}\"; }}\n", lines.concat())
}

fn compile_all(warp: u32, sources: &Sources, tasks: &[(Task, PathBuf)]) {
    let missing: Vec<_> = tasks.iter().filter(|(_, object)| !object.exists()).collect();
    if missing.is_empty() {
        return;
    }
    let folder = tempfile::tempdir_in(cache()).expect("a folder");
    sources.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).expect("written"));
    // The largest first, so that the compilers end together.
    let mut missing = missing;
    let size = |task: &Task| match task {
        Task::Kernel(name) => sources[name].len() + 1_000_000 * usize::from(name.starts_with("attention") || name.starts_with("linear")),
        Task::Runtime(_) | Task::Table(_) => 0,
    };
    missing.sort_by_key(|(task, _)| std::cmp::Reverse(size(task)));
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..COMPILERS {
            scope.spawn(|| {
                while let Some((task, object)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let made = std::panic::catch_unwind(|| compile(warp, task, folder.path(), object));
                    if let Err(panic) = made {
                        *failed.lock().expect("no panic holds it") = Some(panic);
                        return;
                    }
                }
            });
        }
    });
    if let Some(panic) = failed.into_inner().expect("no panic holds it") {
        std::panic::resume_unwind(panic);
    }
}

fn compile(warp: u32, task: &Task, folder: &Path, object: &Path) {
    let mut command = Command::new("c++");
    command.args(FLAGS);
    if !matches!(task, Task::Runtime(path) if !knows_warp(path)) {
        command.arg(format!("-DEMULATED_WARP={warp}"));
    }
    match task {
        Task::Runtime(path) => command.args(RUNTIME_FLAGS).arg("-c").arg(path),
        Task::Kernel(name) => {
            let include = format!("-I{}", device_folder().join("kernels").display());
            command.args(KERNEL_FLAGS).arg(include).arg("-c").arg(folder.join(name))
        }
        Task::Table(text) => {
            let path = folder.join("sources.cpp");
            fs::write(&path, text).expect("written");
            command.arg("-c").arg(path)
        }
    };
    publish(object, |to| {
        command.arg("-o").arg(to);
        run(command);
    });
}

/// Others may build the same at the same time: a file appears under its name when it is whole.
pub(crate) fn publish(path: &Path, make: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir_in(cache()).expect("a folder");
    let unfinished = folder.path().join("made");
    make(&unfinished);
    fs::rename(&unfinished, path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

pub(crate) fn run(mut command: Command) {
    let output = command.output().unwrap_or_else(|e| panic!("a C++ compiler is needed to run the kernels: c++: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
