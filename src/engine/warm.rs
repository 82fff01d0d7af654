//! Starting warm, and recognising the workload: what profiles say of the experts is told to the
//! policies, and the hottest experts are read before the first token.

use super::rewriting::Rewriting;
use super::arrivals::Target;
use super::core::Engine;
use crate::error::Result;
use crate::pooled::Given;
use crate::profile::Lesson;
use crate::profile::recognizer::Known;
use crate::store::Read;
use crate::tracker::{Phase, Span};
use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are read at a time before the first token: enough to keep a disk busy, little enough to
/// stop soon when the time is up. Two of these are on their way at once.
const BATCH_BYTES: u64 = 64 << 20;
/// Parts by heat, each read in the order of the file: so what is hottest comes first where the time
/// does not suffice for all.
const N_TRANCHES: usize = 4;

/// What was read before the first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warmed {
    /// Experts.
    pub n_experts: usize,
    /// Their bytes.
    pub n_bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// Experts for which there was room, but no time.
    pub n_left: usize,
}

impl Engine {
    /// Whether there is a slot for every expert at the start.
    pub fn holds_all(&self) -> bool {
        self.layout.n_slots_start() as usize == self.layout.n_experts()
    }

    /// Reads experts into all free slots, and waits until they are there: for a budget that holds every
    /// expert. Then nothing is ever evicted, and the model starts as fast as one that is loaded as usual.
    /// Calls `progress` with the bytes done now and then.
    pub fn warm_all(&self, progress: impl FnMut(u64)) -> Result<Warmed> {
        let places = self.state().pools.fill_hottest(|_, _| 0.0);
        self.read_places(places, 1, Duration::MAX, progress)
    }

    /// Reads the experts that `known` has hottest into the free slots of their pools, for as long as
    /// `limit` at most, and waits until they are there. Calls `progress` with the bytes done now and then.
    pub fn warm(
        &self,
        known: &Known,
        limit: Duration,
        progress: impl FnMut(u64),
    ) -> Result<Warmed> {
        let heat = |layer: usize, expert: u32| known.frequency[layer][expert as usize];
        let places = self.state().pools.fill_hottest(heat);
        self.read_places(places, N_TRANCHES, limit, progress)
    }

    fn read_places(
        &self,
        mut places: Vec<Given>,
        n_tranches: usize,
        limit: Duration,
        mut progress: impl FnMut(u64),
    ) -> Result<Warmed> {
        let begin = Instant::now();
        let size = places.len().div_ceil(n_tranches).max(1);
        for tranche in places.chunks_mut(size) {
            tranche.sort_by_key(|place| {
                let read = self.reads(place).next();
                read.map(|read| (read.file, read.offset))
            });
        }
        let mut warmed = Warmed {
            n_experts: 0,
            n_bytes: 0,
            took: Duration::ZERO,
            n_left: 0,
        };
        let mut on_their_way: &[Given] = &[];
        let mut left = &places[..];
        while !left.is_empty() && begin.elapsed() < limit {
            let bytes = |place: &Given| self.layout.pools[place.pool].expert_bytes as u64;
            let n = (BATCH_BYTES / bytes(&left[0]).max(1)).max(1) as usize;
            let (batch, rest) = left.split_at(n.min(left.len()));
            self.submit(batch)?;
            self.wait_for(on_their_way)?;
            warmed.n_experts += batch.len();
            warmed.n_bytes += batch.iter().map(bytes).sum::<u64>();
            progress(self.queue.stats().bytes_read);
            (on_their_way, left) = (batch, rest);
        }
        self.wait_for(on_their_way)?;
        let mut state = self.state();
        for place in left {
            state.pools[place.pool].residency.unfill(place.id);
        }
        warmed.n_left = left.len();
        warmed.took = begin.elapsed();
        Ok(warmed)
    }

    /// Reads of all parts of an expert.
    fn reads(&self, place: &Given) -> impl Iterator<Item = Read> {
        let layer = &self.layout.layers[place.layer];
        let (expert, slot) = (place.id.expert, place.slot);
        (0..layer.parts.len()).map(move |part| self.slot_read(layer, part, expert, slot))
    }

    fn submit(&self, places: &[Given]) -> Result<()> {
        for place in places {
            self.check_files(place.layer)?;
            let first_slot = self.layout.pools[place.pool].first_slot;
            self.arrivals.clear_slot(first_slot + place.slot);
        }
        let mut reads: Vec<Read> = places.iter().flat_map(|place| self.reads(place)).collect();
        reads.sort_by_key(|read| (read.file, read.offset));
        self.arrivals.flight.ask(reads.len(), u64::MAX);
        self.queue.submit(&reads);
        Ok(())
    }

    fn wait_for(&self, places: &[Given]) -> Result<()> {
        for place in places {
            let first_slot = self.layout.pools[place.pool].first_slot;
            let all = self.layout.layers[place.layer].all_parts();
            self.wait_for_parts(first_slot + place.slot, all)?;
        }
        self.make_all_ready(places);
        Ok(())
    }

    /// Rewrites what is to be rewritten of `places`, on all cores: nothing is computed yet.
    fn make_all_ready(&self, places: &[Given]) {
        if !self.rewriting.get().is_some_and(Rewriting::has_any) {
            return;
        }
        let walk = || {
            for place in places {
                let layer = &self.layout.layers[place.layer];
                let slot = self.layout.pools[place.pool].first_slot + place.slot;
                for part in 0..layer.parts.len() {
                    let region = self.region(layer, part, place.slot);
                    let address = self.address(layer, part, place.id.expert, region);
                    let target = Target::Slot {
                        slot,
                        part: part as u32,
                    };
                    self.make_ready(place.layer, part, target, address);
                }
            }
        };
        let n_threads = thread::available_parallelism().map_or(1, NonZero::get);
        thread::scope(|scope| {
            (1..n_threads).for_each(|_| drop(scope.spawn(walk)));
            walk();
        });
    }

    /// What each layer has picked so far, of tokens that stay. `None` if an event is being planned and
    /// does not end: this may be called where the end of the process has interrupted that.
    pub fn lesson(&self) -> Option<Lesson> {
        let state = self.state.soon()?;
        let n_experts: Vec<u32> = self.layout.layers.iter().map(|l| l.n_experts).collect();
        let mut lesson = Lesson::new(&n_experts);
        let layers = self.layout.layers.iter().zip(&mut lesson.layers);
        for (number, (layer, picks)) in layers.enumerate() {
            let tracker = &state.pools[layer.pool].tracker;
            for phase in Phase::ALL {
                let counts = tracker.counts(phase, Span::Lifetime, layer.pool_layer);
                picks[phase as usize] = counts.picks.iter().map(|&n| n as u64).collect();
                // The last layer computes only what a prompt's output needs, which looks like generation.
                if number == 0 {
                    *lesson.tokens.of_mut(phase) = counts.n_tokens as u64;
                }
            }
        }
        Some(lesson)
    }
}
