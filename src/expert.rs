//! Names for experts, and the shape of a model as the rest of the library sees it.

use std::fmt;

/// One expert of one mixture-of-experts layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExpertId {
    /// Layer, counted over the mixture-of-experts layers that share one pool.
    pub layer: u32,
    /// Expert within the layer.
    pub expert: u32,
}

impl fmt::Display for ExpertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer {} expert {}", self.layer, self.expert)
    }
}

/// How many experts each layer has, and of what size; numbers all of them densely from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// `starts[l]` is the index of expert 0 of layer `l`; one more entry holds the total.
    starts: Vec<u32>,
    /// By layer.
    expert_bytes: Vec<u64>,
}

impl Shape {
    /// A model whose layer `l` has `n_experts[l]` experts, all of the same size, which is called 1.
    pub fn new(n_experts: &[u32]) -> Self {
        Self::with_bytes(n_experts, &vec![1; n_experts.len()])
    }

    /// A model whose layer `l` has `n_experts[l]` experts of `expert_bytes[l]` bytes. Panics unless
    /// the two are of one length.
    pub fn with_bytes(n_experts: &[u32], expert_bytes: &[u64]) -> Self {
        assert_eq!(n_experts.len(), expert_bytes.len(), "one size per layer");
        let mut starts = Vec::with_capacity(n_experts.len() + 1);
        let mut total = 0;
        starts.push(0);
        for n in n_experts {
            total += n;
            starts.push(total);
        }
        Self {
            starts,
            expert_bytes: expert_bytes.to_vec(),
        }
    }

    /// A model of `n_layers` layers with `n_experts` experts each.
    pub fn uniform(n_layers: u32, n_experts: u32) -> Self {
        Self::new(&vec![n_experts; n_layers as usize])
    }

    /// Number of layers.
    pub fn n_layers(&self) -> u32 {
        (self.starts.len() - 1) as u32
    }

    /// Number of experts of `layer`. Panics if the layer does not exist.
    pub fn n_experts(&self, layer: u32) -> u32 {
        self.starts[layer as usize + 1] - self.starts[layer as usize]
    }

    /// What reading one expert of `layer` costs, in bytes, or 1 where sizes are not known. Panics if
    /// the layer does not exist.
    pub fn expert_bytes(&self, layer: u32) -> u64 {
        self.expert_bytes[layer as usize]
    }

    /// Number of experts of all layers.
    pub fn n_total(&self) -> usize {
        self.starts[self.starts.len() - 1] as usize
    }

    /// The dense index of `id`, in `0..n_total()`. Panics if the layer does not exist.
    pub fn index(&self, id: ExpertId) -> usize {
        debug_assert!(id.expert < self.n_experts(id.layer), "{id}");
        (self.starts[id.layer as usize] + id.expert) as usize
    }

    /// The expert with dense index `index`, which must be below `n_total()`.
    pub fn id(&self, index: usize) -> ExpertId {
        let layer = self.starts.partition_point(|&s| s as usize <= index) - 1;
        ExpertId {
            layer: layer as u32,
            expert: index as u32 - self.starts[layer],
        }
    }
}

/// The router of one layer picked experts for a batch of tokens.
///
/// `experts` are distinct and ascending; `rows[i]` (at least 1) tokens picked `experts[i]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Event<'a> {
    /// The layer.
    pub layer: u32,
    /// Tokens in the batch.
    pub n_tokens: u32,
    /// Which experts.
    pub experts: &'a [u32],
    /// How many of the tokens picked each of them.
    pub rows: &'a [u32],
    /// The best rank of each expert among the picks of the tokens that picked it, 0 for a token's
    /// first choice; empty where it is not known.
    pub ranks: &'a [u32],
    /// The sequence of each token; empty where that is not known, and of a prefill.
    pub sequences: &'a [u32],
    /// And its position there.
    pub positions: &'a [u32],
    /// What each of them picked, token after token and all as many; empty where it is not known, or `experts` says it.
    pub picks: &'a [u32],
}

/// Where a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// Its sequence.
    pub seq: u32,
    /// Its position there.
    pub pos: u32,
}

impl<'a> Event<'a> {
    /// Batches of more tokens than this are prefills, unless it is known that they are generated: a prompt being
    /// read touches most experts once and must not push out what generation needs.
    pub const DECODE_TOKENS_MAX: u32 = 32;

    /// Whether it is the other one: not only equal, but of the same memory.
    pub fn is(&self, other: &Event) -> bool {
        (self.layer, self.n_tokens) == (other.layer, other.n_tokens)
            && std::ptr::eq(self.experts, other.experts)
            && std::ptr::eq(self.rows, other.rows)
            && std::ptr::eq(self.ranks, other.ranks)
            && std::ptr::eq(self.sequences, other.sequences)
            && std::ptr::eq(self.positions, other.positions)
            && std::ptr::eq(self.picks, other.picks)
    }

    /// Whether it is of so many tokens that they pick most of the layer: then a miss may do without a slot, because
    /// all of them together would push out what the next layers need.
    pub fn is_large(&self) -> bool {
        self.n_tokens > Self::DECODE_TOKENS_MAX
    }

    /// Whether this batch is a prompt being read rather than tokens being generated.
    pub fn is_prefill(&self) -> bool {
        self.is_large() && self.sequences.is_empty()
    }

    /// Each token whose spot is known, and what it picked.
    pub fn tokens(&self) -> impl Iterator<Item = (Spot, &'a [u32])> + use<'a> {
        let picks = match self.sequences.len() {
            0 | 1 => self.experts,
            _ => self.picks,
        };
        let top_k = picks.len() / self.sequences.len().max(1);
        let spots = self.sequences.iter().zip(self.positions);
        let spots = spots.map(|(&seq, &pos)| Spot { seq, pos });
        spots.zip(picks.chunks_exact(top_k.max(1)))
    }
}

/// What an event says of its experts, which ascend.
#[derive(Debug, Default)]
pub struct Picked {
    pub(crate) experts: Vec<u32>,
    pub(crate) rows: Vec<u32>,
    pub(crate) ranks: Vec<u32>,
    pub(crate) tokens: Tokens,
}

/// The tokens of an event, as it says them.
#[derive(Debug, Default)]
pub struct Tokens {
    pub(crate) sequences: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) picks: Vec<u32>,
}

impl Tokens {
    /// Makes it tokens at `spots` of which nothing else is known.
    pub(crate) fn place(&mut self, spots: &[Spot]) {
        self.sequences.clear();
        self.positions.clear();
        self.picks.clear();
        self.sequences.extend(spots.iter().map(|spot| spot.seq));
        self.positions.extend(spots.iter().map(|spot| spot.pos));
    }

    /// Makes it tokens at `spots`, none if it is not known where they are, with what each of them picked.
    pub(crate) fn set<'a>(&mut self, spots: &[Spot], rows: impl Iterator<Item = &'a [i32]>) {
        self.place(spots);
        if spots.len() > 1 {
            self.picks.extend(rows.flatten().map(|&id| id as u32));
        }
    }
}

impl Picked {
    /// Of picks in any order: expert and rank. Leaves them sorted.
    pub(crate) fn of(picks: &mut [(u32, u32)]) -> Self {
        let mut picked = Self::default();
        picked.set(picks);
        picked
    }

    /// Makes it what [`Self::of`] says, but for the tokens, which stay.
    pub(crate) fn set(&mut self, picks: &mut [(u32, u32)]) {
        picks.sort_unstable();
        self.experts.clear();
        self.rows.clear();
        self.ranks.clear();
        for same in picks.chunk_by(|a, b| a.0 == b.0) {
            let (expert, best_rank) = same[0];
            self.experts.push(expert);
            self.rows.push(same.len() as u32);
            self.ranks.push(best_rank);
        }
    }

    /// As an event of `layer` and so many tokens.
    pub(crate) fn event(&self, layer: u32, n_tokens: u32) -> Event<'_> {
        Event {
            layer,
            n_tokens,
            experts: &self.experts,
            rows: &self.rows,
            ranks: &self.ranks,
            sequences: &self.tokens.sequences,
            positions: &self.tokens.positions,
            picks: &self.tokens.picks,
        }
    }
}
