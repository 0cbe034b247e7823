use std::path::Path;

/// Memory that this process can still have, bytes: the host's `MemAvailable` (proc(5)), within the limit of its cgroup.
pub(super) fn available_bytes() -> usize {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let host = mem_available(&meminfo).unwrap_or(usize::MAX);
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    cgroup_limits(&membership).filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok()).fold(host, usize::min)
}

fn mem_available(meminfo: &str) -> Option<usize> {
    let kib: usize = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse().ok())?;
    Some(kib << 10)
}

/// Files that may hold a limit (cgroups(7)): of the process's own groups and those above them, in version 2 and version 1 hierarchies.
fn cgroup_limits(membership: &str) -> impl Iterator<Item = std::path::PathBuf> {
    membership
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, group) = (fields.next()?, fields.next()?);
            match controllers {
                "" => Some(("/sys/fs/cgroup", group, "memory.max")),
                c if c.split(',').any(|c| c == "memory") => Some(("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes")),
                _ => None,
            }
        })
        .flat_map(|(mount, group, file)| {
            let own = Path::new(group.trim_start_matches('/'));
            own.ancestors().map(|part| Path::new(mount).join(part).join(file)).collect::<Vec<_>>()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_says_how_much_is_available() {
        assert_eq!(mem_available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(mem_available("MemTotal: 9 kB\n"), None);
        assert!(available_bytes() > 0);
    }

    #[test]
    fn limits_are_looked_for_in_every_group_above() {
        let files: Vec<_> = cgroup_limits("0::/a/b\n4:cpu:/x\n3:memory:/c\n").map(|f| f.display().to_string()).collect();
        assert_eq!(
            files,
            [
                "/sys/fs/cgroup/a/b/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max",
                "/sys/fs/cgroup/memory/c/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
    }
}
