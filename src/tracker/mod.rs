//! How often each expert was picked and when last: since the start, lately, and with a memory that
//! fades. It is cheap enough to be always on.
//!
//! What is hot in a prompt is mostly not what is hot while generating, so the two are kept apart
//! everywhere ([`Phase`]). Time is counted in visits: the events of one layer in one phase. Wall time
//! would make a slow machine forget.

use crate::expert::{Event, ExpertId, Shape};

mod counts;
mod history;
pub mod unevenness;

pub use counts::LayerCounts;
pub use history::HALF_LIVES;
use history::History;

/// Visits that a window of generation holds.
pub const GENERATION_WINDOW: usize = 256;
/// Visits that a window of prompts holds. They are batches, which pick nearly every expert.
pub const PREFILL_WINDOW: usize = 32;

/// What a model does: see [`Event::is_prefill`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Generating, or reading up to [`Event::DECODE_TOKENS_MAX`] tokens of prompts at a time.
    Decode,
    /// Reading a prompt.
    Prefill,
}

impl Phase {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Decode, Self::Prefill];

    /// That of an event.
    pub fn of(event: &Event) -> Self {
        Self::new(event.is_prefill())
    }

    /// That of a prefill, or of what is none.
    pub fn new(is_prefill: bool) -> Self {
        match is_prefill {
            true => Self::Prefill,
            false => Self::Decode,
        }
    }
}

/// Which visits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// All.
    Lifetime,
    /// The latest [`GENERATION_WINDOW`] or [`PREFILL_WINDOW`].
    Window,
    /// All, each half as much for every so many visits since. The number is one of [`HALF_LIVES`].
    HalfLife(u32),
}

impl Span {
    /// What is hot now, where one number for it is wanted.
    pub const LATELY: Self = Self::HalfLife(64);

    /// All there are.
    pub fn all() -> impl Iterator<Item = Self> {
        let fading = HALF_LIVES.into_iter().map(Self::HalfLife);
        [Self::Lifetime, Self::Window].into_iter().chain(fading)
    }
}

/// What is known of one expert in one phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Tokens that picked it.
    pub n_tokens: u64,
    /// Visits of its layer since the one that used it last; `None` is never.
    pub age: Option<u64>,
}

/// The usage of every expert.
#[derive(Debug)]
pub struct Tracker {
    shape: Shape,
    /// By phase.
    histories: [History; 2],
}

impl Tracker {
    /// Nothing was used yet.
    pub fn new(shape: Shape) -> Self {
        let history = |window| History::new(shape.n_layers(), shape.n_total(), window);
        Self {
            histories: [history(GENERATION_WINDOW), history(PREFILL_WINDOW)],
            shape,
        }
    }

    /// Counts one event, which the caller has checked against the shape.
    pub fn count(&mut self, event: &Event) {
        let (first, n_experts) = self.experts_of(event.layer);
        self.histories[Phase::of(event) as usize].count(event, first, n_experts);
    }

    /// The usage of one expert. Panics if there is no such expert.
    pub fn usage(&self, phase: Phase, id: ExpertId) -> Usage {
        let history = &self.histories[phase as usize];
        let (n_tokens, age) = history.usage(id.layer, self.shape.index(id));
        Usage { n_tokens, age }
    }

    /// Events of `layer`.
    pub fn n_visits(&self, phase: Phase, layer: u32) -> u64 {
        self.histories[phase as usize].layers[layer as usize].n_visits
    }

    /// Tokens of these events.
    pub fn n_tokens(&self, phase: Phase, layer: u32) -> u64 {
        self.histories[phase as usize].layers[layer as usize].n_tokens
    }

    /// Tokens of `layer`, and those that picked each of its experts. Panics if there is no such layer or
    /// half-life.
    pub fn counts(&self, phase: Phase, span: Span, layer: u32) -> LayerCounts {
        let (first, n_experts) = self.experts_of(layer);
        let history = &self.histories[phase as usize];
        match span {
            Span::Lifetime => history.lifetime(layer, first, n_experts),
            Span::Window => history.window(layer, n_experts),
            Span::HalfLife(half_life) => {
                let at = HALF_LIVES.iter().position(|&h| h == half_life);
                let at = at.expect("it is one of HALF_LIVES");
                history.decayed(layer, first, n_experts, at)
            }
        }
    }

    /// The dense index of the first expert of `layer`, and how many it has.
    fn experts_of(&self, layer: u32) -> (usize, usize) {
        let n_experts = self.shape.n_experts(layer) as usize;
        // A dense layer has none, and so no first one.
        let first = match n_experts {
            0 => 0,
            _ => self.shape.index(ExpertId { layer, expert: 0 }),
        };
        (first, n_experts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [u32; 3] = [3, 0, 20];

    /// Layer, tokens, experts (ascending), rows.
    type Recorded = (u32, u32, Vec<u32>, Vec<u32>);

    /// Events of 0 to 6 picks, one in seven a prompt; layers drift from low to high experts, so that
    /// old and new counts differ.
    fn recorded(n: u32) -> Vec<Recorded> {
        let mut state = 1u64;
        let mut below = move |limit: u32| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((state >> 33) % u64::from(limit)) as u32
        };
        let event = |i| {
            let layer = if below(5) == 0 { 0 } else { 2 };
            let n_tokens = if below(7) == 0 {
                33 + below(100)
            } else {
                1 + below(3)
            };
            let mut experts: Vec<u32> = (0..below(7))
                .map(|_| (below(8) + 12 * i / n) % SIZES[layer as usize])
                .collect();
            experts.sort_unstable();
            experts.dedup();
            let rows = experts.iter().map(|_| 1 + below(n_tokens)).collect();
            (layer, n_tokens, experts, rows)
        };
        (0..n).map(event).collect()
    }

    /// Tokens of a layer in a phase, and those that picked an expert, by looking at all events.
    fn obvious(all: &[Recorded], phase: Phase, span: Span, layer: u32, expert: u32) -> (f64, f64) {
        let (mut tokens, mut picks) = (0.0, 0.0);
        let is_prompt = phase == Phase::Prefill;
        let mine = |e: &&Recorded| e.0 == layer && (e.1 > 32) == is_prompt;
        for (age, (_, n_tokens, experts, rows)) in all.iter().rev().filter(mine).enumerate() {
            let weight = match span {
                Span::Lifetime => 1.0,
                Span::Window => f64::from(u8::from(age < if is_prompt { 32 } else { 256 })),
                Span::HalfLife(half_life) => 0.5f64.powf(age as f64 / f64::from(half_life)),
            };
            let at = experts.iter().position(|&e| e == expert);
            tokens += weight * f64::from(*n_tokens);
            picks += weight * at.map_or(0.0, |at| f64::from(rows[at]));
        }
        (tokens, picks)
    }

    fn check(tracker: &Tracker, all: &[Recorded], phase: Phase, layer: u32) {
        let experts = 0..SIZES[layer as usize];
        for span in Span::all() {
            let at = format!("{phase:?} {span:?} layer {layer} event {}", all.len());
            let pairs: Vec<_> = experts
                .clone()
                .map(|expert| obvious(all, phase, span, layer, expert))
                .collect();
            let near = |a: f64, b: f64| (a - b).abs() < 1e-5;
            let counts = tracker.counts(phase, span, layer);
            let actual = counts.frequencies();
            assert_eq!(actual.len(), pairs.len(), "{at}");
            for (actual, (tokens, picks)) in actual.into_iter().zip(&pairs) {
                let expected = if *tokens > 0.0 { picks / tokens } else { 0.0 };
                assert!(near(actual.into(), expected), "{at}: {actual} {expected}");
                let is_exact = !matches!(span, Span::HalfLife(_));
                assert!(!is_exact || actual == expected as f32, "{at}");
            }
            let mut picks: Vec<f64> = pairs.iter().map(|pair| pair.1).collect();
            let total: f64 = picks.iter().sum();
            picks.sort_by(|a, b| b.total_cmp(a));
            for (percent, n_of_20) in [(0, 0), (10, 2), (25, 5), (50, 10), (100, 20)] {
                let n = n_of_20.min((picks.len() * n_of_20).div_ceil(20));
                let expected = picks.iter().take(n).sum::<f64>() / total;
                match counts.coverage(percent) {
                    Some(actual) => assert!(near(actual, expected), "{at}"),
                    None => assert_eq!(total, 0.0, "{at}"),
                }
            }
            let bits = |p: f64| {
                if p > 0.0 {
                    -p / total * (p / total).log2()
                } else {
                    0.0
                }
            };
            match counts.entropy() {
                Some(actual) => assert!(near(actual, picks.into_iter().map(bits).sum()), "{at}"),
                None => assert_eq!(total, 0.0, "{at}"),
            }
        }
        let mine = |e: &&Recorded| e.0 == layer && (e.1 > 32) == (phase == Phase::Prefill);
        let mine: Vec<_> = all.iter().filter(mine).collect();
        assert_eq!(tracker.n_visits(phase, layer), mine.len() as u64);
        let n_tokens: u64 = mine.iter().map(|event| u64::from(event.1)).sum();
        assert_eq!(tracker.n_tokens(phase, layer), n_tokens);
        for expert in experts {
            let usage = tracker.usage(phase, ExpertId { layer, expert });
            let age = mine
                .iter()
                .rev()
                .position(|event| event.2.contains(&expert));
            assert_eq!(usage.age, age.map(|age| age as u64), "{phase:?} {expert}");
            let (_, picks) = obvious(all, phase, Span::Lifetime, layer, expert);
            assert_eq!(usage.n_tokens as f64, picks, "{phase:?} {expert}");
        }
    }

    /// 3000 events fill the windows several times, and scale the units of half-life 4 down eight times.
    #[test]
    fn everything_is_as_if_all_events_were_kept() {
        let all = recorded(3000);
        let mut tracker = Tracker::new(Shape::new(&SIZES));
        for (i, (layer, n_tokens, experts, rows)) in all.iter().enumerate() {
            if i % 499 == 0 || i < 3 {
                for phase in Phase::ALL {
                    (0..3).for_each(|layer| check(&tracker, &all[..i], phase, layer));
                }
            }
            tracker.count(&Event {
                layer: *layer,
                n_tokens: *n_tokens,
                experts,
                rows,
                ..Event::default()
            });
        }
    }

    /// What has been forgotten does not come back, however long ago: 100 000 visits at half-life 4.
    #[test]
    fn the_old_fades_to_nothing() {
        let mut tracker = Tracker::new(Shape::uniform(1, 2));
        for i in 0..100_000 {
            let experts = [u32::from(i > 0)];
            tracker.count(&Event {
                layer: 0,
                n_tokens: 1,
                experts: &experts,
                rows: &[1],
                ..Event::default()
            });
        }
        let counts = |span| tracker.counts(Phase::Decode, span, 0);
        let frequencies = |span| counts(span).frequencies();
        assert_eq!(frequencies(Span::HalfLife(4)), [0.0, 1.0]);
        let [old, new] = frequencies(Span::HalfLife(256))[..] else {
            panic!("of two experts")
        };
        assert!(old == 0.0 && (0.9999..=1.0).contains(&new), "{old} {new}");
        assert_eq!(frequencies(Span::Lifetime), [1e-5, 0.99999]);
        assert_eq!(counts(Span::HalfLife(4)).entropy(), Some(0.0));
    }
}
