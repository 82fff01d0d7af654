//! Watches memory for the models of `HOTSET_RAM=auto`: each that ever was one has a thread that lives as long as it.

use super::model::Model;
use super::neighbours::{self, Neighbours};
use super::room::Budget;
use crate::engine::{Engine, Pulse};
use crate::error::Result;
use crate::memory::auto_size::{self, Announcer, Auto, Cause, Sample};
use crate::memory::division::Member;
use crate::memory::turns::Turns;
use crate::memory::{self, Measure};
use crate::report;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks. Whoever takes the reserve faster than this is not noticed in time.
const INTERVAL: Duration = Duration::from_millis(250);

/// Keeps the experts of `model` within what is available, until the model goes.
///
/// Does nothing where untouched memory is not known: what was taken back would seem to be still free.
pub fn watch(model: &Arc<Model>) {
    if !cfg!(target_os = "linux") || model.is_watched.swap(true, AcqRel) {
        return;
    }
    let watched = Arc::downgrade(model);
    let thread = thread::Builder::new().name("hotset-memory".into());
    if let Err(cause) = thread.spawn(move || run(&watched)) {
        model.is_watched.store(false, Release);
        say_unwatched(&cause);
    }
}

fn run(model: &Weak<Model>) {
    let begin = Instant::now();
    let mut watch = None;
    loop {
        thread::sleep(INTERVAL);
        let Some(model) = model.upgrade() else {
            return;
        };
        let Some(engine) = model.made_engine() else {
            continue;
        };
        let budget = model.hold_budget();
        // It was given a size.
        let Budget::UpTo(most) = *budget else {
            watch = None;
            continue;
        };
        let is_auto = most == u64::MAX;
        let watch = match watch
            .take()
            .filter(|watch: &Watch| watch.is_auto == is_auto)
        {
            Some(known) => watch.insert(known),
            None => watch.insert(Watch::new(&model, engine, is_auto)),
        };
        if let Err(error) = watch.look(engine, begin.elapsed()) {
            model.is_watched.store(false, Release);
            return say_unwatched(&error);
        }
    }
}

fn say_unwatched(why: &dyn std::fmt::Display) {
    report::say(&format!(
        "hotset: warning: experts keep their memory when it becomes short: {why}"
    ));
}

/// The most that experts which have `in_use` bytes may have, by what the system promises to this process. Others
/// here must be able to allocate, too.
fn can_have(engine: &Engine, in_use: u64) -> u64 {
    let more = auto_size::at_start(memory::promised().bytes, 0);
    engine.promised_bytes().saturating_add(more).max(in_use)
}

struct Watch {
    auto: Auto,
    turns: Turns,
    announcer: Announcer,
    /// What the last change was for.
    cause: Cause,
    beat: Beat,
    neighbours: Neighbours,
    /// Whether its size is whatever there is.
    is_auto: bool,
    /// Bytes of the experts that a token uses.
    least: u64,
}

impl Watch {
    fn new(model: &Model, engine: &Engine, is_auto: bool) -> Self {
        let pools = &engine.layout().pools;
        let n_bytes_max = engine.layout().slot_bytes_most();
        let slot_bytes = pools.iter().map(|pool| pool.slot_bytes as u64).max();
        // A size of its own is its own.
        let ledgers = if is_auto { &model.ledgers[..] } else { &[] };
        Self {
            auto: Auto::new(n_bytes_max, slot_bytes.unwrap_or(0)),
            turns: Turns::default(),
            announcer: Announcer::new(n_bytes_max, engine.size().n_bytes),
            cause: Cause::Memory,
            beat: Beat::new(engine.pulse()),
            neighbours: Neighbours::new(model.life.number, ledgers),
            is_auto,
            least: engine.layout().token_cycle_bytes(model.top_k()),
        }
    }

    /// What the others are told.
    fn member(&self, engine: &Engine, measure: Measure) -> Member {
        let held = engine.size().n_bytes;
        let most = engine.layout().slot_bytes_most();
        Member {
            wanted: most.min(can_have(engine, held)),
            held,
            least: self.least,
            needed: measure.needed,
            room: measure.room.max(0) as u64,
            process: neighbours::process(),
            told_at: neighbours::now(),
            busy_at: self.beat.busy_at,
            stalled: self.beat.stalled(),
        }
    }

    fn look(&mut self, engine: &Engine, at: Duration) -> Result<()> {
        let measure = memory::measure();
        self.beat.look(engine.pulse(), at);
        let own = self.member(engine, measure);
        let others = self.neighbours.meet(&own);
        let mut in_use = own.held;
        let now = Sample {
            at,
            spare: measure.spare(),
            in_use,
            most: can_have(engine, in_use),
        };
        if let Some((n_bytes, cause)) = self.turns.decide(&mut self.auto, &now, &own, &others) {
            // It takes a moment.
            let soon = Member {
                held: n_bytes.max(in_use),
                ..own
            };
            self.neighbours.tell(&soon);
            let before = std::mem::replace(&mut in_use, engine.resize(n_bytes)?.n_bytes);
            if in_use != before {
                self.cause = cause;
            }
            self.neighbours
                .tell(&self.member(engine, memory::measure()));
        }
        if let Some(line) = self.announcer.line(at, in_use, self.cause) {
            report::say(&line);
        }
        Ok(())
    }
}

/// What a model has computed lately.
struct Beat {
    last: Pulse,
    looked_at: Duration,
    /// When something was computed for the last time.
    busy_at: u64,
    /// The part of the time that computing waited for reads: more at once, and less in time.
    stalled: f64,
}

impl Beat {
    /// One that has just come will compute.
    fn new(pulse: Pulse) -> Self {
        Self {
            last: pulse,
            looked_at: Duration::ZERO,
            busy_at: neighbours::now(),
            stalled: 0.0,
        }
    }

    fn look(&mut self, pulse: Pulse, at: Duration) {
        /// What is kept of before at each look.
        const KEPT: f64 = 0.75;
        let took = at.saturating_sub(self.looked_at).max(INTERVAL / 4);
        let stalled = pulse.stalled.saturating_sub(self.last.stalled);
        let part = (stalled.as_secs_f64() / took.as_secs_f64()).min(1.0);
        self.stalled = part.max(KEPT * self.stalled + (1.0 - KEPT) * part);
        if pulse.is_computing || pulse != self.last {
            self.busy_at = neighbours::now();
        }
        self.last = pulse;
        self.looked_at = at;
    }

    /// In thousandths.
    fn stalled(&self) -> u64 {
        (1000.0 * self.stalled) as u64
    }
}
