//! Which layers share a pool of slots, and how many slots each pool gets.

/// What a pool asks of a budget.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Bytes of one slot, at least 1.
    pub slot_bytes: u64,
    /// Experts of all its layers.
    pub n_experts: u32,
}

/// Layers with equal keys form a pool; pools are in the order of their first layer. Slots are exchanged
/// between experts of one pool only, so a key is what the size of an expert depends on.
pub fn group<K: PartialEq>(keys: &[K]) -> Vec<Vec<u32>> {
    let mut pools: Vec<Vec<u32>> = Vec::new();
    for (layer, key) in (0..).zip(keys) {
        match pools.iter_mut().find(|pool| keys[pool[0] as usize] == *key) {
            Some(pool) => pool.push(layer),
            None => pools.push(vec![layer]),
        }
    }
    pools
}

/// The slots of each pool: its share of `n_bytes` by the bytes of its experts, then what is left over
/// goes to whoever can still use a slot, first pools first. The bytes of all experts must be a `u64`.
pub fn share_slots(pools: &[Demand], n_bytes: u64) -> Vec<u32> {
    let all = |pool: &Demand| u128::from(pool.slot_bytes) * u128::from(pool.n_experts);
    let wanted: u128 = pools.iter().map(all).sum();
    let mut left = n_bytes;
    let mut n_slots = Vec::with_capacity(pools.len());
    for pool in pools {
        let share = u128::from(n_bytes) * all(pool) / wanted.max(1);
        let n = (share / u128::from(pool.slot_bytes)).min(pool.n_experts.into()) as u32;
        left -= u64::from(n) * pool.slot_bytes;
        n_slots.push(n);
    }
    for (pool, n_slots) in pools.iter().zip(&mut n_slots) {
        let n_missing = u64::from(pool.n_experts - *n_slots);
        let n = (left / pool.slot_bytes).min(n_missing) as u32;
        left -= u64::from(n) * pool.slot_bytes;
        *n_slots += n;
    }
    n_slots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(pools: &[(u64, u32)], n_bytes: u64) -> Vec<u32> {
        let demand = |&(slot_bytes, n_experts)| Demand {
            slot_bytes,
            n_experts,
        };
        share_slots(&pools.iter().map(demand).collect::<Vec<_>>(), n_bytes)
    }

    #[test]
    fn layers_of_one_size_form_a_pool() {
        assert_eq!(group(&[7, 9, 7, 8, 9]), [vec![0, 2], vec![1, 4], vec![3]]);
        assert!(group::<u64>(&[]).is_empty());
    }

    #[test]
    fn a_pool_gets_its_share_and_what_others_leave() {
        // Half of all bytes: each gets half of its own.
        assert_eq!(share(&[(10, 8), (30, 8)], 160), [4, 4]);
        // Of the shares of 119 and 39 bytes 29 and 9 are left over, and with one more make 39.
        assert_eq!(share(&[(30, 8), (10, 8)], 159), [4, 3]);
        // Of 37 and 12 bytes 10 are left over, too few for the first pool.
        assert_eq!(share(&[(30, 8), (10, 8)], 50), [1, 2]);
        assert_eq!(share(&[(10, 8), (30, 8)], 320), [8, 8]);
        assert_eq!(share(&[(10, 8), (30, 8)], u64::MAX), [8, 8]);
        assert_eq!(share(&[(10, 8), (30, 8)], 9), [0, 0]);
        assert_eq!(share(&[(1 << 40, 1 << 20)], u64::MAX), [1 << 20]);
    }
}
