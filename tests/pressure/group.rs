//! Control groups for memory, of version 1 or 2 as the machine has them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A group of its own below the root, which goes when it is dropped and no process is left in it.
pub struct Group {
    dir: PathBuf,
    names: &'static Names,
}

struct Names {
    root: &'static str,
    /// A file that the root has if it controls memory.
    sign: &'static str,
    usage: &'static str,
    /// May be set below what is in use: in version 1 that fails while nothing can be reclaimed, in
    /// version 2 it slows the group down and kills nobody.
    limit: &'static str,
    file_pages: [&'static str; 2],
}

const VERSIONS: [Names; 2] = [
    Names {
        root: "/sys/fs/cgroup/memory",
        sign: "memory.limit_in_bytes",
        usage: "memory.usage_in_bytes",
        limit: "memory.limit_in_bytes",
        file_pages: ["total_inactive_file ", "total_active_file "],
    },
    Names {
        root: "/sys/fs/cgroup",
        sign: "cgroup.subtree_control",
        usage: "memory.current",
        limit: "memory.high",
        file_pages: ["inactive_file ", "active_file "],
    },
];

impl Group {
    /// Makes the group; if it cannot, says that `test` is skipped, and why.
    pub fn new(test: &str) -> Option<Self> {
        match Self::make(test) {
            Ok(group) => Some(group),
            Err(why) => {
                // Past the harness, which swallows what tests that pass print.
                let line = format!("skipped: {test}: no control group for memory: {why}\n");
                let _ = io::stderr().write_all(line.as_bytes());
                None
            }
        }
    }

    fn make(test: &str) -> io::Result<Self> {
        let controls = |v: &&Names| Path::new(v.root).join(v.sign).exists();
        let names = VERSIONS.iter().find(controls);
        let names = names.ok_or_else(|| io::Error::other("there are none"))?;
        let dir = format!("hotset-{test}-{}", std::process::id());
        let dir = Path::new(names.root).join(dir);
        fs::create_dir(&dir)?;
        let group = Self { dir, names };
        // A tree of version 2 without a memory controller has no such file.
        group.read(names.usage)?;
        Ok(group)
    }

    /// The group that another process has made.
    pub fn at(dir: PathBuf) -> Self {
        let has_usage = |v: &&Names| dir.join(v.usage).exists();
        let names = VERSIONS.iter().find(has_usage).expect("a group for memory");
        Self { dir, names }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts a process into it. What that has allocated so far does not count here.
    pub fn add(&self, process: u32) {
        fs::write(self.dir.join("cgroup.procs"), process.to_string()).unwrap();
    }

    /// The same program, which joins the group before anything of it counts.
    #[cfg(feature = "llama")]
    pub fn joining(&self, program: &std::process::Command) -> std::process::Command {
        let mut shell = std::process::Command::new("sh");
        let join = r#"echo $$ > "$0"/cgroup.procs && exec "$@""#;
        shell.args(["-c", join]).arg(&self.dir);
        shell.arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell
    }

    /// Bytes in use that the kernel cannot just drop.
    pub fn used(&self) -> u64 {
        let stat = self.read("memory.stat").unwrap();
        let file_pages = |line: &str| {
            let number = self
                .names
                .file_pages
                .iter()
                .find_map(|name| line.strip_prefix(name));
            number.map_or(0, |n| n.parse::<u64>().unwrap())
        };
        let droppable: u64 = stat.lines().map(file_pages).sum();
        let usage: u64 = self.read(self.names.usage).unwrap().trim().parse().unwrap();
        usage.saturating_sub(droppable)
    }

    /// Limits it to `n_bytes`, if the kernel lets us now.
    pub fn limit(&self, n_bytes: u64) -> io::Result<()> {
        fs::write(self.dir.join(self.names.limit), n_bytes.to_string())
    }

    fn read(&self, name: &str) -> io::Result<String> {
        fs::read_to_string(self.dir.join(name))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Not while a process is in it: who made it drops it last.
        let _ = fs::remove_dir(&self.dir);
    }
}
