//! The arithmetic of `hotset widen`: an expert whose hidden layer is its own, several times over.
//!
//! The hidden layer is tiled, not interleaved, so that blocks of Q8_0 stay whole and no weight is
//! quantised again. The sum over the copies is divided by their number, one part of it in `up` and
//! the other in `down`, where it goes into the blocks' scales: both stay far from the numbers that
//! half precision cannot hold. For powers of two that is exact.

use half::f16;
use hotset::gguf::Part;
use std::io::{self, Write};

/// The dimension of a part that grows: a row holds the numbers of dimension 0.
///
/// Copies of [`Part::GateUp`] would have to lie within it, between gate and up: `hotset widen` refuses it.
pub fn hidden_dimension(part: Part) -> usize {
    match part {
        Part::GateUp | Part::Gate | Part::Up => 1,
        Part::Down => 0,
    }
}

/// What a part is divided by when there are `factor` copies.
pub fn divisor(part: Part, factor: u32) -> f32 {
    let up = 1 << (factor.ilog2() / 2);
    match part {
        Part::GateUp | Part::Gate => 1.0,
        Part::Up => up as f32,
        Part::Down => factor as f32 / up as f32,
    }
}

/// How a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// Blocks of a scale in half precision and 32 bytes.
    Q8_0,
}

/// Bytes of a block of Q8_0.
const Q8_0_BYTES: usize = 34;

/// Divides a matrix by `divisor`, rounding to nearest.
pub fn divide(bytes: &mut [u8], format: Format, divisor: f32) {
    let halve = |bytes: &mut [u8]| {
        let quotient = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32() / divisor;
        bytes[..2].copy_from_slice(&f16::from_f32(quotient).to_le_bytes());
    };
    match format {
        _ if divisor == 1.0 => {}
        Format::F32 => {
            for number in bytes.as_chunks_mut::<4>().0 {
                *number = (f32::from_le_bytes(*number) / divisor).to_le_bytes();
            }
        }
        Format::F16 => bytes.chunks_exact_mut(2).for_each(halve),
        Format::Q8_0 => bytes.chunks_exact_mut(Q8_0_BYTES).for_each(halve),
    }
}

/// Writes one expert's matrix `factor` times along its hidden dimension.
pub fn write_tiled(
    out: &mut impl Write,
    matrix: &[u8],
    part: Part,
    row_bytes: usize,
    factor: u32,
) -> io::Result<()> {
    // Along dimension 1 copies of the matrix follow each other, along dimension 0 copies of a row.
    let unit = match hidden_dimension(part) {
        0 => row_bytes,
        _ => matrix.len(),
    };
    for unit in matrix.chunks(unit) {
        for _ in 0..factor {
            out.write_all(unit)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divisors_multiply_to_the_factor() {
        for (factor, up, down) in [
            (1, 1.0, 1.0),
            (2, 1.0, 2.0),
            (3, 1.0, 3.0),
            (8, 2.0, 4.0),
            (180, 8.0, 22.5),
            (256, 16.0, 16.0),
        ] {
            assert_eq!(divisor(Part::Up, factor), up, "{factor}");
            assert_eq!(divisor(Part::Down, factor), down, "{factor}");
            assert_eq!(divisor(Part::Gate, factor), 1.0);
        }
    }

    #[test]
    fn dividing_touches_scales_and_leaves_quantised_bytes_alone() {
        let mut block = [7u8; 2 * Q8_0_BYTES];
        block[..2].copy_from_slice(&f16::from_f32(6.0).to_le_bytes());
        block[Q8_0_BYTES..Q8_0_BYTES + 2].copy_from_slice(&f16::from_f32(-0.5).to_le_bytes());
        divide(&mut block, Format::Q8_0, 4.0);
        assert_eq!(block[..2], f16::from_f32(1.5).to_le_bytes());
        assert_eq!(
            block[Q8_0_BYTES..Q8_0_BYTES + 2],
            f16::from_f32(-0.125).to_le_bytes()
        );
        assert!(block[2..Q8_0_BYTES].iter().all(|b| *b == 7));

        let mut single = [6.0f32.to_le_bytes(), 1.0f32.to_le_bytes()].concat();
        divide(&mut single, Format::F32, 4.0);
        assert_eq!(
            single,
            [1.5f32.to_le_bytes(), 0.25f32.to_le_bytes()].concat()
        );

        let mut half = f16::from_f32(6.0).to_le_bytes();
        divide(&mut half, Format::F16, 4.0);
        assert_eq!(half, f16::from_f32(1.5).to_le_bytes());
    }

    /// The output of an expert without activation is `down * up * x`.
    #[test]
    fn a_widened_expert_computes_the_same() {
        let up = [[1.0f32, 2.0], [3.0, -4.0], [0.5, 8.0]];
        let down = [[2.0f32, 1.0, -1.0], [4.0, 0.25, 3.0]];
        let widened = |rows: &[f32], row_bytes, part: Part| {
            let mut bytes: Vec<u8> = rows.iter().flat_map(|x| x.to_le_bytes()).collect();
            divide(&mut bytes, Format::F32, divisor(part, 8));
            let mut out = Vec::new();
            write_tiled(&mut out, &bytes, part, row_bytes, 8).unwrap();
            let numbers = out
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b));
            numbers.collect::<Vec<_>>()
        };
        let multiply = |matrix: &[f32], x: &[f32]| -> Vec<f32> {
            let rows = matrix.chunks(x.len());
            rows.map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum())
                .collect()
        };
        let x = [3.0f32, -1.0];
        let before = multiply(down.as_flattened(), &multiply(up.as_flattened(), &x));
        let wide_up = widened(up.as_flattened(), 8, Part::Up);
        let wide_down = widened(down.as_flattened(), 12, Part::Down);
        assert_eq!((wide_up.len(), wide_down.len()), (8 * 6, 8 * 6));
        assert_eq!(multiply(&wide_down, &multiply(&wide_up, &x)), before);
    }
}
