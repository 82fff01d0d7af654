//! How models of `HOTSET_RAM=auto` that see the same memory divide it: who waits for reads gets what who computes
//! nothing does not use.
//!
//! Each says of itself what is in [`Member`] and works out the same division alone. Nothing here looks at a clock or at
//! the system.

use crate::sharing::Record;

/// Who has said nothing for so long has been stopped: what it has cannot be taken, and it is left out.
const SILENCE_MS: u64 = 2000;
/// Who has computed nothing for so long is idle.
const IDLE_MS: u64 = 2500;
/// Who waits for reads for this part of the time, in thousandths, would be faster with more.
const STALLED_MIN: u64 = 20;
/// An idle one keeps what a token needs, and no more than this part of what it would get if all were alike.
const FLOOR_PART: u64 = 8;

/// What a model says of itself to the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Member {
    /// Bytes of all slots that it could use.
    pub wanted: u64,
    /// Bytes of the slots that it has, or is about to take.
    pub held: u64,
    /// Bytes of the experts of a token: what it keeps when it gives way.
    pub least: u64,
    /// What its process needs of what counts as available, see `memory::needed`.
    pub needed: u64,
    /// What counted as available then.
    pub room: u64,
    /// A number of its process.
    pub process: u64,
    /// When it said so, in milliseconds of a clock that all share.
    pub told_at: u64,
    /// When it computed something for the last time.
    pub busy_at: u64,
    /// The part of the time that it waited for reads lately, in thousandths.
    pub stalled: u64,
}

impl Record for Member {
    fn numbers(&self) -> Vec<u64> {
        vec![
            self.wanted,
            self.held,
            self.least,
            self.needed,
            self.room,
            self.process,
            self.told_at,
            self.busy_at,
            self.stalled,
        ]
    }

    fn of(numbers: &[u64]) -> Option<Self> {
        let &[wanted, held, least, needed, room, process, told_at, busy_at, stalled] = numbers else {
            return None;
        };
        Some(Self {
            wanted,
            held,
            least,
            needed,
            room,
            process,
            told_at,
            busy_at,
            stalled,
        })
    }
}

impl Member {
    /// Whether it still says something, at `now`.
    pub fn answers(&self, now: u64) -> bool {
        now.saturating_sub(self.told_at) <= SILENCE_MS
    }

    /// Whether it computes.
    pub fn is_busy(&self, now: u64) -> bool {
        now.saturating_sub(self.busy_at) <= IDLE_MS
    }

    /// Whether it would compute faster with more.
    pub fn stalls(&self, now: u64) -> bool {
        self.is_busy(now) && self.stalled >= STALLED_MIN && self.held < self.wanted
    }

    /// What it gets before anybody gets more: all it can use if it stalls, what it has if it computes without, and
    /// little if it is idle.
    fn claim(&self, now: u64, floor: u64) -> u64 {
        let has = self.held.min(self.wanted);
        match (self.is_busy(now), self.stalls(now)) {
            (_, true) => self.wanted,
            (true, _) => has,
            (false, _) => has.min(self.least).min(floor),
        }
    }
}

/// What each of `members` gets of `size`: first what they claim, as even as that allows; then what they have; then
/// what they could use.
pub fn divide(size: u64, members: &[Member], now: u64) -> Vec<u64> {
    let floor = size / (FLOOR_PART * members.len().max(1) as u64);
    let wanted = |m: &Member| m.wanted;
    let has = |m: &Member| m.held.min(m.wanted);
    let claims = fill(size, members.iter().map(|m| (0, m.claim(now, floor))));
    let kept = members.iter().zip(&claims).map(|(m, &claim)| (claim, has(m).max(claim)));
    let kept = fill(size, kept);
    fill(size, members.iter().zip(&kept).map(|(m, &kept)| (kept, wanted(m).max(kept))))
}

/// A level, at most `size` in all: each gets that, but no less than its first number and no more than its second one.
fn fill(size: u64, bounds: impl Iterator<Item = (u64, u64)>) -> Vec<u64> {
    let bounds: Vec<(u64, u64)> = bounds.collect();
    let at = |level: u64| bounds.iter().map(move |&(least, most)| level.clamp(least, most));
    let fits = |level| at(level).fold(0, u64::saturating_add) <= size;
    // The highest level that fits is below `above`.
    let (mut level, mut above) = (0, bounds.iter().map(|b| b.1).max().unwrap_or(0));
    if fits(above) {
        return at(above).collect();
    }
    while above - level > 1 {
        let middle = level + (above - level) / 2;
        match fits(middle) {
            true => level = middle,
            false => above = middle,
        }
    }
    at(level).collect()
}

#[cfg(test)]
#[path = "division_tests.rs"]
mod tests;
