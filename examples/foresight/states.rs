//! What the routers of a model have seen and picked, in a file.
//!
//! A line of JSON, see [`Head`]; the tensors of each router that it names; then events until the end: their layer and
//! how many tokens they have, a row for each token, the picks of each. Numbers are little-endian, of 4 bytes.

use anyhow::{Context, bail, ensure};
use hotset::engine::predict::{Gate, Groups, Router, Routers};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
#[cfg(feature = "llama")]
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

/// What is known of a model.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Head {
    /// Numbers of a hidden state.
    pub width: usize,
    /// Experts that a token picks of a layer.
    pub top_k: usize,
    /// By layer.
    pub n_experts: Vec<usize>,
    /// By layer: how many numbers its router's weight, bias, late bias and norm have.
    pub sizes: Vec<[usize; 4]>,
    /// Whether scores go through sigmoids, where that matters.
    pub is_sigmoid: bool,
    /// Groups of experts, and how many are used; none where that is 0.
    pub groups: [usize; 2],
}

/// Picks of some tokens in one layer.
pub struct Event {
    pub layer: usize,
    pub n_tokens: usize,
    pub inputs: Vec<f32>,
    pub picks: Vec<i32>,
}

/// A recording.
pub struct States {
    pub head: Head,
    /// By layer, the tensors of its router.
    pub tensors: Arc<Vec<[Vec<f32>; 4]>>,
    pub events: Vec<Event>,
}

/// The routers of a recording.
pub struct Recorded {
    pub head: Head,
    pub tensors: Arc<Vec<[Vec<f32>; 4]>>,
}

impl Routers for Recorded {
    fn router(&self, layer: usize) -> Option<Router<'_>> {
        let [weight, bias, late_bias, norm] = &self.tensors[layer];
        let [n_groups, n_used] = self.head.groups;
        (!weight.is_empty()).then_some(Router {
            weight,
            bias,
            late_bias,
            norm,
            gate: match self.head.is_sigmoid {
                true => Gate::Sigmoid,
                false => Gate::Softmax,
            },
            groups: (n_used > 0).then_some(Groups { n_groups, n_used }),
        })
    }
}

impl States {
    /// Reads a file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut file = BufReader::new(file);
        let mut line = String::new();
        file.read_line(&mut line)?;
        let head: Head = serde_json::from_str(&line).context("its first line")?;
        ensure!(
            head.sizes.len() == head.n_experts.len() && head.top_k > 0,
            "its first line"
        );
        let mut tensors = Vec::new();
        for sizes in &head.sizes {
            let mut of_layer: [Vec<f32>; 4] = Default::default();
            for (tensor, &n) in of_layer.iter_mut().zip(sizes) {
                *tensor = numbers(&mut file, n)?
                    .into_iter()
                    .map(f32::from_bits)
                    .collect();
            }
            tensors.push(of_layer);
        }
        let mut events = Vec::new();
        while !file.fill_buf()?.is_empty() {
            let [layer, n_tokens] = numbers(&mut file, 2)?[..] else {
                bail!("it ends within an event");
            };
            let (layer, n_tokens) = (layer as usize, n_tokens as usize);
            ensure!(
                layer < head.n_experts.len() && n_tokens > 0,
                "an event of layer {layer}"
            );
            let inputs = numbers(&mut file, n_tokens * head.width)?;
            let picks = numbers(&mut file, n_tokens * head.top_k)?;
            ensure!(
                picks.iter().all(|&p| (p as usize) < head.n_experts[layer]),
                "a pick"
            );
            events.push(Event {
                layer,
                n_tokens,
                inputs: inputs.into_iter().map(f32::from_bits).collect(),
                picks: picks.into_iter().map(|p| p as i32).collect(),
            });
        }
        Ok(Self {
            head,
            tensors: Arc::new(tensors),
            events,
        })
    }

    /// Writes a file.
    #[cfg(feature = "llama")]
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut file =
            BufWriter::new(File::create(path).with_context(|| path.display().to_string())?);
        serde_json::to_writer(&mut file, &self.head)?;
        file.write_all(b"\n")?;
        let mut put = |number: u32| file.write_all(&number.to_le_bytes());
        for number in self.tensors.iter().flatten().flatten() {
            put(number.to_bits())?;
        }
        for event in &self.events {
            put(event.layer as u32)?;
            put(event.n_tokens as u32)?;
            event
                .inputs
                .iter()
                .try_for_each(|number| put(number.to_bits()))?;
            event.picks.iter().try_for_each(|&pick| put(pick as u32))?;
        }
        Ok(file.flush()?)
    }

    /// Its routers.
    pub fn routers(&self) -> Recorded {
        Recorded {
            head: self.head.clone(),
            tensors: self.tensors.clone(),
        }
    }
}

fn numbers(file: &mut impl Read, n: usize) -> anyhow::Result<Vec<u32>> {
    let mut bytes = vec![0; 4 * n];
    file.read_exact(&mut bytes).context("it ends too early")?;
    let of = |b: &[u8]| u32::from_le_bytes(b.try_into().expect("4 bytes"));
    Ok(bytes.chunks_exact(4).map(of).collect())
}
