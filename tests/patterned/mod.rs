//! A file of experts that can be told apart by their bytes.

use hotset::engine::layout::Tensor;
use std::io::Write;

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
