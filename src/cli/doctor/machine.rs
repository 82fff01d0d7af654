//! What this machine is, as far as it matters to a model whose experts are on disk.

use super::gpus;
use hotset::device::Gpu;
use hotset::measuring::host;
use hotset::memory;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use std::fs;
use std::path::Path;

/// A machine.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub kernel: String,
    /// Null where the system does not say.
    pub physical_cores: Option<usize>,
    pub logical_cores: usize,
    /// What this process may use of them: by its affinity and the quota of its control groups.
    pub usable_cores: usize,
    pub memory_bytes: u64,
    /// What this process may still take, and what says so: the machine, a control group, a limit of the process.
    pub available_bytes: u64,
    pub available_by: String,
    /// Limits of this process; null without one.
    pub address_space_limit_bytes: Option<u64>,
    pub data_limit_bytes: Option<u64>,
    pub locked_memory_limit_bytes: Option<u64>,
    /// `always`, `madvise` or `never`; null where the system has no huge pages.
    pub huge_pages: Option<String>,
    /// Null where nobody has looked: in a program without llama.cpp.
    pub gpus: Option<Vec<Gpu>>,
}

impl Machine {
    /// This one.
    pub fn look() -> Self {
        let mut system = sysinfo::System::new();
        system.refresh_cpu_all();
        let host = host::Machine::of(Path::new("."));
        let available = memory::available();
        let limit = |resource| getrlimit(resource).current;
        Self {
            cpu: host.cpu,
            kernel: host.kernel,
            physical_cores: sysinfo::System::physical_core_count(),
            logical_cores: system.cpus().len().max(1),
            usable_cores: host.n_cores,
            memory_bytes: host.memory_bytes,
            available_bytes: available.bytes.min(host.memory_bytes),
            available_by: available.why,
            address_space_limit_bytes: limit(Resource::As),
            data_limit_bytes: limit(Resource::Data),
            locked_memory_limit_bytes: limit(Resource::Memlock),
            huge_pages: huge_pages(Path::new("/sys")),
            gpus: gpus::look(),
        }
    }
}

/// The word in brackets of `always [madvise] never`.
fn huge_pages(sys: &Path) -> Option<String> {
    let text = fs::read_to_string(sys.join("kernel/mm/transparent_hugepage/enabled")).ok()?;
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_of_huge_pages_is_the_one_in_brackets() {
        let sys = tempfile::tempdir().unwrap();
        assert_eq!(huge_pages(sys.path()), None);
        let folder = sys.path().join("kernel/mm/transparent_hugepage");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("enabled"), "always madvise [never]\n").unwrap();
        assert_eq!(huge_pages(sys.path()).as_deref(), Some("never"));
    }
}
