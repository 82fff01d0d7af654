//! The memory that holds every slot, as the system sees it.

use hotset::store::{Arena, resident_bytes};
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

const MIB: usize = 1 << 20;

/// The flags of the mapping at `address`.
fn flags_at(address: usize) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut is_it = false;
    for line in maps.lines() {
        let range = line.split(' ').next().and_then(|r| r.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        if let Some((Some(begin), Some(end))) = range.map(|(a, b)| (number(a), number(b))) {
            is_it = (begin..end).contains(&address);
        } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| is_it) {
            return flags.split_whitespace().map(String::from).collect();
        }
    }
    panic!("nothing is mapped at {address:#x}");
}

/// What is read past the page cache must not be shared with a child, and a core file needs no weights.
#[test]
fn a_child_and_a_core_file_do_not_get_it() {
    for n_bytes in [4096, MIB, 8 * MIB] {
        let arena = Arena::map(n_bytes).unwrap();
        for _ in 0..2 {
            for at in [0, n_bytes - 1] {
                let flags = flags_at(arena.addr() + at);
                let has = |flag: &str| flags.iter().any(|f| f == flag);
                assert!(has("dc") && has("dd"), "{n_bytes}: {flags:?}");
                assert!(has("wr"), "{flags:?}");
            }
            // Also after some was given back.
            arena.discard(0..n_bytes / 2).unwrap();
        }
    }
}

#[test]
fn what_is_reserved_is_used_after_it_was_opened() {
    let arena = Arena::reserve(16 * MIB).unwrap();
    let is_open = |at| flags_at(arena.addr() + at).iter().any(|f| f == "wr");
    assert!(!is_open(0) && !arena.commit(0..MIB));
    // In whole pages around it.
    arena.open(3 * MIB + 1..5 * MIB - 1).unwrap();
    for (at, expected) in [(2, false), (3, true), (4, true), (5, false)] {
        assert_eq!(is_open(at * MIB), expected, "{at}");
    }
    assert!(arena.commit(3 * MIB..5 * MIB));
    let addr = arena.addr();
    let resident = resident_bytes(addr..addr + 16 * MIB).unwrap();
    assert_eq!(resident, (16 * MIB, 2 * MIB));
    arena.open(0..16 * MIB).unwrap();
    assert!(is_open(0) && is_open(16 * MIB - 1));
    assert_eq!(resident_bytes(addr..addr + 16 * MIB).unwrap(), resident);
}

/// What the kernel has noted of the mapping; machines with one node note it too.
#[test]
fn memory_of_all_nodes_is_asked_for() {
    let arena = Arena::map(4 * MIB).unwrap();
    let policy = || {
        let maps = fs::read_to_string("/proc/self/numa_maps").unwrap();
        let address = format!("{:x} ", arena.addr());
        let line = maps
            .lines()
            .find_map(|line| line.strip_prefix(&address).map(str::to_string));
        line.unwrap_or_default()
    };
    if !fs::exists("/proc/self/numa_maps").unwrap() {
        eprintln!("this kernel knows no nodes: not tested");
        assert!(arena.interleave().is_err());
        return;
    }
    assert!(!policy().starts_with("interleave"), "{}", policy());
    if let Err(cause) = arena.interleave() {
        // Containers mostly may not.
        assert_eq!(cause.raw_os_error(), Some(libc::EPERM), "{cause}");
        return;
    }
    assert!(policy().starts_with("interleave:"), "{}", policy());
}

/// One thread finds memory in advance while another gives it back, at all moments.
#[test]
fn what_is_given_back_does_not_come_again() {
    let n_bytes = 64 << 10;
    let begin = Instant::now();
    for round in (0..3000).take_while(|_| begin.elapsed().as_secs() < 3) {
        let arena = Arena::map(n_bytes).unwrap();
        let n_commits = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while arena.commit(0..n_bytes) {
                    n_commits.fetch_add(1, Relaxed);
                }
            });
            while n_commits.load(Relaxed) < 3 {
                std::thread::yield_now();
            }
            (0..round % 100).for_each(|_| std::hint::spin_loop());
            arena.discard(0..n_bytes).unwrap();
        });
        let all = arena.addr()..arena.addr() + n_bytes;
        assert_eq!(resident_bytes(all).unwrap().1, 0, "round {round}");
    }
}
