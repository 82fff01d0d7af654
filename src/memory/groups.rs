//! Control groups: where they are mounted, and in which of them this process is.

use std::fs;
use std::path::{Path, PathBuf};

/// The names a version of control groups gives to the same things.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// Files that set a limit; the first is the hard one.
    pub limits: &'static [&'static str],
    /// The file with the bytes in use.
    pub usage: &'static str,
    /// Entries of memory.stat that include the groups below.
    pub file_pages: [&'static str; 2],
    /// That of memory.stat which says how much of them some process has mapped.
    pub mapped: &'static str,
    /// The file with the most bytes that were in use at once. Version 2 has it from Linux 5.19 on.
    pub peak: &'static str,
    /// The file with the entry `oom_kill`.
    pub kills: &'static str,
}

pub(crate) const V1: Names = Names {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    file_pages: ["total_inactive_file", "total_active_file"],
    mapped: "total_mapped_file",
    peak: "memory.max_usage_in_bytes",
    kills: "memory.oom_control",
};
pub(crate) const V2: Names = Names {
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    file_pages: ["inactive_file", "active_file"],
    mapped: "file_mapped",
    peak: "memory.peak",
    kills: "memory.events",
};

/// A mounted tree of control groups, and where in it this process is.
pub(crate) struct Hierarchy {
    pub names: &'static Names,
    pub mount_point: PathBuf,
    /// Below the mount point.
    pub group: PathBuf,
}

/// The trees that can limit memory. Both versions may be mounted; the one without a memory
/// controller has no files to read.
pub(crate) fn hierarchies(root: &Path) -> Vec<Hierarchy> {
    let read = |path| fs::read_to_string(root.join(path)).unwrap_or_default();
    let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    mounts
        .lines()
        .filter_map(|mount| hierarchy(mount, &groups))
        .collect()
}

/// Reads one line of mountinfo, such as
/// `36 25 0:31 /docker/1f /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory`.
fn hierarchy(mount: &str, groups: &str) -> Option<Hierarchy> {
    let (place, filesystem) = mount.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (mount_root, mount_point) = (unescape(place.next()?), unescape(place.next()?));
    let mut filesystem = filesystem.split(' ');
    let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
    // Lines of /proc/self/cgroup are `4:memory:/group` in version 1, `0::/group` in version 2.
    let (names, controller) = match kind {
        "cgroup" if options.split(',').any(|o| o == "memory") => (&V1, "memory"),
        "cgroup2" => (&V2, ""),
        _ => return None,
    };
    let group = groups.lines().find_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        let is_it = controllers.split(',').any(|c| c == controller);
        is_it.then_some(group)
    })?;
    // A container may see only its part of the tree, mounted as if it were all. A group
    // outside of that part is not visible: then the mount point is the nearest one that is.
    let group = Path::new(group)
        .strip_prefix(mount_root)
        .ok()
        .filter(|group| !group.starts_with(".."))
        .unwrap_or("".as_ref());
    Some(Hierarchy {
        names,
        mount_point,
        group: group.into(),
    })
}

/// Undoes what mountinfo escapes: blanks, line ends and the sign of an escape itself, which comes last.
fn unescape(path: &str) -> PathBuf {
    let escapes = [
        (r"\040", " "),
        (r"\011", "\t"),
        (r"\012", "\n"),
        (r"\134", "\\"),
    ];
    let plain = |path: String, (escape, sign)| path.replace(escape, sign);
    escapes.into_iter().fold(path.to_string(), plain).into()
}

pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mountinfo_escapes_comes_back() {
        let path = unescape(r"/a\040b\011c\012d\134040");
        assert_eq!(path, Path::new("/a b\tc\nd\\040"));
    }
}
