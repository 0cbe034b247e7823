//! Compiles the kernels as C++. Objects are kept by what they were made of, so that only what changed is compiled again.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

/// Loads and stores call the emulator (`-fsanitize=thread`); arithmetic is done as it is written.
const FLAGS: [&str; 10] = [
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-ftls-model=initial-exec",
    "-Wall",
    "-Wno-unused-function",
    "-Wno-unknown-pragmas",
    "-Werror",
];

/// A mistake to be made in a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Mutation {
    pub file: &'static str,
    pub find: &'static str,
    /// Which of the places where `find` stands, from 0.
    pub nth: usize,
    pub replace: &'static str,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend/cuda").join(name)
}

/// Text of all kernels and their headers, by name.
pub fn sources() -> BTreeMap<String, String> {
    let names = fs::read_dir(folder("kernels")).expect("kernels are there").map(|entry| entry.expect("readable").path());
    let name = |path: &PathBuf| path.file_name().and_then(|n| n.to_str()).map(str::to_owned).expect("a name");
    names.map(|path| (name(&path), fs::read_to_string(&path).expect("readable"))).collect()
}

/// The library's path. With a mutation, the other kernels' objects are those without it.
pub fn build(warp: u32, mutation: Option<Mutation>) -> PathBuf {
    let mut sources = sources();
    if let Some(Mutation { file, find, nth, replace }) = mutation {
        let text = sources.get_mut(file).unwrap_or_else(|| panic!("no kernel source is called {file}"));
        let (at, _) = text.match_indices(find).nth(nth).unwrap_or_else(|| panic!("{file} has no {find:?} number {nth}"));
        text.replace_range(at..at + find.len(), replace);
    }
    let runtime = folder("emulator");
    let mut runtime_files: Vec<_> = fs::read_dir(&runtime).expect("the emulator is there").map(|e| e.expect("readable").path()).collect();
    runtime_files.sort();
    let runtime_text: Vec<String> = runtime_files.iter().map(|path| fs::read_to_string(path).expect("readable")).collect();

    let mut common = DefaultHasher::new();
    (warp, FLAGS, &runtime_text).hash(&mut common);
    let keyed = |content: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = common.clone();
        content(&mut hasher);
        format!("{:016x}", hasher.finish())
    };
    let mut objects = Vec::new();
    for path in runtime_files.iter().filter(|path| path.extension().is_some_and(|e| e == "cpp")) {
        let object = cached(&keyed(&|h| path.hash(h)), "o");
        if !object.exists() {
            compile(warp, &[], path, &object);
        }
        objects.push(object);
    }
    for (name, text) in sources.iter().filter(|(name, _)| name.ends_with(".cu")) {
        let object = cached(&keyed(&|h| (name, with_headers(text, &sources)).hash(h)), "o");
        if !object.exists() {
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
            sources.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).expect("written"));
            let include = format!("-I{}", runtime.display());
            compile(warp, &["-fsanitize=thread", "-DTOKENFLOW_EMULATOR", &include, "-x", "c++"], &folder.path().join(name), &object);
        }
        objects.push(object);
    }
    let library = cached(&keyed(&|h| objects.hash(h)), "so");
    if !library.exists() {
        publish(&library, |to| {
            let mut command = Command::new("c++");
            command.args(["-shared", "-Wl,-z,defs", "-o"]).arg(to).args(&objects);
            run(command);
        });
    }
    library
}

/// A text and all that it includes.
fn with_headers<'a>(text: &'a str, sources: &'a BTreeMap<String, String>) -> Vec<&'a str> {
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

fn cached(key: &str, extension: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kernels-{key}.{extension}"))
}

fn compile(warp: u32, more: &[&str], source: &Path, object: &Path) {
    publish(object, |to| {
        let mut command = Command::new("c++");
        command.args(FLAGS).arg(format!("-DEMULATED_WARP={warp}")).args(more).arg("-c").arg(source).arg("-o").arg(to);
        run(command);
    });
}

/// Others may build the same at the same time: a file appears under its name when it is whole.
fn publish(path: &Path, make: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let unfinished = folder.path().join("made");
    make(&unfinished);
    fs::rename(&unfinished, path).expect("moved");
}

fn run(mut command: Command) {
    let output = command.output().unwrap_or_else(|e| panic!("a C++ compiler is needed to run the kernels: c++: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
