//! Matrices times vectors, compiled for the vector units there are.
//!
//! Sums are made in the same order everywhere, so results are the same on any machine.

/// Numbers that are summed side by side: additions in a row wait for each other.
const N_SUMS: usize = 32;

/// Computes with the vector units of this machine.
#[derive(Clone, Copy)]
pub(super) struct Product(pulp::Arch);

impl Default for Product {
    fn default() -> Self {
        Self(pulp::Arch::new())
    }
}

impl Product {
    /// Makes `sums` the product of each of `rows` with `input`.
    pub fn multiply(&self, rows: &[f32], input: &[f32], sums: &mut [f32]) {
        sums.fill(0.0);
        self.multiply_add(rows, input, sums);
    }

    /// Adds the product of each of `rows` with `input` to `sums`.
    pub fn multiply_add(&self, rows: &[f32], input: &[f32], sums: &mut [f32]) {
        assert_eq!(rows.len(), sums.len() * input.len());
        self.0.dispatch(MultiplyAdd { rows, input, sums });
    }

    /// Moves each of `rows` so that its product with `input` comes nearer to its number of `wanted`: by `rate`, 0 to 1,
    /// of what is missing, if `scale` is one over the sum of the squares of `input`.
    pub fn approach(&self, rows: &mut [f32], input: &[f32], wanted: &[f32], rate: f32, scale: f32) {
        assert_eq!(rows.len(), wanted.len() * input.len());
        let rate = rate * scale;
        self.0.dispatch(Approach {
            rows,
            input,
            wanted,
            rate,
        });
    }
}

struct MultiplyAdd<'a> {
    rows: &'a [f32],
    input: &'a [f32],
    sums: &'a mut [f32],
}

// What is not inlined is not compiled for the vector units.
impl pulp::WithSimd for MultiplyAdd<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let rows = self.rows.chunks_exact(self.input.len());
        for (sum, row) in self.sums.iter_mut().zip(rows) {
            *sum += dot(row, self.input);
        }
    }
}

struct Approach<'a> {
    rows: &'a mut [f32],
    input: &'a [f32],
    wanted: &'a [f32],
    rate: f32,
}

impl pulp::WithSimd for Approach<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let rows = self.rows.chunks_exact_mut(self.input.len());
        for (&wanted, row) in self.wanted.iter().zip(rows) {
            let step = self.rate * (wanted - dot(row, self.input));
            add(row, self.input, step);
        }
    }
}

/// Adds `step` times `b` to `a`.
#[inline(always)]
fn add(a: &mut [f32], b: &[f32], step: f32) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += step * b;
    }
}

/// The sum of products.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; N_SUMS];
    let (chunks_a, rest_a) = a.as_chunks::<N_SUMS>();
    let (chunks_b, rest_b) = b.as_chunks::<N_SUMS>();
    for (x, y) in chunks_a.iter().zip(chunks_b) {
        for i in 0..N_SUMS {
            sums[i] += x[i] * y[i];
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_approaches_with_rate_1_is_there() {
        let input: Vec<f32> = (0..45).map(|i| (i as f32).sin()).collect();
        let mut rows: Vec<f32> = (0..90).map(|i| (i as f32).cos()).collect();
        let square: f32 = input.iter().map(|x| x * x).sum();
        let product = Product::default();
        product.approach(&mut rows, &input, &[3.0, -1.0], 1.0, 1.0 / square);
        let mut sums = [0.0; 2];
        product.multiply(&rows, &input, &mut sums);
        assert!((sums[0] - 3.0).abs() < 1e-4 && (sums[1] + 1.0).abs() < 1e-4, "{sums:?}");
        product.multiply_add(&rows, &input, &mut sums);
        assert!((sums[0] - 6.0).abs() < 1e-4, "{sums:?}");
    }
}
