//! Which earlier tokens were routed like the current one, and what was picked after them.
//!
//! The last tokens are kept in a ring of slots, at most 1 MiB of it. The likeness of each slot's token
//! to the current one is the number of experts both picked in the layers so far, plus an eighth of the
//! likeness of the tokens before the two. It is held in bit planes, one bit of each plane for each
//! slot, so that 64 slots are compared at once with a few operations on words: an event costs a
//! few hundred of those, whatever the number of experts.

use super::maths::exp;

/// Bits of the fraction of a likeness: carrying over an eighth is a shift by as many planes.
const N_FRACTION_BITS: usize = 3;
const ONE: f32 = (1 << N_FRACTION_BITS) as f32;
/// How many tokens after an earlier one are looked at.
const N_AHEAD: usize = 16;
/// How quickly an earlier token that is less like the current one loses its say, per share of the
/// picks that differ.
const SHARPNESS: f32 = 16.0;
/// Earlier tokens with less of a say are left out.
const LEAST_SAY: f32 = 0.004;
/// Upper bound of the ring's memory.
const BYTES_MAX: usize = 1 << 20;
/// Picks of a token in a layer that are remembered at most.
const N_PICKS_MAX: usize = 32;

/// A ring of the last tokens' picks.
pub(super) struct History {
    /// By layer: the dense index of its expert 0.
    firsts: Vec<usize>,
    /// A multiple of 64.
    n_slots: usize,
    n_words: usize,
    /// Places in `picks` for a token and layer.
    n_picks: usize,
    /// By layer, slot and place; filled up with `nobody`.
    picks: Vec<u16>,
    /// One more than the largest number of experts of a layer.
    nobody: u16,
    /// By dense index: a bit for each slot whose token picked the expert.
    pickers: Vec<u64>,
    /// By plane, lowest first: a bit for each slot; the planes of a slot are its likeness.
    planes: Vec<u64>,
    /// The slots of earlier tokens.
    earlier: Vec<u64>,
    /// The slot of the current token.
    current: usize,
    /// The likeness of a token that picked everything the current one did.
    most: f32,
    last_layer: Option<u32>,
    /// Slots and shares, which add up to 1, of the tokens most like the current one.
    analogs: Vec<(usize, f32)>,
    /// The likeness of the one most alike, as a share of `most`.
    confidence: f32,
    tied: Vec<u64>,
    ahead: Vec<f32>,
}

impl History {
    /// No tokens; a token picks `top_k` experts of each layer of `n_experts[l]`. Remembers up to
    /// `n_tokens` tokens, fewer for a model of many experts.
    pub(super) fn new(n_experts: &[u32], top_k: usize, n_tokens: usize) -> Self {
        let n_picks = top_k.clamp(1, N_PICKS_MAX);
        let mut firsts = Vec::new();
        let mut n_total = 0;
        for &n in n_experts {
            firsts.push(n_total);
            n_total += n as usize;
        }
        let bits_per_token = n_experts.len() * n_picks * 16 + n_total;
        let n_words = (BYTES_MAX / bits_per_token.max(1) / 8).clamp(1, n_tokens / 64);
        let n_slots = n_words * 64;
        let nobody = n_experts.iter().copied().max().unwrap_or(0) as u16;
        // The likeness of a token to itself over all layers, and the sevenths that are carried over.
        let most = n_experts.len() * n_picks * 8 / 7 + 1;
        let n_planes = N_FRACTION_BITS + most.ilog2() as usize + 1;
        Self {
            firsts,
            n_slots,
            n_words,
            n_picks,
            picks: vec![nobody; n_experts.len() * n_slots * n_picks],
            nobody,
            pickers: vec![0; n_total * n_words],
            planes: vec![0; n_planes * n_words],
            earlier: vec![0; n_words],
            current: 0,
            most: 0.0,
            last_layer: None,
            analogs: Vec::new(),
            confidence: 0.0,
            tied: vec![0; n_words],
            ahead: vec![0.0; nobody as usize + 1],
        }
    }

    /// The current token picked `experts` of `layer`. A layer that is not above the last one
    /// begins a new token.
    #[inline(always)]
    pub(super) fn note(&mut self, layer: u32, experts: &[u32]) {
        if self.last_layer.is_some_and(|last| layer <= last) {
            self.next_token();
        }
        self.last_layer = Some(layer);
        let experts = &experts[..experts.len().min(self.n_picks)];
        self.compare(layer, experts);
        self.remember(layer, experts);
        self.most += ONE * experts.len() as f32;
    }

    /// How alike the token most like the current one is, 0 to 1.
    pub(super) fn confidence(&self) -> f32 {
        self.confidence
    }

    /// Whether any token is like the current one.
    pub(super) fn has_analogs(&self) -> bool {
        !self.analogs.is_empty()
    }

    /// Makes the next slot the current one; what was like the last token is expected to go on alike.
    #[inline(always)]
    fn next_token(&mut self) {
        self.earlier[self.current / 64] |= 1 << (self.current % 64);
        self.current = (self.current + 1) % self.n_slots;
        self.earlier[self.current / 64] &= !(1 << (self.current % 64));
        let n = self.n_words;
        let n_kept = self.planes.len() - N_FRACTION_BITS * n;
        for start in (0..n_kept).step_by(n) {
            // Slot m carries over what slot m - 1 had: all bits move up by one, around the ring.
            let mut carried = self.planes[start + (N_FRACTION_BITS + 1) * n - 1] >> 63;
            for word in start..start + n {
                let bits = self.planes[word + N_FRACTION_BITS * n];
                self.planes[word] = bits << 1 | carried;
                carried = bits >> 63;
            }
        }
        self.planes[n_kept..].fill(0);
        self.most /= ONE;
    }

    /// Adds to each slot's likeness the number of `experts` that its token picked too.
    #[inline(always)]
    fn compare(&mut self, layer: u32, experts: &[u32]) {
        let n = self.n_words;
        let first = self.firsts[layer as usize];
        // Eight words at a time stay in registers.
        for start in (0..n).step_by(8) {
            let width = 8.min(n - start);
            let mut sums = [[0u64; 8]; 6];
            let n_sums = (experts.len().max(1).ilog2() + 1) as usize;
            for &expert in experts {
                let at = (first + expert as usize) * n + start;
                let mut carry = [0u64; 8];
                carry[..width].copy_from_slice(&self.pickers[at..at + width]);
                for sum in &mut sums[..n_sums] {
                    for i in 0..8 {
                        let both = sum[i] & carry[i];
                        sum[i] ^= carry[i];
                        carry[i] = both;
                    }
                }
            }
            let mut carry = [0u64; 8];
            for (number, plane) in self.planes.chunks_exact_mut(n).skip(N_FRACTION_BITS).enumerate() {
                let zero = [0u64; 8];
                let sum = sums.get(number).unwrap_or(&zero);
                for (i, bits) in plane[start..start + width].iter_mut().enumerate() {
                    let either = *bits ^ sum[i];
                    let both = *bits & sum[i];
                    *bits = either ^ carry[i];
                    carry[i] = both | (either & carry[i]);
                }
            }
        }
    }

    /// Replaces what the token before in the current slot picked.
    #[inline(always)]
    fn remember(&mut self, layer: u32, experts: &[u32]) {
        let first = self.firsts[layer as usize];
        let (word, bit) = (self.current / 64, 1u64 << (self.current % 64));
        let begin = (layer as usize * self.n_slots + self.current) * self.n_picks;
        let picks = &mut self.picks[begin..begin + self.n_picks];
        for &old in picks.iter().filter(|&&old| old != self.nobody) {
            self.pickers[(first + old as usize) * self.n_words + word] &= !bit;
        }
        picks.fill(self.nobody);
        for (place, &expert) in picks.iter_mut().zip(experts) {
            *place = expert as u16;
            self.pickers[(first + expert as usize) * self.n_words + word] |= bit;
        }
    }

    /// Finds the `n_analogs` earlier tokens most like the current one.
    #[inline(always)]
    pub(super) fn find_analogs(&mut self, n_analogs: usize) {
        let n = self.n_words;
        self.analogs.clear();
        self.tied.copy_from_slice(&self.earlier);
        let count = |words: &[u64]| words.iter().map(|w| w.count_ones() as usize).sum::<usize>();
        let mut n_left = n_analogs.min(count(&self.tied));
        // From the highest bit down: who has it is ahead of who has not.
        for plane in self.planes.chunks_exact(n).rev() {
            if n_left == 0 {
                break;
            }
            let mut n_ahead = 0;
            for (tied, bits) in self.tied.iter().zip(plane) {
                n_ahead += (tied & bits).count_ones() as usize;
            }
            if n_ahead == 0 {
                continue;
            }
            if n_ahead > n_left {
                self.tied.iter_mut().zip(plane).for_each(|(tied, bits)| *tied &= bits);
                continue;
            }
            for word in 0..n {
                let ahead = self.tied[word] & plane[word];
                push_slots(&mut self.analogs, word, ahead, usize::MAX);
                self.tied[word] &= !plane[word];
            }
            n_left -= n_ahead;
        }
        for word in 0..n {
            let n_max = n_left;
            n_left -= push_slots(&mut self.analogs, word, self.tied[word], n_max);
            if n_left == 0 {
                break;
            }
        }
        self.weigh();
    }

    /// Turns the likeness of the analogs into shares.
    #[inline(always)]
    fn weigh(&mut self) {
        let n = self.n_words;
        let mut best = 0.0f32;
        for (slot, share) in &mut self.analogs {
            let (word, bit) = (*slot / 64, *slot % 64);
            let planes = self.planes.chunks_exact(n).enumerate();
            let likeness: u32 = planes.map(|(i, plane)| ((plane[word] >> bit & 1) as u32) << i).sum();
            *share = likeness as f32 / self.most.max(1.0);
            best = best.max(*share);
        }
        self.confidence = best.min(1.0);
        let mut sum = 0.0;
        for (_, share) in &mut self.analogs {
            *share = exp((SHARPNESS * (*share - best)).max(-80.0));
            sum += *share;
        }
        for (_, share) in &mut self.analogs {
            *share /= sum;
        }
    }

    /// Writes to `votes`, for each expert of `layer`, how soon it was picked after the analogs: the
    /// mean over them of `discounts[j]` for the first pick by the token `j + 1` after.
    #[inline(always)]
    pub(super) fn vote(&mut self, layer: u32, discounts: &Discounts, votes: &mut [f32]) {
        votes.fill(0.0);
        let picks_of_layer = layer as usize * self.n_slots;
        for &(slot, share) in self.analogs.iter().filter(|(_, share)| *share >= LEAST_SAY) {
            let n_after = (self.current + self.n_slots - slot) % self.n_slots;
            // The nearest last: an earlier pick overwrites a later one.
            for ahead in (1..=n_after.min(N_AHEAD)).rev() {
                let at = (picks_of_layer + (slot + ahead) % self.n_slots) * self.n_picks;
                for &expert in &self.picks[at..at + self.n_picks] {
                    self.ahead[expert as usize] = discounts[ahead - 1];
                }
            }
            for (vote, ahead) in votes.iter_mut().zip(&mut self.ahead) {
                *vote += share * *ahead;
                *ahead = 0.0;
            }
        }
    }
}

/// What a pick so many tokens ahead counts, the next one first.
pub(super) type Discounts = [f32; N_AHEAD];

/// The powers of `discount`, from 1 on.
pub(super) fn discounts(discount: f32) -> Discounts {
    let mut powers = [1.0; N_AHEAD];
    for i in 1..N_AHEAD {
        powers[i] = powers[i - 1] * discount;
    }
    powers
}

/// Appends up to `n_max` slots, those of the bits of `bits`; returns how many.
#[inline(always)]
fn push_slots(analogs: &mut Vec<(usize, f32)>, word: usize, mut bits: u64, n_max: usize) -> usize {
    let mut n = 0;
    while bits != 0 && n < n_max {
        analogs.push((word * 64 + bits.trailing_zeros() as usize, 0.0));
        bits &= bits - 1;
        n += 1;
    }
    n
}
