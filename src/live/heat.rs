//! How hot each expert is, and where.

use crate::device::DeviceCache;
use crate::engine::Engine;
use crate::expert::ExpertId;
use crate::pooled::Pooled;
use crate::tracker::{LayerCounts, Phase, Span, Tracker};
use serde::Serialize;

/// The experts of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelHeat {
    /// The model.
    pub model: String,
    /// Its layers with experts.
    pub layers: Vec<LayerHeat>,
}

/// The experts of a layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerHeat {
    /// The block of the model.
    pub block: u32,
    /// By expert: which share of the layer's picks it got of late while generating, or of prompts where nothing was
    /// generated. The sum is 1, or 0 if nothing was picked.
    pub share: Vec<f64>,
    /// By expert, a letter for where it is: `g` on a device, `m` in memory, `d` on disk only.
    pub tier: String,
}

impl ModelHeat {
    /// Of a model with layers at `blocks` whose experts are streamed by `engine`, or all in memory; some may be on
    /// devices, too.
    pub fn look(model: String, blocks: &[u32], engine: Option<&Engine>, devices: &[&DeviceCache]) -> Self {
        let mut layers: Vec<LayerHeat> = blocks.iter().map(|&block| LayerHeat::nothing(block)).collect();
        if let Some(engine) = engine {
            let of_pools = engine.layout().layers_of_pools();
            let mut of_pools = of_pools.iter();
            engine.inspect(|_, pool| {
                let numbers = of_pools.next().into_iter().flatten();
                for (&number, layer) in numbers.zip(0..) {
                    layers[number].fill(pool, layer, 'd', 'm');
                }
            });
        }
        for device in devices {
            device.inspect(|number, layer, pool| {
                let below = std::mem::take(&mut layers[number].tier);
                layers[number].fill(pool, layer, 'm', 'g');
                if !below.is_empty() {
                    layers[number].lie_over(&below);
                }
            });
        }
        Self { model, layers }
    }
}

impl LayerHeat {
    fn nothing(block: u32) -> Self {
        Self {
            block,
            share: Vec::new(),
            tier: String::new(),
        }
    }

    /// What `pool` knows of its `layer`: an expert that is resident there is at `there`, another one `elsewhere`.
    fn fill(&mut self, pool: &Pooled, layer: u32, elsewhere: char, there: char) {
        let Pooled {
            residency, tracker, ..
        } = pool;
        self.share = shares(&counts(tracker, layer));
        let is_there = |expert| residency.is_resident(ExpertId { layer, expert });
        let experts = 0..residency.shape().n_experts(layer);
        self.tier = experts
            .map(|expert| if is_there(expert) { there } else { elsewhere })
            .collect();
    }

    /// What is not on the device is where it was `below` that.
    fn lie_over(&mut self, below: &str) {
        let both = self.tier.chars().zip(below.chars());
        self.tier = both
            .map(|(above, below)| if above == 'g' { above } else { below })
            .collect();
    }
}

/// Of generation, or of prompts where nothing was generated.
fn counts(tracker: &Tracker, layer: u32) -> LayerCounts {
    let generated = tracker.counts(Phase::Decode, Span::LATELY, layer);
    match generated.n_tokens > 0.0 {
        true => generated,
        false => tracker.counts(Phase::Prefill, Span::LATELY, layer),
    }
}

fn shares(counts: &LayerCounts) -> Vec<f64> {
    let all: f64 = counts.picks.iter().sum();
    let share = |&picks: &f64| match all > 0.0 {
        true => (picks / all * 1e6).round() / 1e6,
        false => 0.0,
    };
    counts.picks.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft_tokens::{Batch, Token};
    use crate::expert::Shape;
    use crate::trace::Picks;
    use crate::device::PoolOf;

    /// One layer of four experts on a device with two slots.
    #[test]
    fn what_a_device_holds_lies_over_what_memory_holds() {
        let of = PoolOf {
            device: "GPU".to_string(),
            layers: vec![1],
            shape: Shape::uniform(1, 4),
            n_slots: 2,
        };
        let device = DeviceCache::new(vec![of], "lru").unwrap();
        let mut batch = Batch::default();
        batch.begin(
            1,
            [Token {
                seq: 0,
                pos: 0,
                is_output: true,
            }]
            .into_iter(),
        );
        let ids = [3, 1];
        device
            .plan(1, Picks::new(&ids, 2, 2), &batch, |_| Ok(0))
            .unwrap();
        let heat = ModelHeat::look("m".to_string(), &[4, 7], None, &[&device]);
        assert_eq!(heat.layers[0], LayerHeat::nothing(4));
        assert_eq!(heat.layers[1].tier, "mgmg");
        assert_eq!(heat.layers[1].share, [0.0, 0.5, 0.0, 0.5]);
        let mut layer = heat.layers[1].clone();
        layer.lie_over("dddm");
        assert_eq!(layer.tier, "dgdg");
    }
}
