//! How often a pick is in memory, by the share of the experts that is: measured on recorded routing of other models, because
//! nobody knows the routing of this one before it has run.
//!
//! From `hotset replay` of 21 traces of seven models (granite 1B and 3B, OLMoE, DeepSeek-V2-Lite, gpt-oss 20B and 120B, Gemma 4
//! 26B) with the policy `adaptive`: docs/runs/2026-11-30-doctor.

/// Shares of the experts in memory.
const SHARES: [f64; 13] = [
    0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0,
];
/// The least, the median and the greatest hit rate of the models at each of them.
const FLAT: Curve = Curve([
    0.0, 0.13, 0.26, 0.37, 0.46, 0.6, 0.72, 0.81, 0.88, 0.92, 0.96, 0.98, 1.0,
]);
const TYPICAL: Curve = Curve([
    0.0, 0.27, 0.47, 0.59, 0.66, 0.76, 0.83, 0.85, 0.9, 0.95, 0.97, 0.99, 1.0,
]);
const CONCENTRATED: Curve = Curve([
    0.0, 0.49, 0.63, 0.71, 0.78, 0.87, 0.94, 0.96, 0.97, 0.98, 0.99, 1.0, 1.0,
]);
/// Misses, as parts of the typical ones, that a range has room for. Some routing is more uneven than that, or less.
const MISSES: [f64; 2] = [0.55, 1.8];
/// Models whose tokens use so much of their experts are the flat ones, and those that use so little the others.
const MANY_USED: f64 = 0.18;
const FEW_USED: f64 = 0.06;

/// Hit rates at `SHARES`.
#[derive(Debug, Clone, Copy)]
struct Curve([f64; SHARES.len()]);

impl Curve {
    fn at(&self, share: f64) -> f64 {
        let next = SHARES
            .iter()
            .position(|s| share <= *s)
            .unwrap_or(SHARES.len() - 1)
            .max(1);
        let (low, high) = (SHARES[next - 1], SHARES[next]);
        let part = ((share - low) / (high - low)).clamp(0.0, 1.0);
        self.0[next - 1] + part * (self.0[next] - self.0[next - 1])
    }
}

/// Hit rates of flat, typical and concentrated routing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hits {
    pub flat: f64,
    pub typical: f64,
    pub concentrated: f64,
}

/// What a model whose tokens use `used_share` of its experts hits with `share` of them in memory.
pub fn hits(share: f64, used_share: f64) -> Hits {
    let at = |curve: &Curve| curve.at(share.clamp(0.0, 1.0));
    let (flat, typical, concentrated) = (at(&FLAT), at(&TYPICAL), at(&CONCENTRATED));
    let between = |a: f64, b: f64| (a + b) / 2.0;
    let (flat, typical, concentrated) = match used_share {
        MANY_USED.. => (flat, between(flat, typical), typical),
        FEW_USED.. => (flat, typical, concentrated),
        _ => (
            between(flat, typical),
            between(typical, concentrated),
            concentrated,
        ),
    };
    let [fewest, most] = MISSES.map(|part| part * (1.0 - typical));
    Hits {
        flat: flat.max(1.0 - most),
        typical,
        concentrated: concentrated.min(1.0 - fewest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_memory_hits_more_and_all_of_it_hits_all() {
        for used in [0.02, 0.1, 0.3] {
            let mut before = hits(0.0, used);
            assert_eq!(before.typical, 0.0);
            for percent in 1..=100 {
                let now = hits(f64::from(percent) / 100.0, used);
                assert!(
                    now.flat > before.flat && now.typical > before.typical,
                    "{percent}"
                );
                assert!(
                    now.flat <= now.typical && now.typical <= now.concentrated,
                    "{percent}"
                );
                before = now;
            }
            assert_eq!((before.flat, before.concentrated), (1.0, 1.0));
        }
        assert_eq!(hits(0.2, 0.1).typical, 0.66);
        assert!(hits(0.2, 0.02).typical > 0.66 && hits(0.2, 0.25).typical < 0.66);
    }
}
