//! Functions that round alike on every machine: additions, multiplications and divisions do, the
//! functions of a maths library do not.

use std::f64::consts::{LN_2, SQRT_2};

/// 2 to the power `1 / n`, by its series. 20 terms exhaust the precision at `n` = 1. `n` must not be 0.
pub fn root_of_two(n: u32) -> f64 {
    let exponent = LN_2 / f64::from(n);
    let mut sum = 1.0;
    let mut term = 1.0;
    for k in 1..=20 {
        term *= exponent / f64::from(k);
        sum += term;
    }
    sum
}

/// The logarithm of `x` to base 2, exact for powers of two. Panics unless `x` is positive and normal.
pub fn log2(x: f64) -> f64 {
    assert!(x.is_normal() && x > 0.0, "log2 of {x}");
    const MANTISSA: u64 = (1 << 52) - 1;
    const BIAS: i32 = 1023;
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i32 - BIAS;
    let mut m = f64::from_bits(bits & MANTISSA | 1f64.to_bits());
    if m > SQRT_2 {
        m /= 2.0;
        exponent += 1;
    }
    // ln m = 2 artanh s; |s| is at most 0.172, of which the 25th power is below the precision.
    let s = (m - 1.0) / (m + 1.0);
    let mut sum = 0.0;
    let mut power = s;
    for k in 0..12 {
        sum += power / f64::from(2 * k + 1);
        power *= s * s;
    }
    f64::from(exponent) + 2.0 * sum / LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_give_two_again() {
        for n in [1, 2, 16, 256, 4096] {
            let two = (0..n).fold(1.0, |product, _| product * root_of_two(n));
            assert!((two - 2.0f64).abs() < 1e-11, "{n}: {two}");
        }
    }

    #[test]
    fn logarithms_are_those_of_the_maths_library() {
        for i in 1..20_000 {
            let x = f64::from(i) / 777.0;
            assert!((log2(x) - x.log2()).abs() < 1e-14 * 16.0, "{x}");
        }
        for exponent in [-1022, -1, 0, 1, 1023] {
            assert_eq!(log2(2f64.powi(exponent)), f64::from(exponent));
        }
    }
}
