//! An arena is made of huge pages, and slots are seldom whole ones.

use crate::group::Group;
use hotset::store::Arena;
use std::path::PathBuf;
use std::process::Command;

const MIB: usize = 1 << 20;
const ARENA_BYTES: usize = 128 * MIB;
/// The group of the process that measures.
const GROUP: &str = "PRESSURE_GROUP";
const NAME: &str = "huge_pages::parts_of_huge_pages_are_free_at_once";

/// What counts is what the group is charged for, not what is mapped: the kernel keeps a huge page of which
/// a part was given back until it is short of memory, unless it is split.
#[test]
fn parts_of_huge_pages_are_free_at_once() {
    if let Some(dir) = std::env::var_os(GROUP) {
        return measure(PathBuf::from(dir));
    }
    let Some(group) = Group::new("huge-pages") else {
        return;
    };
    // In a process of its own: other tests of this one allocate too.
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([NAME, "--exact", "--nocapture"]);
    let ended = command.env(GROUP, group.dir()).output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

fn measure(dir: PathBuf) {
    let group = std::mem::ManuallyDrop::new(Group::at(dir));
    group.add(std::process::id());
    for slot_bytes in [40 << 10, 700 << 10, 3 * MIB] {
        let arena = Arena::map(ARENA_BYTES).unwrap();
        let at = std::ptr::with_exposed_provenance_mut::<u8>(arena.addr());
        // SAFETY: the arena is this long, and nobody else knows it.
        unsafe { at.write_bytes(1, ARENA_BYTES) };
        let before = group.used() as usize;
        assert!(before > ARENA_BYTES, "{before}");
        // Every second slot.
        let n_slots = ARENA_BYTES / slot_bytes / 2;
        for slot in 0..n_slots {
            let begin = 2 * slot * slot_bytes;
            arena.discard(begin..begin + slot_bytes).unwrap();
        }
        let freed = before.saturating_sub(group.used() as usize);
        let expected = n_slots * slot_bytes;
        assert!(
            freed > expected / 10 * 9,
            "{freed} of {expected}, slots of {slot_bytes}"
        );
        // SAFETY: as above; the first slot is empty, the second one as it was.
        unsafe {
            let byte = |i| at.add(i).read();
            assert_eq!([byte(0), byte(slot_bytes - 1)], [0, 0]);
            assert_eq!([byte(slot_bytes), byte(2 * slot_bytes - 1)], [1, 1]);
        }
        // What is touched again is not filled up to a huge page.
        arena.discard(0..ARENA_BYTES).unwrap();
        let empty = group.used() as usize;
        for at in (0..ARENA_BYTES).step_by(4 * MIB) {
            let at = std::ptr::with_exposed_provenance_mut::<u8>(arena.addr() + at);
            // SAFETY: as above.
            unsafe { at.write(1) };
        }
        let touched = group.used() as usize - empty;
        assert!(touched < 2 * MIB, "{touched}");
    }
}
