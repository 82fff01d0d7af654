//! Streams the experts of one model: from a routing event to addresses of weights.
//!
//! The compute side calls two functions. [`Engine::route`] is called by thread 0 of a lane at the
//! start of each expert operation, while the other threads wait at a barrier: it plans the layer's
//! event once, starts all reads of the layer at its first operation, and writes the lane's list.
//! [`Engine::acquire`] is called by every thread for each entry of the list; it takes no lock for an
//! expert that is there.
//!
//! What makes this correct:
//! - A slot's experts are pinned from the plan of an event until the same lane's next event, or
//!   until all operations of the event are finished; only unpinned slots are reused.
//! - A slot's arrival bits are cleared under the state lock before the reads that change its bytes
//!   are submitted, and set after the bytes have arrived.
//! - A staging place is read into again only after every thread has left the entry that used it.
//! - The ring belongs to one operation of one lane at a time; operations always finish.

mod arrivals;
mod lane;
pub mod layout;

use crate::error::{Error, Result};
use crate::expert::Event;
use crate::log::EventLog;
use crate::residency::{Plan, Residency};
use crate::store::{Arena, ModelFile, QueueOptions, Read, ReadFailure, ReadQueue, span};
use crate::tracker::Tracker;
use arrivals::{Arrivals, Target};
use lane::{Entry, Lane};
use layout::{Layer, Layout};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// Graphs of one model that can be computed at the same time.
const N_LANES: usize = 64;
/// Routed experts that the log for the comparison with other policies holds.
const LOG_PICKS: usize = 1 << 20;

/// What a lane's thread 0 remembers between operations; under the state lock.
#[derive(Default)]
struct Run {
    owner: Option<ThreadId>,
    /// Whether `plan` holds pins.
    is_open: bool,
    layer: usize,
    /// One bit per part whose operation has begun.
    parts_begun: u32,
    experts: Vec<u32>,
    rows: Vec<u32>,
    /// Experts that pass through the ring.
    staged: Vec<u32>,
    plan: Plan,
}

/// Everything that changes under the lock.
struct State {
    residencies: Vec<Residency>,
    runs: Vec<Run>,
    logs: Vec<EventLog>,
    trackers: Vec<Tracker>,
    next_sequence: u64,
    reads: Vec<Read>,
    is_warmup: bool,
    /// First and last routing event.
    busy: Option<(Instant, Instant)>,
}

/// The streamed experts of one model.
pub struct Engine {
    layout: Layout,
    arena: Arc<Arena>,
    queue: ReadQueue,
    arrivals: Arc<Arrivals>,
    lanes: Vec<Lane>,
    state: Mutex<State>,
    /// Whether an operation uses the staging ring.
    ring_is_taken: Mutex<bool>,
    ring_is_free: Condvar,
    stalled_ns: AtomicU64,
    has_staged: AtomicBool,
}

impl Engine {
    /// Maps the arena of `layout` and starts the read queue; nothing is resident.
    pub fn new(
        layout: Layout,
        files: Vec<ModelFile>,
        policy: &str,
        options: QueueOptions,
    ) -> Result<Self> {
        let arena = Arc::new(Arena::map(layout.arena_bytes)?);
        let arrivals = Arc::new(Arrivals::new(
            layout.n_slots() as usize,
            layout.ring.n_places,
        ));
        let queue = ReadQueue::new(files, arena.clone(), arrivals.clone(), options)?;
        let mut residencies = Vec::new();
        let mut logs = Vec::new();
        let mut trackers = Vec::new();
        for pool in &layout.pools {
            let policy = crate::policy::by_name(policy, &pool.shape)?;
            residencies.push(Residency::new(pool.shape.clone(), pool.n_slots, policy));
            logs.push(EventLog::new(LOG_PICKS));
            trackers.push(Tracker::new(pool.shape.clone()));
        }
        let n_experts = layout.layers.iter().map(|l| l.n_experts).max().unwrap_or(0);
        Ok(Self {
            lanes: (0..N_LANES)
                .map(|_| Lane::new(n_experts as usize))
                .collect(),
            state: Mutex::new(State {
                residencies,
                runs: (0..N_LANES).map(|_| Run::default()).collect(),
                logs,
                trackers,
                next_sequence: 0,
                reads: Vec::new(),
                is_warmup: false,
                busy: None,
            }),
            layout,
            arena,
            queue,
            arrivals,
            ring_is_taken: Mutex::new(false),
            ring_is_free: Condvar::new(),
            stalled_ns: AtomicU64::new(0),
            has_staged: AtomicBool::new(false),
        })
    }

    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The reads, for their counters and how they are done.
    pub fn queue(&self) -> &ReadQueue {
        &self.queue
    }

    /// While a warm-up runs, experts only pass through the ring: it must neither teach the policy
    /// nor fill the cache.
    pub fn set_warmup(&self, is_warmup: bool) {
        self.state().is_warmup = is_warmup;
    }

    /// Time between the first routing event and the last, warm-up excluded.
    pub fn busy(&self) -> Duration {
        self.state().busy.map_or(Duration::ZERO, |(a, b)| b - a)
    }

    /// Nanoseconds that thread 0 of the lanes has waited for reads.
    pub fn stalled_ns(&self) -> u64 {
        self.stalled_ns.load(Ordering::Relaxed)
    }

    /// Whether any expert had to pass through the staging ring.
    pub fn has_staged(&self) -> bool {
        self.has_staged.load(Ordering::Relaxed)
    }

    /// Calls `look` for each pool with its residency, its log of routing events and its counts.
    pub fn inspect(&self, mut look: impl FnMut(&layout::Pool, &Residency, &EventLog, &Tracker)) {
        let state = self.state();
        for (i, pool) in self.layout.pools.iter().enumerate() {
            look(
                pool,
                &state.residencies[i],
                &state.logs[i],
                &state.trackers[i],
            );
        }
    }

    /// An operation on part `part` of `layer` begins in the lane known as `key`: `n_rows[e]` of
    /// its `n_tokens` tokens picked expert `e`.
    ///
    /// Called by thread 0 before the lane's `n_threads` threads acquire. Waits only for the ring.
    pub fn route(
        &self,
        layer: usize,
        part: usize,
        key: usize,
        n_threads: u32,
        n_tokens: u32,
        n_rows: &[i64],
    ) -> Result<()> {
        let mut guard = self.state();
        let state = &mut *guard;
        let at = self.claim_lane(state, key)?;
        if !continues(&state.runs[at], layer, part, n_rows) {
            self.close(state, at)?;
            self.begin(state, at, layer, part, n_tokens, n_rows)?;
        }
        let run = &mut state.runs[at];
        run.parts_begun |= 1 << part;
        // From here on the lane is busy for everybody who looks, also while the lock is dropped.
        self.lanes[at].begin(n_threads);
        let n_staged = run.staged.len() as u64;
        if n_staged == 0 {
            self.write_list(state, at, part, 0);
            return Ok(());
        }
        drop(guard);
        self.take_ring();
        let mut guard = self.state();
        let first = guard.next_sequence;
        guard.next_sequence += n_staged;
        self.write_list(&guard, at, part, first);
        let n_places = self.layout.ring.n_places as u64;
        let reads: Vec<_> = (0..n_staged.min(n_places))
            .map(|i| self.staged_read(layer, part, guard.runs[at].staged[i as usize], first + i))
            .collect();
        drop(guard);
        self.check_files(layer)?;
        self.queue.submit(&reads);
        Ok(())
    }

    /// Entry `i` of the operation of the lane known as `key`, for thread `ith`: the expert and the
    /// address of its weights, or `None` after the last. Waits until the weights are there.
    pub fn acquire(
        &self,
        layer: usize,
        key: usize,
        ith: u32,
        i: usize,
    ) -> Result<Option<(u32, usize)>> {
        let lane = self.lane(key);
        let first_staged = lane.first_staged.load(Ordering::Relaxed);
        if i > first_staged {
            self.leave_staged(lane, layer, i - 1);
        }
        let n_entries = lane.n_entries.load(Ordering::Relaxed);
        if i >= n_entries {
            if lane.finish() && first_staged < n_entries {
                self.free_ring();
            }
            return Ok(None);
        }
        let entry = lane.entry(i);
        if i >= first_staged {
            let first = lane.first_sequence.load(Ordering::Relaxed);
            let sequence = first + (i - first_staged) as u64;
            self.wait(ith, || self.arrivals.has_staged(sequence))?;
        } else if let Some(slot) = entry.pending_slot {
            let part = lane.part.load(Ordering::Relaxed);
            self.wait(ith, || self.arrivals.has_part(slot, part))?;
        }
        Ok(Some((entry.expert, entry.address)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the state")
    }

    fn lane(&self, key: usize) -> &Lane {
        self.lanes
            .iter()
            .find(|l| l.key.load(Ordering::Relaxed) == key)
            .expect("route comes before acquire")
    }

    /// Finds the lane of the calling thread, or an idle one, and lets `key` lead to it.
    ///
    /// The thread identifies a lane over time: a thread pool can live as short as one graph.
    fn claim_lane(&self, state: &mut State, key: usize) -> Result<usize> {
        let owner = Some(std::thread::current().id());
        for at in 0..N_LANES {
            if state.runs[at].is_open && self.is_over(&state.runs[at], at) {
                self.close(state, at)?;
            }
        }
        let mine = state.runs.iter().position(|r| r.owner == owner);
        let at = mine
            .or_else(|| (0..N_LANES).find(|&at| self.is_idle(&state.runs[at], at)))
            .expect("fewer graphs are computed at once than there are lanes");
        state.runs[at].owner = owner;
        if self.lanes[at].key.load(Ordering::Relaxed) != key {
            for lane in &self.lanes {
                let _ = lane
                    .key
                    .compare_exchange(key, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
            self.lanes[at].key.store(key, Ordering::Relaxed);
        }
        Ok(at)
    }

    /// Whether all operations of a run's event are finished.
    fn is_over(&self, run: &Run, at: usize) -> bool {
        run.parts_begun == self.all_parts(run.layer) && self.lanes[at].is_finished()
    }

    /// Whether a lane holds no pins and computes nothing, so that another thread can have it.
    fn is_idle(&self, run: &Run, at: usize) -> bool {
        !run.is_open && self.lanes[at].is_finished()
    }

    fn all_parts(&self, layer: usize) -> u32 {
        (1 << self.layout.layers[layer].parts.len()) - 1
    }

    /// Ends a run's event: its pins go. Reads of an event that was cut short must have arrived
    /// before their slots can be used for anything else.
    fn close(&self, state: &mut State, at: usize) -> Result<()> {
        let run = &mut state.runs[at];
        if !std::mem::take(&mut run.is_open) {
            return Ok(());
        }
        let layer = &self.layout.layers[run.layer];
        let first_slot = self.layout.pools[layer.pool].first_slot;
        let all = self.all_parts(run.layer);
        for fill in &run.plan.fills {
            let slot = first_slot + fill.slot;
            if !self.arrivals.has_parts(slot, all) {
                self.arrivals
                    .wait_until(|| self.arrivals.has_parts(slot, all))
                    .map_err(|failure| self.read_error(failure))?;
            }
        }
        state.residencies[layer.pool].release(&mut run.plan);
        Ok(())
    }

    /// Plans the event and starts the reads of its misses, those of `part` first.
    fn begin(
        &self,
        state: &mut State,
        at: usize,
        layer_index: usize,
        part: usize,
        n_tokens: u32,
        n_rows: &[i64],
    ) -> Result<()> {
        let layer = &self.layout.layers[layer_index];
        let run = &mut state.runs[at];
        run.layer = layer_index;
        run.parts_begun = 0;
        run.experts.clear();
        run.rows.clear();
        run.staged.clear();
        for (expert, &rows) in n_rows.iter().enumerate().filter(|(_, r)| **r > 0) {
            run.experts.push(expert as u32);
            run.rows.push(rows as u32);
        }
        if state.is_warmup {
            run.plan = Plan::default();
            run.staged.extend_from_slice(&run.experts);
            return Ok(());
        }
        let event = Event {
            layer: layer.pool_layer,
            n_tokens,
            experts: &run.experts,
            rows: &run.rows,
        };
        let residency = &mut state.residencies[layer.pool];
        residency.plan(&event, &mut run.plan)?;
        residency.commit(&mut run.plan);
        run.is_open = true;
        run.staged.extend_from_slice(&run.plan.bypassed);
        state.trackers[layer.pool].record(&event);
        state.logs[layer.pool].push(&event);
        let now = Instant::now();
        state.busy.get_or_insert((now, now)).1 = now;
        self.read_fills(state, at, part)
    }

    /// Submits the reads of a plan's fills, those of `part` before those of the other parts.
    fn read_fills(&self, state: &mut State, at: usize, part: usize) -> Result<()> {
        let run = &state.runs[at];
        if run.plan.fills.is_empty() {
            return Ok(());
        }
        self.check_files(run.layer)?;
        let layer = &self.layout.layers[run.layer];
        let first_slot = self.layout.pools[layer.pool].first_slot;
        for fill in &run.plan.fills {
            self.arrivals.clear_slot(first_slot + fill.slot);
        }
        let n_parts = layer.parts.len();
        state.reads.clear();
        for part in (0..n_parts).map(|i| (part + i) % n_parts) {
            for fill in &run.plan.fills {
                let dst = self.region(layer, part, fill.slot);
                let target = Target::Slot {
                    slot: first_slot + fill.slot,
                    part: part as u32,
                };
                state
                    .reads
                    .push(self.read(layer, part, fill.expert, dst, target));
            }
        }
        self.queue.submit(&state.reads);
        Ok(())
    }

    /// Writes the list of the operation on `part`: what is there, what is coming, what is staged.
    fn write_list(&self, state: &State, at: usize, part: usize, first: u64) {
        let lane = &self.lanes[at];
        let run = &state.runs[at];
        let layer = &self.layout.layers[run.layer];
        let first_slot = self.layout.pools[layer.pool].first_slot;
        let resident = || {
            let fills = run.plan.fills.iter().map(|f| (f.expert, f.slot));
            run.plan.hits.iter().copied().chain(fills)
        };
        let mut n = 0;
        let mut put = |expert, begin: usize, pending_slot| {
            let address = self.arena.addr() + begin + self.span(layer, part, expert).skip;
            lane.put(
                n,
                Entry {
                    expert,
                    address,
                    pending_slot,
                },
            );
            n += 1;
        };
        if run.is_open {
            // Readiness is looked at once: an arrival in between must not drop or repeat an expert.
            let mut later = Vec::new();
            for (expert, slot) in resident() {
                let begin = self.region(layer, part, slot);
                if self.arrivals.has_part(first_slot + slot, part as u32) {
                    put(expert, begin, None);
                } else {
                    later.push((expert, begin, first_slot + slot));
                }
            }
            for (expert, begin, slot) in later {
                put(expert, begin, Some(slot));
            }
        }
        for (i, &expert) in run.staged.iter().enumerate() {
            put(expert, self.place(first + i as u64), None);
        }
        lane.part.store(part as u32, Ordering::Relaxed);
        lane.n_entries.store(n, Ordering::Relaxed);
        lane.first_staged
            .store(n - run.staged.len(), Ordering::Relaxed);
        lane.first_sequence.store(first, Ordering::Relaxed);
    }

    /// A thread has left staged entry `i` behind; the last one to do so reads the next staged
    /// expert into the place.
    fn leave_staged(&self, lane: &Lane, layer: usize, i: usize) {
        if !lane.pass(i) {
            return;
        }
        let n_places = self.layout.ring.n_places;
        let next = i + n_places;
        if next < lane.n_entries.load(Ordering::Relaxed) {
            let first_staged = lane.first_staged.load(Ordering::Relaxed);
            let sequence =
                lane.first_sequence.load(Ordering::Relaxed) + (next - first_staged) as u64;
            let part = lane.part.load(Ordering::Relaxed) as usize;
            let expert = lane.entry(next).expert;
            self.queue
                .submit(&[self.staged_read(layer, part, expert, sequence)]);
        }
    }

    fn staged_read(&self, layer: usize, part: usize, expert: u32, sequence: u64) -> Read {
        self.has_staged.store(true, Ordering::Relaxed);
        let layer = &self.layout.layers[layer];
        let target = Target::Place { sequence };
        self.read(layer, part, expert, self.place(sequence), target)
    }

    fn read(&self, layer: &Layer, part: usize, expert: u32, dst: usize, target: Target) -> Read {
        let tensor = &layer.parts[part].tensor;
        let span = self.span(layer, part, expert);
        Read {
            file: tensor.file,
            offset: span.offset,
            len: span.len,
            need: span.skip + tensor.n_bytes,
            dst,
            tag: target.tag(),
        }
    }

    /// The bytes of a file that hold one part of an expert.
    fn span(&self, layer: &Layer, part: usize, expert: u32) -> crate::store::Span {
        let tensor = &layer.parts[part].tensor;
        let offset = tensor.offset + u64::from(expert) * tensor.n_bytes as u64;
        span(
            offset,
            tensor.n_bytes,
            self.queue.files()[tensor.file as usize].align(),
        )
    }

    /// Where a part's region of a slot begins in the arena.
    fn region(&self, layer: &Layer, part: usize, slot: u32) -> usize {
        let pool = &self.layout.pools[layer.pool];
        pool.base + slot as usize * pool.slot_bytes + layer.parts[part].region
    }

    /// Where the place of a staged part begins in the arena.
    fn place(&self, sequence: u64) -> usize {
        let ring = &self.layout.ring;
        ring.base + (sequence as usize % ring.n_places) * ring.place_bytes
    }

    /// Fails when a file of the layer is no longer what was loaded.
    fn check_files(&self, layer: usize) -> Result<()> {
        let mut last = None;
        for part in &self.layout.layers[layer].parts {
            if last.replace(part.tensor.file) != Some(part.tensor.file) {
                self.queue.files()[part.tensor.file as usize].check_unchanged()?;
            }
        }
        Ok(())
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

    /// Waits for a read and accounts the time that thread 0 spends with it.
    fn wait(&self, ith: u32, arrived: impl Fn() -> bool) -> Result<()> {
        if arrived() {
            return Ok(());
        }
        let begin = Instant::now();
        self.arrivals
            .wait_until(arrived)
            .map_err(|failure| self.read_error(failure))?;
        if ith == 0 {
            let ns = begin.elapsed().as_nanos() as u64;
            self.stalled_ns.fetch_add(ns, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Names the tensor and expert of a failed read.
    fn read_error(&self, failure: &ReadFailure) -> Error {
        // The last byte that was needed belongs to the expert; the first may be alignment.
        let byte = failure.offset + failure.n_bytes as u64 - 1;
        let files = self.queue.files();
        let holds = |t: &layout::Tensor| {
            let end = t.offset + u64::from(t.n_experts) * t.n_bytes as u64;
            files[t.file as usize].path() == failure.path && (t.offset..end).contains(&byte)
        };
        let mut tensors = self
            .layout
            .layers
            .iter()
            .flat_map(|l| &l.parts)
            .map(|p| &p.tensor);
        let what = match tensors.find(|t| holds(t)) {
            Some(t) => {
                let expert = (byte - t.offset) / t.n_bytes as u64;
                format!("tensor '{}' expert {expert}", t.name)
            }
            None => "expert weights".to_string(),
        };
        Error::Read {
            what,
            path: failure.path.clone(),
            offset: failure.offset,
            n_bytes: failure.n_bytes,
            // An io::Error cannot be cloned; other threads may report the same failure.
            cause: match failure.cause.raw_os_error() {
                Some(code) => std::io::Error::from_raw_os_error(code),
                None => std::io::Error::new(failure.cause.kind(), failure.cause.to_string()),
            },
        }
    }
}

/// Whether an operation belongs to the event that a run has open: another part of the same layer
/// for the same rows.
fn continues(run: &Run, layer: usize, part: usize, n_rows: &[i64]) -> bool {
    let is_live = run.parts_begun != 0 && run.layer == layer && run.parts_begun & (1 << part) == 0;
    let mut known = run.experts.iter().zip(&run.rows);
    is_live
        && n_rows
            .iter()
            .enumerate()
            .filter(|(_, r)| **r > 0)
            .all(|(e, &r)| known.next() == Some((&(e as u32), &(r as u32))))
        && known.next().is_none()
}
