//! What the experts of a request have cost: of each sequence, from one answer to the next.
//!
//! What happens between the begin of a batch and the begin of the next is shared by its sequences by their tokens. A
//! server computes all batches in one thread, and asks in that thread, so all this is the thread's own. A request that was
//! cancelled, or that was for embeddings, of which nobody asks, is counted with the next one of its sequence.

use super::bound::each_model;
use super::speaker;
use crate::engine::Totals;
use crate::live::Answer;
use crate::numbers::bytes;
use crate::statistics::percent;
use serde::Serialize;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static IS_COUNTED: AtomicBool = AtomicBool::new(false);
static IS_SAID: AtomicBool = AtomicBool::new(false);

/// Whether anything is counted, and said in a line.
pub fn count_if(is_counted: bool, is_said: bool) {
    IS_COUNTED.store(is_counted, Relaxed);
    IS_SAID.store(is_said, Relaxed);
}

/// See [`count_if`].
pub fn are_counted() -> bool {
    IS_COUNTED.load(Relaxed)
}

#[derive(Default)]
struct Ledger {
    /// What everything had cost when the batch began.
    before: Totals,
    /// The sequences of the batch, and how many of its tokens each has.
    batch: Vec<(i32, u32)>,
    costs: HashMap<i32, Cost>,
}

/// What experts have cost.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Cost {
    hits: f64,
    misses: f64,
    bytes_read: f64,
    stalled_ms: f64,
}

/// The same, as it is told among the timings of a request, which are numbers.
#[derive(Serialize)]
struct Told {
    #[serde(rename = "experts_hits")]
    hits: u64,
    #[serde(rename = "experts_misses")]
    misses: u64,
    #[serde(rename = "experts_bytes_read")]
    bytes_read: u64,
    #[serde(rename = "experts_stalled_ms")]
    stalled_ms: f64,
}

thread_local! {
    static LEDGER: RefCell<Ledger> = RefCell::default();
}

/// A batch begins with a token of each of these sequences.
pub fn begin(seqs: impl Iterator<Item = i32>) {
    LEDGER.with_borrow_mut(|ledger| {
        ledger.close(totals());
        for seq in seqs {
            match ledger.batch.iter_mut().find(|(s, _)| *s == seq) {
                Some((_, n_tokens)) => *n_tokens += 1,
                None => ledger.batch.push((seq, 1)),
            }
        }
    });
}

/// The request of a sequence has been computed. Returns what its experts cost, if any are streamed, and says so.
pub fn end(seq: i32) -> Option<Answer> {
    let cost = LEDGER.with_borrow_mut(|ledger| {
        ledger.close(totals());
        ledger.costs.remove(&seq)
    })?;
    let told = Told {
        hits: cost.hits.round() as u64,
        misses: cost.misses.round() as u64,
        bytes_read: cost.bytes_read.round() as u64,
        stalled_ms: (1e3 * cost.stalled_ms).round() / 1e3,
    };
    if told.hits + told.misses == 0 {
        return None;
    }
    if IS_SAID.load(Relaxed) {
        speaker::say(format!(
            "hotset: request of slot {seq}: {:.1} % of {} experts were in memory, {} read, {:.0} ms stalled",
            percent(told.hits, told.hits + told.misses),
            told.hits + told.misses,
            bytes(told.bytes_read),
            told.stalled_ms
        ));
    }
    Some(Answer::json(&told))
}

/// What all models have cost so far.
fn totals() -> Totals {
    let mut sum = Totals::default();
    each_model(|model| {
        if let Some(engine) = model.made_engine() {
            let totals = engine.totals();
            sum.hits += totals.hits;
            sum.misses += totals.misses;
            sum.bytes_read += totals.bytes_read;
            sum.stalled += totals.stalled;
        }
    });
    sum
}

impl Ledger {
    /// The batch has ended, when everything had cost `now`: each of its sequences bears its part.
    fn close(&mut self, now: Totals) {
        let before = std::mem::replace(&mut self.before, now);
        let n_tokens: u32 = self.batch.iter().map(|(_, n)| n).sum();
        for (seq, n) in self.batch.drain(..) {
            let part = f64::from(n) / f64::from(n_tokens.max(1));
            let of = |now: u64, before: u64| now.saturating_sub(before) as f64 * part;
            let cost = self.costs.entry(seq).or_default();
            cost.hits += of(now.hits, before.hits);
            cost.misses += of(now.misses, before.misses);
            cost.bytes_read += of(now.bytes_read, before.bytes_read);
            cost.stalled_ms +=
                now.stalled.saturating_sub(before.stalled).as_secs_f64() * 1e3 * part;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(n: u64) -> Totals {
        Totals {
            hits: 3 * n,
            misses: n,
            bytes_read: 100 * n,
            stalled: Duration::from_millis(n),
        }
    }

    #[test]
    fn sequences_bear_what_their_batches_cost() {
        let mut ledger = Ledger::default();
        ledger.close(at(10));
        ledger.batch = vec![(0, 3), (1, 1)];
        ledger.close(at(14));
        ledger.batch = vec![(1, 1)];
        ledger.close(at(15));
        // The model was loaded again.
        ledger.batch = vec![(1, 1)];
        ledger.close(at(0));
        let cost = |n: f64| Cost {
            hits: 3.0 * n,
            misses: n,
            bytes_read: 100.0 * n,
            stalled_ms: n,
        };
        assert_eq!(ledger.costs[&0], cost(3.0));
        assert_eq!(ledger.costs[&1], cost(2.0));
    }
}
