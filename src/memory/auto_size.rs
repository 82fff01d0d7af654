//! What `HOTSET_RAM=auto` comes to: at the start, and while memory comes and goes.
//!
//! Experts may have what is there without them, less a reserve for others. When less than half of the
//! reserve is left, they give back at once what it lacks. When more than the reserve is left for some
//! seconds, they take a quarter of that, again and again, until they have all they can use. So two models or
//! processes that see the same memory do not both take all of it; and memory that had to be given back
//! soon after it was taken is waited for twice as long the next time.
//!
//! Nothing here looks at a clock or at the system.

use crate::numbers;
use std::time::Duration;

/// What is left to the rest of the system, as a part of what is available without experts.
const RESERVE_PART: u64 = 16;
/// What is left to the rest of the system, at least.
const RESERVE_BYTES_MIN: u64 = 64 << 20;
/// What is left of addresses, as a part of what there are and at least, but no more than half.
const ADDRESSES_PART: u64 = 4;
const ADDRESSES_MIN: u64 = 1 << 30;
/// What is free beyond the reserve is taken if it is at least this part of all that can be used.
const SURPLUS_PART: u64 = 8;
/// More than this need not be free beyond the reserve.
const SURPLUS_BYTES_MAX: u64 = 128 << 20;
/// The part of the surplus that is taken at a time.
const STEP_PART: u64 = 4;
/// How long a surplus must last.
const WAIT_MIN: Duration = Duration::from_secs(3);
/// How long it must last at most, after memory had to be given back again and again.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Time between two lines about changes.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// A change by less than this part of all that can be used is not worth a line.
const LINE_PART: u64 = 16;

/// What is left to the rest of the system of what is `available` without experts.
pub(super) fn reserve(available: u64) -> u64 {
    (available / RESERVE_PART).max(RESERVE_BYTES_MIN)
}

/// Bytes for experts at the start, when `available` may be taken and `untouched` of that will be needed by
/// what is allocated already.
pub fn at_start(available: u64, untouched: u64) -> u64 {
    available.saturating_sub(untouched + reserve(available))
}

/// Bytes of an arena, where the limits of the process leave so many of addresses. Others, as llama.cpp, map more later,
/// and end where they cannot. What the arena is asked to have at the start may come closer to the limit than what it
/// could use one day.
pub fn of_addresses(there_are: u64, start: u64) -> u64 {
    let others = (there_are / ADDRESSES_PART).max(ADDRESSES_MIN);
    let roomy = there_are - others.min(there_are / 2);
    roomy.max(start.min(at_start(there_are, 0)))
}

/// What is measured now and then.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When, since any fixed time.
    pub at: Duration,
    /// What could be taken beyond all that is allocated, see [`crate::memory::spare`].
    pub spare: i64,
    /// Bytes of the slots of experts.
    pub in_use: u64,
    /// The most that they can become, by what the system promises.
    pub most: u64,
}

/// Decides how many bytes the experts of one model get.
#[derive(Debug)]
pub struct Auto {
    n_bytes_max: u64,
    slot_bytes: u64,
    /// Since when there is a surplus, or since the last step.
    free_since: Option<Duration>,
    wait: Duration,
    /// Whether the last change was a step up.
    has_grown: bool,
}

impl Auto {
    /// For experts that can use `n_bytes_max`, in slots of up to `slot_bytes`.
    pub fn new(n_bytes_max: u64, slot_bytes: u64) -> Self {
        Self {
            n_bytes_max,
            slot_bytes,
            free_since: None,
            wait: WAIT_MIN,
            has_grown: false,
        }
    }

    /// The largest slot.
    pub(super) fn slot_bytes(&self) -> u64 {
        self.slot_bytes
    }

    /// The bytes that experts are to have from now on, if that changes.
    pub fn decide(&mut self, now: &Sample) -> Option<u64> {
        let available = now.spare + now.in_use as i64;
        let reserve = reserve(available.max(0) as u64) as i64;
        if now.spare >= reserve / 2 {
            return self.grow(now, reserve);
        }
        if now.in_use == 0 {
            self.free_since = None;
            return None;
        }
        self.note_short();
        Some((available - reserve).max(0) as u64)
    }

    /// Memory that was taken has to be given back.
    pub(super) fn note_short(&mut self) {
        self.free_since = None;
        if std::mem::take(&mut self.has_grown) {
            self.wait = (2 * self.wait).min(WAIT_MAX);
        }
    }

    /// The same as [`Self::decide`] where more than half of `reserve` is left.
    pub(super) fn grow(&mut self, now: &Sample, reserve: i64) -> Option<u64> {
        let surplus = (now.spare - reserve).max(0) as u64;
        let missing = self.missing(now);
        if missing == 0 || surplus < self.surplus_min() {
            self.free_since = None;
            return None;
        }
        let since = *self.free_since.get_or_insert(now.at);
        if now.at - since < self.wait {
            return None;
        }
        self.free_since = Some(now.at);
        if std::mem::replace(&mut self.has_grown, true) {
            self.wait = (self.wait / 2).max(WAIT_MIN);
        }
        let step = (surplus / STEP_PART).max(self.slot_bytes);
        Some(now.in_use + step.min(missing))
    }

    /// What experts can use and do not have. Where the system does not promise it, whole slots count.
    fn missing(&self, now: &Sample) -> u64 {
        if now.most >= self.n_bytes_max {
            return self.n_bytes_max.saturating_sub(now.in_use);
        }
        let promised = now.most.saturating_sub(now.in_use);
        if promised < self.slot_bytes {
            0
        } else {
            promised
        }
    }

    /// A surplus below this is left alone.
    fn surplus_min(&self) -> u64 {
        let part = (self.n_bytes_max / SURPLUS_PART).min(SURPLUS_BYTES_MAX);
        part.max(2 * self.slot_bytes)
    }
}

/// Why a size changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Memory is short, or free again.
    Memory,
    /// Other models need it, or have left it.
    Others,
}

/// Says what has changed, but not each step.
#[derive(Debug)]
pub struct Announcer {
    n_bytes_max: u64,
    said: u64,
    said_at: Option<Duration>,
}

impl Announcer {
    /// For experts that can use `n_bytes_max` and have `n_bytes`, which everybody knows.
    pub fn new(n_bytes_max: u64, n_bytes: u64) -> Self {
        Self {
            n_bytes_max,
            said: n_bytes,
            said_at: None,
        }
    }

    /// A line for people, if it is time for one, with what the last change was for. Call it when nothing has changed,
    /// too.
    pub fn line(&mut self, at: Duration, in_use: u64, cause: Cause) -> Option<String> {
        let is_soon = self.said_at.is_some_and(|said| at - said < LINE_INTERVAL);
        let change = in_use.abs_diff(self.said);
        if is_soon || change <= self.n_bytes_max / LINE_PART {
            return None;
        }
        let before = std::mem::replace(&mut self.said, in_use);
        self.said_at = Some(at);
        let what = match (cause, in_use < before) {
            (Cause::Memory, true) => "memory is short",
            (Cause::Memory, false) => "memory is free again",
            (Cause::Others, true) => "another model needs memory",
            (Cause::Others, false) => "another model leaves memory",
        };
        Some(format!(
            "hotset: {what}: experts get {} instead of {}",
            numbers::bytes(in_use),
            numbers::bytes(before)
        ))
    }
}

#[cfg(test)]
#[path = "auto_size_tests.rs"]
mod tests;
