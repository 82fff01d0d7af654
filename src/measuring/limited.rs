//! Control groups of our own with a limit on memory, for runs that are measured under it.
//!
//! They are made below the group of this process. In version 2 a group that has processes cannot give
//! controllers to groups below it, so this process may have to move into a group of its own first; it
//! moves back at the end.

use crate::error::{Error, Result};
use crate::memory::groups::{Hierarchy, Names, V2, below, hierarchies};
use crate::proc::{field, number};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// What to do where the system refuses.
const HELP: &str = "making control groups needs root or a group that is yours to divide: \
    `sudo`, or `systemd-run --user --scope -p Delegate=yes COMMAND`";
/// The file that says and sets which processes are in a group.
const PROCESSES: &str = "cgroup.procs";
/// In version 2: which controllers there are, and which of them groups below have.
const CONTROLLERS: &str = "cgroup.controllers";
const CONTROLLERS_BELOW: &str = "cgroup.subtree_control";

/// Makes groups with limits.
#[derive(Debug)]
pub struct Limiter {
    names: &'static Names,
    /// The group of this process.
    parent: PathBuf,
    /// What had to be changed for that, in version 2.
    divided: Option<Divided>,
}

impl Limiter {
    /// Finds out whether this process may make groups with a limit, by making one. Fails with the folder
    /// and what the system said if it may not.
    pub fn new() -> Result<Self> {
        Self::new_below(Path::new("/"))
    }

    /// `new` on the system whose `/` is `root`.
    fn new_below(root: &Path) -> Result<Self> {
        let limits_memory = |h: &Hierarchy| {
            let controllers = below(root, &h.mount_point.join(&h.group)).join(CONTROLLERS);
            *h.names != V2 || lists_memory(&controllers)
        };
        let found = hierarchies(root).into_iter().find(limits_memory);
        let Some(Hierarchy {
            names,
            mount_point,
            group,
        }) = found
        else {
            return Err(refused(
                &below(root, Path::new("/proc/self/cgroup")),
                "no control group with a memory controller is mounted",
            ));
        };
        let parent = below(root, &mount_point.join(group));
        let mut limiter = Self {
            names,
            parent,
            divided: None,
        };
        if *names == V2 && !lists_memory(&limiter.parent.join(CONTROLLERS_BELOW)) {
            let home = limiter.parent.join(name("self"));
            limiter.divided = Some(Divided::new(&limiter.parent, home, put)?);
        }
        limiter.group(1 << 40)?;
        Ok(limiter)
    }

    /// An empty group whose processes may take `n_bytes` together, file pages included.
    pub fn group(&self, n_bytes: u64) -> Result<LimitedGroup> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let dir = self
            .parent
            .join(name(&NUMBER.fetch_add(1, Ordering::Relaxed).to_string()));
        fs::create_dir(&dir).map_err(|e| refused(&self.parent, &e.to_string()))?;
        let names = self.names;
        let group = LimitedGroup { dir, names };
        let limit = group.dir.join(names.limits[0]);
        put(&limit, &n_bytes.to_string()).map_err(|e| refused(&limit, &e.to_string()))?;
        // Without swap: what a run may take would otherwise be more than the limit. The file is absent
        // where the kernel does not count swap.
        let (file, value) = match *names == V2 {
            true => ("memory.swap.max", 0),
            false => ("memory.memsw.limit_in_bytes", n_bytes),
        };
        let swap = group.dir.join(file);
        if swap.exists() {
            put(&swap, &value.to_string()).map_err(|e| refused(&swap, &e.to_string()))?;
        }
        Ok(group)
    }
}

/// A group with a limit on memory. It is removed when this is dropped, if no process is left in it.
#[derive(Debug)]
pub struct LimitedGroup {
    dir: PathBuf,
    names: &'static Names,
}

impl LimitedGroup {
    /// Its folder, for [`join`].
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The most bytes that its processes and their file pages have taken at once, where the kernel says.
    pub fn peak_bytes(&self) -> Option<u64> {
        number(&self.dir.join(self.names.peak))
    }

    /// Processes that the kernel killed because of the limit.
    pub fn n_killed(&self) -> u64 {
        field(&self.dir.join(self.names.kills), "oom_kill").unwrap_or(0)
    }
}

impl Drop for LimitedGroup {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// Moves this process into a group: what it takes from now on counts there.
pub fn join(dir: &Path) -> Result<()> {
    let path = dir.join(PROCESSES);
    put(&path, &std::process::id().to_string()).map_err(|e| refused(&path, &e.to_string()))
}

/// A group whose groups below got the memory controller from us.
#[derive(Debug)]
struct Divided {
    parent: PathBuf,
    /// Where this process went, if it had to.
    home: Option<PathBuf>,
}

impl Divided {
    /// Gives the groups below `parent` the memory controller, and moves this process to `home` if that is
    /// refused because of processes in `parent`. Files are written by `put`.
    fn new(
        parent: &Path,
        home: PathBuf,
        mut put: impl FnMut(&Path, &str) -> io::Result<()>,
    ) -> Result<Self> {
        let control = parent.join(CONTROLLERS_BELOW);
        let error = |e: io::Error| refused(&control, &e.to_string());
        let mut divided = Self {
            parent: parent.to_path_buf(),
            home: None,
        };
        match put(&control, "+memory") {
            Err(cause) if cause.raw_os_error() == Some(libc::EBUSY) => {}
            other => return other.map(|()| divided).map_err(error),
        }
        fs::create_dir(&home).map_err(|e| refused(&home, &e.to_string()))?;
        let home = divided.home.insert(home);
        let pid = std::process::id().to_string();
        put(&home.join(PROCESSES), &pid).map_err(error)?;
        put(&control, "+memory").map_err(|e| {
            let others = "other processes are in the group too";
            refused(&control, &format!("{e}: {others}"))
        })?;
        Ok(divided)
    }
}

impl Drop for Divided {
    fn drop(&mut self) {
        // Nothing can be done about what fails here.
        let _ = put(&self.parent.join(CONTROLLERS_BELOW), "-memory");
        if let Some(home) = &self.home {
            let _ = join(&self.parent);
            remove(home);
        }
    }
}

fn name(suffix: &str) -> String {
    format!("hotset-bench-{}-{suffix}", std::process::id())
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)
}

/// Removes a group. A process that has just ended may still be in it for a moment.
fn remove(dir: &Path) {
    for _ in 0..50 {
        match fs::remove_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                thread::sleep(Duration::from_millis(10));
            }
            _ => return,
        }
    }
}

fn lists_memory(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().any(|name| name == "memory")
}

fn refused(path: &Path, why: &str) -> Error {
    Error::file(path, format!("{why}; {HELP}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with these groups and mounts, and an empty folder for each of `dirs`.
    fn system(cgroup: &str, mountinfo: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let proc_files = [
            ("proc/self/cgroup", cgroup),
            ("proc/self/mountinfo", mountinfo),
        ];
        for (path, text) in proc_files.iter().chain(files) {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Removes what the kernel would remove with the group.
    fn end(group: LimitedGroup) {
        for entry in fs::read_dir(&group.dir).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let dir = group.dir.clone();
        drop(group);
        assert!(!dir.exists());
    }

    const MOUNT_V1: &str =
        "30 25 0:26 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory\n";
    const MOUNT_V2: &str = "31 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn version_1_limits_a_group_below_ours() {
        let at = "sys/fs/cgroup/memory/a b/tasks";
        // Version 2 is mounted too, without a memory controller.
        let mounts = format!("31 25 0:27 / /unified rw - cgroup2 cgroup2 rw\n{MOUNT_V1}");
        let files = [(at, ""), ("unified/cgroup.controllers", "cpu io\n")];
        let root = system("4:memory:/a b\n0::/\n", &mounts, &files);
        let limiter = Limiter::new_below(root.path()).unwrap();
        let group = limiter.group(12345).unwrap();
        assert_eq!(group.dir().parent(), root.path().join(at).parent());
        assert_eq!(read(group.dir().join("memory.limit_in_bytes")), "12345");
        assert!(!group.dir().join("memory.memsw.limit_in_bytes").exists());
        assert_eq!((group.peak_bytes(), group.n_killed()), (None, 0));
        let write = |name, text| fs::write(group.dir().join(name), text).unwrap();
        write("memory.max_usage_in_bytes", "777\n");
        write("memory.oom_control", "oom_kill_disable 0\noom_kill 2\n");
        assert_eq!((group.peak_bytes(), group.n_killed()), (Some(777), 2));
        join(group.dir()).unwrap();
        let pid = std::process::id().to_string();
        assert_eq!(read(group.dir().join("cgroup.procs")), pid);
        let other = limiter.group(1).unwrap();
        assert_ne!(group.dir(), other.dir());
        end(group);
        end(other);
    }

    #[test]
    fn version_2_gets_the_controller_and_gives_it_back() {
        let control = "sys/fs/cgroup/a/cgroup.subtree_control";
        let files = [
            ("sys/fs/cgroup/a/cgroup.controllers", "cpu memory\n"),
            (control, "cpu\n"),
        ];
        let root = system("0::/a\n", MOUNT_V2, &files);
        let control = root.path().join(control);
        let limiter = Limiter::new_below(root.path()).unwrap();
        assert_eq!(read(control.clone()), "+memory");
        let group = limiter.group(1 << 30).unwrap();
        assert_eq!(read(group.dir().join("memory.max")), "1073741824");
        let write = |name, text| fs::write(group.dir().join(name), text).unwrap();
        write("memory.peak", "99\n");
        write("memory.events", "max 5\noom 1\noom_kill 1\n");
        assert_eq!((group.peak_bytes(), group.n_killed()), (Some(99), 1));
        end(group);
        drop(limiter);
        assert_eq!(read(control.clone()), "-memory");
        // Nothing is changed where the groups below have it already.
        fs::write(&control, "cpu memory\n").unwrap();
        drop(Limiter::new_below(root.path()).unwrap());
        assert_eq!(read(control), "cpu memory\n");
    }

    #[test]
    fn in_version_2_this_process_moves_out_of_the_way() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("home");
        let busy = || io::Error::from_raw_os_error(libc::EBUSY);
        let pid = std::process::id().to_string();
        let mut writes = Vec::new();
        let divided = Divided::new(root.path(), home.clone(), |path, text| {
            writes.push((path.to_path_buf(), text.to_string()));
            match writes.len() {
                1 => Err(busy()),
                _ => Ok(()),
            }
        })
        .unwrap();
        let control = root.path().join(CONTROLLERS_BELOW);
        let enable = (control.clone(), "+memory".to_string());
        let moved = (home.join(PROCESSES), pid.clone());
        assert_eq!(writes, [enable.clone(), moved, enable]);
        assert!(home.exists());
        drop(divided);
        assert!(!home.exists());
        assert_eq!(read(control), "-memory");
        assert_eq!(read(root.path().join(PROCESSES)), pid);

        // Others are there too, or it is not allowed at all.
        let error = Divided::new(root.path(), home.clone(), |path, _| {
            match path.ends_with(PROCESSES) {
                true => Ok(()),
                false => Err(busy()),
            }
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("other processes"), "{error}");
        assert!(!home.exists());
        let denied = || io::Error::from_raw_os_error(libc::EACCES);
        let error = Divided::new(root.path(), home.clone(), |_, _| Err(denied()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("denied") && !home.exists(), "{error}");
    }

    #[test]
    fn where_it_is_refused_the_error_names_the_folder_and_says_what_to_do() {
        let assert_refused = |root: &Path, parts: &[&str]| {
            let error = Limiter::new_below(root).unwrap_err().to_string();
            for part in parts.iter().chain(&["root", "systemd-run"]) {
                assert!(error.contains(part), "no {part} in: {error}");
            }
        };
        assert_refused(system("", "", &[]).path(), &["no control group"]);
        let no_memory = [("sys/fs/cgroup/a/cgroup.controllers", "cpu\n")];
        let root = system("0::/a\n", MOUNT_V2, &no_memory);
        assert_refused(root.path(), &["no control group"]);
        // The group is a file, so that root cannot make a folder in it either.
        let root = system("4:memory:/a\n", MOUNT_V1, &[("sys/fs/cgroup/memory/a", "")]);
        assert_refused(root.path(), &["sys/fs/cgroup/memory/a", "os error"]);
    }
}
