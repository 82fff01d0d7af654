//! Residents that are held elsewhere too: memory can do without them first.

use crate::expert::ExpertId;
use std::collections::BTreeMap;

/// Residents that are held elsewhere, by when that began.
pub(super) struct Spares {
    oldest_first: BTreeMap<u64, ExpertId>,
    /// By dense index: the key of an expert, or 0.
    since: Vec<u64>,
    last: u64,
}

impl Spares {
    /// None of `n_total` experts.
    pub fn new(n_total: usize) -> Self {
        Self {
            oldest_first: BTreeMap::new(),
            since: vec![0; n_total],
            last: 0,
        }
    }

    /// Does nothing if the expert is a spare.
    pub fn add(&mut self, index: usize, id: ExpertId) {
        if self.since[index] == 0 {
            self.last += 1;
            self.since[index] = self.last;
            self.oldest_first.insert(self.last, id);
        }
    }

    /// Does nothing if the expert is no spare. That is asked for each hit.
    #[inline]
    pub fn remove(&mut self, index: usize) {
        if self.since[index] != 0 {
            self.remove_spare(index);
        }
    }

    #[cold]
    fn remove_spare(&mut self, index: usize) {
        let since = std::mem::take(&mut self.since[index]);
        self.oldest_first.remove(&since);
    }

    /// The oldest first.
    pub fn iter(&self) -> impl Iterator<Item = ExpertId> + '_ {
        self.oldest_first.values().copied()
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.oldest_first.len() as u32
    }
}
