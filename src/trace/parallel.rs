//! Sequences that are generated side by side, made of traces of sequences that were generated alone.

use super::{Header, Trace};
use crate::expert::{Event, Spot};

impl Trace {
    /// What `n_sequences` would leave that generate side by side, a token of each at a time: all tokens of `traces`, one
    /// trace after the other, are dealt out to them in stretches of one length, and what is left over is left out.
    ///
    /// Fails with the number of a trace and what is wrong with it unless all are of one model, and each of their events is
    /// of one token; the last one fails if there are fewer tokens than sequences. Panics without any trace.
    pub fn side_by_side(traces: &[&Self], n_sequences: u32) -> Result<Self, (usize, String)> {
        let shape = |header: &Header| {
            let Header {
                n_layers,
                n_experts,
                top_k,
                ..
            } = header;
            format!("{n_layers} layers of {n_experts} experts, {top_k} a token")
        };
        let header = &traces[0].header;
        let mut tokens: Vec<Vec<Event>> = Vec::new();
        for (i, trace) in traces.iter().enumerate() {
            let [own, first] = [&trace.header, header].map(shape);
            if own != first {
                return Err((i, format!("{own}, and the first trace has {first}")));
            }
            let mut last = None;
            for (token, event) in trace.events() {
                if event.n_tokens > 1 {
                    return Err((i, format!("token {token} was computed with others")));
                }
                if last.replace(token) != Some(token) {
                    tokens.push(Vec::new());
                }
                tokens.last_mut().expect("it was pushed").push(event);
            }
        }
        let n_steps = tokens.len() as u32 / n_sequences;
        if n_steps == 0 {
            let why = format!("{n_sequences} sequences of {} tokens", tokens.len());
            return Err((traces.len() - 1, why));
        }
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
