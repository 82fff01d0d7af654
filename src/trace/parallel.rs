//! Sequences that are generated side by side, made of traces of sequences that were generated alone.

use super::{Header, Trace};
use crate::expert::{Event, Spot};

impl Trace {
    /// What `n_sequences` would leave that generate side by side, a token of each at a time: all tokens of `traces`, one
    /// trace after the other, are dealt out to them in stretches of one length, and what is left over is left out.
    ///
    /// Fails unless all traces are of one model, and each of their events of one token.
    pub fn side_by_side(traces: &[&Self], n_sequences: u32) -> Result<Self, String> {
        let shape = |header: &Header| (header.n_layers, header.n_experts, header.top_k);
        let header = &traces.first().ok_or("there is no trace")?.header;
        let mut tokens: Vec<Vec<Event>> = Vec::new();
        for trace in traces {
            if shape(&trace.header) != shape(header) {
                return Err("the traces are of different models".to_string());
            }
            let mut last = None;
            for (token, event) in trace.events() {
                if event.n_tokens > 1 {
                    return Err(format!("token {token} was computed with others"));
                }
                if last.replace(token) != Some(token) {
                    tokens.push(Vec::new());
                }
                tokens.last_mut().expect("it was pushed").push(event);
            }
        }
        let n_steps = tokens.len() as u32 / n_sequences;
        let mut parallel = Self::empty(Header {
            n_tokens: None,
            segments: Vec::new(),
            pools: Vec::new(),
            batched: true,
            ranked: traces.iter().all(|trace| trace.header.ranked),
            ..header.clone()
        });
        parallel.n_tokens = n_steps * n_sequences;
        let mut picks = Vec::new();
        for (step, layer) in
            (0..n_steps).flat_map(|step| (0..header.n_layers).map(move |layer| (step, layer)))
        {
            let mut spots = Vec::new();
            for seq in 0..n_sequences {
                let token = &tokens[(seq * n_steps + step) as usize];
                if let Some(event) = token.iter().find(|event| event.layer == layer) {
                    // Where not all traces have ranks they are not used.
                    let ranks = event.ranks.iter().copied().chain(std::iter::repeat(0));
                    picks.extend(event.experts.iter().copied().zip(ranks));
                    spots.push(Spot { seq, pos: step });
                }
            }
            if !spots.is_empty() {
                let n_tokens = spots.len() as u32;
                parallel.push(
                    layer,
                    step * n_sequences,
                    n_tokens,
                    false,
                    &mut picks,
                    &spots,
                );
            }
        }
        Ok(parallel)
    }
}
