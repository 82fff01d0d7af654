//! Streams the experts of one model: from a routing event to addresses of weights.
//!
//! The compute side calls two functions. [`Engine::route`] is called by thread 0 of a lane at the
//! start of each expert operation, while the other threads wait at a barrier: it plans the layer's
//! event once, starts all reads of the layer at its first operation, and writes the lane's list.
//! [`Engine::acquire`] is called by every thread for each entry of the list; it takes no lock for an
//! expert that is there. For what a device computes it calls [`Engine::lend`] instead, see `lend.rs`.
//!
//! What makes this correct:
//! - A slot's experts are pinned from the plan of an event until the same lane's next event, or
//!   until all operations of the event are finished; what a device takes, until its loan has ended. Only
//!   unpinned slots are reused.
//! - A slot's arrival bits are cleared under the state lock before the reads that change its bytes
//!   are submitted, and set after the bytes have arrived.
//! - A staging place is read into again only after every thread has left the entry that used it.
//! - The ring belongs to one operation of one lane at a time; operations always finish.

mod ahead;
mod arrivals;
mod drafts;
mod event_life;
mod foresight;
mod governor;
mod io;
mod lane;
pub mod layout;
mod lend;
mod meter;
mod odds;
mod operation;
mod populate;
mod prompt;
mod resize;
mod stall;
mod warm;

pub use crate::draft_tokens::{Batch, Drafts, Sure, Token};
use crate::error::Result;
use crate::notice::Notices;
use crate::profile::recognizer::Recognizer;
use crate::recent_events::{self, RecentEvents};
use crate::residency::{Buffers, Committed, Residency};
use crate::store::{Arena, ModelFile, QueueOptions, Read, ReadQueue};
use crate::sync::{Held, Lock};
use crate::trace::{Picks, Recording};
use crate::tracker::Tracker;
use ahead::Ahead;
use arrivals::Arrivals;
pub use foresight::{AheadTally, Foresight, Inputs};
use lane::{Lane, Source};
use layout::Layout;
pub use lend::{Loan, Piece, Wanted};
pub use meter::Meter;
use operation::Scratch;
use prompt::Prompts;
pub use resize::Size;
use resize::Sizing;
use stall::Stall;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};
pub use warm::Warmed;

/// Graphs of one model that can be computed at the same time.
const N_LANES: usize = 64;

/// What a lane's thread 0 remembers between operations; under the state lock.
#[derive(Default)]
struct Run {
    owner: Option<ThreadId>,
    n_tokens: u32,
    /// The value of `State::n_events` when its event began.
    begun_at: u64,
    layer: usize,
    /// One bit per part whose operation has begun.
    parts_begun: u32,
    experts: Vec<u32>,
    rows: Vec<u32>,
    ranks: Vec<u32>,
    /// Experts that pass through the ring.
    staged: Vec<u32>,
    /// Its event, until that has ended.
    open: Option<Committed>,
    buffers: Buffers,
}

/// Everything that changes under the lock.
struct State {
    residencies: Vec<Residency>,
    runs: Vec<Run>,
    /// Lanes from here on have never been used.
    n_lanes: usize,
    /// Events of all lanes.
    n_events: u64,
    /// By layer: whether a device has computed its latest event.
    is_lent: Vec<bool>,
    logs: Vec<RecentEvents>,
    trackers: Vec<Tracker>,
    drafts: Drafts,
    guide: Option<Recognizer>,
    ahead: Option<Ahead>,
    prompts: Prompts,
    scratch: Scratch,
    next_sequence: u64,
    reads: Vec<Read>,
    /// First and last routing event.
    busy: Option<(Instant, Instant)>,
}

impl State {
    /// A routing event is planned.
    fn note_time(&mut self) {
        let now = Instant::now();
        self.busy.get_or_insert((now, now)).1 = now;
    }
}

/// What an operation computes.
#[derive(Debug, Clone, Copy)]
pub struct Routing<'a> {
    /// The experts of each token.
    pub picks: Picks<'a>,
    /// How many tokens picked each expert.
    pub n_rows: &'a [i64],
    /// Which tokens these are.
    pub batch: &'a Batch,
    /// What the router saw.
    pub inputs: Inputs<'a>,
}

/// The streamed experts of one model.
pub struct Engine {
    layout: Layout,
    arena: Arc<Arena>,
    queue: ReadQueue,
    arrivals: Arc<Arrivals>,
    notices: Arc<Notices>,
    lanes: Vec<Lane>,
    state: Lock<State>,
    /// Whether an operation uses the staging ring.
    ring_is_taken: Mutex<bool>,
    ring_is_free: Condvar,
    sizing: Arc<Sizing>,
    meter: Meter,
    stall: Stall,
    recording: Option<Arc<Recording>>,
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
        let sizing = Arc::new(Sizing::new(&layout, &arena)?);
        populate::in_background(&arena, &sizing, &layout);
        let notices = Arc::<Notices>::default();
        let arrivals = Arc::new(Arrivals::new(
            layout.n_slots() as usize,
            layout.ring.n_places,
            notices.clone(),
        ));
        let queue = ReadQueue::new(files, arena.clone(), arrivals.clone(), options)?;
        let mut residencies = Vec::new();
        let mut logs = Vec::new();
        let mut trackers = Vec::new();
        for pool in &layout.pools {
            let policy = crate::policy::by_name(policy, &pool.shape)?;
            let n_slots = pool.n_slots_start;
            residencies.push(Residency::new(pool.shape.clone(), n_slots, policy));
            let share = |whole| {
                let n_layers = pool.shape.n_layers() as usize;
                recent_events::share(whole, n_layers, layout.layers.len())
            };
            let n_bytes_max = share(recent_events::ENGINE_BYTES);
            logs.push(RecentEvents::within(
                n_bytes_max,
                share(recent_events::PICKS_MAX),
            ));
            trackers.push(Tracker::new(pool.shape.clone()));
        }
        let n_experts = layout.layers.iter().map(|l| l.n_experts).max().unwrap_or(0);
        Ok(Self {
            sizing,
            lanes: (0..N_LANES)
                .map(|_| Lane::new(n_experts as usize))
                .collect(),
            state: Lock::new(State {
                residencies,
                runs: (0..N_LANES).map(|_| Run::default()).collect(),
                n_lanes: 0,
                n_events: 0,
                is_lent: vec![false; layout.layers.len()],
                logs,
                trackers,
                drafts: Drafts::default(),
                guide: None,
                ahead: None,
                prompts: Prompts::default(),
                scratch: Scratch::default(),
                next_sequence: 0,
                reads: Vec::new(),
                busy: None,
            }),
            layout,
            arena,
            queue,
            arrivals,
            notices,
            ring_is_taken: Mutex::new(false),
            ring_is_free: Condvar::new(),
            meter: Meter::default(),
            stall: Stall::default(),
            recording: None,
        })
    }

    /// Keeps no log of the routing: nobody will ask what other policies would have done.
    pub fn log_nothing(&mut self) {
        let state = self.state.get_mut();
        state.logs.fill_with(|| RecentEvents::within(0, 0));
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

    /// Calls `look` for each pool with its residency, its log of routing events and its counts;
    /// returns the time between the first routing event and the last.
    ///
    /// Does nothing and returns `None` if an event is being planned and does not end: this may be called where
    /// the end of the process has interrupted that.
    pub fn inspect(
        &self,
        mut look: impl FnMut(&layout::Pool, &Residency, &RecentEvents, &Tracker),
    ) -> Option<Duration> {
        let state = self.state.soon()?;
        for (i, pool) in self.layout.pools.iter().enumerate() {
            look(
                pool,
                &state.residencies[i],
                &state.logs[i],
                &state.trackers[i],
            );
        }
        Some(state.busy.map_or(Duration::ZERO, |(a, b)| b - a))
    }

    /// An operation on part `part` of `layer` begins in the lane known as `key`.
    ///
    /// Called by thread 0 before the lane's `n_threads` threads acquire. Waits only for the ring. Returns whether
    /// an event began.
    pub fn route(
        &self,
        layer: usize,
        part: usize,
        key: usize,
        n_threads: u32,
        routing: &Routing,
    ) -> Result<bool> {
        let mut guard = self.state();
        let state = &mut *guard;
        let at = self.claim_lane(state, key)?;
        let begins = !event_life::continues(&state.runs[at], layer, part, routing);
        let is_trial = routing.batch.is_trial();
        if begins {
            self.close(state, at)?;
            if !is_trial {
                self.note_routing(state, at, layer, routing);
            }
            self.begin(state, at, layer, routing)?;
            if let Some(plan) = &state.runs[at].open {
                self.read_fills(&mut state.reads, layer, part, plan)?;
            }
            if !is_trial {
                self.look_ahead(state, at, layer);
            }
        }
        let run = &mut state.runs[at];
        run.parts_begun |= 1 << part;
        // From here on the lane is busy for everybody who looks, also while the lock is dropped.
        self.lanes[at].begin(n_threads, is_trial);
        let n_staged = run.staged.len() as u64;
        if n_staged == 0 {
            self.write_list(state, at, part, 0);
            return Ok(begins);
        }
        drop(guard);
        self.take_ring();
        let mut guard = self.state();
        let first = guard.next_sequence;
        guard.next_sequence += n_staged;
        self.write_list(&mut guard, at, part, first);
        let n_places = self.layout.ring.n_places as u64;
        let reads: Vec<_> = (0..n_staged.min(n_places))
            .map(|i| self.staged_read(layer, part, guard.runs[at].staged[i as usize], first + i))
            .collect();
        drop(guard);
        self.check_files(layer)?;
        self.submit_staged(&reads, is_trial);
        Ok(begins)
    }

    /// An event of `layer` is about to be planned in lane `at`: what was guessed of it, and what is guessed of the
    /// next.
    fn note_routing(&self, state: &mut State, at: usize, layer: usize, routing: &Routing) {
        state.is_lent[layer] = false;
        if layer == 0 {
            self.note_batch(state, Some(at), routing.picks.n_tokens());
        }
        self.settle_guesses(state, at, layer, routing);
        self.expect_next(state, layer, routing);
    }

    /// Entry `i` of the operation of the lane known as `key`, for thread `ith`: the expert and the
    /// address of its weights, or `None` after the last. Waits until the weights are there.
    #[inline]
    pub fn acquire(
        &self,
        layer: usize,
        key: usize,
        ith: u32,
        i: usize,
    ) -> Result<Option<(u32, usize)>> {
        let lane = self.lane(key);
        if i > 0
            && let Source::Ring(number) = lane.source(i - 1)
        {
            self.leave_staged(lane, layer, number as usize);
        }
        if i >= lane.n_entries.load(Ordering::Relaxed) {
            if lane.finish() {
                self.free_ring();
            }
            return Ok(None);
        }
        let entry = lane.entry(i);
        let is_timed = || ith == 0 && !lane.is_trial.load(Ordering::Relaxed);
        match entry.source {
            Source::Memory => {}
            Source::Slot(slot) => {
                let part = lane.part.load(Ordering::Relaxed);
                self.wait(is_timed(), || self.arrivals.has_part(slot, part))?;
            }
            Source::Ring(number) => {
                let first = lane.first_sequence.load(Ordering::Relaxed);
                let sequence = first + u64::from(number);
                self.wait(is_timed(), || self.arrivals.has_staged(sequence))?;
            }
        }
        Ok(Some((entry.expert, entry.address)))
    }

    fn state(&self) -> Held<'_, State> {
        Held::of(&self.state)
    }

    #[inline]
    fn lane(&self, key: usize) -> &Lane {
        self.lanes
            .iter()
            .find(|l| l.key.load(Ordering::Relaxed) == key)
            .expect("route comes before acquire")
    }

    fn take_ring(&self) {
        let taken = self.ring_is_taken.lock().expect("no thread panics with it");
        *self
            .ring_is_free
            .wait_while(taken, |taken| *taken)
            .expect("no thread panics with it") = true;
    }

    fn free_ring(&self) {
        *self.ring_is_taken.lock().expect("no thread panics with it") = false;
        self.ring_is_free.notify_one();
    }

    /// Waits for a read and accounts the time if it `is_timed`: thread 0's.
    fn wait(&self, is_timed: bool, arrived: impl Fn() -> bool) -> Result<()> {
        if arrived() {
            return Ok(());
        }
        let begin = Instant::now();
        self.wait_until(arrived)?;
        if is_timed {
            let ns = begin.elapsed().as_nanos() as u64;
            self.meter.stalled_ns.fetch_add(ns, Ordering::Relaxed);
        }
        Ok(())
    }
}
