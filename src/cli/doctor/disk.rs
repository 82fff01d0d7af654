//! The file system with a model, and how fast it is read as hotset would read it.

use hotset::error::Result;
use hotset::measuring::disk::Reader;
use hotset::measuring::host;
use hotset::store::{
    Arena, Faults, ModelFile, QueueDepth, QueueKind, QueueOptions, ReadFailure, ReadQueue, Sink,
};
use serde::Serialize;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long the disk is read.
const DISK_FOR: Duration = Duration::from_millis(1200);

/// Where a model is.
#[derive(Debug, Clone, Serialize)]
pub struct Disk {
    /// `ext4`, `nfs`; a number where it has no name here.
    pub file_system: String,
    /// Whether it is read through a network or a program.
    pub is_remote: bool,
    /// Null where there is no device of its own.
    pub device: Option<String>,
    pub is_rotational: Option<bool>,
    pub read_ahead_kb: Option<u64>,
    /// Whether reads bypass the page cache, and why not.
    pub is_direct: bool,
    pub not_direct_because: Option<String>,
    /// `io_uring` or `pread`.
    pub reads_with: String,
    /// Why it is not io_uring; null if it is.
    pub no_uring_because: Option<String>,
    /// Null where it was not measured.
    pub speed: Option<Speed>,
}

/// How fast it is.
#[derive(Debug, Clone, Serialize)]
pub struct Speed {
    pub bytes_per_s: f64,
    /// Bytes of a read: the largest part of an expert.
    pub read_bytes: u64,
    /// Pieces under way at once, and their bytes.
    pub depth: u32,
    pub piece_bytes: u64,
}

/// Looks at the file at `path`; if it is whole, reads parts of `n_bytes` anywhere in it for about a second.
pub fn look(path: &Path, n_bytes: u64, is_whole: bool) -> Result<Disk> {
    let (file_system, is_remote) = file_system(path);
    let meta = fs::metadata(path).ok();
    let device = host::Machine::of(path).disk;
    let n_file = meta.map_or(0, |meta| meta.len());
    let is_measured = is_whole && n_bytes > 0 && n_bytes < n_file;
    let (file, kind, speed) = match is_measured {
        true => {
            let reader = Reader::of_part(path, n_bytes as usize)?;
            let speed = reader.measure(&|took| took < DISK_FOR)?;
            let speed = Speed {
                bytes_per_s: speed.bytes_per_s,
                read_bytes: n_bytes,
                depth: speed.depth,
                piece_bytes: speed.piece_bytes as u64,
            };
            (open(path)?, reader.kind(), Some(speed))
        }
        false => (open(path)?, QueueKind::Auto, None),
    };
    let (is_direct, why_buffered) = (file.is_direct(), file.why_buffered().map(|e| e.to_string()));
    let uring = uring(file);
    Ok(Disk {
        file_system,
        is_remote,
        is_rotational: device
            .as_ref()
            .and_then(|disk| is_rotational(&disk.read_ahead)),
        read_ahead_kb: device.as_ref().and_then(|disk| disk.read_ahead_kb),
        device: device.map(|disk| disk.name),
        is_direct,
        not_direct_because: why_buffered,
        reads_with: match (&uring, kind) {
            (Err(_), _) | (_, QueueKind::Pread) => "pread",
            (Ok(()), _) => "io_uring",
        }
        .to_string(),
        no_uring_because: match (uring, kind) {
            (Err(why), _) => Some(why),
            (Ok(()), QueueKind::Pread) => {
                Some("it reads one by one on this file system".to_string())
            }
            (Ok(()), _) => None,
        },
        speed,
    })
}

fn open(path: &Path) -> Result<ModelFile> {
    let file = File::open(path).map_err(|cause| hotset::error::Error::io(path, cause))?;
    ModelFile::open(file.as_fd())
}

/// Whether this system lets a process read with io_uring, tried on the file of this program.
pub fn uring_here() -> std::result::Result<(), String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    uring(open(&program).map_err(|e| e.to_string())?)
}

/// Whether `file` can be read with io_uring. The error is what the system says, and the setting behind it where there is one.
fn uring(file: ModelFile) -> std::result::Result<(), String> {
    let options = QueueOptions {
        kind: QueueKind::Uring,
        queue_depth: QueueDepth::default(),
        faults: Faults::default(),
    };
    let arena = Arena::map(1).map_err(|e| e.to_string())?;
    let Err(error) = ReadQueue::new(vec![file], Arc::new(arena), Arc::new(Nobody), options) else {
        return Ok(());
    };
    let said = error.to_string();
    let said = said
        .split_once("refused by the system: ")
        .map_or(said.as_str(), |(_, why)| why);
    let said = said.trim_end_matches("; auto reads without");
    Err(
        match fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
            .map(|text| text.trim().to_string())
        {
            Ok(n) if n != "0" => format!("{said}: kernel.io_uring_disabled is {n}"),
            _ if said.contains("seccomp") => said.to_string(),
            _ if is_filtered() => {
                format!("{said}: this process has a seccomp filter, as containers have")
            }
            _ => said.to_string(),
        },
    )
}

/// Whether system calls of this process are filtered.
fn is_filtered() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line == "Seccomp:\t2")
}

/// Hears of no read, because there is none.
struct Nobody;

impl Sink for Nobody {
    fn done(&self, _: u64, _: std::result::Result<(), ReadFailure>) {}
}

/// The setting beside `read_ahead` that says whether a disk turns.
fn is_rotational(read_ahead: &Path) -> Option<bool> {
    let text = fs::read_to_string(read_ahead.with_file_name("rotational")).ok()?;
    match text.trim() {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

/// Numbers of file systems in statfs(2), their names, and whether they are read through a network or a program.
#[cfg(target_os = "linux")]
const FILE_SYSTEMS: [(u64, &str, bool); 22] = [
    (0xEF53, "ext4", false),
    (0x5846_5342, "xfs", false),
    (0x9123_683E, "btrfs", false),
    (0x2FC1_2FC1, "zfs", false),
    (0xF2F5_2010, "f2fs", false),
    (0xCA45_1A4E, "bcachefs", false),
    (0x0102_1994, "tmpfs", false),
    (0x794C_7630, "overlay", false),
    (0x4D44, "vfat", false),
    (0x2011_BAB0, "exfat", false),
    (0x7366_746E, "ntfs3", false),
    (0x7371_7368, "squashfs", false),
    (0xE0F5_E1E2, "erofs", false),
    (0x858D_858D, "ramfs", false),
    (0x6969, "nfs", true),
    (0xFF53_4D42, "cifs", true),
    (0xFE53_4D42, "smb2", true),
    (0x517B, "smb", true),
    (0x6573_5546, "fuse", true),
    (0x0102_1997, "9p", true),
    (0x00C3_6400, "ceph", true),
    (0x0BD0_0BD0, "lustre", true),
];

/// The name of the file system with `path`, and whether it is remote.
#[cfg(target_os = "linux")]
fn file_system(path: &Path) -> (String, bool) {
    let Ok(info) = rustix::fs::statfs(path) else {
        return ("unknown".to_string(), false);
    };
    // The type is a signed number on some machines, and of 32 bits.
    named(info.f_type as u64 & 0xFFFF_FFFF)
}

#[cfg(target_os = "linux")]
fn named(number: u64) -> (String, bool) {
    let found = FILE_SYSTEMS.iter().find(|(n, ..)| *n == number);
    found.map_or((format!("{number:#x}"), false), |(_, name, is_remote)| {
        (name.to_string(), *is_remote)
    })
}

#[cfg(not(target_os = "linux"))]
fn file_system(_: &Path) -> (String, bool) {
    ("unknown".to_string(), false)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn file_systems_have_the_numbers_of_the_kernel() {
        assert_eq!(
            named(libc::NFS_SUPER_MAGIC as u64),
            ("nfs".to_string(), true)
        );
        assert_eq!(
            named(libc::FUSE_SUPER_MAGIC as u64),
            ("fuse".to_string(), true)
        );
        assert_eq!(
            named(libc::SMB_SUPER_MAGIC as u64),
            ("smb".to_string(), true)
        );
        assert_eq!(
            named(libc::TMPFS_MAGIC as u64),
            ("tmpfs".to_string(), false)
        );
        assert_eq!(
            named(libc::BTRFS_SUPER_MAGIC as u64),
            ("btrfs".to_string(), false)
        );
        assert_eq!(
            named(libc::XFS_SUPER_MAGIC as u64),
            ("xfs".to_string(), false)
        );
        assert_eq!(
            named(libc::EXT4_SUPER_MAGIC as u64),
            ("ext4".to_string(), false)
        );
        assert_eq!(
            named(libc::OVERLAYFS_SUPER_MAGIC as u64),
            ("overlay".to_string(), false)
        );
        assert_eq!(named(7), ("0x7".to_string(), false));
        let numbers = FILE_SYSTEMS.map(|(number, ..)| number);
        assert!(
            numbers
                .iter()
                .all(|n| numbers.iter().filter(|m| m == &n).count() == 1)
        );
    }
}
