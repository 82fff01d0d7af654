//! What limits memory.

/// Memory this process may still take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Available {
    /// How much.
    pub bytes: u64,
    /// What limits it.
    pub why: String,
}

/// A limit on memory, and what it leaves.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// What it is called.
    pub name: &'static str,
    /// What may be used in all.
    pub n_bytes: u64,
    /// What of that is available.
    pub room: u64,
}

pub(super) fn without_limit() -> Available {
    Available {
        bytes: u64::MAX,
        why: "no limit".into(),
    }
}

/// What a limit leaves; negative when it was set below what is in use.
#[cfg(target_os = "linux")]
pub(super) struct Limit {
    /// What may be used in all.
    pub n_bytes: u64,
    /// Whether there is no more in the machine.
    pub is_machine: bool,
    pub room: i64,
    pub why: String,
}

#[cfg(target_os = "linux")]
impl From<Limit> for Available {
    fn from(limit: Limit) -> Self {
        Self {
            bytes: limit.room.max(0) as u64,
            why: limit.why,
        }
    }
}

#[cfg(target_os = "linux")]
pub(super) fn kib_field(path: &std::path::Path, name: &str) -> Option<u64> {
    crate::proc::field(path, name).map(|kib| kib * 1024)
}
