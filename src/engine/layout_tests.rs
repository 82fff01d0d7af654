//! Layouts of tensors that are only said to be.

use super::*;

/// Two sizes of layers, offsets that are not aligned.
fn tensors() -> Vec<Tensor> {
    let mut offset = 1000;
    let mut all = Vec::new();
    for block in 0..4 {
        for (name, n_bytes) in [
            ("gate", 3000),
            ("up", 3000),
            ("down", 5000 + 1000 * (block as usize % 2)),
        ] {
            all.push(Tensor {
                name: format!("blk.{block}.{name}"),
                block,
                n_experts: 8,
                n_bytes,
                file: 0,
                offset,
                stride: n_bytes as u64,
            });
            offset += 8 * n_bytes as u64;
        }
    }
    all
}

#[test]
fn slots_never_exceed_the_budget_and_regions_never_overlap() {
    for align in [1, 512, 4096] {
        for budget in [1, 20_000, 100_000, 200_000, 300_000] {
            let layout = Layout::new(&tensors(), &[align], budget).unwrap();
            let slots: usize = layout
                .pools
                .iter()
                .map(|p| p.n_slots as usize * p.slot_bytes)
                .sum();
            assert!(
                slots as u64 <= budget,
                "align {align} budget {budget}: {slots}"
            );
            assert_eq!(layout.pools.len(), 2);
            assert_eq!(slots, layout.ring.base);
            for layer in &layout.layers {
                let pool = &layout.pools[layer.pool];
                let ends = layer
                    .parts
                    .iter()
                    .skip(1)
                    .map(|p| p.region)
                    .chain([pool.slot_bytes]);
                for (part, end) in layer.parts.iter().zip(ends) {
                    for e in 0..8 {
                        let offset = part.tensor.offset + e * part.tensor.n_bytes as u64;
                        let len = span(offset, part.tensor.n_bytes, align).len;
                        assert!(part.region + len <= end);
                        assert!(len <= layout.ring.place_bytes);
                    }
                }
            }
        }
    }
}

#[test]
fn the_least_budget_holds_one_expert() {
    let n_slots = |budget| {
        let layout = Layout::new(&tensors(), &[512], budget).unwrap();
        (layout.n_slots(), layout.least_bytes())
    };
    let (_, least) = n_slots(1);
    assert_eq!(n_slots(least), (1, least));
    assert_eq!(n_slots(least - 1), (0, least));
}

#[test]
fn the_whole_budget_holds_every_expert() {
    let total = expert_bytes(&tensors());
    let layout = Layout::new(&tensors(), &[4096], total).unwrap();
    assert_eq!(layout.n_slots(), 32);
    assert_eq!(layout.token_cycle_bytes(2), 2 * 2 * (11_000 + 12_000));
}

/// Also when the ring is larger than what may lie beside the budget, and pages add up.
#[test]
fn the_whole_budget_holds_every_large_expert() {
    let mut big = tensors();
    for t in &mut big {
        t.n_bytes *= 10_000;
    }
    let layout = Layout::new(&big, &[4096], expert_bytes(&big)).unwrap();
    assert_eq!(layout.n_slots(), 32);
    assert!(layout.ring.n_places * layout.ring.place_bytes > RING_BESIDE_BYTES);
}

#[test]
fn a_ring_that_does_not_fit_is_an_error_with_the_bytes_needed() {
    let mut big = tensors();
    for t in &mut big {
        t.n_bytes *= 10_000;
    }
    let error = Layout::new(&big, &[512], 1 << 20).unwrap_err().to_string();
    assert!(error.contains("at least"), "{error}");
}

/// What is there for the moment is no choice of anybody's.
#[test]
fn a_ring_that_does_not_fit_now_is_all_there_is_at_the_start() {
    let mut big = tensors();
    for t in &mut big {
        t.n_bytes *= 10_000;
    }
    let whole = Layout::new(&big, &[512], u64::MAX).unwrap();
    for capacity in [whole.ring_cost(), whole.expert_bytes / 2, u64::MAX] {
        for now in [0, 1 << 20, whole.ring_cost()] {
            let layout = Layout::growing(&big, &[512], now, capacity).unwrap();
            assert_eq!(layout.n_slots_start(), 0);
            let ring = layout.ring.n_places * layout.ring.place_bytes;
            assert_eq!(layout.arena_bytes_start(), ring as u64);
            assert_eq!(layout.n_slots() > 0, capacity > layout.ring_cost());
        }
    }
}

/// The ring of a model that is worth streaming: 16 MiB, and of large parts 16 places if they are no more than 1/32 of the
/// budget and 64 MiB. 16 places of it, up to 16 MiB, lie beside the budget.
#[test]
fn the_ring_is_counted_in_the_budget() {
    const MIB: u64 = 1 << 20;
    for (part_bytes, most) in [(540 << 10, 16 * MIB), (2 * MIB, 32 * MIB), (5 * MIB, 64 * MIB)] {
        the_ring_of(part_bytes, most);
    }
}

fn the_ring_of(part_bytes: u64, most: u64) {
    const MIB: u64 = 1 << 20;
    let tensor = |part: u32| Tensor {
        name: format!("part{part}"),
        block: part / 3,
        n_experts: 64,
        n_bytes: part_bytes as usize,
        file: 0,
        offset: u64::from(part) << 32,
        stride: part_bytes,
    };
    let tensors: Vec<_> = (0..90).map(tensor).collect();
    let mut before = 0;
    for budget in [1, 100 * MIB, 600 * MIB, 1200 * MIB, 2500 * MIB, 3000 * MIB] {
        let layout = Layout::new(&tensors, &[4096], budget).unwrap();
        let ring_bytes = (layout.ring.n_places * layout.ring.place_bytes) as u64;
        let expected = (budget / 32).clamp(16 * MIB, most);
        assert!(ring_bytes <= expected && expected < ring_bytes + part_bytes, "{budget} {part_bytes}");
        let beside = (16 * layout.ring.place_bytes as u64).min(16 * MIB);
        assert_eq!(layout.ring_cost(), ring_bytes.saturating_sub(beside));
        assert!(budget < beside || layout.arena_bytes as u64 <= budget + beside, "{budget}");
        assert!(layout.n_slots() >= before);
        before = layout.n_slots();
    }
    let whole = Layout::new(&tensors, &[4096], u64::MAX).unwrap();
    assert_eq!(whole.n_slots() as usize, whole.n_experts());
    // Of a small one it is no larger than it has to be.
    let small = Layout::new(&tensors[..3], &[4096], 10 * MIB).unwrap();
    assert_eq!(small.ring.n_places as u64, 16.min(16 * MIB / part_bytes));
}
