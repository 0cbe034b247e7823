//! Compiled kernels on disk. An entry is there whole or not at all: it is written under another name and moved, and a checksum tells when
//! a crash or a broken disk left less. Where nothing can be written, that is said once and work goes on.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

/// Changes with the entries' form.
const MAGIC: &[u8; 8] = b"TFKERN1\n";
const CHECKSUM_BYTES: usize = 32;
const UNFINISHED: &str = ".unfinished";
/// How old what a crash left behind must be before it is removed; others may be writing theirs.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Where kernels are kept: `TOKENFLOW_CACHE`, else the user's cache folder; none where there is no home.
pub fn default_folder() -> Option<PathBuf> {
    let set = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("TOKENFLOW_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").filter(|folder| folder.is_absolute()).map(|folder| folder.join("tokenflow")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/tokenflow")))?;
    Some(cache.join("kernels"))
}

pub(super) struct Cache {
    folder: Option<PathBuf>,
    has_failed: AtomicBool,
}

impl Cache {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, has_failed: AtomicBool::new(false) }
    }

    /// What was stored under this name, if all of it is there.
    pub(super) fn load(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.folder.as_ref()?.join(name);
        let mut bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.warn(&path, &error);
                return None;
            }
        };
        let start = MAGIC.len() + CHECKSUM_BYTES;
        let is_whole = bytes.len() >= start && bytes.starts_with(MAGIC) && bytes[MAGIC.len()..start] == checksum(name, &bytes[start..]);
        if !is_whole {
            tracing::warn!("{} is damaged; its kernels are compiled again", path.display());
            return None;
        }
        bytes.drain(..start);
        Some(bytes)
    }

    pub(super) fn store(&self, name: &str, content: &[u8]) {
        let Some(folder) = &self.folder else { return };
        if let Err(error) = write(folder, name, content) {
            self.warn(&folder.join(name), &error);
        }
    }

    fn warn(&self, path: &Path, error: &io::Error) {
        if !self.has_failed.swap(true, Relaxed) {
            tracing::warn!("{}: {error}; kernels are compiled again at each start", path.display());
        }
    }
}

fn checksum(name: &str, content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    Sha256::new().chain_update(name).chain_update([0]).chain_update(content).finalize().into()
}

fn write(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    fs::create_dir_all(folder)?;
    remove_abandoned(folder);
    let unfinished = folder.join(format!("{name}.{}.{}{UNFINISHED}", process::id(), NUMBER.fetch_add(1, Relaxed)));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
        file.write_all(MAGIC)?;
        file.write_all(&checksum(name, content))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&unfinished, folder.join(name))?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn remove_abandoned(folder: &Path) {
    let is_old = |file: &fs::DirEntry| {
        let written = file.metadata().and_then(|data| data.modified()).ok();
        written.and_then(|at| SystemTime::now().duration_since(at).ok()).is_some_and(|age| age > ABANDONED)
    };
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        if file.file_name().to_string_lossy().ends_with(UNFINISHED) && is_old(&file) {
            let _ = fs::remove_file(file.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_stored_is_loaded_unless_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(folder.path().join("kernels")));
        assert_eq!(cache.load("a"), None);
        cache.store("a", b"content");
        cache.store("b", b"");
        assert_eq!(cache.load("a").unwrap(), b"content");
        assert_eq!(cache.load("b").unwrap(), b"");

        let path = folder.path().join("kernels/a");
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(cache.load("a"), None, "cut to {length} bytes");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(cache.load("a"), None, "byte {at} changed");
        }
        fs::write(&path, &whole).unwrap();
        fs::copy(&path, folder.path().join("kernels/c")).unwrap();
        assert_eq!(cache.load("c"), None, "another's content");
        cache.store("a", b"new");
        assert_eq!(cache.load("a").unwrap(), b"new");
    }

    #[test]
    fn what_a_crash_left_is_removed_when_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let (old, young) = (folder.path().join("a.1.0.unfinished"), folder.path().join("a.2.0.unfinished"));
        fs::write(&young, "half").unwrap();
        File::create(&old).unwrap().set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        Cache::new(Some(folder.path().into())).store("a", b"content");
        assert_eq!(files(folder.path()), ["a", "a.2.0.unfinished"]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_only_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let cache = Cache::new(Some(file));
        cache.store("a", b"content");
        assert_eq!(cache.load("a"), None);
        assert!(cache.has_failed.load(Relaxed));
        let none = Cache::new(None);
        none.store("a", b"content");
        assert_eq!(none.load("a"), None);
        assert!(!none.has_failed.load(Relaxed));
    }

    /// Set in the processes that tests start; the folder of the cache.
    const FOLDER: &str = "TOKENFLOW_TEST_CACHE";

    /// Runs one of the tests below in another process. What it prints may go to a file that is larger than it may write.
    fn start(test: &str, folder: &Path) -> process::Child {
        let name = format!("kernels::cache::tests::{test}");
        process::Command::new(env::current_exe().unwrap())
            .args(["--exact", &name])
            .env(FOLDER, folder)
            .stdout(process::Stdio::null())
            .spawn()
            .unwrap()
    }

    #[test]
    fn writer() {
        let Some(folder) = env::var_os(FOLDER) else { return };
        let cache = Cache::new(Some(folder.into()));
        for length in 0..100_usize {
            let content = process::id().to_le_bytes().repeat(1000 * (length % 7));
            cache.store("shared", &content);
            assert!(cache.load("shared").is_some(), "written by one or the other, but whole");
        }
        assert!(!cache.has_failed.load(Relaxed));
    }

    #[test]
    fn processes_that_write_the_same_do_not_harm_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let children = [start("writer", folder.path()), start("writer", folder.path())];
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        assert_eq!(files(folder.path()), ["shared"]);
    }

    #[test]
    fn writer_without_room() {
        let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else { return };
        let limit = libc::rlimit { rlim_cur: 1000, rlim_max: 1000 };
        // SAFETY: of this process, which does nothing else; without the signal a write fails, as on a full disk.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
        }
        let cache = Cache::new(Some(folder.clone()));
        cache.store("small", &[1; 100]);
        assert!(!cache.has_failed.load(Relaxed));
        cache.store("large", &[1; 2000]);
        assert!(cache.has_failed.load(Relaxed));
        assert_eq!(cache.load("large"), None);
        assert_eq!(cache.load("small").unwrap(), [1; 100]);
    }

    #[test]
    fn a_full_disk_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        assert!(start("writer_without_room", folder.path()).wait().unwrap().success());
        assert_eq!(files(folder.path()), ["small"]);
    }
}
