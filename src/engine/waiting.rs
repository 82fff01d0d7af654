//! Waiting for reads.

use super::arrivals::Target;
use super::core::Engine;
use super::stall::{News, look};
use crate::error::Result;
use super::lane::{Entry, Lane, Source};
use super::meter::Spent;
use crate::notice::Notice;
use crate::timeline::What;
use crate::store::{ReadFailure, UnderWay};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Looks at what is waited for, between two at what the disk has done.
const LOOKS: u32 = 16;
/// How long the first thread of a lane looks before it sleeps: longer than a disk takes that is worth streaming from.
/// Waking two sleeping cores after each wait cost a token a seventh of its time (docs/runs/2026-11-29-deep).
const SPIN: Duration = Duration::from_millis(2);
/// A core that was given away for longer is wanted by others: the reading thread looks after the disk then.
const AWAY: Duration = Duration::from_micros(200);
/// How long the others do: a disk that needs a core, as that of a virtual machine, is slower beside two that look.
const SPIN_OTHERS: Duration = Duration::from_micros(20);

impl Engine {
    /// Waits for a read of `target`, and looks after the disk if that `looks`. Returns how long that took, if it was not
    /// there.
    pub(super) fn wait(&self, target: Target, looks: bool) -> Result<Option<Duration>> {
        let arrived = || match target {
            Target::Slot { slot, part } => self.arrivals.has_part(slot, part),
            Target::Place { sequence } => self.arrivals.has_staged(sequence),
        };
        if arrived() {
            return Ok(None);
        }
        let begin = Instant::now();
        self.wait_until(Some(target), looks, arrived)?;
        Ok(Some(begin.elapsed()))
    }

    /// Thread `ith` of `lane` has waited for an entry of `layer`.
    #[cold]
    pub(super) fn note_wait(&self, lane: &Lane, layer: usize, ith: u32, entry: Entry, waited: Duration) {
        let flight = &self.arrivals.flight;
        let is_early = matches!(entry.source, Source::Early(_));
        if let Some(pen) = flight.pen.get() {
            let what = What::Wait {
                layer: layer as u32,
                expert: entry.expert,
                is_early,
            };
            pen.ended(ith, waited, what);
        }
        if ith > 0 || lane.is_trial.load(Ordering::Relaxed) {
            return;
        }
        let spent = self.meter.spent(lane.clock.is_prefill.load(Ordering::Relaxed));
        Spent::add(&spent.stalled_ns, waited);
        if is_early {
            Spent::add(&spent.early_ns, waited);
        }
        let saved = lane.clock.save(flight.now(), waited.as_nanos() as u64);
        Spent::add(&spent.faster_ns, Duration::from_nanos(saved));
    }

    /// Sleeps until the parts in `mask` of the expert in `slot`, counted over all pools, are there.
    pub(super) fn wait_for_parts(&self, slot: u32, mask: u32) -> Result<()> {
        let arrived = || self.arrivals.has_parts(slot, mask);
        if arrived() {
            return Ok(());
        }
        self.wait_until(Some(Target::Slot { slot, part: 0 }), true, arrived)
    }

    /// Waits until `arrived`, which is about `target` or any read, and looks after the disk meanwhile if that `looks`.
    /// Tells so if that takes very long.
    pub(super) fn wait_until(&self, target: Option<Target>, looks: bool, arrived: impl Fn() -> bool) -> Result<()> {
        if self.spin_until(&arrived, looks) {
            return Ok(());
        }
        let waited = self.arrivals.wait_until(target, arrived, || self.look_at_stall());
        self.end_of_wait(waited.err());
        waited.map_err(|failure| self.read_error(failure))
    }

    /// Looks again and again for a moment, longer if it `looks` after the disk, and takes what that has done meanwhile:
    /// sleeping and being woken would take longer than most waits last. Returns whether it has `arrived`.
    fn spin_until(&self, arrived: &impl Fn() -> bool, looks: bool) -> bool {
        let begin = Instant::now();
        let mut looker = looks.then(|| self.queue.look());
        let spin = if looks { SPIN } else { SPIN_OTHERS };
        while self.queue.help() && begin.elapsed() < spin {
            for _ in 0..LOOKS {
                if arrived() {
                    return true;
                }
                std::hint::spin_loop();
            }
            // Who reads, or computes something else, may have the core.
            let left = Instant::now();
            std::thread::yield_now();
            if left.elapsed() > AWAY {
                looker = None;
            }
        }
        drop(looker);
        false
    }

    /// A thread still waits, and holds no lock that reading needs: tells what there is to tell.
    fn look_at_stall(&self) {
        self.queue.help();
        // What cannot be told at once is told at the next look.
        let Some(longest) = self.queue.longest_under_way() else {
            return;
        };
        let news = {
            let mut told = self.stall.told.lock().expect("no thread panics with it");
            let news = look(&mut told, Instant::now(), longest);
            self.stall.is_told.store(told.is_some(), Ordering::Relaxed);
            news
        };
        for (news, read, took) in news {
            self.notices.tell(self.notice_of(news, read, took));
        }
    }

    /// What a thread waited for is there, or `failure` says why not.
    fn end_of_wait(&self, failure: Option<&ReadFailure>) {
        if !self.stall.is_told.load(Ordering::Relaxed) {
            return;
        }
        match failure {
            None => self.look_at_stall(),
            // That is what is said.
            Some(_) => {
                let mut told = self.stall.told.lock().expect("no thread panics with it");
                *told = None;
                self.stall.is_told.store(false, Ordering::Relaxed);
            }
        }
    }

    fn notice_of(&self, news: News, read: UnderWay, took: Duration) -> Notice {
        let path = self.queue.files()[read.file as usize].path();
        Notice::SlowRead {
            n_bytes: read.n_bytes,
            offset: read.offset,
            path: path.to_path_buf(),
            what: self.holder_of(path, read.offset, read.n_bytes),
            took,
            has_ended: news == News::HasEnded,
        }
    }
}
