//! The counters of a model: the table at the end, and a line during the run.

use super::device::{device_text, tiers_text};
use super::rates::{hindsight_line, hindsight_rates, hits};
use super::table::table;
use crate::engine::AheadTally;
use crate::error::{Error, Result};
use crate::numbers::bytes;
use crate::output;
use crate::residency::Tally;
use crate::statistics::percent;
use crate::measuring::Times;
use crate::stats::Stats;
use std::path::Path;

/// The tables at the end.
pub fn text(stats: &Stats) -> String {
    let devices = device_text(&stats.devices);
    // Of a model that is not streamed there is nothing else to say.
    match stats.n_experts {
        0 => devices,
        _ => format!(
            "{}{devices}{}",
            engine_text(stats),
            tiers_text(&stats.tiers)
        ),
    }
}

/// What became of what is streamed.
fn engine_text(stats: &Stats) -> String {
    let mut rows = vec![
        ["hotset", "generation", "prompts"]
            .map(str::to_string)
            .to_vec(),
    ];
    let mut row = |name: &str, cell: &dyn Fn(&Tally) -> String| {
        rows.push(vec![
            name.to_string(),
            cell(&stats.generation),
            cell(&stats.prompt),
        ]);
    };
    row("tokens", &|t| t.tokens.to_string());
    row("experts routed", &|t| t.picks().to_string());
    row("hits", &|t| hits(t));
    row("misses", &|t| t.misses.to_string());
    row("evictions", &|t| t.evictions.to_string());
    let table = table(&rows);
    let n_tokens = stats.generation.tokens + stats.prompt.tokens;
    let hindsight = stats
        .hindsight
        .as_ref()
        .map_or(String::new(), hindsight_line);
    let short = match stats.n_slots_min < stats.n_slots {
        true => format!("; {} while memory was short", stats.n_slots_min),
        false => String::new(),
    };
    let hot = stats.generation_heat.as_ref().map_or(String::new(), |heat| {
        format!(
            " the hottest quarter of a layer's experts got {:.0} % of generation's picks (flat: 25 %)\n",
            100.0 * heat.hottest_quarter
        )
    });
    let ahead = stats.ahead.as_ref().map_or(String::new(), ahead_line);
    let waiting = waiting_line(stats);
    let retries = match stats.n_retries {
        0 => String::new(),
        n => format!("; {n} calls made again"),
    };
    format!(
        "\n{table}\n \
         policy {}; {} of {} experts fit in {} ({:.0} % of {}){short}\n \
         read {} in {} reads ({} a token{retries}), {:.2} s stalled of {:.2} s; {}\n\
         {waiting}{ahead}{hot}{hindsight}",
        stats.policy,
        stats.n_slots,
        stats.n_experts,
        bytes(stats.arena_bytes),
        percent(stats.arena_bytes, stats.expert_bytes),
        bytes(stats.expert_bytes),
        bytes(stats.bytes_read),
        stats.n_reads,
        bytes(stats.bytes_read / n_tokens.max(1)),
        stats.stalled_ms / 1e3,
        stats.busy_ms / 1e3,
        stats.io,
    )
}

/// How long tokens waited while generating, and what would save how much of that; nothing if they did not.
fn waiting_line(stats: &Stats) -> String {
    let n_tokens = stats.generation.tokens as f64;
    let Times {
        busy_ms,
        stalled_ms,
        faster_disk_ms,
        ..
    } = stats.generation_time;
    if n_tokens == 0.0 || busy_ms == 0.0 || stalled_ms == 0.0 {
        return String::new();
    }
    let each = |ms: f64| format!("{:.1}", ms / n_tokens);
    let more = stats.hindsight.as_ref().and_then(|hindsight| {
        let misses = |hits: u64| hindsight.picks.saturating_sub(hits) as f64;
        let before = misses(hindsight.active_hits);
        // Waiting is taken to follow the number of misses.
        let saved = (before - misses(hindsight.more_hits?)).max(0.0) / before.max(1.0);
        Some(format!(", one more GiB about {}", each(saved * stalled_ms)))
    });
    format!(
        " waiting: {} ms of a token's {}; a disk twice as fast would save {}{}\n",
        each(stalled_ms),
        each(busy_ms),
        each(faster_disk_ms),
        more.unwrap_or_default(),
    )
}

/// What became of what was read ahead; nothing if nothing was guessed.
fn ahead_line(ahead: &AheadTally) -> String {
    if ahead.guesses == 0 {
        return String::new();
    }
    let times = match (ahead.token_ms_on, ahead.token_ms_off) {
        (Some(on), Some(off)) => format!("; a token took {on:.1} ms with it, {off:.1} ms without"),
        _ => String::new(),
    };
    format!(
        " read ahead {} experts, {:.0} % right (these are hits), {} for nothing{times}\n",
        ahead.reads,
        percent(ahead.right_reads, ahead.reads),
        bytes(ahead.wasted_bytes),
    )
}

/// The counters in one line, for reports during a run.
pub fn line(stats: &Stats) -> String {
    let (generation, prompt) = (&stats.generation, &stats.prompt);
    let hindsight = stats.hindsight.as_ref().map_or(String::new(), |hindsight| {
        let rates = hindsight_rates(hindsight, &stats.policy);
        format!("; on the last {} routed experts {rates}", hindsight.picks)
    });
    format!(
        "hotset: {} tokens, {} in prompts; hits {:.1} %, in prompts {:.1} %; {} read, {:.2} s stalled of {:.2} s{hindsight}",
        generation.tokens,
        prompt.tokens,
        percent(generation.hits, generation.picks()),
        percent(prompt.hits, prompt.picks()),
        bytes(stats.bytes_read),
        stats.stalled_ms / 1e3,
        stats.busy_ms / 1e3,
    )
}

/// Writes the counters of each model as a JSON array: the whole file or nothing.
pub fn write_json(stats: &[Stats], path: &Path) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(stats).expect("counters are valid JSON");
    text.push(b'\n');
    output::write(path, &text)
        .map(drop)
        .map_err(|cause| Error::io(path, cause))
}
