//! Where the cgroup v2 hierarchy is: on hybrid hosts not at the root of the cgroup tree, so the mount table is asked.

use std::{
    ffi::OsString,
    fs::{self, File},
    mem::MaybeUninit,
    os::{fd::AsRawFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
};

use super::AttachError;

/// The folder where cgroup v2 is mounted: the cgroup that holds every process of the host, or of the container.
///
/// # Errors
///
/// Where none is mounted.
pub fn cgroup2_mount() -> Result<PathBuf, AttachError> {
    const MOUNT_TABLE: &str = "/proc/self/mountinfo";
    let table = fs::read(MOUNT_TABLE).map_err(|error| AttachError::Open { path: MOUNT_TABLE.into(), error })?;
    table.split(|&byte| byte == b'\n').find_map(mount_point_if_cgroup2).ok_or(AttachError::NoCgroup2)
}

/// Checks that a folder is a cgroup v2.
///
/// # Errors
///
/// Where it is not, or cannot be opened.
pub fn ensure_cgroup2(path: &Path) -> Result<(), AttachError> {
    open(path).map(drop)
}

/// Opens a folder after checking that it is a cgroup v2.
pub(super) fn open(path: &Path) -> Result<File, AttachError> {
    let folder = File::open(path).map_err(|error| AttachError::Open { path: path.into(), error })?;
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open and `stat` has room for what the call writes.
    let result = unsafe { libc::fstatfs(folder.as_raw_fd(), stat.as_mut_ptr()) };
    // SAFETY: the call succeeded, so it filled `stat`; it is not looked at otherwise.
    match result == 0 && unsafe { stat.assume_init() }.f_type == libc::CGROUP2_SUPER_MAGIC {
        true => Ok(folder),
        false => Err(AttachError::NotCgroup2(path.into())),
    }
}

/// A line of `proc_pid_mountinfo(5)`: id, parent, device, root, mount point, options, optional fields, a hyphen, type, source, options.
fn mount_point_if_cgroup2(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mount_point = fields.nth(4)?;
    fields.find(|&field| field == b"-")?;
    (fields.next()? == b"cgroup2").then(|| unescape(mount_point))
}

/// Spaces, tabs, newlines and backslashes of a path are three octal digits after a backslash in the mount table.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn finds_the_mount_among_others() {
        let hybrid = b"40 30 0:30 / /sys/fs/cgroup/unified rw,nosuid shared:10 master:3 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(mount_point_if_cgroup2(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let no_optional_fields = b"40 30 0:30 / /odd\\040place rw - cgroup2 none rw";
        assert_eq!(mount_point_if_cgroup2(no_optional_fields), Some("/odd place".into()));
        for other in [&b"41 30 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"[..], b"", b"1 2 3", b"a b c d e - ", b"a b c d e"] {
            assert_eq!(mount_point_if_cgroup2(other), None);
        }
    }

    #[test]
    fn a_folder_elsewhere_is_refused() {
        assert!(matches!(open(Path::new("/proc")), Err(AttachError::NotCgroup2(path)) if path == Path::new("/proc")));
        assert!(matches!(open(Path::new("/nonexistent")), Err(AttachError::Open { .. })));
    }

    proptest! {
        #[test]
        fn any_path_survives_the_escaping(path in prop::collection::vec(1_u8.., 0..40)) {
            let escaped: Vec<u8> = path
                .iter()
                .flat_map(|&byte| match byte {
                    b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
                    _ => vec![byte],
                })
                .collect();
            let unescaped = unescape(&escaped);
            prop_assert_eq!(unescaped.as_os_str().as_bytes(), &path[..]);
        }

        #[test]
        fn no_line_panics(line in prop::collection::vec(any::<u8>(), 0..80)) {
            mount_point_if_cgroup2(&line);
        }
    }
}
