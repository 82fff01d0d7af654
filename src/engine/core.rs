//! What an engine is made of.

use super::ahead::Ahead;
use super::arrivals::Arrivals;
use super::lane::{Lane, Scratch};
use super::layout::{self, Layout};
use super::meter::Meter;
use super::populate;
use super::prompt::Prompts;
use super::rewriting::Rewriting;
use super::ring::Ring;
use super::run::{N_LANES, Runs};
use super::sizing::Sizing;
use super::stall::Stall;
use crate::error::Result;
use crate::expert::ExpertId;
use crate::notice::Notices;
use crate::pooled::{Pooled, Pools};
use crate::recent_events::{ENGINE_BYTES, RecentEvents};
use crate::store::{Arena, ModelFile, QueueOptions, ReadQueue};
use crate::sync::{Held, Lock};
use crate::trace::Recording;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Everything that changes under the lock, by who has it.
pub(super) struct State {
    /// What the lanes compute.
    pub runs: Runs,
    /// Slots, policies, and what these hear.
    pub pools: Pools,
    /// By layer: whether a device has computed its latest event.
    pub is_lent: Vec<bool>,
    /// What is read before it is picked.
    pub ahead: Option<Ahead>,
    pub prompts: Prompts,
    /// By layer: whether its latest event after one of a prompt was of a prompt too.
    pub follows: Vec<bool>,
    pub scratch: Scratch,
    /// First and last routing event.
    pub busy: Option<(Instant, Instant)>,
}

impl State {
    /// A routing event is planned.
    pub fn note_time(&mut self) {
        let now = Instant::now();
        self.busy.get_or_insert((now, now)).1 = now;
    }

    /// Whether an event of `layer` is kept for the comparison: memory has to have its experts.
    pub fn is_kept(is_lent: &[bool]) -> impl Fn(usize) -> bool + '_ {
        |layer| !is_lent[layer]
    }
}

/// What experts have cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Experts that were asked for and resident.
    pub hits: u64,
    /// Others that were asked for.
    pub misses: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Time that computing waited for reads.
    pub stalled: Duration,
}

/// The streamed experts of one model.
pub struct Engine {
    pub(super) layout: Layout,
    pub(super) arena: Arc<Arena>,
    pub(super) queue: ReadQueue,
    pub(super) arrivals: Arc<Arrivals>,
    pub(super) notices: Arc<Notices>,
    pub(super) lanes: Vec<Lane>,
    pub(super) state: Lock<State>,
    pub(super) ring: Ring,
    pub(super) sizing: Arc<Sizing>,
    pub(super) meter: Meter,
    pub(super) stall: Stall,
    pub(super) recording: Option<Arc<Recording>>,
    pub(super) rewriting: OnceLock<Rewriting>,
}

impl Engine {
    /// Maps the arena of `layout`, with the slots of the start, and starts the read queue; nothing is resident.
    pub fn new(
        layout: Layout,
        files: Vec<ModelFile>,
        policy: &str,
        options: QueueOptions,
    ) -> Result<Self> {
        let is_power = |f: &ModelFile| f.align().is_power_of_two();
        assert!(files.iter().all(is_power), "alignments are powers of two");
        let arena = Arc::new(Arena::reserve(layout.arena_bytes)?);
        // Where that cannot be, memory is where whoever reads it first is, which is right on most machines.
        if layout.is_interleaved {
            let _ = arena.interleave();
        }
        let sizing = Arc::new(Sizing::new(&layout, &arena)?);
        populate::in_background(&arena, &sizing, &layout);
        let notices = Arc::<Notices>::default();
        let arrivals = Arc::new(Arrivals::new(
            layout.n_slots() as usize,
            layout.ring.n_places,
            notices.clone(),
        ));
        let queue = ReadQueue::new(files, arena.clone(), arrivals.clone(), options)?;
        let pool = |pool: &layout::Pool| {
            let n_layers = pool.shape.n_layers() as usize;
            let recent = RecentEvents::of_pool(ENGINE_BYTES, n_layers, layout.layers.len());
            Pooled::new(pool.shape.clone(), pool.n_slots_start, policy, recent)
        };
        let pools = layout.pools.iter().map(pool).collect::<Result<_>>()?;
        let pools = Pools::new(pools, &layout.layers_of_pools(), notices.clone());
        let n_experts = layout.layers.iter().map(|l| l.n_experts).max().unwrap_or(0);
        let ring = Ring::new(layout.ring.n_places, layout.n_parts_max());
        // Of the last layer a prompt computes mostly what its output needs.
        let n_layers = layout.layers.len();
        let follows = (1..=n_layers).map(|next| next < n_layers).collect();
        Ok(Self {
            sizing,
            lanes: (0..N_LANES)
                .map(|number| Lane::new(number, n_experts as usize))
                .collect(),
            state: Lock::new(State {
                runs: Runs::default(),
                pools,
                is_lent: vec![false; layout.layers.len()],
                ahead: None,
                prompts: Prompts::default(),
                follows,
                scratch: Scratch::default(),
                busy: None,
            }),
            layout,
            arena,
            queue,
            arrivals,
            notices,
            ring,
            meter: Meter::default(),
            stall: Stall::default(),
            recording: None,
            rewriting: OnceLock::new(),
        })
    }

    /// Keeps no recent events: nobody will ask what other policies would have done.
    pub fn keep_nothing_recent(&mut self) {
        for pool in self.state.get_mut().pools.iter_mut() {
            pool.recent = RecentEvents::within(0, 0);
        }
    }

    /// Records the routing from now on.
    pub fn record_to(&mut self, recording: impl Into<Arc<Recording>>) {
        self.recording = Some(recording.into());
    }

    /// What records the routing.
    pub fn recording(&self) -> Option<&Recording> {
        self.recording.as_deref()
    }

    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The reads, for their counters and how they are done.
    pub fn queue(&self) -> &ReadQueue {
        &self.queue
    }

    /// What there is to tell a person.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// What routing has cost so far.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Calls `look` for each pool with its slots and what is known of its routing;
    /// returns the time between the first routing event and the last.
    ///
    /// Does nothing and returns `None` if an event is being planned and does not end: this may be called where
    /// the end of the process has interrupted that.
    pub fn inspect(
        &self,
        mut look: impl FnMut(&layout::Pool, &Pooled),
    ) -> Option<Duration> {
        let state = self.state.soon()?;
        let pools = self.layout.pools.iter().zip(state.pools.iter());
        pools.for_each(|(of, pool)| look(of, pool));
        Some(state.busy.map_or(Duration::ZERO, |(a, b)| b - a))
    }

    /// What everything has cost so far.
    pub fn totals(&self) -> Totals {
        let state = self.state();
        let mut totals = Totals {
            bytes_read: self.meter.bytes_read(),
            stalled: self.meter.stalled(),
            ..Totals::default()
        };
        for pool in state.pools.iter() {
            let counts = pool.residency.counts();
            totals.hits += counts.hits();
            totals.misses += counts.decode.misses + counts.prefill.misses;
        }
        totals
    }

    /// An expert as its pool knows it.
    pub(super) fn id(&self, layer: usize, expert: u32) -> ExpertId {
        let layer = self.layout.layers[layer].pool_layer;
        ExpertId { layer, expert }
    }

    pub(super) fn state(&self) -> Held<'_, State> {
        Held::of(&self.state)
    }

    #[inline]
    pub(super) fn lane(&self, key: usize) -> &Lane {
        self.lanes
            .iter()
            .find(|l| l.key.load(Ordering::Relaxed) == key)
            .expect("route comes before acquire")
    }
}
