//! What a model of `HOTSET_RAM=auto` does beside others: it gives way to who stalls, takes what others have given, and
//! gives back its part when memory becomes short.
//!
//! Who gives does so in steps, one a second: what it loses by mistake is little. Who takes follows at once, because
//! what others gave is no memory that comes and goes. All else that becomes free is taken as slowly as by one that is
//! alone ([`super::auto_size`]). Nothing here looks at a clock or at the system.

use super::auto_size::{Auto, Cause, Sample, reserve};
use super::division::{Member, divide};
use std::time::Duration;

/// Time between two steps of who gives way.
const PAUSE: Duration = Duration::from_secs(1);
/// A step is no more than this part of what all have together.
const STEP_PART: u64 = 3;
/// Less than this part of what all have is not worth a step.
const WORTH_PART: u64 = 32;
/// How long whoever has no more than its part waits for the others to give back, when memory is short.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long what others have given is taken at once. After that it may be somebody else's.
const CREDIT_TIME: Duration = Duration::from_secs(5);

/// What one model knows of what it and the others have done.
#[derive(Debug, Default)]
pub struct Turns {
    gave_at: Option<Duration>,
    short_since: Option<Duration>,
    /// What all others had at the last look.
    others_held: Option<u64>,
    /// What others have given and nobody has taken, and when the last of it was given.
    credit: u64,
    credit_at: Duration,
}

/// What there is for all, as one of them sees it.
struct View {
    reserve: i64,
    /// Negative where it will be above a limit.
    free: i64,
    /// What all have together and may have.
    size: u64,
    /// What the one that looks gets of it.
    mine: u64,
}

impl View {
    fn new(now: &Sample, own: &Member, others: &[Member]) -> Self {
        let at = own.told_at;
        let free = now.spare - others_need(own.process, own.room, others) as i64;
        let own = Member {
            held: now.in_use,
            ..*own
        };
        let members: Vec<Member> = [own]
            .into_iter()
            .chain(others.iter().filter(|o| o.answers(at)).copied())
            .collect();
        let held = members
            .iter()
            .fold(0, |sum: u64, m| sum.saturating_add(m.held));
        let available = free.saturating_add_unsigned(held);
        let reserve = reserve(available.max(0) as u64) as i64;
        let size = (available - reserve).max(0) as u64;
        Self {
            reserve,
            free,
            size,
            mine: divide(size, &members, at)[0],
        }
    }
}

/// What the processes of `others` that are not `process` will still need, when `room` counts as available. What models
/// say that live in one process is the same.
///
/// Who fills memory says so a moment later: what has become less meanwhile is taken for that.
pub fn others_need(process: u64, room: u64, others: &[Member]) -> u64 {
    let left = |m: &Member| m.needed.saturating_sub(m.room.saturating_sub(room));
    let mut needs: Vec<(u64, u64)> = others.iter().map(|m| (m.process, left(m))).collect();
    needs.sort_unstable();
    needs.dedup_by_key(|(process, _)| *process);
    let needs = needs.iter().filter(|(other, _)| *other != process);
    needs.fold(0, |sum, (_, needed)| sum.saturating_add(*needed))
}

impl Turns {
    /// The bytes that experts are to have from now on, if that changes, and why. `own` has just been told.
    pub fn decide(
        &mut self,
        auto: &mut Auto,
        now: &Sample,
        own: &Member,
        others: &[Member],
    ) -> Option<(u64, Cause)> {
        self.note_given(now.at, others);
        if others.is_empty() {
            self.short_since = None;
            return auto.decide(now).map(|n_bytes| (n_bytes, Cause::Memory));
        }
        let view = View::new(now, own, others);
        if view.free < view.reserve / 2 {
            let target = self.give_back(now, &view)?;
            auto.note_short();
            return Some((target, Cause::Memory));
        }
        self.short_since = None;
        if let Some(target) = self.give_way(now, &view, auto.slot_bytes()) {
            return Some((target, Cause::Others));
        }
        if let Some(target) = self.take(now, &view, auto.slot_bytes()) {
            return Some((target, Cause::Others));
        }
        let mine = Sample {
            spare: view.free,
            most: now.most.min(view.mine.max(now.in_use)),
            ..*now
        };
        auto.grow(&mine, view.reserve)
            .map(|n_bytes| (n_bytes, Cause::Memory))
    }

    /// Others have given something, have ended, or have taken of it.
    fn note_given(&mut self, at: Duration, others: &[Member]) {
        let held = others
            .iter()
            .fold(0, |sum: u64, m| sum.saturating_add(m.held));
        let before = self.others_held.replace(held).unwrap_or(held);
        if held < before {
            self.credit = self.credit.saturating_add(before - held);
            self.credit_at = at;
        } else {
            self.credit = self.credit.saturating_sub(held - before);
        }
        if at.saturating_sub(self.credit_at) > CREDIT_TIME {
            self.credit = 0;
        }
    }

    /// Memory is short: who has more than its part gives that back at once, and who has not waits for the others first.
    fn give_back(&mut self, now: &Sample, view: &View) -> Option<u64> {
        let since = *self.short_since.get_or_insert(now.at);
        if view.mine < now.in_use {
            return Some(view.mine);
        }
        let is_over = now.at - since >= PATIENCE && now.in_use > 0;
        let left = now.in_use as i64 + view.free - view.reserve;
        is_over.then_some(left.max(0) as u64)
    }

    fn give_way(&mut self, now: &Sample, view: &View, slot_bytes: u64) -> Option<u64> {
        let worth = (view.size / WORTH_PART).max(2 * slot_bytes);
        let is_soon = self.gave_at.is_some_and(|gave| now.at - gave < PAUSE);
        if is_soon || now.in_use < view.mine.saturating_add(worth) {
            return None;
        }
        self.gave_at = Some(now.at);
        let step = (view.size / STEP_PART).max(slot_bytes);
        Some(view.mine.max(now.in_use.saturating_sub(step)))
    }

    fn take(&mut self, now: &Sample, view: &View, slot_bytes: u64) -> Option<u64> {
        let missing = view.mine.min(now.most).saturating_sub(now.in_use);
        let surplus = (view.free - view.reserve).max(0) as u64;
        let more = missing.min(surplus).min(self.credit);
        if more < slot_bytes {
            return None;
        }
        self.credit -= more;
        Some(now.in_use + more)
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
