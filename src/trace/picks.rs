//! What routers pick.

/// What the router picked for each token of an event, best first.
#[derive(Debug, Clone, Copy)]
pub struct Picks<'a> {
    ids: &'a [i32],
    top_k: usize,
    stride: usize,
}

impl<'a> Picks<'a> {
    /// `top_k` ids for each token; those of the next one begin `stride` ids later, and after the last
    /// one nothing needs to follow. Panics unless `ids` ends with a whole token.
    pub fn new(ids: &'a [i32], top_k: usize, stride: usize) -> Self {
        assert!(0 < top_k && top_k <= stride, "{top_k} ids in {stride}");
        let n_last = ids.len() % stride;
        assert!(n_last == 0 || n_last >= top_k, "{n_last} ids of {top_k}");
        Self { ids, top_k, stride }
    }

    /// Tokens of the event.
    pub fn n_tokens(&self) -> u32 {
        self.ids.len().div_ceil(self.stride) as u32
    }

    /// Ids of each token.
    pub fn top_k(&self) -> usize {
        self.top_k
    }

    /// The ids of each token.
    pub fn rows(&self) -> impl Iterator<Item = &'a [i32]> + use<'a> {
        let top_k = self.top_k;
        self.ids.chunks(self.stride).map(move |row| &row[..top_k])
    }

    /// Each expert of each token, with its place among the experts of the token.
    pub fn ranked(&self) -> impl Iterator<Item = (u32, u32)> + use<'a> {
        let rank = |(rank, &id): (u32, &i32)| (id as u32, rank);
        self.rows().flat_map(move |row| (0..).zip(row).map(rank))
    }
}
