//! Hit rates as people read them.

use crate::hindsight::Hindsight;
use crate::residency::Tally;
use crate::statistics::percent;

pub fn hindsight_line(hindsight: &Hindsight) -> String {
    let window = match hindsight.is_whole_run {
        true => "this routing".to_string(),
        // The caches of the comparison begin empty, the run's was full: see `hindsight.rs`.
        false => format!(
            "the last {} routed experts, after {} to fill the cache",
            hindsight.picks, hindsight.warm_picks
        ),
    };
    format!(
        " hit rate on {window}: {}",
        hindsight_rates(hindsight, "active policy")
    )
}

pub fn hindsight_rates(hindsight: &Hindsight, active: &str) -> String {
    let share = |hits| percent(hits, hindsight.picks);
    format!(
        "lru {:.1} %, {active} {:.1} %, best possible (Belady) {:.1} %",
        share(hindsight.lru_hits),
        share(hindsight.active_hits),
        share(hindsight.belady_hits),
    )
}

/// Hits, and their share of what was routed.
pub fn hits(tally: &Tally) -> String {
    match tally.picks() {
        0 => "-".to_string(),
        n => format!("{} ({:.1} %)", tally.hits, percent(tally.hits, n)),
    }
}
