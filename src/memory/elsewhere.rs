//! What systems other than Linux tell of their memory.

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
