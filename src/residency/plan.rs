//! What a residency accepts, what it decides for one event, and what its decisions add up to.

use crate::error::{Error, Result};
use crate::expert::{Event, ExpertId, Shape};

/// Whether `event` keeps the promises of [`Event`] for a model of shape `shape`.
pub fn check(shape: &Shape, event: &Event) -> Result<()> {
    let Event {
        layer,
        n_tokens,
        experts,
        rows,
        ranks,
    } = *event;
    if layer >= shape.n_layers() {
        return Err(Error::LayerOutOfRange {
            layer,
            n_layers: shape.n_layers(),
        });
    }
    let broken = |why: String| Err(Error::Event { layer, why });
    if experts.len() != rows.len() {
        return broken(format!(
            "{} experts but {} row counts",
            experts.len(),
            rows.len()
        ));
    }
    if !ranks.is_empty() && ranks.len() != experts.len() {
        return broken(format!(
            "{} experts but {} ranks",
            experts.len(),
            ranks.len()
        ));
    }
    if let Some(pair) = experts.windows(2).find(|pair| pair[0] >= pair[1]) {
        return broken(format!(
            "expert {} is not above expert {}",
            pair[1], pair[0]
        ));
    }
    let n_experts = shape.n_experts(layer);
    if let Some(&id) = experts.last().filter(|&&id| id >= n_experts) {
        return Err(Error::ExpertOutOfRange {
            id: id.into(),
            n_experts,
        });
    }
    if n_tokens == 0 || rows.contains(&0) {
        return broken(format!(
            "{n_tokens} tokens and rows {rows:?} must be at least 1"
        ));
    }
    Ok(())
}

/// A slot gets a new expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// The expert, of the plan's layer.
    pub expert: u32,
    /// Where its bytes go.
    pub slot: u32,
    /// Whose bytes were there; it is no longer resident.
    pub victim: Option<ExpertId>,
}

/// Where an operation finds the experts of one event. Read it, but leave changing it to `Residency`.
///
/// Every expert of the event is in exactly one of the three lists.
#[derive(Debug, Default)]
pub struct Plan {
    /// The layer of the event.
    pub layer: u32,
    /// Resident already: expert and slot, ascending.
    pub hits: Vec<(u32, u32)>,
    /// To be read into a slot: ascending, or hottest first if the event is a scan.
    pub fills: Vec<Fill>,
    /// To be used without a slot, ascending.
    pub bypassed: Vec<u32>,
    pub(super) n_tokens: u32,
    pub(super) is_scan: bool,
    /// The value of `Residency::n_changes` when this was planned.
    pub(super) number: u64,
    pub(super) state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Idle,
    Planned,
    Committed,
}

impl Plan {
    /// Whether it holds pins.
    pub fn in_flight(&self) -> bool {
        self.state != State::Idle
    }

    /// Whether it is committed and not released yet.
    pub fn is_committed(&self) -> bool {
        self.state == State::Committed
    }

    pub(super) fn begin(&mut self, event: &Event, number: u64) {
        self.layer = event.layer;
        self.n_tokens = event.n_tokens;
        self.is_scan = event.is_scan();
        self.hits.clear();
        self.fills.clear();
        self.bypassed.clear();
        self.number = number;
        self.state = State::Planned;
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        let hits = self.hits.iter().map(|&(_, slot)| slot);
        hits.chain(self.fills.iter().map(|fill| fill.slot))
    }
}

/// What happened to the picks of many events; a pick is one expert of one event.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Events.
    pub events: u64,
    /// Tokens, counted at layer 0.
    pub tokens: u64,
    /// Picks that were resident.
    pub hits: u64,
    /// Picks that were not.
    pub misses: u64,
    /// Residents that made room for a miss.
    pub evictions: u64,
    /// Misses that got no slot.
    pub bypassed: u64,
}

impl Tally {
    /// Adds the picks of another pool. Its tokens are the same ones, counted at its own layer 0.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.tokens = self.tokens.max(other.tokens);
        self.hits += other.hits;
        self.misses += other.misses;
        self.evictions += other.evictions;
        self.bypassed += other.bypassed;
    }

    /// Hits and misses.
    pub fn picks(&self) -> u64 {
        self.hits + self.misses
    }
}

/// The tallies of generation and of prompts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Events that are not scans.
    pub decode: Tally,
    /// Events that are.
    pub scan: Tally,
}

impl Counts {
    /// The tally that an event belongs to.
    pub(crate) fn of(&mut self, is_scan: bool) -> &mut Tally {
        if is_scan {
            &mut self.scan
        } else {
            &mut self.decode
        }
    }

    /// Hits of both.
    pub fn hits(&self) -> u64 {
        self.decode.hits + self.scan.hits
    }
}
