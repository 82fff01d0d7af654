//! A size that the servers of a router share, each with models of its own: what this process gets of it, and a thread
//! that follows as others come and go.

use super::model::Model;
use super::room::{self, Budget};
use crate::config::Routed;
use crate::engine::Engine;
use crate::engine::layout::{Layout, Tensor};
use crate::error::Result;
use crate::memory;
use crate::numbers;
use crate::report;
use crate::sharing::{self, Entry, Ledger};
use crate::store::ModelFile;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long a newcomer waits for what others are about to give back. They look so often, and need a moment to free it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The part of this process, while it has models.
static SHARE: Mutex<Option<Share>> = Mutex::new(None);

struct Share {
    ledger: Ledger<Entry>,
    /// What all share.
    size: u64,
    /// The models in the order in which they came, with what each could use.
    models: Vec<(Weak<Model>, u64)>,
    /// What the model that is being loaded could use, and is about to take.
    coming: Entry,
    /// What the models got when that was last said.
    said: u64,
    /// Whether a thread follows, or has given up.
    is_followed: bool,
}

fn share() -> MutexGuard<'static, Option<Share>> {
    SHARE.lock().expect("no thread panics with it")
}

/// What a model of `tensors` gets of the `size` of its router, of which other models of this process cannot give back
/// `used_bytes`. Waits for a moment if others have more than they will get.
pub fn budget(
    routed: &Routed,
    size: u64,
    used_bytes: u64,
    (tensors, files): (&[Tensor], &[ModelFile]),
) -> Result<Budget> {
    let most = size.saturating_sub(used_bytes);
    let whole = Layout::new(tensors, &room::aligns(files), u64::MAX)?;
    let wanted = whole.slot_bytes_most();
    let coming = Entry {
        wanted: most.min(wanted),
        held: 0,
    };
    match Share::take(&mut share(), routed, size, coming) {
        Ok(n_bytes) => Ok(Budget::Shared { n_bytes, most }),
        Err(cause) => {
            report::say(&format!(
                "hotset: warning: this model does not share HOTSET_RAM with others of its router: {cause}"
            ));
            Ok(Budget::Fixed(most))
        }
    }
}

/// Follows what `model` may have, for as long as it lives.
pub fn follow(model: &Arc<Model>) {
    let mut share = share();
    let Some(share) = share.as_mut() else {
        return;
    };
    let coming = std::mem::take(&mut share.coming);
    share.models.push((Arc::downgrade(model), coming.wanted));
    let thread = thread::Builder::new().name("hotset-shares".into());
    if !std::mem::replace(&mut share.is_followed, true)
        && let Err(cause) = thread.spawn(run)
    {
        say_unfollowed(&cause);
    }
}

/// Leaves the others what this process has, unless it is interrupted while it looks: they will see its end anyway.
pub fn leave() {
    if let Ok(mut share) = SHARE.try_lock() {
        *share = None;
    }
}

fn say_unfollowed(why: &dyn std::fmt::Display) {
    report::say(&format!(
        "hotset: warning: experts keep their memory when other models come or go: {why}"
    ));
}

fn run() {
    loop {
        thread::sleep(INTERVAL);
        let mut share = share();
        let followed = share.as_mut().map(Share::look);
        match followed {
            Some(Ok(true)) => {}
            Some(Ok(false)) | None => return *share = None,
            // The others still see what this process has.
            Some(Err(why)) => return say_unfollowed(&why),
        }
    }
}

impl Share {
    /// Takes part for one model more; returns what it may begin with.
    fn take(
        share: &mut Option<Self>,
        routed: &Routed,
        size: u64,
        coming: Entry,
    ) -> io::Result<u64> {
        let share = match share {
            Some(share) => share,
            None => {
                let name = format!(
                    "{}-{size}",
                    routed
                        .ledger
                        .file_name()
                        .unwrap_or_default()
                        .to_string_lossy()
                );
                let folder = routed.ledger.with_file_name(name);
                let ledger = Ledger::join(&folder, coming)?;
                sharing::sweep(&folder);
                share.insert(Self {
                    ledger,
                    size,
                    models: Vec::new(),
                    coming,
                    said: 0,
                    is_followed: false,
                })
            }
        };
        share.coming = coming;
        let own = share.tell()?;
        let begin = Instant::now();
        loop {
            let others = share.ledger.others()?;
            let all = sharing::allotment(size, own.wanted, &others);
            let mine = all.saturating_sub(own.held).min(coming.wanted);
            let unheld = sharing::unheld(size, &others).saturating_sub(own.held);
            let there_is = unheld.min(memory::available().bytes);
            if mine <= there_is || begin.elapsed() > PATIENCE {
                share.coming.held = mine.min(there_is);
                share.said = own.held + share.coming.held;
                share.tell()?;
                return Ok(share.coming.held);
            }
            thread::sleep(INTERVAL / 5);
        }
    }

    /// Tells the others what there is, and returns it.
    fn tell(&mut self) -> io::Result<Entry> {
        self.models.retain(|(model, _)| model.strong_count() > 0);
        let of_models = self.models.iter().map(|(model, wanted)| Entry {
            wanted: *wanted,
            held: model.upgrade().map_or(0, |model| held(&model)),
        });
        let all = of_models
            .chain([self.coming])
            .fold(Entry::default(), |a, b| Entry {
                wanted: a.wanted.saturating_add(b.wanted),
                held: a.held.saturating_add(b.held),
            });
        self.ledger.tell(all)?;
        Ok(all)
    }

    /// Follows what the others do. Returns false if this process has no models any more.
    fn look(&mut self) -> anyhow::Result<bool> {
        let own = self.tell()?;
        if self.models.is_empty() && self.coming == Entry::default() {
            return Ok(false);
        }
        let others = self.ledger.others()?;
        let allotment = sharing::allotment(self.size, own.wanted, &others);
        let mut target = allotment;
        if target > own.held {
            // No more than others have given back, and than there is.
            let unheld = sharing::unheld(self.size, &others).max(own.held);
            let more = unheld.min(target) - own.held;
            target = own.held + more.min(memory::spare().max(0) as u64);
            let growing = Entry {
                held: target,
                ..own
            };
            self.ledger.tell(growing)?;
        }
        let mut rest = target.saturating_sub(self.coming.held);
        for (model, wanted) in &self.models {
            let part = rest.min(*wanted);
            if let Some(model) = model.upgrade()
                && let Some(engine) = model.made_engine()
                && slots_differ(engine, part)
            {
                engine.resize(part)?;
            }
            rest -= part;
        }
        let own = self.tell()?;
        self.say(own.held, others.len() + 1);
        Ok(true)
    }

    /// Says so if much has come or gone.
    fn say(&mut self, held: u64, n_processes: usize) {
        if held.abs_diff(self.said) > self.size / 16 {
            self.said = held;
            let size = numbers::bytes(self.size);
            let whose = match n_processes {
                1 => format!("no other model has a part of the {size} now"),
                n => format!("{n} models share {size}"),
            };
            report::say(&format!(
                "hotset: experts get {}: {whose}",
                numbers::bytes(held)
            ));
        }
    }
}

/// Bytes that the experts of a model have.
fn held(model: &Model) -> u64 {
    match model.made_engine() {
        Some(engine) => engine.size().n_bytes,
        None => 0,
    }
}

/// Whether `n_bytes` would be another number of slots than there is.
fn slots_differ(engine: &Engine, n_bytes: u64) -> bool {
    let n_slots: u32 = engine.layout().slots_for(n_bytes).iter().sum();
    n_slots != engine.size().n_slots
}
