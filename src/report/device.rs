//! What a person reads of devices.

use super::rates::{hindsight_line, hindsight_rates, hits};
use super::table::table;
use crate::device::guard::News;
use crate::device::{DeviceCache, DeviceStats};
use crate::numbers::bytes;
use crate::statistics::percent;
use crate::stats::Tier;
use std::collections::BTreeSet;

/// What devices keep, in lines, and why they do not keep the other layers of those that are `blocks`; for the blocks
/// `too_small` it is the budget, and those that are `repacked` cannot be read.
pub fn device_lines(
    cache: &DeviceCache,
    policy: &str,
    blocks: &[u32],
    [too_small, repacked]: [&[u32]; 2],
) -> Vec<String> {
    let pools = cache.pools();
    let mut lines = Vec::new();
    for pool in &pools {
        lines.push(format!(
            "hotset: {} keeps {} of {} experts of {} layers in {}, policy {policy}",
            pool.device,
            pool.n_slots,
            pool.shape.n_total(),
            pool.layers.len(),
            bytes(u64::from(pool.n_slots) * pool.shape.expert_bytes(0)),
        ));
    }
    let is_kept = |number: usize| pools.iter().any(|pool| pool.layers.contains(&number));
    let unkept = blocks.iter().enumerate().filter(|(i, _)| !is_kept(*i));
    let unkept: BTreeSet<u32> = unkept.map(|(_, block)| *block).collect();
    for block in unkept
        .iter()
        .chain(repacked.iter().filter(|b| !unkept.contains(b)))
    {
        let why = if repacked.contains(block) {
            "they are repacked for the processor (--no-repack)"
        } else if too_small.contains(block) {
            "--moe-cache-mib is too small for them"
        } else {
            "its layer is not computed on a device with a cache"
        };
        lines.push(format!(
            "hotset: no device keeps experts of block {block}: {why}"
        ));
    }
    lines
}

/// That the cache is used from now on, or is not.
pub fn guard_line(news: &News) -> String {
    let batch = match news.n_tokens {
        1 => "a token takes".to_string(),
        n => format!("a batch of {n} tokens or hardly less takes"),
    };
    let next = match news.is_on {
        true => "it is used".to_string(),
        false => format!("it is left aside, and tried again {} later", news.pause),
    };
    format!(
        "hotset: {batch} {:.2} ms with the experts on the device and {:.2} ms without: {next}",
        news.ms_with, news.ms_without
    )
}

/// The part of the table at the end that is about devices; empty if there are none.
pub(super) fn device_text(devices: &[DeviceStats]) -> String {
    if devices.is_empty() {
        return String::new();
    }
    let header = std::iter::once("hotset".to_string());
    let mut rows: Vec<Vec<String>> = vec![
        header
            .chain(devices.iter().map(|d| d.device.clone()))
            .collect(),
    ];
    let mut row = |name: &str, cell: &dyn Fn(&DeviceStats) -> String| {
        let name = std::iter::once(name.to_string());
        rows.push(name.chain(devices.iter().map(cell)).collect());
    };
    row("tokens", &|d| d.generation.tokens.to_string());
    row("experts routed", &|d| d.generation.picks().to_string());
    row("hits", &|d| hits(&d.generation));
    row("misses", &|d| d.generation.misses.to_string());
    row("evictions", &|d| d.generation.evictions.to_string());
    row("uploaded", &|d| bytes(d.bytes_uploaded));
    row("routed uncached", &|d| d.n_uncached.to_string());
    row("of these left aside", &|d| d.n_aside.to_string());
    let table = table(&rows);
    let lines: String = devices.iter().map(lines).collect();
    format!("\n{table}\n{lines}")
}

/// The part of the table at the end that is about all tiers together; empty if there is one only.
pub(super) fn tiers_text(tiers: &[Tier]) -> String {
    if tiers.is_empty() {
        return String::new();
    }
    let header = ["hotset", "experts asked for", "hits", "came there"];
    let mut rows = vec![header.map(str::to_string).to_vec()];
    for (i, tier) in tiers.iter().enumerate() {
        let rate = 100.0 * tier.hit_rate.unwrap_or(0.0);
        // Devices take from memory, and memory from the disk.
        let came = match tiers.len() - i {
            1 => "-".to_string(),
            2 => format!("{} from disk", bytes(tier.bytes_in)),
            _ => format!("{} from memory", bytes(tier.bytes_in)),
        };
        rows.push(vec![
            tier.name.clone(),
            tier.asked.to_string(),
            format!("{} ({rate:.1} %)", tier.hits),
            came,
        ]);
    }
    let table = table(&rows);
    format!("{table}\n")
}

/// The counters in one line, for reports during a run.
pub fn device_line(device: &DeviceStats) -> String {
    let hindsight = device
        .hindsight
        .as_ref()
        .map_or(String::new(), |hindsight| {
            let rates = hindsight_rates(hindsight, &device.policy);
            format!("; on the last {} routed experts {rates}", hindsight.picks)
        });
    format!(
        "hotset: {}: {} tokens; hits {:.1} %; {} uploaded{hindsight}",
        device.device,
        device.generation.tokens,
        percent(device.generation.hits, device.generation.picks()),
        bytes(device.bytes_uploaded),
    )
}

/// What else there is to say of a device.
fn lines(device: &DeviceStats) -> String {
    let hindsight = device
        .hindsight
        .as_ref()
        .map_or(String::new(), hindsight_line);
    format!(
        " {}: policy {}; {} of {} experts of {} layers fit in {}\n{hindsight}\n",
        device.device,
        device.policy,
        device.n_slots,
        device.n_experts,
        device.n_layers,
        bytes(device.slot_bytes),
    )
}
