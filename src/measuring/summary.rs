//! What the runs of a row add up to.

use super::run::{Run, Traffic};
use super::{Binds, Bound, COMPUTE, Record, STOCK, Spread, Together};
use crate::error::Result;
use super::times::Times;
use serde::Serialize;
use std::collections::BTreeMap;

/// The workload of rows that are about all of them.
pub const ALL: &str = "all";

/// What the runs of a row say.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The workload, or [`ALL`].
    pub workload: String,
    /// The limit, as in [`Record`].
    pub limit: String,
    /// The variant, as in [`Record`].
    pub variant: String,
    /// Runs of the row.
    pub n_runs: usize,
    /// Tokens of the prompt in a second.
    pub prefill_tokens_per_s: Spread,
    /// Tokens generated in a second.
    pub decode_tokens_per_s: Spread,
    /// How many times as fast as stock llama.cpp under the same limit it reads the prompt, by medians.
    pub prefill_ratio: Option<f64>,
    /// The same while generating.
    pub decode_ratio: Option<f64>,
    /// What hotset's counters say of generating.
    pub decode: Option<Traced>,
    /// What they say of reading the prompt, by token of the prompt.
    pub prefill: Option<Traced>,
    /// The limit of the control group; null without one, or if it differs.
    pub cap_bytes: Option<u64>,
    /// The most memory that any run took at once: of the group where it is known, else of the process.
    pub peak_bytes: u64,
    /// Page faults with a read, by token that was generated.
    pub major_faults_per_token: f64,
}

/// Medians of what hotset's counters say.
#[derive(Debug, Clone, Serialize)]
pub struct Traced {
    /// The part of the picks whose expert was in memory.
    pub hit_rate: f64,
    /// Bytes that missed, by token.
    pub bytes_per_token: f64,
    /// The part of the time in which computing waited for reads.
    pub stall_share: f64,
    /// The part of the possible speed that was reached.
    pub fraction: Spread,
    /// The least milliseconds of a token where computing and the disk slow each other as they did in the reference;
    /// null where that was not measured.
    pub shared_bound_ms: Option<f64>,
    /// What binds it in most runs.
    pub binds: Binds,
    /// What reading ahead counted, by its names for it.
    pub ahead: BTreeMap<String, f64>,
    /// Where the time of a token went. `busy_ms` is all of it, also outside of the layers.
    pub token: Times,
}

/// A phase of a run that streamed.
struct Part {
    traffic: Traffic,
    ms: f64,
    n_tokens: usize,
    bound: Bound,
    shared_bound_ms: Option<f64>,
}

/// What the reference of a workload says of a phase: milliseconds of a token alone, and beside a busy disk.
#[derive(Clone, Copy, Default)]
struct Reference {
    compute_ms: Option<f64>,
    together: Option<Together>,
}

impl Part {
    /// Of a phase that `reference` computed without misses.
    fn new(
        (traffic, ms, n_tokens): (Traffic, f64, usize),
        reference: Reference,
        disk_bytes_per_s: f64,
    ) -> Self {
        // What was read ahead for nothing need not have been read.
        let wasted = traffic.ahead.get("wasted_bytes").copied().unwrap_or(0.0);
        let missed = (traffic.missed_bytes as f64 - wasted).max(0.0) / n_tokens as f64;
        let Reference { compute_ms, together } = reference;
        let both = compute_ms.zip(together);
        Self {
            traffic,
            ms,
            n_tokens,
            bound: Bound::of(compute_ms, missed, disk_bytes_per_s),
            shared_bound_ms: both.map(|(ms, together)| Bound::shared_ms(ms, missed, disk_bytes_per_s, together)),
        }
    }

    fn bytes_per_token(&self) -> f64 {
        self.traffic.missed_bytes as f64 / self.n_tokens as f64
    }

    fn fraction(&self) -> f64 {
        self.bound.fraction(self.ms / self.n_tokens as f64)
    }
}

/// One row for each workload, limit and variant, in the order of the records; then, if there are several
/// workloads, one for each limit and variant over all of them.
pub fn summarize(records: &[Record], disk_bytes_per_s: f64) -> Result<Vec<Summary>> {
    let mut keys: Vec<[&str; 3]> = Vec::new();
    let mut all: Vec<[&str; 3]> = Vec::new();
    for r in records {
        let key = [r.workload.as_str(), r.limit.as_str(), r.variant.as_str()];
        for (keys, key) in [(&mut keys, key), (&mut all, [ALL, key[1], key[2]])] {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    if keys.iter().any(|key| key[0] != keys[0][0]) {
        keys.extend(all);
    }
    let mut rows = Vec::new();
    for key in keys {
        rows.push(row(records, key, disk_bytes_per_s)?);
    }
    let speeds: Vec<_> = rows
        .iter()
        .filter(|row| row.variant == STOCK)
        .map(|row| {
            let key = (row.workload.clone(), row.limit.clone());
            let speed = [
                row.prefill_tokens_per_s.median,
                row.decode_tokens_per_s.median,
            ];
            (key, speed)
        })
        .collect();
    for row in &mut rows {
        let is_same = |key: &(String, String)| (&key.0, &key.1) == (&row.workload, &row.limit);
        if let Some((_, [prefill, decode])) = speeds.iter().find(|(key, _)| is_same(key)) {
            row.prefill_ratio = Some(row.prefill_tokens_per_s.median / prefill);
            row.decode_ratio = Some(row.decode_tokens_per_s.median / decode);
        }
    }
    Ok(rows)
}

fn row(records: &[Record], key: [&str; 3], disk_bytes_per_s: f64) -> Result<Summary> {
    let [workload, limit, variant] = key;
    let of_workload = |r: &&Record| workload == ALL || r.workload == workload;
    let is_it = |r: &&Record| of_workload(r) && r.limit == limit && r.variant == variant;
    let runs: Vec<&Record> = records.iter().filter(is_it).collect();
    let spread = |of: &dyn Fn(&Run) -> f64| {
        Spread::of(runs.iter().map(|r| of(&r.run))).expect("a row has runs")
    };
    let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
    for r in &runs {
        let run = &r.run;
        let is_it = |c: &&Record| c.variant == COMPUTE && c.workload == r.workload;
        let reference = |of: &dyn Fn(&Run) -> Option<f64>| {
            let found = records.iter().filter(is_it);
            Spread::of(found.filter_map(|c| of(&c.run))).map(|spread| spread.median)
        };
        if let Some(traffic) = run.prefill_traffic()? {
            let part = (traffic, run.prefill.ms, run.n_prompt);
            let alone = Reference {
                compute_ms: reference(&|run| Some(run.prefill.ms / run.n_prompt as f64)),
                together: None,
            };
            prefills.push(Part::new(part, alone, disk_bytes_per_s));
        }
        if let Some(traffic) = run.decode_traffic()? {
            let part = (traffic, run.decode.ms, run.tokens.len());
            let token_ms = reference(&|run| Some(run.together?.token_ms));
            let bytes_per_s = reference(&|run| Some(run.together?.bytes_per_s));
            let both = token_ms.zip(bytes_per_s);
            let alone = Reference {
                compute_ms: reference(&|run| Some(run.decode_ms_per_token())),
                together: both.map(|(token_ms, bytes_per_s)| Together { token_ms, bytes_per_s }),
            };
            decodes.push(Part::new(part, alone, disk_bytes_per_s));
        }
    }
    let caps: Vec<_> = runs.iter().map(|r| r.cap_bytes).collect();
    let peak = |r: &&Record| r.peak_bytes.unwrap_or(r.run.peak_rss_bytes);
    let faults = |run: &Run| run.decode.major_faults as f64 / run.tokens.len() as f64;
    Ok(Summary {
        workload: workload.to_string(),
        limit: limit.to_string(),
        variant: variant.to_string(),
        n_runs: runs.len(),
        prefill_tokens_per_s: spread(&Run::prefill_tokens_per_s),
        decode_tokens_per_s: spread(&Run::decode_tokens_per_s),
        prefill_ratio: None,
        decode_ratio: None,
        decode: traced(&decodes),
        prefill: traced(&prefills),
        cap_bytes: caps[0].filter(|_| caps.iter().all(|cap| *cap == caps[0])),
        peak_bytes: runs.iter().map(peak).max().unwrap_or(0),
        major_faults_per_token: spread(&faults).median,
    })
}

/// Medians of where the time of a token went.
fn token(parts: &[Part]) -> Option<Times> {
    let median = |of: fn(&Times) -> f64| {
        let each = parts.iter().map(|part| of(&part.traffic.times) / part.n_tokens as f64);
        Some(Spread::of(each)?.median)
    };
    let all = parts.iter().map(|part| part.ms / part.n_tokens as f64);
    Some(Times {
        busy_ms: Spread::of(all)?.median,
        stalled_ms: median(|t| t.stalled_ms)?,
        early_ms: median(|t| t.early_ms)?,
        bookkeeping_ms: median(|t| t.bookkeeping_ms)?,
        disk_idle_ms: median(|t| t.disk_idle_ms)?,
        faster_disk_ms: median(|t| t.faster_disk_ms)?,
    })
}

fn traced(parts: &[Part]) -> Option<Traced> {
    let spread = |of: &dyn Fn(&Part) -> f64| Spread::of(parts.iter().map(of));
    let names = parts.iter().flat_map(|part| part.traffic.ahead.keys());
    let ahead = names.filter_map(|name| {
        let numbers = parts.iter().filter_map(|p| p.traffic.ahead.get(name));
        Some((name.clone(), Spread::of(numbers.copied())?.median))
    });
    let n_disk = parts.iter().filter(|p| p.bound.by == Binds::Disk).count();
    Some(Traced {
        hit_rate: spread(&|part| part.traffic.hit_rate)?.median,
        bytes_per_token: spread(&Part::bytes_per_token)?.median,
        stall_share: spread(&|part| part.traffic.stalled_ms / part.ms)?.median,
        fraction: spread(&Part::fraction)?,
        shared_bound_ms: Spread::of(parts.iter().filter_map(|part| part.shared_bound_ms)).map(|s| s.median),
        binds: match 2 * n_disk > parts.len() {
            true => Binds::Disk,
            false => Binds::Compute,
        },
        ahead: ahead.collect(),
        token: token(parts)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measuring::Phase;
    use serde_json::json;

    fn record(key: [&str; 3], repetition: u32, decode_ms: f64, missed: u64) -> Record {
        let stats = |n: u64| {
            json!({
                "bytes_read": n, "stalled_ms": n as f64 / 1e5, "arena_bytes": 1, "n_slots": 1, "n_resident": 1,
                "generation": {"hits": n / 1000, "misses": n / 1000}, "prompt": {"hits": 0, "misses": 0},
            })
        };
        let [workload, limit, variant] = key.map(str::to_string);
        let phase = |ms, n: u64| Phase {
            ms,
            major_faults: 6,
            read_bytes: 0,
            stats: (key[2] != STOCK).then(|| stats(n)),
        };
        Record {
            workload,
            limit,
            variant,
            repetition,
            cap_bytes: Some(1000),
            budget_bytes: None,
            peak_bytes: Some(500 + u64::from(repetition)),
            run: Run {
                n_prompt: 10,
                prefill: phase(100.0, 0),
                decode: phase(decode_ms, missed),
                tokens: vec![1, 2, 3, 4],
                ..Run::default()
            },
        }
    }

    fn find<'a>(rows: &'a [Summary], key: [&str; 3]) -> &'a Summary {
        let is_it = |r: &&Summary| [&r.workload, &r.limit, &r.variant] == key;
        rows.iter().find(is_it).unwrap_or_else(|| panic!("{key:?}"))
    }

    #[test]
    fn a_row_has_medians_ratios_and_the_fraction_of_its_bound() {
        let mut records = Vec::new();
        for (repetition, stock_ms, lru_ms) in
            [(1, 800.0, 200.0), (2, 400.0, 160.0), (3, 600.0, 400.0)]
        {
            records.push(record(["it", "", COMPUTE], repetition, 40.0, 0));
            records.push(record(["it", "40%", STOCK], repetition, stock_ms, 0));
            // 1 MB a token at 50 MB/s take 20 ms, and 10 ms are computed.
            records.push(record(["it", "40%", "lru"], repetition, lru_ms, 4_000_000));
        }
        let rows = summarize(&records, 50e6).unwrap();
        assert_eq!(rows.len(), 3, "no rows about all of one workload");
        let lru = find(&rows, ["it", "40%", "lru"]);
        assert_eq!(lru.n_runs, 3);
        let expected = Spread {
            median: 20.0,
            min: 10.0,
            max: 25.0,
        };
        assert_eq!(lru.decode_tokens_per_s, expected);
        // 600 ms against 200.
        assert!((lru.decode_ratio.unwrap() - 3.0).abs() < 1e-9, "{lru:?}");
        assert_eq!(lru.prefill_ratio, Some(1.0));
        assert_eq!((lru.peak_bytes, lru.cap_bytes), (503, Some(1000)));
        assert_eq!(lru.major_faults_per_token, 1.5);
        let decode = lru.decode.as_ref().unwrap();
        assert_eq!((decode.hit_rate, decode.bytes_per_token), (0.5, 1e6));
        // 40 ms of 160, 200 and 400.
        assert_eq!(decode.stall_share, 0.2);
        assert_eq!(decode.binds, Binds::Disk);
        // 20 ms of 50, 40 and 100.
        assert_eq!((decode.fraction.median, decode.fraction.max), (0.4, 0.5));
        assert!(find(&rows, ["it", "40%", STOCK]).decode.is_none());
        assert!(find(&rows, ["it", "", COMPUTE]).decode_ratio.is_none());

        // A quarter of the bytes was read ahead for nothing: 15 ms of 50.
        let mut wasting = records.clone();
        for record in wasting.iter_mut().filter(|r| r.variant == "lru") {
            let stats = record.run.decode.stats.as_mut().unwrap();
            stats["ahead"] = json!({"wasted_bytes": 1_000_000});
        }
        let rows = summarize(&wasting, 50e6).unwrap();
        let decode = find(&rows, ["it", "40%", "lru"]).decode.as_ref().unwrap();
        assert!((decode.fraction.median - 0.3).abs() < 1e-9, "{decode:?}");

        // Beside each other computing takes 16 ms instead of 10, and the disk delivers 40 MB/s.
        let mut sharing = records.clone();
        for record in sharing.iter_mut().filter(|r| r.variant == COMPUTE) {
            record.run.together = Some(Together {
                token_ms: 16.0,
                bytes_per_s: 40e6,
            });
        }
        let rows = summarize(&sharing, 50e6).unwrap();
        let decode = find(&rows, ["it", "40%", "lru"]).decode.as_ref().unwrap();
        // Computing ends first, after 16 ms, when 12.8 of 20 were read.
        assert!((decode.shared_bound_ms.unwrap() - 23.2).abs() < 1e-9, "{decode:?}");
        assert_eq!(decode.fraction.median, 0.4);

        // A faster disk: computing binds. 10 ms of 50.
        let rows = summarize(&records, 500e6).unwrap();
        let lru = find(&rows, ["it", "40%", "lru"]);
        let decode = lru.decode.as_ref().unwrap();
        assert_eq!(
            (decode.binds, decode.fraction.median),
            (Binds::Compute, 0.2)
        );
    }

    #[test]
    fn several_workloads_are_also_counted_together() {
        let mut records = vec![
            record(["it", "", COMPUTE], 1, 40.0, 0),
            record(["it", "40%", "lru"], 1, 400.0, 0),
            record(["en", "", COMPUTE], 1, 80.0, 0),
            record(["en", "40%", "lru"], 1, 400.0, 0),
        ];
        records[3].cap_bytes = None;
        let rows = summarize(&records, 1e9).unwrap();
        assert_eq!(rows.len(), 6);
        let all = find(&rows, [ALL, "40%", "lru"]);
        assert_eq!((all.n_runs, all.cap_bytes), (2, None));
        // Each against the computing of its own workload.
        let fraction = all.decode.as_ref().unwrap().fraction;
        assert_eq!((fraction.min, fraction.max), (0.1, 0.2));
    }
}
