//! The pools of a model.

use super::pool::Pooled;
use crate::draft_tokens::{Batch, Drafts, Sure};
use crate::error::Result;
use crate::expert::{Event, ExpertId};
use crate::notice::Notices;
use crate::policy::{self, Prior};
use crate::profile::recognizer::{Known, Recognizer};
use crate::trace::Picks;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Where a layer of the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its pool.
    pub pool: usize,
    /// Its number there.
    pub layer: u32,
}

/// By layer of the model, where it is. That never changes.
#[derive(Clone)]
pub struct Places(Arc<[Option<Place>]>);

impl Places {
    /// Where `layer` is, if it is in a pool.
    #[inline]
    pub fn of(&self, layer: usize) -> Option<Place> {
        self.0.get(layer).copied().flatten()
    }

    /// The layers of `pool`, ascending.
    fn layers(&self, pool: usize) -> impl Iterator<Item = usize> + '_ {
        let numbered = self.0.iter().enumerate();
        let mine = move |place: &Place| place.pool == pool;
        numbered.filter_map(move |(layer, place)| place.filter(mine).map(|_| layer))
    }
}

/// An expert that was given a free slot, and is to be read into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// Its pool.
    pub pool: usize,
    /// Its layer of the model.
    pub layer: usize,
    /// The expert, by layer of the pool.
    pub id: ExpertId,
    /// The slot in the pool.
    pub slot: u32,
}

/// Pools, each of which has layers of its own, and what all of them hear of.
pub struct Pools {
    pools: Vec<Pooled>,
    places: Places,
    drafts: Drafts,
    recognizer: Option<Recognizer>,
    /// What the policies were told last of the workload.
    known: Option<Known>,
    notices: Arc<Notices>,
}

impl Pools {
    /// `pools` of which each has these layers of the model, ascending; no two have one in common. What is recognised
    /// of the workload goes to `notices`.
    pub fn new(pools: Vec<Pooled>, layers: &[Vec<usize>], notices: Arc<Notices>) -> Self {
        let last = layers.iter().flatten().max();
        let mut places = vec![None; last.map_or(0, |last| last + 1)];
        for (pool, layers) in layers.iter().enumerate() {
            for (layer, &number) in (0..).zip(layers) {
                let before = places[number].replace(Place { pool, layer });
                assert_eq!(before, None, "layer {number} is in two pools");
            }
        }
        Self {
            pools,
            places: Places(places.into()),
            drafts: Drafts::default(),
            recognizer: None,
            known: None,
            notices,
        }
    }

    /// Where `layer` is, if it is in a pool.
    #[inline]
    pub fn place(&self, layer: usize) -> Option<Place> {
        self.places.of(layer)
    }

    /// Where every layer is.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Gives the free slots of each pool to those of its experts that have most `heat`, by layer of the model and
    /// expert; returns these, the hottest of all pools first.
    pub fn fill_hottest(&mut self, heat: impl Fn(usize, u32) -> f32) -> Vec<Given> {
        let mut all = Vec::new();
        for (pool, Pooled { residency, .. }) in self.pools.iter_mut().enumerate() {
            let layers: Vec<usize> = self.places.layers(pool).collect();
            let heat_of = |id: ExpertId| heat(layers[id.layer as usize], id.expert);
            let filled = residency.fill_free(residency.hottest_first(heat_of));
            all.extend(filled.into_iter().map(|(id, slot)| Given {
                pool,
                layer: layers[id.layer as usize],
                id,
                slot,
            }));
        }
        all.sort_by(|a, b| heat(b.layer, b.id.expert).total_cmp(&heat(a.layer, a.id.expert)));
        all
    }

    /// Learns what earlier batches have left open in `layer` and is sure by now. What is `kept` for the comparison is
    /// said of layers.
    pub fn settle(
        &mut self,
        layer: usize,
        batch: &Batch,
        kept: impl Fn(usize) -> bool,
    ) -> Result<()> {
        while let Some(sure) = self.drafts.settle(layer, batch) {
            self.learn_sure(&sure, kept(sure.layer))?;
        }
        Ok(())
    }

    /// What of `picks` is sure; `None` if all of it is. The rest is kept until it is.
    pub fn sort(&mut self, layer: usize, picks: Picks, batch: &Batch) -> Option<Sure> {
        self.drafts.sort(layer, picks, batch)
    }

    /// Tells the policy of an event that is not planned, and counts it.
    pub fn learn(&mut self, layer: usize, event: &Event, is_kept: bool) -> Result<()> {
        let Place { pool, .. } = self.place(layer).expect("the layer is in a pool");
        self.pools[pool].residency.learn(event)?;
        self.count(layer, event, is_kept);
        Ok(())
    }

    fn learn_sure(&mut self, sure: &Sure, is_kept: bool) -> Result<()> {
        let place = self.place(sure.layer).expect("it was routed");
        self.learn(sure.layer, &sure.event(place.layer), is_kept)
    }

    /// Counts an event of `layer` that its policy was told of. Returns the workload that this was recognised by, if it
    /// was just now: all policies have been told of that.
    #[inline]
    pub fn count(&mut self, layer: usize, event: &Event, is_kept: bool) -> Option<&Known> {
        let Place { pool, .. } = self.place(layer)?;
        self.pools[pool].count(event, is_kept);
        let recognizer = self.recognizer.as_mut()?;
        let (known, notice) = recognizer.observe(layer, event)?;
        self.notices.tell(notice);
        prime(&mut self.pools, &self.places, known);
        self.known = Some(known.clone());
        Some(known)
    }

    /// Tells the policies what is known of the workload.
    pub fn prime(&mut self, known: &Known) {
        prime(&mut self.pools, &self.places, known);
        self.known = Some(known.clone());
    }

    /// Policies of this name rank what is resident from now on, see [`Pooled::rank_with`].
    pub fn rank_with(&mut self, policy: &str) -> Result<()> {
        // Before anything changes: the name may be none.
        let shapes = self.pools.iter().map(|pool| pool.residency.shape());
        let made = shapes.map(|shape| policy::by_name(policy, shape));
        let policies = made.collect::<Result<Vec<_>>>()?;
        let known = self.known.as_ref();
        let frequency = known.map(|known| by_pool(self.pools.len(), &self.places, known));
        for (i, (pool, policy)) in self.pools.iter_mut().zip(policies).enumerate() {
            let prior = known.zip(frequency.as_ref()).map(|(known, frequency)| Prior {
                frequency: &frequency[i],
                n_tokens: known.n_tokens,
            });
            pool.rank_with(policy, prior.as_ref());
        }
        Ok(())
    }

    /// Forgets the recent events: what is compared begins here.
    pub fn forget_recent(&mut self) {
        self.pools.iter_mut().for_each(|pool| pool.recent.forget());
    }

    /// Recognises the workload from now on; `None`: not any more.
    pub fn recognize_with(&mut self, recognizer: Option<Recognizer>) {
        let before = self.recognizer.take();
        self.recognizer = recognizer.map(|next| next.after(before.as_ref()));
    }

    /// What recognises the workload.
    pub fn recognizer(&self) -> Option<&Recognizer> {
        self.recognizer.as_ref()
    }

    /// As [`Drafts::drop_tokens`].
    pub fn drop_tokens(&mut self, memory: usize, seq: i32, begin: i32, end: i32) {
        self.drafts.drop_tokens(memory, seq, begin, end);
    }

    /// Learns what is still open: nothing more will be dropped.
    pub fn settle_all(&mut self, kept: impl Fn(usize) -> bool) -> Result<()> {
        let open: Vec<Sure> = self.drafts.settle_all().collect();
        open.iter()
            .try_for_each(|sure| self.learn_sure(sure, kept(sure.layer)))
    }
}

/// By pool and then layer of it, what `known` says.
fn by_pool(n_pools: usize, places: &Places, known: &Known) -> Vec<Vec<f32>> {
    let mut frequency = vec![Vec::new(); n_pools];
    for (place, layer) in places.0.iter().zip(&known.frequency) {
        if let Some(place) = place {
            frequency[place.pool].extend_from_slice(layer);
        }
    }
    frequency
}

/// Tells the policy of each pool what `known` says.
fn prime(pools: &mut [Pooled], places: &Places, known: &Known) {
    let frequency = by_pool(pools.len(), places, known);
    for (pool, frequency) in pools.iter_mut().zip(&frequency) {
        pool.residency.prime(&Prior {
            frequency,
            n_tokens: known.n_tokens,
        });
    }
}

impl Deref for Pools {
    type Target = [Pooled];

    fn deref(&self) -> &[Pooled] {
        &self.pools
    }
}

impl DerefMut for Pools {
    fn deref_mut(&mut self) -> &mut [Pooled] {
        &mut self.pools
    }
}
