//! What Linux tells of memory: of the machine, of control groups, and of limits of the process.

use super::groups::{Hierarchy, below, hierarchies};
use super::limit::{Available, Bound, Limit, kib_field, without_limit};
use super::promises;
use crate::proc::{field, number};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub fn available() -> Available {
    available_below(Path::new("/"))
}

pub fn room() -> i64 {
    tightest_below(Path::new("/"), MappedPages::Free).room
}

pub fn room_beside_mapped() -> i64 {
    tightest_below(Path::new("/"), MappedPages::Used).room
}

/// What pages of files count as that some process has mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MappedPages {
    Free,
    Used,
}

pub fn tightest() -> Bound {
    let limit = tightest_below(Path::new("/"), MappedPages::Free);
    Bound {
        name: if limit.is_machine { "memory" } else { "limit" },
        n_bytes: limit.n_bytes,
        room: limit.room.max(0) as u64,
    }
}

pub fn group() -> Option<String> {
    group_below(Path::new("/"))
}

/// The device and inode of the nearest group that limits memory to less than there is.
fn group_below(root: &Path) -> Option<String> {
    let total = machine(root, MappedPages::Free).n_bytes;
    hierarchies(root).iter().find_map(|hierarchy| {
        hierarchy.group.ancestors().find_map(|group| {
            let dir = below(root, &hierarchy.mount_point.join(group));
            let mut limits = hierarchy.names.limits.iter();
            let is_less = limits.any(|name| number(&dir.join(name)).is_some_and(|n| n < total));
            let meta = std::fs::metadata(&dir).ok().filter(|_| is_less)?;
            Some(format!("{}-{}", meta.dev(), meta.ino()))
        })
    })
}

pub fn addresses() -> Available {
    let limit = promises::addresses(Path::new("/"));
    limit.map_or_else(without_limit, Available::from)
}

pub fn promised() -> Available {
    let limits = promises::promises(Path::new("/"));
    let limit = limits.min_by_key(|limit| limit.room);
    limit.map_or_else(without_limit, Available::from)
}

/// `available` on the system whose `/` is `root`.
fn available_below(root: &Path) -> Available {
    let limits = promises::promises(root).chain(promises::addresses(root));
    let all = limits.chain([tightest_below(root, MappedPages::Free)]);
    let tightest = all.min_by_key(|limit| limit.room);
    tightest.expect("the machine is one").into()
}

/// The least of what the machine and its groups leave of memory.
fn tightest_below(root: &Path, mapped: MappedPages) -> Limit {
    hierarchies(root)
        .iter()
        .flat_map(|hierarchy| hierarchy.limits(root, mapped))
        .chain([machine(root, mapped)])
        .min_by_key(|limit| limit.room)
        .expect("the machine is one")
}

fn machine(root: &Path, mapped: MappedPages) -> Limit {
    let entry = |name| kib_field(&root.join("proc/meminfo"), name);
    if let Some(bytes) = entry("MemAvailable:") {
        // What is shared memory as well is not available anyway.
        let in_use = match mapped {
            MappedPages::Free => 0,
            MappedPages::Used => entry("Mapped:")
                .unwrap_or(0)
                .saturating_sub(entry("Shmem:").unwrap_or(0)),
        };
        return Limit {
            n_bytes: entry("MemTotal:").unwrap_or(bytes),
            is_machine: true,
            room: bytes as i64 - in_use as i64,
            why: "MemAvailable of /proc/meminfo".into(),
        };
    }
    // Without what the kernel would drop from its caches.
    let info = rustix::system::sysinfo();
    Limit {
        n_bytes: info.totalram as u64 * u64::from(info.mem_unit),
        is_machine: true,
        room: (info.freeram as u64 * u64::from(info.mem_unit)) as i64,
        why: "what the system says is free, without /proc".into(),
    }
}

impl Hierarchy {
    /// What each limit leaves, from the process's own group up to the mount point.
    fn limits(&self, root: &Path, mapped: MappedPages) -> Vec<Limit> {
        let mut found = Vec::new();
        for group in self.group.ancestors() {
            let dir = self.mount_point.join(group);
            let Some(used) = self.used(&below(root, &dir), mapped) else {
                continue;
            };
            for name in self.names.limits {
                let path = dir.join(name);
                // An absent limit is "max" in version 2, a huge number in version 1.
                if let Some(limit) = number(&below(root, &path)) {
                    found.push(Limit {
                        n_bytes: limit,
                        is_machine: false,
                        room: i64::try_from(limit).unwrap_or(i64::MAX) - used as i64,
                        why: format!("{} of {limit} bytes", path.display()),
                    });
                }
            }
        }
        found
    }

    /// Bytes in use in `dir` that the kernel cannot just drop.
    fn used(&self, dir: &Path, mapped: MappedPages) -> Option<u64> {
        let usage = number(&dir.join(self.names.usage))?;
        let stat = dir.join("memory.stat");
        let file_pages = self.names.file_pages.iter();
        let mut droppable: u64 = file_pages.filter_map(|name| field(&stat, name)).sum();
        if mapped == MappedPages::Used {
            droppable = droppable.saturating_sub(field(&stat, self.names.mapped).unwrap_or(0));
        }
        Some(usage.saturating_sub(droppable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const GIB: u64 = 1 << 30;

    /// A system with 8 GiB available, these control groups, and these files below /sys/fs.
    fn system(cgroup: &str, mountinfo: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let meminfo = "MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n";
        let proc_files = [
            ("/proc/meminfo", meminfo),
            ("/proc/self/cgroup", cgroup),
            ("/proc/self/mountinfo", mountinfo),
        ];
        for (path, text) in proc_files.iter().chain(files) {
            let path = below(dir.path(), Path::new(path));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    const MOUNT_V1: &str =
        "30 25 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:1 - cgroup cgroup rw,memory\n";
    const MOUNT_V2: &str = "31 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    fn assert_limited(dir: &tempfile::TempDir, bytes: u64, why: &str) {
        let found = available_below(dir.path());
        assert_eq!(found.bytes, bytes, "{}", found.why);
        assert!(found.why.contains(why), "{}", found.why);
    }

    #[test]
    fn the_machine_is_the_limit_without_groups() {
        assert_limited(&system("", "", &[]), 8 * GIB, "MemAvailable");
        let dir = system("0::/a\n", MOUNT_V2, &[]);
        assert_limited(&dir, 8 * GIB, "MemAvailable");
        // Without /proc it is asked otherwise.
        let found = available_below(&dir.path().join("none"));
        assert!(found.bytes > 1 << 20, "{found:?}");
    }

    #[test]
    fn version_1_counts_file_pages_as_free() {
        let group = "/sys/fs/cgroup/memory/a b/c";
        let at = |name| format!("{group}/{name}");
        let unlimited = "9223372036854771712\n";
        let dir = system(
            "5:cpu,cpuacct:/x\n4:hugetlb,memory:/a b/c\n0::/\n",
            MOUNT_V1,
            &[
                (&at("memory.limit_in_bytes"), "3221225472\n"),
                (&at("memory.usage_in_bytes"), "2147483648\n"),
                (
                    &at("memory.stat"),
                    "inactive_file 1\ntotal_inactive_file 536870912\ntotal_active_file 536870912\n",
                ),
                ("/sys/fs/cgroup/memory/memory.limit_in_bytes", unlimited),
                ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "4096\n"),
            ],
        );
        assert_limited(&dir, 2 * GIB, &at("memory.limit_in_bytes"));
    }

    /// What is mapped is the weights of a model, say, which a process uses all the time.
    #[test]
    fn mapped_pages_are_in_use_for_who_would_push_them_out() {
        let v2 = [
            ("/sys/fs/cgroup/a/memory.max", "4294967296\n"),
            ("/sys/fs/cgroup/a/memory.current", "3221225472\n"),
            (
                "/sys/fs/cgroup/a/memory.stat",
                "inactive_file 1073741824\nactive_file 1073741824\nfile_mapped 1610612736\n",
            ),
        ];
        let dir = system("0::/a\n", MOUNT_V2, &v2);
        let room = |mapped| tightest_below(dir.path(), mapped).room as u64;
        assert_eq!(room(MappedPages::Free), 3 * GIB);
        assert_eq!(room(MappedPages::Used), 3 * GIB / 2);
        let dir = system("", "", &[]);
        let text = "MemAvailable: 8388608 kB\nMapped: 3145728 kB\nShmem: 1048576 kB\n";
        fs::write(dir.path().join("proc/meminfo"), text).unwrap();
        assert_eq!(tightest_below(dir.path(), MappedPages::Free).room as u64, 8 * GIB);
        assert_eq!(tightest_below(dir.path(), MappedPages::Used).room as u64, 6 * GIB);
    }

    #[test]
    fn version_2_asks_every_ancestor_and_both_limits() {
        let files = |top: &'static str, high: &'static str| {
            [
                ("/sys/fs/cgroup/a/memory.max", top),
                ("/sys/fs/cgroup/a/memory.current", "1073741824\n"),
                ("/sys/fs/cgroup/a/b/c/memory.max", "max\n"),
                ("/sys/fs/cgroup/a/b/c/memory.high", high),
                ("/sys/fs/cgroup/a/b/c/memory.current", "3145728\n"),
                (
                    "/sys/fs/cgroup/a/b/c/memory.stat",
                    "inactive_file 1048576\nactive_file 1048576\n",
                ),
            ]
        };
        let dir = system("0::/a/b/c\n", MOUNT_V2, &files("4294967296\n", "max\n"));
        assert_limited(&dir, 3 * GIB, "/sys/fs/cgroup/a/memory.max");
        let dir = system("0::/a/b/c\n", MOUNT_V2, &files("max\n", "1074790400\n"));
        assert_limited(&dir, GIB, "/sys/fs/cgroup/a/b/c/memory.high");
        let dir = system("0::/a/b/c\n", MOUNT_V2, &files("max\n", "max\n"));
        assert_limited(&dir, 8 * GIB, "MemAvailable");
        // Above its limit: nothing is left.
        let dir = system("0::/a/b/c\n", MOUNT_V2, &files("1000\n", "max\n"));
        assert_limited(&dir, 0, "/sys/fs/cgroup/a/memory.max");
        assert_eq!(tightest_below(dir.path(), MappedPages::Free).room, 1000 - (1 << 30));
    }

    #[test]
    fn a_container_sees_its_group_at_the_mount_point() {
        let files = [
            ("/c g/memory.max", "1073741824\n"),
            ("/c g/memory.current", "0\n"),
            ("/x/memory.max", "0\n"),
            ("/x/memory.current", "0\n"),
        ];
        let mount = "31 25 0:27 /docker/1f /c\\040g rw - cgroup2 cgroup2 rw\n";
        for group in ["0::/docker/1f\n", "0::/docker/1f/gone\n", "0::/other\n"] {
            assert_limited(&system(group, mount, &files), GIB, "/c g/memory.max");
        }
        let mount = "31 25 0:27 / /c\\040g rw - cgroup2 cgroup2 rw\n";
        let dir = system("0::/../x\n", mount, &files);
        assert_limited(&dir, GIB, "/c g/memory.max");
    }

    #[test]
    fn who_shares_memory_has_the_same_name() {
        let files = |of_a: &'static str, of_b: &'static str| {
            [
                ("/sys/fs/cgroup/a/memory.max", of_a),
                ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
                ("/sys/fs/cgroup/a/b/memory.high", of_b),
                ("/sys/fs/cgroup/a/c/memory.max", "max\n"),
            ]
        };
        let name = |group: &str, of_a, of_b| {
            let dir = system(group, MOUNT_V2, &files(of_a, of_b));
            let name = group_below(dir.path())?;
            let is_of = |group: &&str| {
                let meta = fs::metadata(dir.path().join("sys/fs/cgroup").join(group)).unwrap();
                name == format!("{}-{}", meta.dev(), meta.ino())
            };
            ["a", "a/b", "a/c"].into_iter().find(is_of)
        };
        let limit = "4294967296\n";
        // Of the machine's 16 GiB.
        let more = "99999999999\n";
        for (group, of_a, of_b, found) in [
            ("0::/a/b\n", limit, "max\n", Some("a")),
            ("0::/a/c\n", limit, "max\n", Some("a")),
            ("0::/a/b\n", limit, limit, Some("a/b")),
            ("0::/a/b\n", "max\n", limit, Some("a/b")),
            ("0::/a/b\n", "max\n", more, None),
            ("0::/\n", limit, limit, None),
        ] {
            assert_eq!(name(group, of_a, of_b), found, "{group} {of_a} {of_b}");
        }
    }

    /// Only where the system promises no more than it has.
    #[test]
    fn what_is_promised_is_a_limit() {
        let promised = |mode: &'static str| {
            let dir = system("", "", &[("/proc/sys/vm/overcommit_memory", mode)]);
            let text =
                "MemAvailable: 8388608 kB\nCommitLimit: 5000 kB\nCommitted_AS: 2000 kB\n";
            fs::write(dir.path().join("proc/meminfo"), text).unwrap();
            let found = available_below(dir.path());
            (found.bytes, promises::promises(dir.path()).count())
        };
        assert_eq!(promised("2\n"), (3000 << 10, 1));
        assert_eq!(promised("0\n"), (8 * GIB, 0));
    }

    #[test]
    fn this_machine_has_memory() {
        let found = super::super::available();
        assert!(found.bytes > 1 << 20, "{found:?}");
    }
}
