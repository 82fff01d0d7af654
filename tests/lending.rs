//! Experts that a device takes from an engine's memory: every byte of every part once, and there as long as the
//! device may still be taking it.

#![allow(unsafe_code)]

#[path = "patterned/mod.rs"]
mod patterned;

use hotset::engine::layout::Layout;
use hotset::engine::{Batch, Engine, Inputs, Loan, Piece, Routing, Wanted};
use hotset::pooled::Pooled;
use hotset::store::{ModelFile, QueueDepth};
use hotset::trace::Picks;
use hotset::tracker::{Phase, Span};
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const N_LAYERS: usize = 3;
const N_EXPERTS: usize = 16;
const N_PARTS: usize = 3;
/// The last layer has a pool of its own.
const PART_BYTES: [[usize; N_PARTS]; N_LAYERS] = [
    [3 * 512, 9 * 512, 500],
    [3 * 512, 9 * 512, 500],
    [5 * 512, 4 * 512, 1024],
];

fn word(layer: usize, part: usize, expert: usize) -> u32 {
    0x7e57_0000 + ((layer * N_PARTS + part) * N_EXPERTS + expert) as u32
}

/// An engine with memory for about this share of the experts, which is read `delay_ms` late.
fn engine(percent: u64, delay_ms: u32) -> Engine {
    let mut file = tempfile::tempfile().unwrap();
    let parts = PART_BYTES.iter().map(|parts| &parts[..]);
    let tensors = patterned::tensors(&mut file, N_EXPERTS, parts, word);
    // No read ends early because the file does.
    file.write_all(&[0; 4096]).unwrap();
    let file = ModelFile::open(file.as_fd()).unwrap();
    let aligns = [file.align()];
    let all = Layout::new(&tensors, &aligns, u64::MAX).unwrap();
    let budget = all.pools.iter().map(|pool| pool.slot_bytes as u64).max();
    let budget = budget.unwrap() * 3 * N_EXPERTS as u64 * percent / 100;
    let mut layout = Layout::new(&tensors, &aligns, budget).unwrap();
    layout.ring.n_places = layout.ring.n_places.min(5);
    let options = patterned::options(QueueDepth::default(), &format!("delay_ms={delay_ms}"));
    Engine::new(layout, vec![file], "lru", options).unwrap()
}

fn check(layer: usize, piece: &Piece) {
    let n_words = PART_BYTES[layer][piece.part] / 4;
    // SAFETY: the engine keeps the part at this address.
    let words = unsafe { std::slice::from_raw_parts(piece.address as *const u32, n_words) };
    let expected = word(layer, piece.part, piece.expert as usize);
    let wrong = words.iter().position(|&w| w != expected);
    assert_eq!(wrong, None, "layer {layer} {piece:?}");
}

/// A device that keeps what it is lent.
struct Device {
    loan: Loan,
    layer: usize,
    taken: Vec<Piece>,
}

impl Device {
    fn new() -> Self {
        Self {
            loan: Loan::default(),
            layer: 0,
            taken: Vec::new(),
        }
    }

    /// Looks at what it was lent once more, and gives it back.
    fn give_back(&mut self, engine: &Engine) {
        self.taken.iter().for_each(|piece| check(self.layer, piece));
        self.taken.clear();
        engine.end_loan(&mut self.loan).unwrap();
    }

    /// A token picks `ids`, of which `missing` are taken and `victims` leave.
    fn take(
        &mut self,
        engine: &Engine,
        layer: usize,
        ids: &[i32],
        missing: &[u32],
        victims: &[(usize, u32)],
    ) {
        let wanted = Wanted {
            picks: Picks::new(ids, ids.len(), ids.len()),
            batch: &Batch::default(),
            missing,
            victims,
            is_kept: true,
        };
        let mut seen = Vec::new();
        self.layer = layer;
        let taken = &mut self.taken;
        let lent = engine.lend(layer, &wanted, &mut self.loan, |piece| {
            check(layer, &piece);
            seen.push((piece.expert, piece.part));
            if piece.stays {
                taken.push(piece);
            }
        });
        lent.unwrap();
        seen.sort_unstable();
        let parts = |&expert: &u32| (0..N_PARTS).map(move |part| (expert, part));
        let expected: Vec<_> = missing.iter().flat_map(parts).collect();
        assert_eq!(seen, expected, "each part of each expert once");
    }
}

/// Computes an event on the CPU.
fn compute(engine: &Engine, layer: usize, ids: &[i32]) {
    let mut n_rows = [0; N_EXPERTS];
    ids.iter().for_each(|&e| n_rows[e as usize] += 1);
    let routing = Routing {
        picks: Picks::new(ids, ids.len(), ids.len()),
        n_rows: &n_rows,
        batch: &Batch::default(),
        inputs: Inputs::default(),
    };
    for part in 0..N_PARTS {
        let begins = engine.route(layer, part, 1, 1, &routing).unwrap();
        assert_eq!(begins, part == 0, "an event begins once");
        let mut n = 0;
        while let Some((expert, address)) = engine.acquire(layer, 1, 0, n).unwrap() {
            let piece = Piece {
                expert,
                part,
                address,
                stays: true,
            };
            check(layer, &piece);
            n += 1;
        }
        assert_eq!(n, ids.len());
    }
}

/// Numbers that look random and are always the same.
fn numbers() -> impl FnMut(usize) -> usize {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    move |n| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x % n as u64) as usize
    }
}

fn resident(engine: &Engine) -> u32 {
    let mut n = 0;
    engine.inspect(|_, Pooled { residency, .. }| {
        residency.validate();
        n += residency.n_resident();
    });
    n
}

/// Two devices and the CPU in turns, with memory for much, little and nothing.
#[test]
fn every_byte_once_and_for_as_long_as_it_is_taken() {
    for (percent, delay_ms) in [(60, 0), (25, 1), (9, 0), (0, 0), (100, 1)] {
        let engine = engine(percent, delay_ms);
        let mut devices = [Device::new(), Device::new()];
        let mut below = numbers();
        for token in 0..120 {
            for layer in 0..N_LAYERS {
                let first = below(N_EXPERTS);
                let step = [1, 3, 5, 7][below(4)];
                let ids: Vec<i32> = (0..4)
                    .map(|i| ((first + i * step) % N_EXPERTS) as i32)
                    .collect();
                let device = &mut devices[token / 7 % 2];
                if token / 5 % 3 == 0 {
                    // Lanes do not disturb a loan, which lasts.
                    compute(&engine, layer, &ids);
                    continue;
                }
                let mut missing: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
                missing.retain(|_| below(3) > 0);
                missing.sort_unstable();
                let victims = [(below(N_LAYERS), below(N_EXPERTS) as u32)];
                device.give_back(&engine);
                device.take(&engine, layer, &ids, &missing, &victims);
            }
            if token % 11 == 0 {
                let (layer, expert) = (below(N_LAYERS), below(N_EXPERTS) as u32);
                let mut n = 0;
                let shown = engine.lend_in_advance(layer, expert, |piece| {
                    assert!(!piece.stays);
                    check(layer, &piece);
                    n += 1;
                });
                shown.unwrap();
                assert_eq!(n, N_PARTS);
            }
        }
        devices
            .iter_mut()
            .for_each(|device| device.give_back(&engine));
        // The last event of the CPU.
        compute(&engine, 0, &[0]);
        compute(&engine, 1, &[0]);
        resident(&engine);
        // Reads are counted a moment after they have arrived.
        let counted = engine.meter().bytes_read.load(Relaxed);
        let begin = Instant::now();
        while engine.queue().stats().bytes_read < counted && begin.elapsed().as_secs() < 5 {
            std::thread::yield_now();
        }
        assert_eq!(engine.queue().stats().bytes_read, counted);
        engine.inspect(
            |_,
             Pooled {
                 residency,
                 recent: log,
                 ..
             }| {
                assert!(residency.n_pinned() <= 1);
                let counts = residency.counts().decode;
                assert_eq!(
                    counts.picks(),
                    log.n_picks() as u64,
                    "what was asked for is logged"
                );
            },
        );
    }
}

/// All reads of an event are asked for before the first is waited for, and each part is shown in their order.
#[test]
fn reads_of_an_event_are_in_flight_together() {
    let engine = engine(100, 20);
    compute(&engine, 0, &[2]);
    let n_before = engine.meter().n_reads.load(Relaxed);
    let mut shown = Vec::new();
    let wanted = Wanted {
        picks: Picks::new(&[5, 2, 1, 7, 3], 5, 5),
        batch: &Batch::default(),
        missing: &[1, 2, 3, 7],
        victims: &[],
        is_kept: true,
    };
    let mut loan = Loan::default();
    let lent = engine.lend(0, &wanted, &mut loan, |piece| {
        let n_reads = engine.meter().n_reads.load(Relaxed) - n_before;
        assert_eq!(n_reads, 9, "three parts of each that is not in memory");
        shown.push((piece.part, piece.expert));
    });
    lent.unwrap();
    engine.end_loan(&mut loan).unwrap();
    let there = [(0, 2), (1, 2), (2, 2)];
    let coming = (0..N_PARTS).flat_map(|part| [1, 3, 7].map(|expert| (part, expert)));
    assert_eq!(shown, there.into_iter().chain(coming).collect::<Vec<_>>());
}

/// What has no slot passes through the ring; a place is read into again only after its part was taken.
#[test]
fn more_than_the_ring_holds() {
    let engine = engine(0, 0);
    assert!(engine.layout().ring.n_places < N_EXPERTS * N_PARTS);
    let ids: Vec<i32> = (0..N_EXPERTS as i32).collect();
    let missing: Vec<u32> = (0..N_EXPERTS as u32).collect();
    let wanted = Wanted {
        picks: Picks::new(&ids, N_EXPERTS, N_EXPERTS),
        batch: &Batch::default(),
        missing: &missing,
        victims: &[],
        is_kept: true,
    };
    for layer in 0..N_LAYERS {
        let mut n = 0;
        let mut loan = Loan::default();
        let lent = engine.lend(layer, &wanted, &mut loan, |piece| {
            assert!(!piece.stays);
            // A read that came too early has ended by then.
            std::thread::sleep(Duration::from_millis(2));
            check(layer, &piece);
            n += 1;
        });
        lent.unwrap();
        engine.end_loan(&mut loan).unwrap();
        assert_eq!(n, N_EXPERTS * N_PARTS);
    }
}

/// What a device has taken leaves memory first, what it gives back does not; what the CPU computes is ordinary.
#[test]
fn what_a_device_holds_leaves_memory_first() {
    // Slots for a quarter of both pools.
    let engine = engine(25, 0);
    let mut n_slots = 0;
    engine.inspect(|pool, Pooled { residency, .. }| {
        if pool.shape.n_layers() == 2 {
            n_slots = residency.n_slots();
        }
    });
    let n_slots = n_slots as i32;
    assert!((6..12).contains(&n_slots), "{n_slots}");
    let is_resident = |expert: u32| {
        let mut found = false;
        engine.inspect(|pool, Pooled { residency, .. }| {
            let id = hotset::expert::ExpertId { layer: 0, expert };
            found |= pool.shape.n_layers() == 2 && residency.is_resident(id);
        });
        found
    };
    for expert in 0..n_slots {
        compute(&engine, 0, &[expert]);
    }
    let mut device = Device::new();
    // The newest two go to the device, and one of them comes back.
    let (last, before) = (n_slots as u32 - 1, n_slots as u32 - 2);
    for expert in [before, last] {
        device.take(&engine, 0, &[expert as i32], &[expert], &[]);
        device.give_back(&engine);
    }
    device.take(&engine, 0, &[0], &[], &[(0, before)]);
    device.give_back(&engine);
    compute(&engine, 0, &[n_slots]);
    assert!(!is_resident(last) && is_resident(before));
    // Nothing is spare any more but what was picked and is still there: the first.
    compute(&engine, 0, &[n_slots + 1]);
    assert!(!is_resident(0) && is_resident(1));
    compute(&engine, 0, &[n_slots + 2]);
    assert!(!is_resident(1), "the policy chooses again");
}

/// What a prompt lends is shown operation by operation and evicts nothing; an event that is cut short ends when its
/// reads have, so that its slots can be given away.
#[test]
fn prompts_are_lent_part_by_part() {
    for percent in [0, 40, 100] {
        let engine = engine(percent, 5);
        (0..4).for_each(|first| compute(&engine, 0, &[first, first + 1]));
        let n_before = resident(&engine);
        let ids: Vec<i32> = (0..40).flat_map(|i| [i % 16, (i + 5) % 16]).collect();
        let missing: Vec<u32> = (0..N_EXPERTS as u32).filter(|e| *e != 3).collect();
        let wanted = Wanted {
            picks: Picks::new(&ids, 2, 2),
            batch: &Batch::default(),
            missing: &missing,
            victims: &[],
            is_kept: false,
        };
        let mut loan = Loan::default();
        for n_shown in 0..=N_PARTS {
            engine.begin_loan(1, &wanted, &mut loan).unwrap();
            let mut taken = Vec::new();
            for part in 0..n_shown {
                let mut experts = Vec::new();
                let shown = engine.show(&loan, part..part + 1, |piece| {
                    assert_eq!(piece.part, part);
                    check(1, &piece);
                    experts.push(piece.expert);
                    if piece.stays {
                        taken.push(piece);
                    }
                });
                shown.unwrap();
                experts.sort_unstable();
                assert_eq!(experts, missing, "part {part}");
            }
            taken.iter().for_each(|piece| check(1, piece));
            engine.end_loan(&mut loan).unwrap();
            compute(&engine, 0, &[9, 10, 11]);
        }
        assert!(resident(&engine) >= n_before);
        engine.inspect(
            |pool,
             Pooled {
                 residency, tracker, ..
             }| {
                if pool.shape.n_layers() == 2 {
                    let scans = residency.counts().prefill;
                    assert_eq!(scans.picks(), (4 * missing.len()) as u64);
                    assert_eq!(scans.evictions, 0);
                    let picked = tracker.counts(Phase::Prefill, Span::Lifetime, 1);
                    assert_eq!(picked.n_tokens, 160.0, "they hear of all");
                    assert_eq!(picked.picks.iter().sum::<f64>(), 320.0);
                }
            },
        );
    }
}
