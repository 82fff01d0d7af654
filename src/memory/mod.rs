//! How much memory this process may still take.
//!
//! What the machine has is not the answer in a container: every control group above the process
//! may set a limit, and memory that holds clean file pages counts as used there although the
//! kernel gives it back when asked.

pub mod auto_size;
mod buffers;
pub mod division;
pub mod fits;
pub(crate) mod groups;
mod limit;
mod mapped;
#[cfg(target_os = "linux")]
mod promises;
pub mod terms;
pub mod turns;

use crate::error::{Error, Result};
pub use buffers::{Noted, noted};
pub use limit::{Available, Bound};
pub use mapped::{Mapped, mapped};
use bytesize::ByteSize;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// The least of what the machine and, on Linux, every control group above this process and its own limits leave.
pub fn available() -> Available {
    system::available()
}

/// What may be mapped for use later: bytes, or what the limits of this process leave of addresses.
pub fn addresses() -> Available {
    system::addresses()
}

/// What the system promises to this process beyond what that has mapped, used or not.
pub fn promised() -> Available {
    system::promised()
}

/// Fails if a budget of `n_bytes` for experts is more than this process may still take.
pub fn check(n_bytes: u64) -> Result<()> {
    let Available { bytes, why } = available();
    if n_bytes <= bytes {
        return Ok(());
    }
    let size = |n| ByteSize(n).display().iec();
    Err(Error::setting("HOTSET_RAM", size(n_bytes).to_string(), format!("only {} are available ({why}); try auto", size(bytes))))
}

/// The same of a budget that becomes `n_bytes`, of which experts have `n_bytes_now`, touched or not.
pub fn check_more(n_bytes: u64, n_bytes_now: u64) -> Result<()> {
    let left = u64::try_from(spare()).unwrap_or(0).min(promised().bytes);
    if n_bytes.saturating_sub(n_bytes_now) <= left {
        return Ok(());
    }
    let size = |n| ByteSize(n).display().iec();
    let why = available().why;
    let allowed = format!(
        "experts have {}, and only {} more are available ({why}); try auto",
        size(n_bytes_now),
        size(left)
    );
    Err(Error::setting("HOTSET_RAM", size(n_bytes).to_string(), allowed))
}

/// Memory that this process has allocated, has not touched yet and will touch: it will still grow by about
/// this. That is [`Expected`], and what was [noted](note_buffer); all else that is mapped, as the stacks of
/// threads, may stay empty for ever.
pub fn committed_untouched() -> u64 {
    expected() + buffers::untouched()
}

/// All that is [`Expected`].
pub fn expected() -> u64 {
    EXPECTED.load(Relaxed).max(0) as u64
}

/// A buffer of `n_bytes` at `address` was allocated and will be filled; with 0 bytes, it is about to be freed.
pub fn note_buffer(address: usize, n_bytes: usize) {
    buffers::note(address, n_bytes);
}

/// What the machine and its control groups leave of memory, whatever this process may map.
pub fn room() -> u64 {
    system::room().max(0) as u64
}

/// The same where pages of files are not free that some process has mapped, as the weights of a model: whoever takes
/// them has them read again and again.
pub fn room_beside_mapped() -> u64 {
    system::room_beside_mapped().max(0) as u64
}

/// What this process needs of what counts as available: it has allocated that and not touched it yet, or mapped it.
pub fn needed() -> u64 {
    committed_untouched() + mapped()
}

/// What this process may take beyond all it has allocated: what is available less what is [`needed`]. Negative when
/// it is above a limit, or will be.
pub fn spare() -> i64 {
    measure().spare()
}

/// What there is at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// What the machine and its control groups leave; negative above a limit.
    pub room: i64,
    /// What this process needs of that.
    pub needed: u64,
}

impl Measure {
    /// See [`spare`].
    pub fn spare(&self) -> i64 {
        self.room - self.needed as i64
    }
}

/// Looks at both.
pub fn measure() -> Measure {
    Measure {
        needed: needed(),
        room: system::room(),
    }
}

/// What the tightest limit is and leaves: of the machine or a control group.
pub fn tightest() -> Bound {
    system::tightest()
}

/// A name of the control group whose memory this process shares with others: the nearest one above it with less than
/// the machine has. Processes of one machine whose names are the same see the same memory.
pub fn group() -> String {
    system::group().unwrap_or_else(|| "machine".into())
}

/// Which of the noted buffers have weights: those with something at these addresses.
pub fn note_weights(addresses: &[usize]) {
    buffers::note_weights(addresses);
}

/// What is expected in this process.
static EXPECTED: AtomicI64 = AtomicI64::new(0);

/// Bytes that will be touched, until this is dropped.
#[derive(Debug, Default)]
pub struct Expected(AtomicI64);

impl Expected {
    /// Now they are `n_bytes` more, or fewer. Adding and taking away may come in any order.
    pub fn add(&self, n_bytes: i64) {
        self.0.fetch_add(n_bytes, Relaxed);
        EXPECTED.fetch_add(n_bytes, Relaxed);
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        EXPECTED.fetch_sub(*self.0.get_mut(), Relaxed);
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::limit::Available;

    pub fn available() -> Available {
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        Available {
            bytes: system.available_memory(),
            why: "memory available to the system".into(),
        }
    }

    pub fn room() -> i64 {
        available().bytes as i64
    }

    pub fn room_beside_mapped() -> i64 {
        room()
    }

    pub fn tightest() -> super::Bound {
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        super::Bound {
            name: "memory",
            n_bytes: system.total_memory(),
            room: system.available_memory(),
        }
    }

    pub fn group() -> Option<String> {
        None
    }

    pub fn addresses() -> Available {
        super::limit::without_limit()
    }

    pub fn promised() -> Available {
        super::limit::without_limit()
    }
}

#[cfg(target_os = "linux")]
mod system {
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
}
