//! A file of experts that can be told apart by their bytes.

use hotset::engine::Engine;
use hotset::engine::layout::{Layout, Tensor};
use hotset::store::{Faults, ModelFile, QueueDepth, QueueKind, QueueOptions};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

/// Writes the parts of `n_experts` experts of each layer, of which `part_bytes` has the sizes in multiples of 4,
/// and returns their tensors. `word` is what fills a part, again and again: of a layer, part and expert.
pub fn tensors<'a>(
    file: &mut impl Write,
    n_experts: usize,
    part_bytes: impl IntoIterator<Item = &'a [usize]>,
    word: impl Fn(usize, usize, usize) -> u32,
) -> Vec<Tensor> {
    let mut tensors = Vec::new();
    let mut offset = 0;
    for (layer, parts) in part_bytes.into_iter().enumerate() {
        for (part, &n_bytes) in parts.iter().enumerate() {
            tensors.push(Tensor {
                name: format!("blk.{layer}.part{part}"),
                block: layer as u32,
                n_experts: n_experts as u32,
                n_bytes,
                file: 0,
                offset,
                stride: n_bytes as u64,
            });
            offset += (n_experts * n_bytes) as u64;
            for expert in 0..n_experts {
                let word = word(layer, part, expert).to_le_bytes();
                file.write_all(&word.repeat(n_bytes / 4)).unwrap();
            }
        }
    }
    tensors
}

/// A file of experts, each part full of a word.
pub struct Source<'a> {
    /// Experts of a layer.
    pub n_experts: usize,
    /// Layers, all alike.
    pub n_layers: usize,
    /// Sizes of the parts.
    pub part_bytes: &'a [usize],
    /// As for [`tensors`].
    pub word: fn(usize, usize, usize) -> u32,
}

/// An engine with `n_slots` slots, and a ring of `n_places` if that is said, which reads with these `faults`; and its file.
#[allow(dead_code)]
pub fn engine(
    source: &Source,
    policy: &str,
    n_slots: usize,
    n_places: Option<usize>,
    piece_bytes: usize,
    faults: &str,
) -> (Engine, File) {
    let mut file = tempfile::tempfile().unwrap();
    let parts = std::iter::repeat_n(source.part_bytes, source.n_layers);
    let tensors = tensors(&mut file, source.n_experts, parts, source.word);
    let model = ModelFile::open(file.as_fd()).unwrap();
    let aligns = [model.align()];
    let slot_bytes = Layout::new(&tensors, &aligns, u64::MAX).unwrap().pools[0].slot_bytes;
    let mut layout = Layout::new(&tensors, &aligns, (slot_bytes * n_slots) as u64).unwrap();
    assert_eq!(
        (layout.n_slots() as usize, layout.pools.len()),
        (n_slots, 1)
    );
    if let Some(n_places) = n_places {
        layout.ring.n_places = n_places;
        layout.arena_bytes = layout.ring.base + n_places * layout.ring.place_bytes;
    }
    let queue_depth = QueueDepth {
        depth: 4,
        piece_bytes,
        ..QueueDepth::default()
    };
    let engine = Engine::new(layout, vec![model], policy, options(queue_depth, faults)).unwrap();
    (engine, file)
}

/// Reads of which so many are under way at once, with these `faults`, as HOTSET_FAULT has them.
pub fn options(queue_depth: QueueDepth, faults: &str) -> QueueOptions {
    QueueOptions {
        kind: QueueKind::Auto,
        queue_depth,
        faults: match faults {
            "" => Faults::default(),
            faults => Faults::parse(faults).unwrap(),
        },
    }
}
