//! A word about reads that do not end: a disk that hangs, or a server that is gone, looks like a computation
//! that hangs.

use super::Engine;
use crate::report;
use crate::store::{ReadFailure, UnderWay};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A read that takes longer is worth a line.
const LONG: Duration = Duration::from_secs(10);
/// And another one each time that this has passed.
const EVERY: Duration = Duration::from_secs(60);

/// A thread that waits for reads. One at a time tells of the read that takes long, of all that wait.
pub(super) struct Watch<'a> {
    engine: &'a Engine,
    told: Option<(UnderWay, Instant)>,
}

impl<'a> Watch<'a> {
    pub fn new(engine: &'a Engine) -> Self {
        Self { engine, told: None }
    }

    /// The thread still waits. It holds no lock that reading needs.
    pub fn look(&mut self) {
        let now = Instant::now();
        if let Some((read, again_at)) = &mut self.told {
            if now >= *again_at {
                *again_at = now + EVERY;
                say(self.engine, read, "takes");
            }
            return;
        }
        let Some(read) = self.engine.queue.longest_under_way() else {
            return;
        };
        let is_long = now.saturating_duration_since(read.since) >= LONG;
        if is_long && !self.engine.tells_of_stall.swap(true, Ordering::Relaxed) {
            say(self.engine, &read, "takes");
            self.told = Some((read, now + EVERY));
        }
    }

    /// What it waited for is there, or `failure` says why not.
    pub fn end(self, failure: Option<&ReadFailure>) {
        let Some((read, _)) = &self.told else { return };
        let same = |other: &UnderWay| (other.since, other.offset) == (read.since, read.offset);
        let is_over = !self
            .engine
            .queue
            .longest_under_way()
            .is_some_and(|r| same(&r));
        if is_over && failure.is_none() {
            say(self.engine, read, "has ended: it took");
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.told.is_some() {
            self.engine.tells_of_stall.store(false, Ordering::Relaxed);
        }
    }
}

fn say(engine: &Engine, read: &UnderWay, what: &str) {
    let path = engine.queue.files()[read.file as usize].path();
    report::say(&format!(
        "hotset: warning: reading {} bytes at offset {} of {} ({}) {what} {} s",
        read.n_bytes,
        read.offset,
        path.display(),
        engine.holder_of(path, read.offset, read.n_bytes),
        read.since.elapsed().as_secs(),
    ));
}
