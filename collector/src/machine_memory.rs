//! How much memory this program may take: what the machine has, or its container where that has less.
//!
//! Files of `/proc` and `/sys/fs/cgroup` in, bytes out. What cannot be read limits nothing.

use std::path::{Path, PathBuf};

/// The head of the storage may take this part of the memory ...
const HEAD_PART: u64 = 4;

/// ... no less than this, or it would write blocks all the time ...
const HEAD_BYTES_MIN: u64 = 128 << 20;

/// ... and no more: an explosion of labels must not cost whole machines.
const HEAD_BYTES_MAX: u64 = 16 << 30;

/// Where nothing tells how much memory there is.
const BYTES_IF_UNKNOWN: u64 = 8 << 30;

/// Memory that the head may take if nobody says how much.
pub(crate) fn share_for_head(total_bytes: u64) -> u64 {
    (total_bytes / HEAD_PART).clamp(HEAD_BYTES_MIN, HEAD_BYTES_MAX)
}

/// Memory of this machine or container, in bytes.
pub(crate) fn total() -> u64 {
    total_under(Path::new("/"))
}

/// The same, with all files under another folder.
fn total_under(root: &Path) -> u64 {
    let read = |path: &Path| std::fs::read_to_string(root.join(path)).ok();
    let machine = read(Path::new("proc/meminfo")).and_then(|text| meminfo_total(&text));
    let groups = read(Path::new("proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups).filter_map(|path| read(&path)?.trim().parse::<u64>().ok());
    limits.chain(machine).min().unwrap_or(BYTES_IF_UNKNOWN)
}

fn meminfo_total(text: &str) -> Option<u64> {
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(kilobytes.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Files that may tell a limit of the groups that `/proc/self/cgroup` names, and of all around them. In a container
/// the groups' own folder is often the root of what it sees.
fn limit_files(groups: &str) -> impl Iterator<Item = PathBuf> {
    groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next().unwrap_or(""), fields.next().unwrap_or("/"));
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        };
        let is_of_memory = controllers.is_empty() || controllers.split(',').any(|name| name == "memory");
        let own = Path::new(group.trim_start_matches('/')).to_owned();
        let ancestors: Vec<PathBuf> =
            own.ancestors().map(|group| Path::new(mount).join(group).join(file)).collect();
        ancestors.into_iter().filter(move |_| is_of_memory)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files: &[(&str, &str)], want: u64) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        assert_eq!(total_under(root.path()), want);
    }

    #[test]
    fn the_least_of_machine_and_groups_counts() {
        const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       16384 kB\nMemFree:  1 kB\n");
        check(&[], BYTES_IF_UNKNOWN);
        check(&[MEMINFO], 16 << 20);
        let group = ("proc/self/cgroup", "0::/a.slice/b.service\n");
        check(&[MEMINFO, group], 16 << 20);
        let unlimited = ("sys/fs/cgroup/a.slice/b.service/memory.max", "max\n");
        check(&[MEMINFO, group, unlimited], 16 << 20);
        let around = ("sys/fs/cgroup/a.slice/memory.max", "4194304\n");
        check(&[MEMINFO, group, unlimited, around], 4 << 20);
        // In a container: the group that is named is not seen, its limit is at the root.
        check(&[MEMINFO, group, ("sys/fs/cgroup/memory.max", "1048576\n")], 1 << 20);
        let old = ("proc/self/cgroup", "9:cpu,cpuacct:/docker/1\n5:memory:/docker/1\n");
        check(&[MEMINFO, old, ("sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "2097152\n")], 2 << 20);
        let none = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        check(&[MEMINFO, old, none], 16 << 20);
    }

    #[test]
    fn small_machines_keep_a_head_and_large_ones_are_not_spent() {
        assert_eq!(share_for_head(8 << 30), 2 << 30);
        assert_eq!(share_for_head(100 << 20), HEAD_BYTES_MIN);
        assert_eq!(share_for_head(1 << 40), HEAD_BYTES_MAX);
    }
}
