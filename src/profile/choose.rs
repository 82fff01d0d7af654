//! Which of several profiles a workload is, told from its routing alone.
//!
//! A pick is evidence for a profile that picks the same expert more than a flat router would: the logarithm of how
//! much more, in nats. A token's evidence is the mean over its picks, so that it does not depend on how many layers
//! and picks a model has.
//!
//! The first profile is chosen by the sum of the evidence. After that one sum for each other profile is kept, of how
//! much better than the chosen one it explains each token: Page's cumulative sum (Page, "Continuous inspection
//! schemes", Biometrika 41, 1954), which has a drift taken off for each token and never falls below 0. The workload
//! has changed when a sum passes a threshold.
//!
//! Events cost a table look-up for each expert and profile. Logarithms are taken once, when it is made.

use crate::profile::{LayerHeat, Profile};
use crate::tracker::Phase;
use libm::log2;
use std::f64::consts::LN_2;

/// Least number of tokens that a first choice needs.
const N_TOKENS_MIN: u64 = 24;
/// Tokens after which the best profile is chosen, however little better it is than others.
const N_TOKENS_MAX: u64 = 64;
/// As many independent picks a token counts for. There are more, but the tokens of a text are alike and so are the
/// layers of a token. Set so that the likelihood of 230 snippets of 24 tokens, of five workloads, is highest. Of 8,
/// 16 and 32 tokens it is 1.2, 0.6 and 0.36: the mean is what tells workloads apart, more tokens make it more exact
/// but tell nothing new, so that those above [`N_TOKENS_MIN`] do not count.
const PICKS_PER_TOKEN: f64 = 0.4;
/// Logarithm of the odds for the best profile against the next one, and against a flat router, that make a choice
/// early: 9 to 1.
const LOG_ODDS_MIN: f64 = 2.2;
/// Nats that a token must prefer a profile to a flat router, on average, for it to be chosen at all.
const MARGIN: f64 = 0.03;
/// Nats that another profile must be better by for each token to count as a change.
const DRIFT: f64 = 0.05;
/// Nats of a change, over all of its tokens: odds of 50 to 1. Less, and each docstring in code is a change to English.
const THRESHOLD: f64 = 10.0;
/// The share of a profile's picks that is spread over all experts: one that it never saw costs at most the
/// logarithm of this.
const FLAT_SHARE: f64 = 0.05;

/// Chooses among profiles.
#[derive(Debug)]
pub struct Chooser {
    n_profiles: usize,
    /// By phase, layer and expert: of each profile, the nats of a pick.
    nats: [Vec<Vec<f32>>; 2],
    batch: Evidence,
    /// By profile: the evidence of all tokens, in nats.
    sums: Vec<f64>,
    /// Tokens of `sums`.
    n_tokens: u64,
    /// Tokens since the last decision.
    n_since: u64,
    /// By profile: the evidence that the next decision rests on. That of all of `n_looked` if nothing is chosen, else
    /// against the profile that is.
    leads: Vec<f64>,
    /// Tokens of the first choice.
    n_looked: u64,
    chosen: Option<usize>,
}

/// The events of the batch that is being computed.
#[derive(Debug)]
struct Evidence {
    /// The layers below it are done.
    next_layer: usize,
    n_tokens: u32,
    n_picks: u64,
    /// By profile: of all picks, in nats.
    nats: Vec<f64>,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// The profile, by its place among those that the chooser was made of.
    pub profile: usize,
    /// How sure that is, 0 to 1.
    pub confidence: f64,
    /// Tokens since the last decision.
    pub n_tokens: u64,
    /// Whether it takes the place of another profile.
    pub is_change: bool,
}

impl Chooser {
    /// A chooser among `profiles`, which must be of one shape.
    pub fn new(profiles: &[&Profile]) -> Self {
        let n_profiles = profiles.len();
        let n_layers = profiles.first().map_or(0, |profile| profile.layers.len());
        assert!(
            profiles.iter().all(|p| p.layers.len() == n_layers),
            "profiles of one shape"
        );
        let table = |phase| {
            let layer = |i| table(profiles.iter().map(|p| &p.layers[i]), phase);
            (0..n_layers).map(layer).collect()
        };
        // In the order of `Phase as usize`.
        let nats = Phase::ALL.map(table);
        Self {
            n_profiles,
            nats,
            batch: Evidence::new(n_profiles),
            sums: vec![0.0; n_profiles],
            n_tokens: 0,
            n_since: 0,
            leads: vec![0.0; n_profiles],
            n_looked: 0,
            chosen: None,
        }
    }

    /// Hears of the `n_tokens` tokens of one layer's event, of which `rows[i]` picked `experts[i]`. Layers of a batch
    /// ascend: one that does not begins the next batch, and that is when the last one is judged. Returns a decision
    /// where there is a new one.
    ///
    /// Panics unless the profiles have the layer and the experts.
    pub fn observe(
        &mut self,
        layer: usize,
        phase: Phase,
        n_tokens: u32,
        experts: &[u32],
        rows: &[u32],
    ) -> Option<Verdict> {
        let verdict = match layer < self.batch.next_layer {
            true => self.judge(),
            false => None,
        };
        self.batch.next_layer = layer + 1;
        // The last layer may compute fewer: those whose output somebody wants.
        self.batch.n_tokens = self.batch.n_tokens.max(n_tokens);
        if self.n_profiles > 0 {
            let nats = &self.nats[phase as usize][layer];
            self.batch.add(nats, experts, rows);
        }
        verdict
    }

    /// The profile that was chosen last.
    pub fn chosen(&self) -> Option<usize> {
        self.chosen
    }

    /// By profile: how much better than a flat router it explains a pick, in nats, on the mean over all tokens of
    /// batches that have ended; 0 if there are none.
    pub fn scores(&self) -> Vec<f64> {
        let n_tokens = self.n_tokens.max(1) as f64;
        self.sums.iter().map(|sum| sum / n_tokens).collect()
    }

    /// By profile: how likely it is that all these tokens are of its workload, if they are of one; the sum is 1.
    pub fn confidences(&self) -> Vec<f64> {
        shares(&self.sums, picks_per_token(self.n_tokens))
    }

    /// Ends the batch, as the next one would. Returns a decision where there is a new one.
    pub fn finish(&mut self) -> Option<Verdict> {
        self.judge()
    }

    /// Ends the batch, and decides if it is time to.
    fn judge(&mut self) -> Option<Verdict> {
        let n_tokens = u64::from(self.batch.n_tokens);
        let per_pick = n_tokens as f64 / self.batch.n_picks.max(1) as f64;
        let of_chosen = self.chosen.map(|chosen| self.batch.nats[chosen]);
        let sums = self.sums.iter_mut().zip(&mut self.leads);
        for ((sum, lead), nats) in sums.zip(&mut self.batch.nats) {
            *sum += *nats * per_pick;
            *lead = match of_chosen {
                None => *lead + *nats * per_pick,
                Some(chosen) => {
                    let better = (*nats - chosen) * per_pick - DRIFT * n_tokens as f64;
                    f64::max(*lead + better, 0.0)
                }
            };
        }
        self.batch.clear();
        self.n_tokens += n_tokens;
        self.n_since += n_tokens;
        self.n_looked += n_tokens;
        match self.chosen {
            None => self.choose(),
            Some(_) => self.change(),
        }
    }
}

impl Chooser {
    /// The first choice.
    fn choose(&mut self) -> Option<Verdict> {
        let profile = best(&self.leads)?;
        let others = self.leads.iter().enumerate().filter(|(i, _)| *i != profile);
        // A flat router's is 0.
        let next = others.map(|(_, lead)| *lead).fold(0.0, f64::max);
        let lead = self.leads[profile];
        let picks_per_token = picks_per_token(self.n_looked);
        let is_enough = match self.n_looked {
            ..N_TOKENS_MIN => return None,
            N_TOKENS_MIN..N_TOKENS_MAX => (lead - next) * picks_per_token >= LOG_ODDS_MIN,
            N_TOKENS_MAX.. => true,
        };
        if !is_enough {
            return None;
        }
        if lead > MARGIN * self.n_looked as f64 {
            return Some(self.decide(profile, picks_per_token));
        }
        // It is none of them so far, which says nothing of what comes.
        self.leads.fill(0.0);
        self.n_looked = 0;
        None
    }

    /// Another choice, if the workload is another.
    fn change(&mut self) -> Option<Verdict> {
        let profile = best(&self.leads)?;
        (self.leads[profile] >= THRESHOLD).then(|| self.decide(profile, PICKS_PER_TOKEN))
    }

    fn decide(&mut self, profile: usize, picks_per_token: f64) -> Verdict {
        let verdict = Verdict {
            profile,
            confidence: shares(&self.leads, picks_per_token)[profile],
            n_tokens: self.n_since,
            is_change: self.chosen.is_some(),
        };
        self.chosen = Some(profile);
        self.leads.fill(0.0);
        self.n_since = 0;
        verdict
    }
}

/// What each of so many tokens counts for in a sum over them.
fn picks_per_token(n_tokens: u64) -> f64 {
    PICKS_PER_TOKEN * N_TOKENS_MIN as f64 / n_tokens.max(N_TOKENS_MIN) as f64
}

/// How likely each profile is; the sum is 1.
fn shares(nats: &[f64], picks_per_token: f64) -> Vec<f64> {
    let highest = nats.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let odds = |nats: &f64| ((nats - highest) * picks_per_token).exp();
    let sum: f64 = nats.iter().map(odds).sum();
    nats.iter().map(|nats| odds(nats) / sum).collect()
}

impl Evidence {
    fn new(n_profiles: usize) -> Self {
        Self {
            next_layer: 0,
            n_tokens: 0,
            n_picks: 0,
            nats: vec![0.0; n_profiles],
        }
    }

    /// Adds picks. `table` has the nats of each expert, of all profiles one after the other.
    fn add(&mut self, table: &[f32], experts: &[u32], rows: &[u32]) {
        let n_profiles = self.nats.len();
        for (&expert, &n_rows) in experts.iter().zip(rows) {
            let of_expert = &table[expert as usize * n_profiles..][..n_profiles];
            for (sum, nats) in self.nats.iter_mut().zip(of_expert) {
                *sum += f64::from(n_rows) * f64::from(*nats);
            }
            self.n_picks += u64::from(n_rows);
        }
    }

    fn clear(&mut self) {
        self.n_tokens = 0;
        self.n_picks = 0;
        self.nats.fill(0.0);
    }
}

/// The first of the highest.
fn best(leads: &[f64]) -> Option<usize> {
    let all = leads.iter().enumerate();
    all.max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)))
        .map(|(i, _)| i)
}

/// By expert and profile: the nats of a pick in `phase`, of a layer as each profile knows it.
fn table<'a>(layers: impl Iterator<Item = &'a LayerHeat>, phase: Phase) -> Vec<f32> {
    let columns: Vec<Vec<f32>> = layers.map(|layer| nats(layer, phase)).collect();
    let n_experts = columns[0].len();
    assert!(
        columns.iter().all(|c| c.len() == n_experts),
        "profiles of one shape"
    );
    let row = |expert| columns.iter().map(move |column: &Vec<f32>| column[expert]);
    (0..n_experts).flat_map(row).collect()
}

/// By expert: how much more a profile picks it than a flat router, as a logarithm. What the profile knows nothing of
/// is flat.
fn nats(layer: &LayerHeat, phase: Phase) -> Vec<f32> {
    let other = match phase {
        Phase::Prefill => Phase::Decode,
        Phase::Decode => Phase::Prefill,
    };
    let heat = [phase, other]
        .map(|phase| layer.heat(phase))
        .into_iter()
        .find(|heat| heat.total() > 0.0);
    let n_experts = layer.generation.weight.len();
    let Some(heat) = heat else {
        return vec![0.0; n_experts];
    };
    let mean = heat.total() / n_experts as f64;
    // One pick for what a short recording has missed, and a share for what changes from text to text.
    let more = 1.0 + FLAT_SHARE / (1.0 - FLAT_SHARE) * mean;
    let nats = |weight: &f64| (log2((weight + more) / (mean + more)) * LN_2) as f32;
    heat.weight.iter().map(nats).collect()
}
