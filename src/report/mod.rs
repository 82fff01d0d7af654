//! What a person reads: the line at the start, the table at the end; and the same as JSON.

mod device;
mod disk;

use crate::engine::{AheadTally, Engine, Warmed};
use crate::error::{Error, Result};
use crate::hindsight::Hindsight;
use crate::output;
use crate::residency::Tally;
use crate::statistics::percent;
use crate::stats::Stats;
use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::Path;

use device::tiers_text;
pub use device::{device_line, device_lines, device_text, guard_line};
pub use disk::disk_lines;

/// Writes `text` and a line end to standard error, at once: other threads write there too.
pub fn say(text: &str) {
    // Nobody is left to tell if this fails.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// A progress bar on standard error for reading `n_bytes`; hidden where that is no terminal.
pub fn bytes_bar(n_bytes: u64) -> ProgressBar {
    let style =
        "hotset: reading experts {bar:30} {binary_bytes} of {binary_total_bytes}, {eta} left";
    let style = ProgressStyle::with_template(style).expect("the template is right");
    ProgressBar::new(n_bytes).with_style(style)
}

/// A progress bar on standard error for reading tokens; hidden where that is no terminal.
pub fn tokens_bar() -> ProgressBar {
    let style = "hotset: reading {bar:30} {human_pos} of {human_len} tokens, {eta} left";
    let style = ProgressStyle::with_template(style).expect("the template is right");
    ProgressBar::new(0).with_style(style)
}

/// Bytes as people read them: `1.5 GiB`.
pub fn bytes(n: u64) -> String {
    ByteSize(n).display().iec().to_string()
}

/// What is active, in one line.
pub fn start_line(engine: &Engine, policy: &str) -> String {
    let layout = engine.layout();
    format!(
        "hotset: {} layers stream {} experts ({}) through {}: {} slots, policy {policy}, {}",
        layout.layers.len(),
        layout.n_experts(),
        bytes(layout.expert_bytes),
        bytes(layout.arena_bytes_start()),
        layout.n_slots_start(),
        engine.queue().about(),
    )
}

/// What was read before the first token for the workload `name`, in one line.
pub fn warm_line(name: &str, warmed: &Warmed) -> String {
    let left = match warmed.n_left {
        0 => String::new(),
        n => format!("; there was no time for {n} more (HOTSET_PREWARM)"),
    };
    format!(
        "hotset: profile '{name}': the hottest {} experts ({}) read in {:.2} s{left}",
        warmed.n_experts,
        bytes(warmed.n_bytes),
        warmed.took.as_secs_f64(),
    )
}

/// The warning about a budget below one token cycle, when each layer uses `n_used` experts a token.
pub fn cycle_line(engine: &Engine, n_used: u32) -> Option<String> {
    let layout = engine.layout();
    let cycle = layout.token_cycle_bytes(n_used);
    let slots = layout.expert_bytes_start();
    (slots < cycle).then(|| {
        format!(
            "hotset: warning: one token uses {} of experts and the budget holds {}: {:.1} MiB are missing, \
             without them policies that go by recency never hit",
            bytes(cycle),
            bytes(slots),
            (cycle - slots) as f64 / (1 << 20) as f64,
        )
    })
}

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
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["hotset", "generation", "prompts"]);
    let mut row = |name: &str, cell: &dyn Fn(&Tally) -> String| {
        table.add_row([
            name.to_string(),
            cell(&stats.generation),
            cell(&stats.prompt),
        ]);
    };
    row("tokens", &|t| t.tokens.to_string());
    row("experts routed", &|t| t.picks().to_string());
    row("hits", &|t| match t.picks() {
        0 => "-".to_string(),
        n => format!("{} ({:.1} %)", t.hits, percent(t.hits, n)),
    });
    row("misses", &|t| t.misses.to_string());
    row("evictions", &|t| t.evictions.to_string());
    for column in 1..3 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
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
    let retries = match stats.n_retries {
        0 => String::new(),
        n => format!("; {n} calls made again"),
    };
    format!(
        "\n{table}\n \
         policy {}; {} of {} experts fit in {} ({:.0} % of {}){short}\n \
         read {} in {} reads ({} a token{retries}), {:.2} s stalled of {:.2} s; {}\n\
         {ahead}{hot}{hindsight}",
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

fn hindsight_line(hindsight: &Hindsight) -> String {
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

fn hindsight_rates(hindsight: &Hindsight, active: &str) -> String {
    let share = |hits| percent(hits, hindsight.picks);
    format!(
        "lru {:.1} %, {active} {:.1} %, best possible (Belady) {:.1} %",
        share(hindsight.lru_hits),
        share(hindsight.active_hits),
        share(hindsight.belady_hits),
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
        .map_err(|cause| Error::Io {
            path: path.to_path_buf(),
            cause,
        })
}
