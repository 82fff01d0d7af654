//! The machine that a benchmark runs on, and the read-ahead of its disk.

use crate::error::{Error, Result};
use crate::proc::number;
use serde::Serialize;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The read-ahead that Linux gives disks, in KiB. With more or less stock llama.cpp reads other amounts.
pub const READ_AHEAD_KB: u64 = 128;

/// What a report says of a machine.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor.
    pub cpu: String,
    /// Its cores, as programs see them.
    pub n_cores: usize,
    /// Its memory.
    pub memory_bytes: u64,
    /// The operating system.
    pub kernel: String,
    /// The disk with the model; null where it is not known.
    pub disk: Option<Disk>,
}

/// The disk that holds a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// The device.
    pub name: String,
    /// What the device calls itself; empty if it does not.
    pub model: String,
    /// What is read beyond what was asked for; null where it is not known.
    pub read_ahead_kb: Option<u64>,
    /// The file that sets it.
    #[serde(skip)]
    pub read_ahead: PathBuf,
}

impl Machine {
    /// This machine, whose model is at `path`.
    pub fn of(path: &Path) -> Self {
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        system.refresh_cpu_all();
        let brand = system.cpus().first().map(|cpu| cpu.brand().trim());
        Self {
            cpu: brand.unwrap_or_default().to_string(),
            n_cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            memory_bytes: system.total_memory(),
            kernel: sysinfo::System::kernel_long_version(),
            disk: fs::metadata(path)
                .ok()
                .and_then(|meta| disk(Path::new("/sys"), meta.dev())),
        }
    }
}

/// The disk with this number, on the system whose `/sys` is `sys`.
fn disk(sys: &Path, device: u64) -> Option<Disk> {
    let name = format!("{}:{}", libc::major(device), libc::minor(device));
    let link = sys.join("dev/block").join(name);
    let place = fs::canonicalize(link).ok()?;
    // A partition is a folder in that of its disk, which has the queue.
    let disk = place
        .ancestors()
        .take(2)
        .find(|d| d.join("queue").exists())?;
    let read_ahead = disk.join("queue/read_ahead_kb");
    let model = fs::read_to_string(disk.join("device/model")).unwrap_or_default();
    Some(Disk {
        name: disk.file_name()?.to_string_lossy().into_owned(),
        model: model.trim().to_string(),
        read_ahead_kb: number(&read_ahead),
        read_ahead,
    })
}

/// A read-ahead that was changed, until this is dropped.
#[derive(Debug)]
pub struct ReadAhead {
    path: PathBuf,
    before: u64,
}

impl ReadAhead {
    /// Sets the read-ahead of `disk`. Fails where there is no such disk or the system refuses.
    pub fn set(disk: Option<&Disk>, kb: u64) -> Result<Self> {
        let wrong = |allowed: String| Error::setting("--read-ahead-kb", kb, allowed);
        let Some((disk, before)) = disk.and_then(|disk| Some((disk, disk.read_ahead_kb?))) else {
            return Err(wrong("the model's disk is not known".to_string()));
        };
        fs::write(&disk.read_ahead, kb.to_string())
            .map_err(|e| wrong(format!("{}: {e}; it needs root", disk.read_ahead.display())))?;
        Ok(Self {
            path: disk.read_ahead.clone(),
            before,
        })
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        // It could be set, so it can be set back.
        let _ = fs::write(&self.path, self.before.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_of_a_partition_is_found_and_its_read_ahead_set_back() {
        let root = tempfile::tempdir().unwrap();
        let sda = root.path().join("devices/sda");
        for folder in ["queue", "device", "sda1"] {
            fs::create_dir_all(sda.join(folder)).unwrap();
        }
        fs::write(sda.join("queue/read_ahead_kb"), "4096\n").unwrap();
        fs::write(sda.join("device/model"), "Fast Disk  \n").unwrap();
        let links = root.path().join("dev/block");
        fs::create_dir_all(&links).unwrap();
        std::os::unix::fs::symlink(&sda, links.join("8:0")).unwrap();
        std::os::unix::fs::symlink(sda.join("sda1"), links.join("8:1")).unwrap();
        let at = |minor| disk(root.path(), libc::makedev(8, minor));
        let found = at(1).unwrap();
        assert_eq!(at(0).as_ref(), Some(&found));
        assert_eq!(
            (found.name.as_str(), found.model.as_str()),
            ("sda", "Fast Disk")
        );
        assert_eq!(found.read_ahead_kb, Some(4096));
        assert_eq!(at(2), None);

        let text = || fs::read_to_string(sda.join("queue/read_ahead_kb")).unwrap();
        let changed = ReadAhead::set(Some(&found), 128).unwrap();
        assert_eq!(text(), "128");
        drop(changed);
        assert_eq!(text(), "4096");
        let error = ReadAhead::set(None, 64).unwrap_err().to_string();
        assert!(error.contains("--read-ahead-kb=64"), "{error}");
    }
}
