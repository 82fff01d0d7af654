//! What is so, in sentences.

use super::answers::{Device, Plan, Point, Stats};
use super::client::printable;
use super::history::Counted;
use bytesize::ByteSize;
use hotset::numbers::bytes;
use std::path::Path;

/// Below this part of the time, waiting for the disk does not matter.
const STALLED_LITTLE: f64 = 0.05;
/// From this on it is what matters most.
const STALLED_MUCH: f64 = 0.30;
/// Fewer points of the hit rate are little.
const POINTS_MIN: f64 = 1.0;

/// The server and its model.
pub fn server(url: &str, stats: Option<&Stats>) -> String {
    let model = stats.map_or(String::new(), |stats| {
        let path = Path::new(&stats.model);
        let name = path.file_name().unwrap_or(path.as_os_str());
        format!("  {}", printable(&name.to_string_lossy()))
    });
    format!("{url}{model}")
}

/// Policy, budget and uptime.
pub fn settings(stats: &Stats) -> String {
    let live = &stats.live;
    let memory = match stats.n_experts {
        0 => "no experts are streamed".to_string(),
        _ => format!(
            "experts have {} of {} (budget {})",
            bytes(live.budget_bytes),
            bytes(live.budget_bytes_max),
            printable(&live.ram),
        ),
    };
    let policy = printable(&stats.policy);
    format!("policy {policy}; {memory}; up {}", age(live.uptime_s))
}

/// Whether it works, what limits it, and what more memory would bring. `when` is when `counted` was counted.
pub fn sentences(counted: &Counted, when: &str, stats: &Stats, plan: Option<&Plan>) -> [String; 3] {
    [
        working(counted, when, stats),
        limit(counted),
        more_memory(stats, plan),
    ]
}

fn working(counted: &Counted, when: &str, stats: &Stats) -> String {
    let Some(hit_rate) = counted.hit_rate() else {
        return match counted.prompt_tokens > 0.0 {
            true => format!(
                "Only prompts were read {when}: {:.0} tokens.",
                counted.prompt_tokens
            ),
            false => format!("Idle: nothing was generated {when}."),
        };
    };
    let devices = || stats.devices.iter();
    let (place, n_slots, n_experts) = match stats.n_experts {
        0 => (
            "a device",
            devices().map(|d| d.n_slots).sum(),
            devices().map(|d| d.n_experts).sum(),
        ),
        n => ("memory", stats.n_slots, n),
    };
    let fits = (n_slots as f64 / (n_experts as f64).max(1.0)).min(1.0);
    // What chance would give is a cache that nobody needs.
    let verdict = match (fits >= 1.0, hit_rate > fits) {
        (true, _) => "All experts fit",
        (false, true) => "It works",
        (false, false) => "It does not help yet",
    };
    format!(
        "{verdict}: {:.1} % of picks hit {place} {when}; {:.0} % of experts fit.",
        100.0 * hit_rate,
        100.0 * fits,
    )
}

fn limit(counted: &Counted) -> String {
    let Some(stalled) = counted.stalled_share() else {
        return "What limits it shows when something is computed.".to_string();
    };
    let percent = format!("{:.0} %", 100.0 * stalled);
    if stalled < STALLED_LITTLE {
        format!("Computing limits it: it waits for the disk {percent} of the time.")
    } else if stalled < STALLED_MUCH {
        format!("Computing limits it, and the disk a little: it waits {percent} of the time.")
    } else {
        format!("The disk limits it: it waits for reads {percent} of the time.")
    }
}

fn more_memory(stats: &Stats, plan: Option<&Plan>) -> String {
    let live = &stats.live;
    if stats.n_experts == 0 {
        return "No experts are streamed: HOTSET_RAM at the start would do so.".to_string();
    }
    if live.budget_bytes >= live.budget_bytes_max {
        return "All experts are in memory: more of it would bring nothing.".to_string();
    }
    let Some(plan) = plan else {
        return "What more memory would bring is not known yet.".to_string();
    };
    let now = &plan.now;
    let more = |row: &&Point| row.budget_bytes >= now.budget_bytes + plan.step_bytes;
    let Some(row) = plan.rows.iter().find(more).or(plan.rows.last()) else {
        return "What more memory would bring shows when some tokens were generated.".to_string();
    };
    let points = row.hit_percent - now.hit_percent;
    let size = bytes(row.budget_bytes.saturating_sub(now.budget_bytes));
    let speed = match (now.tokens_per_s, row.tokens_per_s) {
        (Some(before), Some(then)) => format!(", {before:.1} -> {then:.1} tokens/s"),
        _ => String::new(),
    };
    match points >= POINTS_MIN {
        true => format!("More memory helps: {size} more bring {points:.1} points{speed}."),
        false => format!("More memory helps little: {size} more, {points:.1} points{speed}."),
    }
}

/// A bar, and what it means.
pub struct Gauge {
    pub name: String,
    /// The part of it that is full, of 1.
    pub share: f64,
    pub text: String,
}

/// Devices, memory and disk. `now` is what was counted in the latest seconds, if that is known.
pub fn gauges(stats: &Stats, now: Option<&Counted>) -> Vec<Gauge> {
    let rate = |n: f64| now.and_then(|now| now.per_second(n));
    let devices = stats.devices.iter().enumerate();
    let mut all: Vec<Gauge> = devices
        .map(|(at, device)| {
            let bytes_in = now.and_then(|now| now.device_bytes.get(at).copied());
            device_gauge(device, bytes_in.and_then(rate))
        })
        .collect();
    if stats.n_experts == 0 {
        return all;
    }
    let live = &stats.live;
    all.push(Gauge {
        name: "memory".to_string(),
        share: part(stats.n_resident, stats.n_slots),
        text: format!(
            "{} of {} slots used, {} experts; {} free",
            stats.n_resident,
            stats.n_slots,
            stats.n_experts,
            bytes(live.available_bytes)
        ),
    });
    let n_bytes = now.map_or(0.0, |now| now.bytes_read);
    let read = rate(n_bytes);
    let text = match (read, live.disk_bytes_per_s) {
        (Some(read), Some(speed)) => {
            format!("reads {} now of {}", per_second(read), per_second(speed))
        }
        (Some(read), None) => format!("reads {} now; its speed was not measured", per_second(read)),
        (None, Some(speed)) => format!("can read {}", per_second(speed)),
        (None, None) => "its speed was not measured".to_string(),
    };
    let share = |(read, speed): (f64, f64)| read / speed.max(1.0);
    all.push(Gauge {
        name: "disk".to_string(),
        share: read.zip(live.disk_bytes_per_s).map_or(0.0, share).min(1.0),
        text,
    });
    all
}

fn device_gauge(device: &Device, bytes_in: Option<f64>) -> Gauge {
    let picks = device.generation.hits + device.generation.misses;
    let hits = match picks {
        0 => String::new(),
        n => format!(", hits {:.1} %", 100.0 * part(device.generation.hits, n)),
    };
    let bytes_in = bytes_in.map_or(String::new(), |n| format!(", {} in", per_second(n)));
    Gauge {
        name: printable(&device.device),
        share: part(device.n_resident, device.n_slots),
        text: format!(
            "{} of {} slots used, {}{hits}{bytes_in}",
            device.n_resident,
            device.n_slots,
            bytes(device.slot_bytes)
        ),
    }
}

fn part(of: u64, all: u64) -> f64 {
    (of as f64 / (all as f64).max(1.0)).min(1.0)
}

fn per_second(n: f64) -> String {
    format!("{}/s", ByteSize(n.round() as u64).display().si())
}

/// The workload and the profiles.
pub fn profile(stats: &Stats) -> String {
    let profile = &stats.live.profile;
    let mut parts = Vec::new();
    if let Some(workload) = &profile.workload {
        let changes = match workload.changes {
            0 => String::new(),
            1 => ", changed once".to_string(),
            n => format!(", changed {n} times"),
        };
        parts.push(format!(
            "workload {} ({:.0} % sure{changes})",
            workload.name,
            100.0 * workload.sureness
        ));
    }
    if !profile.used.is_empty() {
        parts.push(format!("started with {}", profile.used.join(", ")));
    }
    if let Some(folder) = &profile.folder {
        parts.push(format!("chooses from {folder}"));
    }
    if let Some(path) = &profile.saves_to {
        parts.push(format!("saves to {path}"));
    }
    match parts.is_empty() {
        true => "Profiles: none is used or saved".to_string(),
        false => printable(&format!("Profiles: {}", parts.join("; "))),
    }
}

/// A time as people say it.
pub fn age(seconds: f64) -> String {
    let s = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (s / 60, s / 3600, s / 86400);
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{minutes} min"),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn counted(hits: f64, misses: f64, stalled_ms: f64) -> Counted {
        Counted {
            hits,
            misses,
            stalled_ms,
            busy_ms: 100.0,
            ..Counted::default()
        }
    }

    #[test]
    fn a_verdict_is_of_what_chance_would_give() {
        let stats = sample::stats();
        let text = |hits, misses| working(&counted(hits, misses, 0.0), "now", &stats);
        assert_eq!(
            text(9.0, 1.0),
            "It works: 90.0 % of picks hit memory now; 28 % of experts fit."
        );
        assert!(text(2.0, 8.0).starts_with("It does not help yet: 20.0 %"));
        assert_eq!(text(0.0, 0.0), "Idle: nothing was generated now.");
        let prompts = Counted {
            prompt_tokens: 70.0,
            ..Counted::default()
        };
        let text = working(&prompts, "now", &stats);
        assert_eq!(text, "Only prompts were read now: 70 tokens.");
        let all = Stats {
            n_slots: stats.n_experts,
            ..stats
        };
        assert!(working(&counted(1.0, 1.0, 0.0), "now", &all).starts_with("All experts fit"));
    }

    #[test]
    fn waiting_decides_what_limits() {
        let text = |ms| limit(&counted(1.0, 1.0, ms));
        assert!(text(4.0).starts_with("Computing limits it: it waits for the disk 4 %"));
        assert!(text(20.0).starts_with("Computing limits it, and the disk a little"));
        assert!(text(31.0).starts_with("The disk limits it: it waits for reads 31 %"));
        let text = limit(&Counted::default());
        assert_eq!(text, "What limits it shows when something is computed.");
    }

    #[test]
    fn more_memory_is_worth_what_the_plan_says() {
        let mut stats = sample::stats();
        let mut plan = sample::plan();
        assert_eq!(
            more_memory(&stats, Some(&plan)),
            "More memory helps: 2.0 MiB more bring 9.1 points, 83.0 -> 101.5 tokens/s."
        );
        plan.rows[2].hit_percent = plan.now.hit_percent + 0.4;
        plan.now.tokens_per_s = None;
        assert_eq!(
            more_memory(&stats, Some(&plan)),
            "More memory helps little: 2.0 MiB more, 0.4 points."
        );
        plan.rows.clear();
        assert!(more_memory(&stats, Some(&plan)).ends_with("when some tokens were generated."));
        assert!(more_memory(&stats, None).ends_with("not known yet."));
        stats.live.budget_bytes = stats.live.budget_bytes_max;
        assert!(more_memory(&stats, None).starts_with("All experts are in memory"));
        stats.n_experts = 0;
        assert!(more_memory(&stats, None).starts_with("No experts are streamed"));
    }

    #[test]
    fn ages_have_two_units_at_most() {
        let ages = [-1.0, 59.9, 60.0, 7380.0, 90_000.0].map(age);
        assert_eq!(ages, ["0 s", "59 s", "1 min", "2 h 3 min", "1 d 1 h"]);
    }

    #[test]
    fn gauges_are_of_each_tier() {
        let mut stats = sample::stats();
        stats.devices = vec![sample::device()];
        let now = Counted {
            seconds: 2.0,
            bytes_read: 1.6e9,
            device_bytes: vec![4e6],
            ..Counted::default()
        };
        let all = gauges(&stats, Some(&now));
        let texts: Vec<String> = all
            .iter()
            .map(|g| format!("{}: {}", g.name, g.text))
            .collect();
        assert_eq!(
            texts,
            [
                "CUDA0: 12 of 16 slots used, 640.0 KiB, hits 75.0 %, 2.0 MB/s in",
                "memory: 104 of 108 slots used, 384 experts; 2.0 GiB free",
                "disk: reads 800.0 MB/s now of 1.6 GB/s",
            ]
        );
        assert_eq!((all[0].share, all[2].share), (0.75, 0.5));
        assert_eq!(gauges(&stats, None)[2].text, "can read 1.6 GB/s");
        stats.n_experts = 0;
        assert_eq!(gauges(&stats, None).len(), 1);
    }
}
