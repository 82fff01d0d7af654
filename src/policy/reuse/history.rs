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
/// How many tokens after an earlier one are looked at. The far ones count little, but where text
/// repeats itself they tell what will never be picked from what will: fewer lose hits.
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
/// Earlier tokens that can have a say.
const N_ANALOGS_MAX: usize = 16;
/// Words that are computed together.
const WIDTH: usize = 4;
type Words = [u64; WIDTH];

/// A ring of the last tokens' picks.
pub(super) struct History {
    /// By layer: the dense index of its expert 0.
    firsts: Vec<usize>,
    /// 64 for each word.
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
    /// The slots of the `n_analogs` tokens most like the current one, and their shares, which add up
    /// to 1.
    analogs: [usize; N_ANALOGS_MAX],
    shares: [f32; N_ANALOGS_MAX],
    n_analogs: usize,
    /// The likeness of the one most alike, as a share of `most`.
    confidence: f32,
    /// What each pick of the tokens after an analog counts.
    discounts: Vec<f32>,
    tied: Vec<u64>,
    /// What each expert counts for the last two analogs; all 0 between votes.
    ahead: [Vec<f32>; 2],
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
        let n_words = (BYTES_MAX / bits_per_token.max(1) / 8).clamp(WIDTH, n_tokens / 64);
        let n_words = n_words / WIDTH * WIDTH;
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
            analogs: [0; N_ANALOGS_MAX],
            shares: [0.0; N_ANALOGS_MAX],
            n_analogs: 0,
            confidence: 0.0,
            discounts: Vec::new(),
            tied: vec![0; n_words],
            ahead: [(); 2].map(|()| vec![0.0; (nobody as usize + 1).next_multiple_of(8)]),
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
        self.n_analogs > 0
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
        let n_sums = (experts.len().max(1).ilog2() + 1) as usize;
        for start in (0..n).step_by(WIDTH) {
            let mut sums = [[0u64; WIDTH]; 6];
            for &expert in experts {
                let at = (first + expert as usize) * n + start;
                let mut carry = words(&self.pickers[at..]);
                for sum in &mut sums[..n_sums] {
                    for i in 0..WIDTH {
                        let both = sum[i] & carry[i];
                        sum[i] ^= carry[i];
                        carry[i] = both;
                    }
                }
            }
            let mut carry = [0u64; WIDTH];
            let mut at = N_FRACTION_BITS * n + start;
            for sum in &sums[..n_sums] {
                let plane = &mut self.planes[at..at + WIDTH];
                for i in 0..WIDTH {
                    let either = plane[i] ^ sum[i];
                    let both = plane[i] & sum[i];
                    plane[i] = either ^ carry[i];
                    carry[i] = both | (either & carry[i]);
                }
                at += n;
            }
            while carry != [0; WIDTH] && at < self.planes.len() {
                let plane = &mut self.planes[at..at + WIDTH];
                for i in 0..WIDTH {
                    let both = plane[i] & carry[i];
                    plane[i] ^= carry[i];
                    carry[i] = both;
                }
                at += n;
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
        self.n_analogs = 0;
        self.tied.copy_from_slice(&self.earlier);
        let n_earlier: u32 = self.tied.iter().map(|word| word.count_ones()).sum();
        let mut n_left = n_analogs.min(N_ANALOGS_MAX).min(n_earlier as usize);
        // From the highest bit down: who has it is ahead of who has not.
        for plane in self.planes.chunks_exact(n).rev() {
            if n_left == 0 {
                break;
            }
            let mut n_ahead = 0;
            for (tied, bits) in self.tied.iter().zip(plane) {
                n_ahead += (tied & bits).count_ones() as usize;
            }
            if n_ahead > n_left {
                for (tied, bits) in self.tied.iter_mut().zip(plane) {
                    *tied &= bits;
                }
            } else if n_ahead > 0 {
                for (word, (tied, bits)) in self.tied.iter_mut().zip(plane).enumerate() {
                    let ahead = *tied & bits;
                    *tied &= !bits;
                    take(&mut self.analogs, &mut self.n_analogs, word, ahead, n_left);
                }
                n_left -= n_ahead;
            }
        }
        let n_all = self.n_analogs + n_left;
        for (word, &tied) in self.tied.iter().enumerate() {
            let n_left = n_all - self.n_analogs;
            take(&mut self.analogs, &mut self.n_analogs, word, tied, n_left);
        }
        self.weigh();
    }

    /// Turns the likeness of the analogs into shares.
    #[inline(always)]
    fn weigh(&mut self) {
        let n = self.n_words;
        let mut best = 0.0f32;
        let shares = &mut self.shares[..self.n_analogs];
        for (share, &slot) in shares.iter_mut().zip(&self.analogs) {
            let (word, bit) = (slot / 64, slot % 64);
            let mut likeness = 0;
            for plane in self.planes.chunks_exact(n).rev() {
                likeness = likeness * 2 + (plane[word] >> bit & 1) as u32;
            }
            *share = likeness as f32 / self.most.max(1.0);
            best = best.max(*share);
        }
        self.confidence = best.min(1.0);
        let mut sum = 0.0;
        for share in &mut *shares {
            *share = exp((SHARPNESS * (*share - best)).max(-80.0));
            sum += *share;
        }
        for share in shares {
            *share /= sum;
        }
    }

    /// Writes to `votes`, for each expert of `layer`, how soon it was picked after the analogs: the
    /// mean over them of the discount to the power of `j` for the first pick by the token `j + 1` after.
    #[inline(always)]
    pub(super) fn vote(&mut self, layer: u32, votes: &mut [f32]) {
        votes.fill(0.0);
        let (n, k) = (self.n_slots, self.n_picks);
        let picks = &self.picks[layer as usize * n * k..(layer as usize + 1) * n * k];
        let analogs = self.analogs[..self.n_analogs].iter().zip(&self.shares);
        let analogs = analogs.filter(|(_, share)| **share >= LEAST_SAY);
        // One analog's picks are written while those of the one before are added up: reading whole
        // vectors of what was just written in pieces would wait for it.
        let [now, before] = &mut self.ahead;
        let mut share_before = 0.0;
        for (&slot, &share) in analogs.chain([(&0, &0.0)]) {
            let n_after = match self.current > slot {
                true => self.current - slot,
                false => self.current + n - slot,
            };
            // Around the end of the ring there are two runs. The nearest come last: an earlier pick
            // overwrites a later one.
            let n_after = if share > 0.0 { n_after.min(N_AHEAD) } else { 0 };
            let n_straight = n_after.min(n - 1 - slot);
            let (straight, around) = self.discounts[..n_after * k].split_at(n_straight * k);
            let runs = [
                (&picks[..around.len()], around),
                (&picks[(slot + 1) * k..], straight),
            ];
            for (run, discounts) in runs {
                for (&expert, &discount) in run[..discounts.len()].iter().zip(discounts).rev() {
                    now[expert as usize] = discount;
                }
            }
            for (vote, before) in votes.iter_mut().zip(before.iter_mut()) {
                *vote += share_before * *before;
                *before = 0.0;
            }
            share_before = share;
            std::mem::swap(now, before);
        }
    }

    /// A pick one token later counts `discount` times as much.
    pub(super) fn set_discount(&mut self, discount: f32) {
        self.discounts.clear();
        let mut power = 1.0;
        for _ in 0..N_AHEAD {
            self.discounts.extend((0..self.n_picks).map(|_| power));
            power *= discount;
        }
    }
}

#[inline(always)]
fn words(from: &[u64]) -> Words {
    std::array::from_fn(|i| from[i])
}

/// Adds up to `n_max` slots, those of the bits of `bits`.
#[inline(always)]
fn take(
    analogs: &mut [usize; N_ANALOGS_MAX],
    n_analogs: &mut usize,
    word: usize,
    mut bits: u64,
    n_max: usize,
) {
    let end = (*n_analogs + n_max).min(N_ANALOGS_MAX);
    while bits != 0 && *n_analogs < end {
        analogs[*n_analogs] = word * 64 + bits.trailing_zeros() as usize;
        *n_analogs += 1;
        bits &= bits - 1;
    }
}
