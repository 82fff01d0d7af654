//! Which earlier tokens were routed like the current one, and what was picked after them.
//!
//! The last tokens are kept in a ring of slots, at most 1 MiB of it; the oldest 64 are forgotten at once.
//! The likeness of each slot's token
//! to the current one is the number of experts both picked in the layers so far, plus a part of the
//! likeness of the tokens before the two. It is held in bit planes, one bit of each plane for each
//! slot, so that 64 slots are compared at once with a few operations on words: an event costs a
//! few hundred of those, whatever the number of experts.
//!
//! # Three tokens by hand
//!
//! One layer of 8 experts, of which a token picks 2; `carried` is 4, so a quarter of a likeness is carried
//! over. Likenesses are counted in quarters: there are 2 fraction bits, and a common pick adds `one()` = 4.
//! `most` is the likeness of a token to itself.
//!
//! | token, slot | picks | slot 0 | slot 1 | most |
//! |---|---|---|---|---|
//! | 0 | 0 and 1 | | | 2 picks: 8 |
//! | 1 | 0 and 2 | expert 0: 4 | | 8/4 carried + 8 = 10 |
//! | 2 | 0 and 1 | both: 8; before slot 0 was nothing | expert 0: 4; tokens 0 and 1 were 4 alike: 4/4 = 1 | 10/4 + 8 = 10.5 |
//!
//! What is kept, slot 0 being the lowest bit:
//!
//! - `planes`: the likenesses 8 = `1000` and 5 = `0101`, bit by bit from the lowest: `10`, `00`, `10`, `01`.
//!   `next_token` has carried over by reading plane `i + 2` instead of `i`, moved up by one slot, and
//!   `compare` has added with a carry from plane to plane, as on paper, but for all slots at once.
//! - `pickers`: expert 0 `111`, expert 1 `101`, expert 2 `010`. `columns` has these bits too, but the
//!   words of all experts for the same 32 slots side by side, as `vote` reads them.
//!
//! `find_analogs(2)` goes through the planes from the highest: plane 3 has slot 0 alone, which is taken; of
//! what is left slot 1 is ahead in plane 2. `weigh`: the shares of `most` are 8/10.5 = 0.762, which is the
//! confidence, and 5/10.5 = 0.476; `exp(-16 * (0.762 - 0.476))` = 0.0103, so the say of the two is 0.990
//! and 0.010.
//!
//! `vote`, with a discount of 0.5, looks at the tokens after each. After slot 0 came tokens 1 and 2, after
//! slot 1 came token 2:
//!
//! | expert | after slot 0 | after slot 1 | vote |
//! |---|---|---|---|
//! | 0 | next: 1 | next: 1 | 0.990 + 0.010 = 1 |
//! | 1 | second: 0.5 | next: 1 | 0.495 + 0.010 = 0.505 |
//! | 2 | next: 1 | not yet | 0.990 |
//! | 3 | not yet | not yet | 0 |

use super::approximate::exp;
use libm::log2;
use std::ops::Range;

/// How many tokens after an earlier one are looked at; at most 32. The far ones count little, but where text
/// repeats itself they tell what will never be picked from what will: fewer lose hits.
const N_AHEAD: u32 = 16;
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
/// How far back a token may be that later layers are heard of: drafts that turn out to stay.
const N_RECENT: usize = 32;
/// Words that are computed together.
const WIDTH: usize = 4;
type Words = [u64; WIDTH];

/// What a history remembers.
#[derive(Clone, Copy)]
pub(in crate::policy) struct Memory {
    /// Tokens at most; fewer for a model of many experts.
    pub(in crate::policy) n_tokens: usize,
    /// A token's likeness is carried over to the one after it divided by this power of 2.
    pub(in crate::policy) carried: u32,
}

/// What is known of a slot besides its picks.
#[derive(Clone, Copy, Default)]
struct Recent {
    /// The position of its token, if it is known.
    pos: Option<u32>,
    /// The last layer heard of.
    layer: Option<u32>,
}

impl Recent {
    /// Whether `layer` of the token at `pos` is to be heard of next; without a position any token will do.
    fn awaits(&self, layer: u32, pos: Option<u32>) -> bool {
        let is_same = pos.is_none() || self.pos.is_none() || pos == self.pos;
        is_same && self.layer.is_none_or(|last| last < layer)
    }
}

/// A ring of the last tokens' picks.
pub(super) struct History {
    /// By layer: the places of its experts, and padding.
    rows: Vec<Range<usize>>,
    /// Picks of a token in a layer that are remembered.
    n_picks: usize,
    /// 64 slots each.
    n_words: usize,
    /// Words that a token has come to; the others are 0.
    top_k: usize,
    /// By place: a bit for each slot whose token picked the expert.
    pickers: Vec<u64>,
    /// The same bits turned, for each layer: by 32 slots, a word for each place of the row.
    columns: Vec<u32>,
    /// Planes of the fraction of a likeness: carrying over is a shift by as many.
    n_fraction_bits: usize,
    /// By plane, lowest first: a bit for each slot; the planes of a slot are its likeness.
    planes: Vec<u64>,
    /// The slots of earlier tokens.
    earlier: Vec<u64>,
    /// The slot of the current token.
    current: usize,
    /// The likeness of a token that picked everything the current one did.
    most: f32,
    /// The latest slots, by slot modulo their number.
    recent: [Recent; N_RECENT],
    /// The slots of the `n_analogs` tokens most like the current one, and their shares, which add up
    /// to 1.
    analogs: [usize; N_ANALOGS_MAX],
    shares: [f32; N_ANALOGS_MAX],
    n_analogs: usize,
    /// The likeness of the one most alike, as a share of `most`.
    confidence: f32,
    /// What a pick counts one token later, as octaves of 2^23.
    step: u32,
    tied: Vec<u64>,
}

impl History {
    /// No tokens; a token picks `top_k` of the experts of each layer.
    pub(super) fn new(rows: &[Range<usize>], top_k: usize, memory: Memory) -> Self {
        let Memory { n_tokens, carried } = memory;
        let n_fraction_bits = carried.ilog2() as usize;
        let n_picks = top_k.clamp(1, N_PICKS_MAX);
        let n_places = rows.last().map_or(0, |row| row.end);
        let n_words = (BYTES_MAX / (16 * n_places.max(1))).clamp(WIDTH, n_tokens / 64);
        let n_words = n_words / WIDTH * WIDTH;
        // The likeness of a token to itself over all layers, and what is carried over.
        let most = rows.len() * n_picks * 2;
        let n_planes = n_fraction_bits + most.ilog2() as usize + 1;
        Self {
            rows: rows.to_vec(),
            n_picks,
            n_words,
            top_k: WIDTH,
            pickers: vec![0; n_places * n_words],
            columns: vec![0; n_places * n_words * 2],
            n_fraction_bits,
            planes: vec![0; n_planes * n_words],
            earlier: vec![0; n_words],
            current: 0,
            most: 0.0,
            recent: [Recent::default(); N_RECENT],
            analogs: [0; N_ANALOGS_MAX],
            shares: [0.0; N_ANALOGS_MAX],
            n_analogs: 0,
            confidence: 0.0,
            step: 0,
            tied: vec![0; n_words],
        }
    }

    /// The token at `pos` picked `experts` of `layer`: the current one, or one shortly before. A layer that is not
    /// above the last one begins a new token, and so does another position.
    #[inline(always)]
    pub(super) fn note(&mut self, layer: u32, pos: Option<u32>, experts: &[u32]) {
        let experts = &experts[..experts.len().min(self.n_picks)];
        if !self.recent[self.current % N_RECENT].awaits(layer, pos) {
            if let Some(slot) = self.earlier_awaiting(layer, pos) {
                self.recent[slot % N_RECENT].layer = Some(layer);
                self.remember(slot, layer, experts);
                return;
            }
            self.next_token();
        }
        let current = &mut self.recent[self.current % N_RECENT];
        current.layer = Some(layer);
        current.pos = pos.or(current.pos);
        self.compare(layer, experts);
        self.remember(self.current, layer, experts);
        self.most += self.one() * experts.len() as f32;
    }

    /// The slot of the token at `pos`, which is known and not the current one's, if `layer` of it is to be heard of.
    #[inline(always)]
    fn earlier_awaiting(&self, layer: u32, pos: Option<u32>) -> Option<usize> {
        pos?;
        let n_slots = 64 * self.n_words;
        let mut earlier =
            (1..N_RECENT).map(|n_before| (self.current + n_slots - n_before) % n_slots);
        earlier.find(|slot| {
            let recent = &self.recent[slot % N_RECENT];
            recent.pos == pos && recent.awaits(layer, pos)
        })
    }

    /// How alike the token most like the current one is, 0 to 1.
    pub(super) fn confidence(&self) -> f32 {
        self.confidence
    }

    /// Whether any token is like the current one.
    pub(super) fn has_analogs(&self) -> bool {
        self.n_analogs > 0
    }

    /// Whether each token picked the same.
    #[cfg(test)]
    pub(super) fn remembers_as(&self, other: &Self) -> bool {
        (self.current, &self.pickers, &self.columns)
            == (other.current, &other.pickers, &other.columns)
    }

    /// The likeness that one pick of both adds.
    #[inline(always)]
    fn one(&self) -> f32 {
        (1u32 << self.n_fraction_bits) as f32
    }

    /// Makes the next slot the current one; what was like the last token is expected to go on alike.
    #[inline(always)]
    fn next_token(&mut self) {
        self.earlier[self.current / 64] |= 1 << (self.current % 64);
        self.current = (self.current + 1) % (64 * self.n_words);
        self.recent[self.current % N_RECENT] = Recent::default();
        if self.current.is_multiple_of(64) {
            self.forget(self.current / 64);
        }
        let (n, n_dropped) = (self.n_words, self.n_fraction_bits * self.n_words);
        let n_kept = self.planes.len() - n_dropped;
        for start in (0..n_kept).step_by(n) {
            // Slot m carries over what slot m - 1 had: all bits move up by one, around the ring.
            let mut carried = self.planes[start + n_dropped + n - 1] >> 63;
            for word in start..start + self.top_k {
                let bits = self.planes[word + n_dropped];
                self.planes[word] = bits << 1 | carried;
                carried = bits >> 63;
            }
        }
        self.planes[n_kept..].fill(0);
        self.most /= self.one();
    }

    /// Makes room for 64 tokens.
    fn forget(&mut self, word: usize) {
        self.top_k = self.top_k.max((word + 1).next_multiple_of(WIDTH));
        self.earlier[word] = 0;
        let pickers = self.pickers.chunks_exact_mut(self.n_words);
        pickers.for_each(|slots| slots[word] = 0);
        for row in &self.rows {
            let begin = (row.start * self.n_words + row.len() * word) * 2;
            self.columns[begin..begin + 2 * row.len()].fill(0);
        }
    }

    /// Adds to each slot's likeness the number of `experts` that its token picked too.
    #[inline(always)]
    fn compare(&mut self, layer: u32, experts: &[u32]) {
        let n = self.n_words;
        let first = self.rows[layer as usize].start;
        let n_sums = (experts.len().max(1).ilog2() + 1) as usize;
        for start in (0..self.top_k).step_by(WIDTH) {
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
            let mut at = self.n_fraction_bits * n + start;
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

    /// Notes what the token of `slot` picked.
    #[inline(always)]
    fn remember(&mut self, slot: usize, layer: u32, experts: &[u32]) {
        let row = &self.rows[layer as usize];
        let column = row.start * self.n_words * 2 + slot / 32 * row.len();
        for &expert in experts {
            let place = row.start + expert as usize;
            self.pickers[place * self.n_words + slot / 64] |= 1 << (slot % 64);
            self.columns[column + expert as usize] |= 1 << (slot % 32);
        }
    }

    /// Finds the `n_analogs` earlier tokens most like the current one.
    #[inline(always)]
    pub(super) fn find_analogs(&mut self, n_analogs: usize) {
        let n = self.n_words;
        self.n_analogs = 0;
        let tied = &mut self.tied[..self.top_k];
        tied.copy_from_slice(&self.earlier[..tied.len()]);
        let n_earlier: u32 = tied.iter().map(|word| word.count_ones()).sum();
        let mut n_left = n_analogs.min(N_ANALOGS_MAX).min(n_earlier as usize);
        // From the highest bit down: who has it is ahead of who has not.
        for plane in self.planes.chunks_exact(n).rev() {
            if n_left == 0 {
                break;
            }
            let mut n_ahead = 0;
            for (tied, bits) in tied.iter().zip(plane) {
                n_ahead += (tied & bits).count_ones() as usize;
            }
            if n_ahead > n_left {
                for (tied, bits) in tied.iter_mut().zip(plane) {
                    *tied &= bits;
                }
            } else if n_ahead > 0 {
                for (word, (tied, bits)) in tied.iter_mut().zip(plane).enumerate() {
                    let ahead = *tied & bits;
                    *tied &= !bits;
                    take(&mut self.analogs, &mut self.n_analogs, word, ahead, n_left);
                }
                n_left -= n_ahead;
            }
        }
        let n_all = self.n_analogs + n_left;
        for (word, &tied) in tied.iter().enumerate() {
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
    ///
    /// The power is right to within 6 %: the bits of a float are nearly its logarithm.
    #[inline(always)]
    pub(super) fn vote(&self, layer: u32, votes: &mut [f32]) {
        votes.fill(0.0);
        let row = &self.rows[layer as usize];
        let columns = &self.columns[row.start * self.n_words * 2..row.end * self.n_words * 2];
        let column = |number: usize| &columns[number * row.len()..(number + 1) * row.len()];
        let (n_slots, step) = (64 * self.n_words, self.step);
        // What an expert counts that the next token picked, from where one octave takes away a step.
        let most = 1f32.to_bits().wrapping_add(step.wrapping_mul(127));
        let analogs = self.analogs[..self.n_analogs].iter().zip(&self.shares);
        for (&slot, &share) in analogs.filter(|(_, share)| **share >= LEAST_SAY) {
            let n_after = (self.current + n_slots - slot) % n_slots;
            let seen = u32::MAX >> (32 - N_AHEAD.min(n_after as u32));
            let next = (slot + 1) % n_slots;
            let shift = (next % 32) as u32;
            let near = column(next / 32);
            let far = column((next / 32 + 1) % (2 * self.n_words));
            for ((vote, &near), &far) in votes.iter_mut().zip(near).zip(far) {
                // A bit for each of the next tokens that picked the expert, lowest first.
                let picks = (near >> shift | far << 1 << (31 - shift)) & seen;
                let first = picks & picks.wrapping_neg();
                let octave = (first as i32 as f32).to_bits() >> 23;
                let power = f32::from_bits(most.wrapping_sub(octave.wrapping_mul(step)));
                *vote += if first == 0 { 0.0 } else { share * power };
            }
        }
    }

    /// A pick one token later counts `discount` times as much; 0.1 to 1.
    pub(super) fn set_discount(&mut self, discount: f32) {
        self.step = (-log2(f64::from(discount)) * f64::from(1 << 23)) as u32;
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

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
