//! What `/metrics` says of experts, in Prometheus' text format.
//!
//! Counters never fall. A model that is freed and loaded again, as by a server that sleeps, begins at 0: what it had
//! counted before is kept here and added. Bytes of reads that were recalled are taken back by whoever counts them: the
//! most that was said is said until there is more.

use crate::error::{Error, Result};
use crate::hindsight::Hindsight;
use crate::profile::recognizer::Recognized;
use crate::residency::Tally;
use crate::stats::Stats;
use prometheus::core::Collector;
use prometheus::{CounterVec, Encoder, GaugeVec, Opts, TextEncoder};
use std::collections::BTreeMap;

/// Some values of one name.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name, without the prefix that all of llama-server's have.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    /// Whether it is a gauge; else it is a counter.
    is_gauge: bool,
    /// The labels of each value, besides that of the model.
    labels: &'static [&'static str],
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family {
        name,
        help,
        is_gauge: false,
        labels,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family {
        is_gauge: true,
        ..counter(name, labels, help)
    }
}

const DEVICE: &[&str] = &["device"];
const PHASE: &[&str] = &["phase"];

/// All names. Those of the devices are the ones that other caches of experts have.
pub const FAMILIES: &[Family] = &[
    counter("moe_cache_hits_total", DEVICE, "Experts that a device was asked for and had"),
    counter("moe_cache_misses_total", DEVICE, "Experts that a device was asked for and lacked"),
    gauge("moe_cache_hit_ratio", DEVICE, "Hits of a device's cache, of all that it was asked for"),
    gauge("moe_cache_slots", DEVICE, "Experts that a device's cache can hold"),
    gauge("moe_cache_slots_used", DEVICE, "Experts that a device's cache holds"),
    gauge("moe_cache_size_bytes", DEVICE, "Bytes of a device's cache"),
    counter("moe_cache_uploads_bytes_total", DEVICE, "Bytes of experts that were uploaded to a device"),
    gauge("moe_cache_learning", DEVICE, "1 while a device's cache is filling, 0 when it is steady"),
    gauge("moe_cache_active", &["device", "reason"], "1 if a device's cache is used, 0 with the reason if it is not"),
    counter("moe_ram_hits_total", PHASE, "Experts that memory was asked for and had"),
    counter("moe_ram_misses_total", PHASE, "Experts that memory was asked for and lacked"),
    counter("moe_ram_evictions_total", PHASE, "Experts that left memory for others"),
    counter("moe_ram_bypassed_total", PHASE, "Experts that were missing and got no slot"),
    counter("moe_ram_tokens_total", PHASE, "Tokens whose experts were asked for"),
    counter("moe_ram_read_bytes_total", &[], "Bytes of experts that were read"),
    counter("moe_ram_reads_total", &[], "Reads of experts"),
    counter("moe_ram_stalled_seconds_total", PHASE, "Time that computing waited for reads"),
    counter("moe_ram_busy_seconds_total", PHASE, "Time of batches, with waiting"),
    gauge("moe_ram_budget_bytes", &[], "Memory for experts"),
    gauge("moe_ram_slots", &[], "Experts that memory can hold"),
    gauge("moe_ram_slots_used", &[], "Experts that memory holds"),
    counter("moe_ram_ahead_guesses_total", &[], "Experts that were guessed before they were picked"),
    counter("moe_ram_ahead_reads_total", &[], "Experts that were read ahead"),
    counter("moe_ram_ahead_right_reads_total", &[], "Experts that were read ahead and then picked"),
    counter("moe_ram_ahead_wasted_bytes_total", &[], "Bytes that were read ahead for nothing"),
    gauge("moe_ram_ahead_right_ratio", &[], "Experts that were picked, of those that were read ahead"),
    gauge("moe_hit_ratio", &["policy"], "Hits on the latest routing: active policy, lru, best possible"),
    gauge("moe_profile_info", &["profile"], "1 for the profile that policies go by"),
    gauge("moe_profile_sureness", &["profile"], "How sure it is that the workload is that of the profile, 0 to 1"),
    counter("moe_workload_changes_total", &[], "How often another workload was recognised"),
];

/// What there is to say of a model.
pub struct Metered<'a> {
    /// Its name, which no other one has.
    pub model: &'a str,
    /// Which of the models of this process it is: one that was loaded again is another.
    pub life: u64,
    /// Its counters.
    pub stats: &'a Stats,
    /// Bytes of its slots.
    pub budget_bytes: u64,
    /// What other policies would have done lately.
    pub hindsight: Option<Hindsight>,
    /// The profile that its policies go by.
    pub profile: Option<String>,
    /// What was recognised.
    pub recognized: Option<Recognized>,
    /// Its devices.
    pub devices: Vec<DeviceUse>,
}

/// Whether the cache of a device is used.
#[derive(Debug, Clone)]
pub struct DeviceUse {
    /// The device; empty if there is no cache.
    pub device: String,
    /// Why not, if it is not.
    pub reason: Option<String>,
}

/// A value: its family by name, and its labels, the model first.
type Key = (&'static str, Vec<String>);

/// What a counter has said.
#[derive(Debug, Clone, Default)]
struct Said {
    /// What the latest models have counted, by life.
    lives: BTreeMap<u64, f64>,
    /// What those before them have.
    before: f64,
}

/// Models of one name whose counters are kept apart: of more, the oldest counts no more.
const LIVES_MAX: usize = 8;

impl Said {
    fn note(&mut self, life: u64, value: f64) {
        let latest = self.lives.entry(life).or_default();
        *latest = latest.max(value);
        if self.lives.len() > LIVES_MAX
            && let Some((_, oldest)) = self.lives.pop_first()
        {
            self.before += oldest;
        }
    }

    fn sum(&self) -> f64 {
        self.before + self.lives.values().sum::<f64>()
    }
}

/// What all counters have said, and what the gauges said last.
#[derive(Debug, Default)]
pub struct Counters {
    counters: BTreeMap<Key, Said>,
    gauges: Vec<(Key, f64)>,
}

/// Models whose counters are kept when they are gone, in values: some hundred models.
const KEPT_MAX: usize = 4096;

impl Counters {
    /// The text for `models`, and for the counters of those that were there before. Where there is none, because a server
    /// sleeps, gauges say what they said last, as llama-server's own do.
    pub fn text(&mut self, models: &[Metered]) -> Result<String> {
        if !models.is_empty() {
            self.gauges = models.iter().flat_map(|model| self.take(model)).collect();
        }
        encode(&self.counters, &self.gauges)
    }

    /// A model goes, and this is the last that it has counted.
    pub fn note_end(&mut self, model: &Metered) {
        self.take(model);
    }

    /// Notes the counters of a model, and returns its gauges.
    fn take(&mut self, model: &Metered) -> Vec<(Key, f64)> {
        let mut sheet = Sheet {
            model,
            counters: Vec::new(),
            gauges: Vec::new(),
        };
        sheet.fill();
        for (key, value) in sheet.counters {
            self.note(key, model.life, value);
        }
        sheet.gauges
    }

    fn note(&mut self, key: Key, life: u64, value: f64) {
        if self.counters.len() < KEPT_MAX || self.counters.contains_key(&key) {
            self.counters.entry(key).or_default().note(life, value);
        }
    }
}

fn encode(counters: &BTreeMap<Key, Said>, gauges: &[(Key, f64)]) -> Result<String> {
    let failed = |why: prometheus::Error| Error::system("writing metrics", std::io::Error::other(why));
    let mut families = Vec::new();
    for family in FAMILIES {
        let opts = Opts::new(format!("llamacpp:{}", family.name), family.help);
        let labels: Vec<&str> = std::iter::once("model").chain(family.labels.iter().copied()).collect();
        let is_mine = |key: &Key| key.0 == family.name;
        let collected = match family.is_gauge {
            true => {
                let values = GaugeVec::new(opts, &labels).map_err(failed)?;
                for ((_, labels), value) in gauges.iter().filter(|(key, _)| is_mine(key)) {
                    values.with_label_values(labels).set(*value);
                }
                values.collect()
            }
            false => {
                let values = CounterVec::new(opts, &labels).map_err(failed)?;
                for ((_, labels), said) in counters.iter().filter(|(key, _)| is_mine(key)) {
                    values.with_label_values(labels).inc_by(said.sum());
                }
                values.collect()
            }
        };
        families.extend(collected.into_iter().filter(|family| !family.get_metric().is_empty()));
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text).map_err(failed)?;
    String::from_utf8(text).map_err(|why| Error::system("writing metrics", std::io::Error::other(why)))
}

/// The values of one model.
struct Sheet<'a> {
    model: &'a Metered<'a>,
    counters: Vec<(Key, f64)>,
    gauges: Vec<(Key, f64)>,
}

impl Sheet<'_> {
    fn add(&mut self, name: &'static str, labels: &[&str], value: f64) {
        let family = FAMILIES.iter().find(|family| family.name == name);
        let family = family.expect("all names are in the list");
        assert_eq!(labels.len(), family.labels.len(), "{name}");
        let all = std::iter::once(self.model.model).chain(labels.iter().copied());
        let key = (family.name, all.map(str::to_string).collect());
        match family.is_gauge {
            true => self.gauges.push((key, value)),
            false => self.counters.push((key, value)),
        }
    }

    fn ratio(&mut self, name: &'static str, labels: &[&str], part: u64, whole: u64) {
        if whole > 0 {
            self.add(name, labels, part as f64 / whole as f64);
        }
    }

    fn fill(&mut self) {
        self.devices();
        if self.model.stats.n_experts > 0 {
            self.memory();
        }
        if let Some(hindsight) = self.model.hindsight.clone() {
            for (policy, hits) in [
                ("active", hindsight.active_hits),
                ("lru", hindsight.lru_hits),
                ("best", hindsight.belady_hits),
            ] {
                self.ratio("moe_hit_ratio", &[policy], hits, hindsight.picks);
            }
        }
        if let Some(profile) = &self.model.profile {
            self.add("moe_profile_info", &[profile], 1.0);
        }
        if let Some(recognized) = self.model.recognized.clone() {
            let Recognized {
                name,
                sureness,
                changes,
            } = recognized;
            if self.model.profile.as_ref() != Some(&name) {
                self.add("moe_profile_info", &[&name], 1.0);
            }
            self.add("moe_profile_sureness", &[&name], sureness);
            self.add("moe_workload_changes_total", &[], changes as f64);
        }
    }

    fn devices(&mut self) {
        for device in &self.model.devices {
            let is_active = f64::from(u8::from(device.reason.is_none()));
            let reason = device.reason.as_deref().unwrap_or_default();
            self.add("moe_cache_active", &[&device.device, reason], is_active);
        }
        let mut seen: Vec<&str> = Vec::new();
        for device in &self.model.stats.devices {
            // A device of several contexts: their sum.
            if seen.contains(&device.device.as_str()) {
                continue;
            }
            seen.push(&device.device);
            let same = self.model.stats.devices.iter().filter(|d| d.device == device.device);
            let sum = |of: fn(&crate::device::DeviceStats) -> u64| same.clone().map(of).sum::<u64>();
            let name = &[device.device.as_str()][..];
            let (hits, misses) = (sum(|d| d.generation.hits), sum(|d| d.generation.misses));
            let (slots, used) = (sum(|d| d.n_slots.into()), sum(|d| d.n_resident.into()));
            self.add("moe_cache_hits_total", name, hits as f64);
            self.add("moe_cache_misses_total", name, misses as f64);
            self.ratio("moe_cache_hit_ratio", name, hits, hits + misses);
            self.add("moe_cache_slots", name, slots as f64);
            self.add("moe_cache_slots_used", name, used as f64);
            self.add("moe_cache_size_bytes", name, sum(|d| d.slot_bytes) as f64);
            let uploaded = sum(|d| d.bytes_uploaded + d.bytes_warmed);
            self.add("moe_cache_uploads_bytes_total", name, uploaded as f64);
            let is_filling = used < slots.min(sum(|d| d.n_experts as u64));
            self.add("moe_cache_learning", name, f64::from(u8::from(is_filling)));
        }
    }

    fn memory(&mut self) {
        let stats = self.model.stats;
        let phases = [
            ("generation", &stats.generation, &stats.generation_time),
            ("prompt", &stats.prompt, &stats.prompt_time),
        ];
        for (phase, tally, time) in phases {
            let Tally {
                tokens,
                hits,
                misses,
                evictions,
                staged,
                ..
            } = *tally;
            for (name, n) in [
                ("moe_ram_hits_total", hits),
                ("moe_ram_misses_total", misses),
                ("moe_ram_evictions_total", evictions),
                ("moe_ram_bypassed_total", staged),
                ("moe_ram_tokens_total", tokens),
            ] {
                self.add(name, &[phase], n as f64);
            }
            self.add("moe_ram_stalled_seconds_total", &[phase], time.stalled_ms / 1e3);
            self.add("moe_ram_busy_seconds_total", &[phase], time.busy_ms / 1e3);
        }
        self.add("moe_ram_read_bytes_total", &[], stats.bytes_read as f64);
        self.add("moe_ram_reads_total", &[], stats.n_reads as f64);
        self.add("moe_ram_budget_bytes", &[], self.model.budget_bytes as f64);
        self.add("moe_ram_slots", &[], stats.n_slots.into());
        self.add("moe_ram_slots_used", &[], stats.n_resident.into());
        if let Some(ahead) = &stats.ahead {
            self.add("moe_ram_ahead_guesses_total", &[], ahead.guesses as f64);
            self.add("moe_ram_ahead_reads_total", &[], ahead.reads as f64);
            self.add("moe_ram_ahead_right_reads_total", &[], ahead.right_reads as f64);
            self.add("moe_ram_ahead_wasted_bytes_total", &[], ahead.wasted_bytes as f64);
            self.ratio("moe_ram_ahead_right_ratio", &[], ahead.right_reads, ahead.reads);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceStats;

    fn metered<'a>(stats: &'a Stats, life: u64) -> Metered<'a> {
        Metered {
            model: "a \"b\".gguf",
            life,
            stats,
            budget_bytes: 4096,
            hindsight: None,
            profile: None,
            recognized: None,
            devices: Vec::new(),
        }
    }

    fn value(text: &str, line: &str) -> Option<f64> {
        let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        found.map(|number| number.parse().unwrap())
    }

    #[test]
    fn counters_go_on_when_a_model_is_loaded_again() {
        let stats = |hits: u64, bytes_read: u64| Stats {
            n_experts: 4,
            generation: Tally {
                hits,
                ..Tally::default()
            },
            bytes_read,
            ..Stats::default()
        };
        let hits = "llamacpp:moe_ram_hits_total{model=\"a \\\"b\\\".gguf\",phase=\"generation\"}";
        let read = "llamacpp:moe_ram_read_bytes_total{model=\"a \\\"b\\\".gguf\"}";
        let mut counters = Counters::default();
        let mut said = |models: &[Metered]| {
            let text = counters.text(models).unwrap();
            (value(&text, hits), value(&text, read))
        };
        assert_eq!(said(&[]), (None, None));
        let (first, recalled, again) = (stats(7, 1 << 33), stats(9, 100), stats(2, 5));
        assert_eq!(said(&[metered(&first, 1)]), (Some(7.0), Some(8589934592.0)));
        assert_eq!(said(&[metered(&recalled, 1)]), (Some(9.0), Some(8589934592.0)));
        assert_eq!(said(&[]), (Some(9.0), Some(8589934592.0)), "it sleeps");
        assert_eq!(said(&[metered(&again, 2)]), (Some(11.0), Some(8589934597.0)));
    }

    #[test]
    fn gauges_stay_while_a_server_sleeps() {
        let slots = |n_slots: u32| Stats {
            n_experts: 4,
            n_slots,
            ..Stats::default()
        };
        let gauge = "llamacpp:moe_ram_slots{model=\"a \\\"b\\\".gguf\"}";
        let mut counters = Counters::default();
        let mut said = |models: &[Metered]| value(&counters.text(models).unwrap(), gauge);
        assert_eq!(said(&[]), None);
        assert_eq!(said(&[metered(&slots(3), 1)]), Some(3.0));
        assert_eq!(said(&[]), Some(3.0));
        assert_eq!(said(&[metered(&slots(2), 2)]), Some(2.0));
    }

    #[test]
    fn each_family_is_said_with_help_and_type() {
        let device = DeviceStats {
            device: "CUDA0".to_string(),
            n_experts: 4,
            n_slots: 2,
            n_resident: 1,
            generation: Tally {
                hits: 3,
                misses: 1,
                ..Tally::default()
            },
            ..DeviceStats::default()
        };
        let tally = crate::engine::AheadTally {
            guesses: 4,
            right: 2,
            reads: 4,
            right_reads: 3,
            in_time: 1,
            recalled: 0,
            wasted_bytes: 7,
            token_ms_on: None,
            token_ms_off: None,
        };
        let stats = Stats {
            n_experts: 4,
            ahead: Some(tally),
            devices: vec![device.clone(), device],
            ..Stats::default()
        };
        let model = Metered {
            hindsight: Some(Hindsight {
                picks: 10,
                active_hits: 5,
                ..Hindsight::default()
            }),
            recognized: Some(Recognized {
                name: "it".to_string(),
                sureness: 0.5,
                changes: 2,
            }),
            devices: vec![DeviceUse {
                device: "CUDA0".to_string(),
                reason: Some("it does not pay".to_string()),
            }],
            ..metered(&stats, 1)
        };
        let text = Counters::default().text(&[model]).unwrap();
        for family in FAMILIES {
            let name = format!("llamacpp:{}", family.name);
            let kind = if family.is_gauge { "gauge" } else { "counter" };
            assert_eq!(family.name.ends_with("_total"), !family.is_gauge, "{name}");
            for line in [format!("# HELP {name} {}\n", family.help), format!("# TYPE {name} {kind}\n")] {
                assert_eq!(text.matches(&line).count(), 1, "{line}\n{text}");
            }
            assert!(text.contains(&format!("\n{name}{{")), "{name}\n{text}");
        }
        let hits = "llamacpp:moe_cache_hits_total{device=\"CUDA0\",model=\"a \\\"b\\\".gguf\"}";
        assert_eq!(value(&text, hits), Some(6.0), "{text}");
        assert!(text.contains("reason=\"it does not pay\"} 0\n"), "{text}");
        assert!(text.contains("policy=\"active\"} 0.5\n"), "{text}");
    }
}
