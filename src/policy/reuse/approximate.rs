//! Logarithm and exponential from additions, multiplications and divisions only: these round alike on
//! every machine and run eight at a time, the functions of a maths library do neither.

use std::f32::consts::{LN_2, LOG2_E};

/// Probabilities are kept this far from 0 and 1 before their odds are taken.
pub(super) const LEAST: f32 = 0.002;

/// The natural logarithm of `x`, which must be positive and normal; off by less than 1e-4.
///
/// `x = 2^e * (1 + z)`; the polynomial is the least-squares fit of `ln(1 + z)` over `0..1`.
#[inline(always)]
pub(super) fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let z = f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000) - 1.0;
    let fraction = z
        * (0.999_115
            + z * (-0.489_959_7 + z * (0.285_675_1 + z * (-0.133_056_6 + z * 0.031_372_07))));
    exponent as f32 * LN_2 + fraction
}

/// `e^x` for `x` in -80..80; off by less than 1e-4 of the result.
///
/// The whole part of `x / ln 2` becomes the exponent; the series of `2^f` does for `f` in -0.5..0.5.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it leaves a whole number in the lowest bits of the mantissa.
    const WHOLE: f32 = 12_582_912.0;
    let y = x * LOG2_E;
    let shifted = y + WHOLE;
    let whole = shifted.to_bits() as i32 - WHOLE.to_bits() as i32;
    let f = y - (shifted - WHOLE);
    let power = 1.0
        + f * (LN_2
            + f * (0.240_226_5 + f * (0.055_504_11 + f * (0.009_618_13 + f * 0.001_333_36))));
    power * f32::from_bits(((whole + 127) << 23) as u32)
}

/// The log odds of `p`, which is first kept away from 0 and 1.
#[inline(always)]
pub(super) fn logit(p: f32) -> f32 {
    let q = p.clamp(LEAST, 1.0 - LEAST);
    ln(q / (1.0 - q))
}

/// The probability whose log odds are `x`.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x.clamp(-9.0, 9.0)))
}

/// The sum of products, in eight sums side by side. Panics unless both are of one length, a multiple
/// of 8.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    assert!(a.0.len() == b.0.len() && a.1.is_empty() && b.1.is_empty());
    let mut sums = [0.0f32; 8];
    for (x, y) in a.0.iter().zip(b.0) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum()
}

/// The smallest value and its first place; `f32::INFINITY` and 0 if there is none smaller. Panics
/// unless the length is a multiple of 8.
#[inline(always)]
pub(super) fn least(values: &[f32]) -> (f32, usize) {
    let (chunks, rest) = values.as_chunks::<8>();
    assert!(rest.is_empty());
    let mut least = [f32::INFINITY; 8];
    let mut at = [0u32; 8];
    for (number, chunk) in (0u32..).zip(chunks) {
        for i in 0..8 {
            let is_less = chunk[i] < least[i];
            least[i] = if is_less { chunk[i] } else { least[i] };
            at[i] = if is_less { number } else { at[i] };
        }
    }
    let mut best = (f32::INFINITY, 0);
    for i in 0..8 {
        let place = at[i] as usize * 8 + i;
        if least[i] < best.0 || (least[i] == best.0 && place < best.1) {
            best = (least[i], place);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_to_the_real_functions() {
        for i in 1..4000 {
            let x = i as f32 * 0.001;
            assert!((ln(x) - x.ln()).abs() < 1e-4, "ln({x}) = {}", ln(x));
            let x = (i - 2000) as f32 * 0.04;
            let error = (exp(x) / x.exp() - 1.0).abs();
            assert!(error < 1e-4, "exp({x}) = {}", exp(x));
            let p = LEAST + (1.0 - 2.0 * LEAST) * i as f32 / 4000.0;
            assert!((sigmoid(logit(p)) - p).abs() < 1e-4, "{p}");
        }
    }

    #[test]
    fn sums_and_minima_look_at_every_value() {
        for n in [8, 24] {
            for at in 0..n {
                let mut values = vec![2.0; n];
                values[at] = 1.0;
                assert_eq!(dot(&values, &values), 4.0 * (n - 1) as f32 + 1.0);
                assert_eq!(least(&values), (1.0, at));
            }
        }
        // Of equal ones the first.
        assert_eq!(
            least(&[
                3.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0
            ]),
            (2.0, 1)
        );
        assert_eq!(least(&[f32::INFINITY; 8]), (f32::INFINITY, 0));
    }
}
