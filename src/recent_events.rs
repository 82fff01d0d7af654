//! The latest routing events, kept to be replayed: to say what another policy would have done.

use crate::expert::Event;
use std::collections::VecDeque;

/// What the recent events of one model may take in memory, those of its engine and of its devices together.
pub const MODEL_BYTES: usize = 8 << 20;
/// What those of its engine may take. The devices of its contexts have the rest, see [`device_bytes`].
pub const ENGINE_BYTES: usize = MODEL_BYTES / 2;
/// Picks that the recent events of one engine, or of the devices of one context, hold at most: with the policies that
/// take most, of large models, the comparison takes a third of a second for these.
pub const PICKS_MAX: usize = 3 << 15;
/// Values of a block. Small enough for a share of [`MODEL_BYTES`] to have many.
const BLOCK_VALUES: usize = 1 << 10;

/// What those of the devices of a context may take, in a model that has `n_contexts` others with devices now:
/// half of what the others leave, so that there is always something left.
pub fn device_bytes(n_contexts: usize) -> usize {
    let shift = u32::try_from(n_contexts)
        .unwrap_or(u32::MAX)
        .saturating_add(1);
    (MODEL_BYTES - ENGINE_BYTES).checked_shr(shift).unwrap_or(0)
}

/// The part of `whole` that a pool of `n_layers` layers gets, of `n_layers_of_all`: a pass over the layers
/// picks as many experts of each, so those of all pools go back as far.
pub fn share(whole: usize, n_layers: usize, n_layers_of_all: usize) -> usize {
    (whole as u128 * n_layers as u128 / n_layers_of_all.max(1) as u128) as usize
}

/// A bounded list of events; when it is full the oldest are dropped.
///
/// An event takes 12 bytes and 4 for each pick, 4 more unless one token picked each expert, and 4 more where ranks
/// are known; 12 more where it is known whose the token is, and for several tokens also what each of them picked. Memory
/// comes in blocks, so that little is there for nothing and nothing is copied to grow.
#[derive(Debug)]
pub struct RecentEvents {
    n_picks_max: usize,
    n_bytes_max: usize,
    n_picks: usize,
    n_events: usize,
    /// Whole events, one after the other: the values of a [`Head`], then the experts, then the rows unless all are
    /// 1, then the ranks if they are known; if the tokens are, the number of their picks, their sequences, positions
    /// and picks. None is empty.
    blocks: VecDeque<Vec<u32>>,
    /// Values of the first block that belong to dropped events.
    n_stale: usize,
    /// Bytes of the blocks.
    n_block_bytes: usize,
    /// As many ones as the longest event has experts.
    ones: Vec<u32>,
    n_events_dropped: u64,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    layer: u32,
    n_tokens: u32,
    n_experts: u32,
    has_rows: bool,
    has_ranks: bool,
    /// The picks of its tokens, if they are known.
    n_picks: Option<u32>,
}

impl Head {
    const N_VALUES: usize = 3;
    const ROWS_BIT: u32 = 1 << 31;
    const RANKS_BIT: u32 = 1 << 30;
    const TOKENS_BIT: u32 = 1 << 29;
    const BITS: u32 = Self::ROWS_BIT | Self::RANKS_BIT | Self::TOKENS_BIT;

    fn values(&self) -> [u32; Self::N_VALUES] {
        assert!(
            self.n_experts < Self::TOKENS_BIT,
            "so many experts have no ids"
        );
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        let bits = bit(self.has_rows, Self::ROWS_BIT)
            | bit(self.has_ranks, Self::RANKS_BIT)
            | bit(self.n_picks.is_some(), Self::TOKENS_BIT);
        [self.layer, self.n_tokens, self.n_experts | bits]
    }

    /// Of values that begin with a head; the others too.
    fn split(values: &[u32]) -> (Self, &[u32]) {
        let (&[layer, n_tokens, n], rest) = values.split_first_chunk().expect("events are whole");
        let head = Self {
            layer,
            n_tokens,
            n_experts: n & !Self::BITS,
            has_rows: n & Self::ROWS_BIT != 0,
            has_ranks: n & Self::RANKS_BIT != 0,
            n_picks: None,
        };
        let n_picks = (n & Self::TOKENS_BIT != 0).then(|| rest[head.n_of_experts()]);
        (Self { n_picks, ..head }, rest)
    }

    /// Values that follow it.
    fn n_following(&self) -> usize {
        let n_of_tokens = |n_picks: u32| 1 + 2 * self.n_tokens as usize + n_picks as usize;
        self.n_of_experts() + self.n_picks.map_or(0, n_of_tokens)
    }

    /// Those that say something of each expert.
    fn n_of_experts(&self) -> usize {
        self.n_experts as usize * (1 + usize::from(self.has_rows) + usize::from(self.has_ranks))
    }
}

impl RecentEvents {
    /// None yet; keeps at most `n_picks_max` picks; a pick is one expert of one event.
    pub fn new(n_picks_max: usize) -> Self {
        Self::within(usize::MAX, n_picks_max)
    }

    /// None yet; keeps at most `n_picks_max` picks and takes at most `n_bytes_max` bytes, see
    /// [`Self::n_bytes`].
    pub fn within(n_bytes_max: usize, n_picks_max: usize) -> Self {
        Self {
            n_picks_max,
            n_bytes_max,
            n_picks: 0,
            n_events: 0,
            blocks: VecDeque::new(),
            n_stale: 0,
            n_block_bytes: 0,
            ones: Vec::new(),
            n_events_dropped: 0,
        }
    }

    /// None yet; has the part of a pool of `n_layers` layers, of `n_layers_of_all`, in [`PICKS_MAX`] picks and
    /// `n_bytes_max` bytes.
    pub fn of_pool(n_bytes_max: usize, n_layers: usize, n_layers_of_all: usize) -> Self {
        let part = |whole| share(whole, n_layers, n_layers_of_all);
        Self::within(part(n_bytes_max), part(PICKS_MAX))
    }

    /// Appends `event` and drops the oldest ones, itself included, until the bounds hold.
    pub fn push(&mut self, event: &Event) {
        let head = Head {
            layer: event.layer,
            n_tokens: event.n_tokens,
            n_experts: event.experts.len() as u32,
            has_rows: event.rows.iter().any(|&rows| rows != 1),
            has_ranks: !event.ranks.is_empty(),
            n_picks: (!event.sequences.is_empty()).then_some(event.picks.len() as u32),
        };
        let n_picks = event.experts.len();
        let n_values = Head::N_VALUES + head.n_following();
        if n_picks > self.n_picks_max || !self.has_room(n_values, n_picks) {
            self.forget();
            self.n_events_dropped += 1;
            return;
        }
        if !head.has_rows && self.ones.len() < n_picks {
            self.ones.reserve_exact(n_picks - self.ones.len());
            self.ones.resize(n_picks, 1);
        }
        let block = self.blocks.back_mut().expect("there is room");
        block.extend_from_slice(&head.values());
        block.extend_from_slice(event.experts);
        if head.has_rows {
            block.extend_from_slice(event.rows);
        }
        block.extend_from_slice(event.ranks);
        if let Some(n_picks) = head.n_picks {
            block.push(n_picks);
            block.extend_from_slice(event.sequences);
            block.extend_from_slice(event.positions);
            block.extend_from_slice(event.picks);
        }
        self.n_events += 1;
        self.n_picks += n_picks;
        while self.n_picks > self.n_picks_max {
            self.drop_first();
        }
    }

    /// Makes room for `n_values` in the last block, of an event of `n_picks`. Drops what is oldest for that, and
    /// returns false if there is none when all is dropped.
    fn has_room(&mut self, n_values: usize, n_picks: usize) -> bool {
        let is_left = |block: &Vec<u32>| block.capacity() - block.len() >= n_values;
        if self.blocks.back().is_some_and(is_left) {
            return true;
        }
        let n_new = n_values.max(BLOCK_VALUES);
        let n_list = if self.blocks.len() == self.blocks.capacity() {
            // As the list grows.
            (2 * self.blocks.capacity()).max(4)
        } else {
            self.blocks.capacity()
        };
        let n_besides = size_of::<Self>()
            + n_list * size_of::<Vec<u32>>()
            + n_picks.max(self.ones.len()) * size_of::<u32>();
        let mut used = None;
        while n_besides + self.n_block_bytes + bytes_of(n_new) > self.n_bytes_max {
            let Some(block) = self.drop_block() else {
                return false;
            };
            used = Some(block);
        }
        let mut block = match used.filter(|block| block.capacity() == n_new) {
            Some(block) => block,
            None => Vec::with_capacity(n_new),
        };
        block.clear();
        self.n_block_bytes += bytes_of(block.capacity());
        self.blocks.push_back(block);
        true
    }

    /// Drops the first event, which there is.
    fn drop_first(&mut self) {
        let (head, _) = Head::split(&self.blocks[0][self.n_stale..]);
        self.n_picks -= head.n_experts as usize;
        self.n_events -= 1;
        self.n_events_dropped += 1;
        self.n_stale += Head::N_VALUES + head.n_following();
        if self.n_stale == self.blocks[0].len() {
            self.drop_block();
        }
    }

    /// Drops all events of the first block, and returns it.
    fn drop_block(&mut self) -> Option<Vec<u32>> {
        let block = self.blocks.pop_front()?;
        let mut values = &block[std::mem::take(&mut self.n_stale)..];
        while !values.is_empty() {
            let (head, rest) = Head::split(values);
            values = &rest[head.n_following()..];
            self.n_picks -= head.n_experts as usize;
            self.n_events -= 1;
            self.n_events_dropped += 1;
        }
        self.n_block_bytes -= bytes_of(block.capacity());
        Some(block)
    }

    /// Drops all of them.
    pub fn forget(&mut self) {
        self.n_events_dropped += self.n_events as u64;
        self.clear();
    }

    fn clear(&mut self) {
        self.blocks = VecDeque::new();
        (self.n_stale, self.n_block_bytes) = (0, 0);
        (self.n_events, self.n_picks) = (0, 0);
    }

    /// The events kept, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Event<'_>> {
        let mut blocks = self.blocks.iter();
        let mut values = blocks
            .next()
            .map_or(&[][..], |block| &block[self.n_stale..]);
        std::iter::from_fn(move || {
            if values.is_empty() {
                values = blocks.next()?;
            }
            let (head, rest) = Head::split(values);
            let (own, rest) = rest.split_at(head.n_following());
            values = rest;
            let n_experts = head.n_experts as usize;
            let (experts, own) = own.split_at(n_experts);
            let (rows, own) = match head.has_rows {
                true => own.split_at(n_experts),
                false => (&self.ones[..n_experts], own),
            };
            let (ranks, own) = own.split_at(if head.has_ranks { n_experts } else { 0 });
            // Before the tokens stands the number of their picks.
            let n_known = own.get(1..).map_or(0, |_| head.n_tokens as usize);
            let own = own.get(1..).unwrap_or_default();
            let (sequences, own) = own.split_at(n_known);
            let (positions, picks) = own.split_at(n_known);
            Some(Event {
                layer: head.layer,
                n_tokens: head.n_tokens,
                experts,
                rows,
                ranks,
                sequences,
                positions,
                picks,
            })
        })
    }

    /// A copy of the newest whole events, of at most `n_picks_max` picks together.
    pub fn tail(&self, n_picks_max: usize) -> Self {
        let mut tail = Self::within(self.n_bytes_max, n_picks_max);
        let (mut n_left_out, mut n_picks) = (0, self.n_picks);
        for event in self.iter() {
            if n_picks <= n_picks_max {
                tail.push(&event);
            } else {
                n_picks -= event.experts.len();
                n_left_out += 1;
            }
        }
        tail.n_events_dropped += self.n_events_dropped + n_left_out;
        tail
    }

    /// Events kept.
    pub fn n_events(&self) -> usize {
        self.n_events
    }

    /// The bound.
    pub fn n_picks_max(&self) -> usize {
        self.n_picks_max
    }

    /// Picks kept.
    pub fn n_picks(&self) -> usize {
        self.n_picks
    }

    /// Bytes that it takes in memory, whether they are used or not.
    pub fn n_bytes(&self) -> usize {
        size_of::<Self>()
            + self.n_block_bytes
            + self.blocks.capacity() * size_of::<Vec<u32>>()
            + bytes_of(self.ones.capacity())
    }

    /// Events that were pushed and are no longer kept.
    pub fn n_events_dropped(&self) -> u64 {
        self.n_events_dropped
    }
}

fn bytes_of(n_values: usize) -> usize {
    n_values * size_of::<u32>()
}

#[cfg(test)]
mod tests;
