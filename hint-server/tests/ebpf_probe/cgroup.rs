use std::{
    fs,
    path::{Path, PathBuf},
};

use tokenflow_hint_server::probe::ebpf::cgroup2_mount;

/// A new cgroup v2 below this process's own, which the process lives in until the drop.
pub struct OwnCgroup {
    path: PathBuf,
    before: PathBuf,
}

impl OwnCgroup {
    pub fn enter() -> Self {
        let mount = cgroup2_mount().unwrap();
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap();
        let inside = membership.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let before = mount.join(inside);
        let path = mount.join(format!("tokenflow-test-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("cgroup.procs"), "0").unwrap();
        Self { path, before }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        fs::write(self.before.join("cgroup.procs"), "0").unwrap();
        // The kernel lets go of the last process a moment after it has moved.
        super::eventually("removal of the test's cgroup", || fs::remove_dir(&self.path).ok());
    }
}
