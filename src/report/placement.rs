//! What a person reads of what goes to devices.

use crate::device::placement::{MIB, Room};

/// The options that were chosen, and for each device how.
pub fn placement_line(options: &str, rooms: &[Room]) -> String {
    let sums: Vec<_> = rooms.iter().map(sum).collect();
    format!("hotset: chose {options} for {}", sums.join("; for "))
}

/// How much a device has for experts.
fn sum(room: &Room) -> String {
    let left = room.left().unwrap_or(0);
    let all = [room.free, room.dense, room.context, room.compute, room.reserve, left];
    let [free, dense, context, compute, reserve, left] = all.map(|n| n / MIB);
    format!(
        "{} (MiB: free {free} - dense {dense} - KV {context} - compute {compute} - reserve {reserve} = {left} for experts)",
        room.device
    )
}

/// The dense part of a model is too large for these devices, so that llama.cpp is left to decide; or what somebody has
/// placed there, if anybody has.
pub fn no_room_line(rooms: &[Room], is_placed: bool) -> String {
    let short = |room: &&Room| room.left().is_none();
    let one = |room: &Room| {
        format!(
            "{} has {} MiB free, {} are needed with a reserve of {}",
            room.device,
            room.free / MIB,
            room.taken() / MIB,
            room.reserve / MIB
        )
    };
    let all: Vec<_> = rooms.iter().filter(short).map(one).collect();
    let what = match is_placed {
        true => "what is put on devices leaves no room for a cache of experts",
        false => "not all of the dense weights and of the context fit, llama.cpp's --fit decides what goes to devices",
    };
    format!("hotset: {what}: {}", all.join("; "))
}

/// A model fits devices with all its experts, but this value of `HOTSET_RAM` streams them.
pub fn whole_line(rooms: &[Room], ram: &str) -> String {
    let one = |room: &Room| {
        format!(
            "{} ({} of {} MiB, reserve {})",
            room.device,
            room.taken() / MIB,
            room.free / MIB,
            room.reserve / MIB
        )
    };
    let all: Vec<_> = rooms.iter().map(one).collect();
    let devices = all.join(" and ");
    format!(
        "hotset: HOTSET_RAM={ram} streams experts that would fit on devices: without it the whole model is loaded to {devices}"
    )
}

/// These `options` would have put experts on a device, if they were not streamed.
pub fn unmoved_line(options: &str) -> String {
    format!(
        "hotset: {options} would put experts on a device, and has no effect on these: they are streamed (HOTSET_RAM); \
         --moe-cache-mib keeps some of them on devices"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_adds_up() {
        let room = Room {
            device: "GPU0".to_string(),
            free: 8 * 1024 * MIB + 5,
            dense: 2000 * MIB + 1,
            context: 512 * MIB,
            compute: MIB / 2,
            reserve: 1024 * MIB,
        };
        assert_eq!(
            placement_line("--moe-cache-mib 4654", &[room.in_mib()]),
            "hotset: chose --moe-cache-mib 4654 for GPU0 (MiB: free 8192 - dense 2001 - KV 512 - compute 1 - \
             reserve 1024 = 4654 for experts)"
        );
    }
}
