//! The counters of one device.

use super::{DeviceCache, Filled};
use crate::hindsight::{Hindsight, Lookback};
use crate::pooled::Pooled;
use crate::recent_events::share;
use crate::residency::Tally;
use crate::tracker::unevenness::Unevenness;
use crate::tracker::{Phase, Span};
use serde::Serialize;

/// What happened to the experts that one device keeps for one context.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DeviceStats {
    /// Its name.
    pub device: String,
    /// The policy that was active.
    pub policy: String,
    /// Layers whose experts it keeps.
    pub n_layers: usize,
    /// Experts of these layers.
    pub n_experts: usize,
    /// Experts that it can hold.
    pub n_slots: u32,
    /// Experts that it held at the end.
    pub n_resident: u32,
    /// Bytes of its slots.
    pub slot_bytes: u64,
    /// Batches that looked into the cache.
    pub generation: Tally,
    /// Hits of these, as a part of 1; null if there were none.
    pub hit_rate: Option<f64>,
    /// Bytes of experts that were uploaded because they were missing.
    pub bytes_uploaded: u64,
    /// Experts that were uploaded before the first token.
    pub n_warmed: u64,
    /// Their bytes.
    pub bytes_warmed: u64,
    /// Experts routed to in batches that did not look into the cache, prompts and generation where the cache
    /// did not pay, and not copied from it.
    pub n_uncached: u64,
    /// Of these, those of generation for which the guard left the cache aside.
    pub n_aside: u64,
    /// How unevenly generation picks experts; null if there was none.
    pub generation_heat: Option<Unevenness>,
    /// Other policies on the routing of these batches; null where the time was too short for it.
    pub hindsight: Option<Hindsight>,
}

impl DeviceCache {
    /// The counters of each device, with a comparison over `n_picks_max` routed experts at most, unless
    /// that is 0. Empty if a plan is being made and does not end.
    pub fn stats(&self, n_picks_max: usize) -> Vec<DeviceStats> {
        let mut all: Vec<(DeviceStats, Vec<Lookback>)> = Vec::new();
        let mut policy = String::new();
        if let Some(state) = self.state_soon() {
            policy.clone_from(&state.policy);
            let mut heats: Vec<(String, Vec<_>)> = Vec::new();
            let n_layers = state.filled.iter().map(|p| p.of.layers.len()).sum();
            for (filled, pool) in state.filled.iter().zip(state.pools.iter()) {
                let device = &filled.of.device;
                let at = all.iter().position(|(stats, _)| stats.device == *device);
                let at = at.unwrap_or_else(|| {
                    let stats = DeviceStats {
                        device: device.clone(),
                        policy: policy.clone(),
                        ..DeviceStats::default()
                    };
                    all.push((stats, Vec::new()));
                    heats.push((device.clone(), Vec::new()));
                    all.len() - 1
                });
                let (stats, windows) = &mut all[at];
                stats.add(filled, pool);
                windows.push(lookback(filled, pool, n_picks_max, n_layers));
                let layers = 0..filled.of.shape.n_layers();
                let counts = layers.map(|layer| {
                    pool.tracker
                        .counts(Phase::Decode, Span::Lifetime, layer)
                });
                heats[at].1.extend(counts);
            }
            for ((stats, _), (_, layers)) in all.iter_mut().zip(&heats) {
                stats.generation_heat = Unevenness::mean(layers);
            }
        }
        let finish = |(mut stats, windows): (DeviceStats, Vec<Lookback>)| {
            stats.hit_rate = stats.generation.hit_rate();
            stats.hindsight = (n_picks_max > 0).then(|| Hindsight::of(&windows, &policy));
            stats
        };
        all.into_iter().map(finish).collect()
    }
}

impl DeviceCache {
    /// Copies of the latest routing of each pool, of at most so many picks together.
    pub fn windows(&self, n_picks_max: usize) -> Vec<Lookback> {
        let Some(state) = self.state_soon() else {
            return Vec::new();
        };
        let n_layers = state.filled.iter().map(|p| p.of.layers.len()).sum();
        let pools = state.filled.iter().zip(state.pools.iter());
        let windows = pools.map(|(filled, pool)| lookback(filled, pool, n_picks_max, n_layers));
        windows.collect()
    }
}

/// A copy of the latest routing of a pool: its part of so many picks, by the layers that all pools have.
fn lookback(filled: &Filled, pool: &Pooled, n_picks_max: usize, n_layers: usize) -> Lookback {
    let n_picks = share(n_picks_max, filled.of.layers.len(), n_layers);
    Lookback {
        n_slots_more: None,
        shape: filled.of.shape.clone(),
        n_slots: filled.of.n_slots,
        recent: pool.recent.tail(n_picks),
    }
}

impl DeviceStats {
    /// What was counted since `before`. What there is of something now stays as it is.
    pub fn since(self, before: &Self) -> Self {
        let generation = self.generation.since(&before.generation);
        Self {
            generation,
            hit_rate: generation.hit_rate(),
            bytes_uploaded: self.bytes_uploaded.saturating_sub(before.bytes_uploaded),
            n_warmed: self.n_warmed.saturating_sub(before.n_warmed),
            bytes_warmed: self.bytes_warmed.saturating_sub(before.bytes_warmed),
            n_uncached: self.n_uncached.saturating_sub(before.n_uncached),
            n_aside: self.n_aside.saturating_sub(before.n_aside),
            ..self
        }
    }

    fn add(&mut self, filled: &Filled, pool: &Pooled) {
        self.n_layers += filled.of.layers.len();
        self.n_experts += filled.of.shape.n_total();
        self.n_slots += pool.residency.n_slots();
        self.n_resident += pool.residency.n_resident();
        self.slot_bytes += u64::from(filled.of.n_slots) * filled.of.shape.expert_bytes(0);
        self.generation.add(&pool.residency.counts().decode);
        self.bytes_uploaded += filled.bytes_uploaded;
        self.n_warmed += filled.n_warmed;
        self.bytes_warmed += filled.bytes_warmed;
        self.n_uncached += filled.n_uncached;
        self.n_aside += filled.n_aside;
    }
}
