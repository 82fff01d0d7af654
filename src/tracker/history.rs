//! What the experts of all layers did in one phase.

use super::counts::LayerCounts;
use crate::expert::Event;
use std::collections::VecDeque;

/// The half-lives of the memories that fade, in visits.
pub const HALF_LIVES: [u32; 4] = [4, 16, 64, 256];

const N_HALF_LIVES: usize = HALF_LIVES.len();

/// Units are scaled down when they exceed this. A power of two, so that scaling rounds nothing but
/// values too old to matter.
const UNIT_MAX: f64 = (1u128 << 64) as f64;

/// What is kept of one expert. Packed, because there may be tens of thousands of experts.
#[derive(Debug, Default, Clone, Copy)]
#[repr(C, packed(4))]
pub(super) struct Record {
    /// Tokens that picked it.
    pub n_tokens: u64,
    /// The same, decayed with each half-life, in the layer's units.
    decayed: [f32; N_HALF_LIVES],
    /// The visit that used it last, without the upper half; of no meaning before the first use.
    last_visit: u32,
}

// Two phases stay below 60 bytes for each expert.
const _: () = assert!(2 * size_of::<Record>() < 60);

/// What is kept of one layer.
#[derive(Debug)]
pub(super) struct LayerHistory {
    /// Events.
    pub n_visits: u64,
    /// Their tokens.
    pub n_tokens: u64,
    /// What a pick by one token adds now, by half-life; between 1 and [`UNIT_MAX`].
    ///
    /// Instead of shrinking the values of all experts on each visit, the units grow: a value is worth
    /// `value / unit`. So an event costs what its experts cost.
    units: [f64; N_HALF_LIVES],
    /// The tokens, decayed with each half-life, in these units.
    decayed_tokens: [f64; N_HALF_LIVES],
    window: RecentVisits,
}

/// The events of the latest visits.
#[derive(Debug, Default)]
struct RecentVisits {
    /// Tokens and experts of each event, oldest first.
    visits: VecDeque<(u32, u32)>,
    /// Expert and rows of each pick of these events.
    picks: VecDeque<(u32, u32)>,
}

impl RecentVisits {
    fn push(&mut self, event: &Event, n_visits_max: usize) {
        if self.visits.len() == n_visits_max
            && let Some((_, n_picks)) = self.visits.pop_front()
        {
            self.picks.drain(..n_picks as usize);
        }
        let n_picks = event.experts.len() as u32;
        self.visits.push_back((event.n_tokens, n_picks));
        let picks = event
            .experts
            .iter()
            .copied()
            .zip(event.rows.iter().copied());
        self.picks.extend(picks);
    }
}

/// All events of one phase. Experts are known by their dense indices.
#[derive(Debug)]
pub(super) struct History {
    n_visits_max: usize,
    growth: [f64; N_HALF_LIVES],
    pub layers: Vec<LayerHistory>,
    records: Vec<Record>,
}

impl History {
    /// No events of `n_layers` layers with `n_experts` experts in all. The windows hold
    /// `n_visits_max` visits.
    pub fn new(n_layers: u32, n_experts: usize, n_visits_max: usize) -> Self {
        let layer = || LayerHistory {
            n_visits: 0,
            n_tokens: 0,
            units: [1.0; N_HALF_LIVES],
            decayed_tokens: [0.0; N_HALF_LIVES],
            window: RecentVisits::default(),
        };
        Self {
            n_visits_max,
            growth: HALF_LIVES.map(|visits| libm::exp2(1.0 / f64::from(visits))),
            layers: (0..n_layers).map(|_| layer()).collect(),
            records: vec![Record::default(); n_experts],
        }
    }

    /// Counts an event of a layer with `n_experts` experts, of which the first has the dense index
    /// `first`.
    pub fn count(&mut self, event: &Event, first: usize, n_experts: usize) {
        let records = &mut self.records[first..first + n_experts];
        let layer = &mut self.layers[event.layer as usize];
        layer.n_visits += 1;
        layer.n_tokens += u64::from(event.n_tokens);
        for h in 0..N_HALF_LIVES {
            layer.units[h] *= self.growth[h];
            if layer.units[h] > UNIT_MAX {
                layer.units[h] /= UNIT_MAX;
                layer.decayed_tokens[h] /= UNIT_MAX;
                for record in &mut *records {
                    record.decayed[h] /= UNIT_MAX as f32;
                }
            }
            layer.decayed_tokens[h] += layer.units[h] * f64::from(event.n_tokens);
        }
        let units = layer.units.map(|unit| unit as f32);
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            let record = &mut records[expert as usize];
            record.n_tokens += u64::from(rows);
            record.last_visit = layer.n_visits as u32;
            for (value, unit) in record.decayed.iter_mut().zip(units) {
                *value += unit * rows as f32;
            }
        }
        layer.window.push(event, self.n_visits_max);
    }

    /// The record of the expert with dense index `index`, in `layer`, and the visits since its last use.
    pub fn usage(&self, layer: u32, index: usize) -> (u64, Option<u64>) {
        let Record {
            n_tokens,
            last_visit,
            ..
        } = self.records[index];
        // Right for ages up to 2^32 visits, which is a year at a hundred tokens a second.
        let age = (self.layers[layer as usize].n_visits as u32).wrapping_sub(last_visit);
        (n_tokens, (n_tokens > 0).then_some(age.into()))
    }

    /// The counts of the `n_experts` experts of `layer`, which begin at dense index `first`.
    pub fn lifetime(&self, layer: u32, first: usize, n_experts: usize) -> LayerCounts {
        let records = &self.records[first..first + n_experts];
        LayerCounts {
            n_tokens: self.layers[layer as usize].n_tokens as f64,
            picks: records.iter().map(|r| r.n_tokens as f64).collect(),
        }
    }

    /// The same, decayed with half-life number `h`.
    pub fn decayed(&self, layer: u32, first: usize, n_experts: usize, h: usize) -> LayerCounts {
        let records = &self.records[first..first + n_experts];
        let layer = &self.layers[layer as usize];
        let worth = |record: &Record| f64::from(record.decayed[h]) / layer.units[h];
        LayerCounts {
            n_tokens: layer.decayed_tokens[h] / layer.units[h],
            picks: records.iter().map(worth).collect(),
        }
    }

    /// The same, in the window.
    pub fn window(&self, layer: u32, n_experts: usize) -> LayerCounts {
        let window = &self.layers[layer as usize].window;
        let n_tokens: u64 = window.visits.iter().map(|visit| u64::from(visit.0)).sum();
        let mut picks = vec![0; n_experts];
        for &(expert, rows) in &window.picks {
            picks[expert as usize] += u64::from(rows);
        }
        LayerCounts {
            n_tokens: n_tokens as f64,
            picks: picks.into_iter().map(|n| n as f64).collect(),
        }
    }
}
