//! How much memory a model gets for its experts, and what is said where that is not what was asked for.

use crate::engine::Engine;
use crate::engine::layout::{Layout, Tensor, expert_bytes};
use crate::error::{Error, Result};
use crate::memory;
use crate::memory::auto_size;
use crate::memory::terms::{Needs, Terms};
use crate::numbers;
use crate::report;
use crate::store::ModelFile;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{LazyLock, Mutex};

/// Memory for the experts of a model.
#[derive(Debug, Clone, Copy)]
pub enum Budget {
    /// These bytes.
    Fixed(u64),
    /// What is available, up to these bytes.
    UpTo(u64),
    /// A part of what several processes share.
    Shared {
        /// Bytes at the start.
        n_bytes: u64,
        /// What it may become when others go.
        most: u64,
    },
}

impl Budget {
    /// About which share of experts of `n_bytes` will be in memory.
    pub fn share(self, n_bytes: u64) -> f64 {
        let budget = match self {
            Self::Fixed(n) | Self::Shared { n_bytes: n, .. } => n,
            Self::UpTo(n) => n.min(memory::spare().max(0) as u64),
        };
        (budget as f64 / n_bytes as f64).min(1.0)
    }
}

/// Device and inode of the first file of each model that was loaded.
static LOADED: LazyLock<Mutex<HashSet<(u64, u64)>>> = LazyLock::new(Mutex::default);

/// A fixed budget below one expert is an error where somebody has `chosen` it in these words, and worth a line where it
/// came about.
pub fn check_least(
    tensors: &[Tensor],
    files: &[ModelFile],
    budget: Budget,
    chosen: Option<&str>,
) -> Result<()> {
    let Budget::Fixed(n_bytes) = budget else {
        return Ok(());
    };
    let layout = Layout::new(tensors, &aligns(files), n_bytes)?;
    let Some(text) = chosen.filter(|_| layout.n_slots() == 0) else {
        say_if_least(&layout, n_bytes);
        return Ok(());
    };
    Err(below_least(
        &layout,
        match text {
            "" => numbers::bytes(n_bytes),
            text => text.to_string(),
        },
    ))
}

/// The budget `text` is below one expert of this layout.
pub fn below_least(layout: &Layout, text: String) -> Error {
    let least = layout.least_bytes();
    let allowed = format!(
        "one expert of this model takes {}: {least} bytes are the least that is of use",
        numbers::bytes(least)
    );
    Error::setting("HOTSET_RAM", text, allowed)
}

/// Says so if no expert finds a place in `n_bytes`.
fn say_if_least(layout: &Layout, n_bytes: u64) {
    if layout.n_slots_start() == 0 {
        report::say(&format!(
            "hotset: warning: {} for experts are less than one of them takes ({}): each is read whenever it is used",
            numbers::bytes(n_bytes),
            numbers::bytes(layout.least_bytes())
        ));
    }
}

/// What a model of `tensors` gets of `budget`. A fixed one must be available when the model is loaded for the
/// first time. A model that comes back, as one that slept while nobody asked, takes what there is when the rest of it
/// has been allocated, unless there is plenty: its users have been promised that it works.
pub fn check(tensors: &[Tensor], files: &[ModelFile], budget: Budget) -> Result<Budget> {
    let file = files.first().and_then(identity);
    let mut loaded = LOADED.lock().expect("no thread panics with it");
    let Budget::Fixed(n_bytes) = budget else {
        check_ring(tensors, files)?;
        // A size that it is given while it runs is no promise that can fail when it comes back.
        loaded.extend(file);
        return Ok(budget);
    };
    let layout = Layout::new(tensors, &aligns(files), n_bytes)?;
    let arena_bytes = layout.arena_bytes as u64;
    if file.is_some_and(|file| loaded.contains(&file)) {
        return Ok(match memory::available().bytes >= plenty(arena_bytes) {
            true => budget,
            false => Budget::UpTo(n_bytes),
        });
    }
    memory::check(arena_bytes)?;
    loaded.extend(file);
    Ok(budget)
}

/// With so much available nobody need watch whether there is enough for experts that take `n_bytes`, and for what the
/// model will allocate beside them.
fn plenty(n_bytes: u64) -> u64 {
    const BESIDE: u64 = 1 << 30;
    n_bytes.saturating_mul(2).saturating_add(BESIDE)
}

/// What is available may be nothing for the moment, but the ring must be had.
fn check_ring(tensors: &[Tensor], files: &[ModelFile]) -> Result<()> {
    let whole = Layout::new(tensors, &aligns(files), u64::MAX)?;
    let least = Layout::growing(tensors, &aligns(files), 0, whole.ring_cost())?;
    if Engine::can_have(&least) {
        return Ok(());
    }
    let why = format!(
        "the system does not let this process map {}, the least for experts of this model",
        numbers::bytes(least.arena_bytes as u64)
    );
    Err(Error::system("HOTSET_RAM=auto", io::Error::other(why)))
}

/// What will be taken of what is available, and not by experts.
#[derive(Debug, Clone, Copy)]
pub struct Beside {
    /// Bytes that the model will take for other things.
    pub own: u64,
    /// Bytes that models of other processes will still need.
    pub others: u64,
}

/// Lays `budget` out for `tensors`. What is available, less what is taken `beside`, is the start of a layout that can
/// grow.
pub fn layout(
    tensors: &[Tensor],
    files: &[ModelFile],
    budget: Budget,
    beside: Beside,
) -> Result<Layout> {
    let aligns = aligns(files);
    let (mut size, capacity) = match budget {
        Budget::Fixed(n_bytes) => return steerable(tensors, &aligns, n_bytes),
        Budget::UpTo(n_bytes) => {
            let terms = affordable(beside);
            if n_bytes == u64::MAX {
                report::say(&format!("hotset: auto: {} for experts", terms.text()));
            }
            (terms.left().min(n_bytes), n_bytes)
        }
        Budget::Shared { n_bytes, most } => (n_bytes, most),
    };
    let whole = Layout::growing(tensors, &aligns, size, capacity)?;
    say_if_less(&whole, budget, size);
    say_if_least(&whole, size);
    let asked = match budget {
        // Nobody asked for that much.
        Budget::UpTo(u64::MAX) => 0,
        _ => whole.arena_bytes_start(),
    };
    let addresses = auto_size::of_addresses(memory::addresses().bytes, asked);
    if whole.arena_bytes as u64 <= addresses && Engine::can_have(&whole) {
        return Ok(whole);
    }
    // Not all that could be used one day. What alignment adds must not be too much either.
    let total = expert_bytes(tensors);
    let least = whole.ring_cost();
    let mut most = addresses.min(total - 1).min(capacity).max(least);
    let mut layout = Layout::growing(tensors, &aligns, size.min(most), most)?;
    while !Engine::can_have(&layout) && most > least {
        size /= 2;
        most = size.min(most).max(least);
        layout = Layout::growing(tensors, &aligns, size.min(most), most)?;
    }
    report::say(&format!(
        "hotset: warning: the system lets this process map {} for experts and no more, also when memory is free",
        numbers::bytes(layout.arena_bytes as u64)
    ));
    Ok(layout)
}

/// Lays out `n_bytes` so that they may become more while the model runs (`POST /hotset/budget`), where that takes a small
/// part of the addresses that the system leaves: a KV cache is still to come.
fn steerable(tensors: &[Tensor], aligns: &[usize], n_bytes: u64) -> Result<Layout> {
    const PART: u64 = 4;
    let layout = Layout::new(tensors, aligns, n_bytes)?;
    let whole = Layout::growing(tensors, aligns, n_bytes, u64::MAX)?;
    let has_room = whole.arena_bytes as u64 <= memory::addresses().bytes / PART;
    match has_room && Engine::can_have(&whole) {
        true => Ok(whole),
        false => Ok(layout),
    }
}

/// Says so if a model that has come back begins with less than its size.
fn say_if_less(layout: &Layout, budget: Budget, size: u64) {
    if let Budget::UpTo(n_bytes) = budget
        && n_bytes < u64::MAX
        && layout.n_slots_start() < layout.n_slots()
    {
        report::say(&format!(
            "hotset: only {} are available now ({}): experts get less than {} until there are more",
            numbers::bytes(size),
            memory::available().why,
            numbers::bytes(layout.arena_bytes as u64),
        ));
    }
}

/// What all limits leave to experts now.
fn affordable(beside: Beside) -> Terms {
    let noted = memory::noted();
    let mapped = memory::mapped();
    // What other arenas of this process will fill is theirs.
    let expected = memory::expected();
    let needs = Needs {
        weights: noted.weights + mapped,
        buffers: noted.rest,
        to_come: memory::needed().saturating_sub(expected),
        others: beside.others + expected,
        own: beside.own,
    };
    let bound = memory::tightest();
    let of_memory = Terms::of_memory((bound.name, bound.n_bytes), bound.room, &needs);
    // What was promised already, or mapped, has been subtracted there, used or not.
    let promised = memory::promised().bytes;
    let of_promise = Terms::of_promise(promised, beside.own);
    match of_promise.left() < of_memory.left() {
        true => of_promise,
        false => of_memory,
    }
}

/// What reads of the files must be multiples of.
pub fn aligns(files: &[ModelFile]) -> Vec<usize> {
    files.iter().map(ModelFile::align).collect()
}

/// `None` if the system does not say.
fn identity(file: &ModelFile) -> Option<(u64, u64)> {
    let file = File::from(file.as_fd().try_clone_to_owned().ok()?);
    let meta = file.metadata().ok()?;
    Some((meta.dev(), meta.ino()))
}
