//! What a model's counters say of a run, and of what other policies would have done in it.

use hotset::engine::layout::{Layout, Tensor};
use hotset::engine::{Batch, Engine, Inputs, Routing};
use hotset::measuring::Times;
use hotset::pooled::Pooled;
use hotset::recent_events::{ENGINE_BYTES, PICKS_MAX};
use hotset::report;
use hotset::residency::Tally;
use hotset::stats::Stats;
use hotset::store::{Faults, ModelFile, QueueDepth, QueueKind, QueueOptions};
use hotset::trace::Picks;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const N_EXPERTS: usize = 8;
/// By layer: the last one has a pool of its own.
const PART_BYTES: [usize; 3] = [512, 512, 1024];

/// Three layers, one part each, with a budget of this share of the slots.
fn engine(policy: &str, percent: usize) -> Engine {
    let mut file = tempfile::tempfile().unwrap();
    let mut offset = 0;
    let mut tensor = |(block, n_bytes): (u32, usize)| {
        let tensor = Tensor {
            name: format!("blk.{block}.part"),
            block,
            n_experts: N_EXPERTS as u32,
            n_bytes,
            file: 0,
            offset,
            stride: n_bytes as u64,
        };
        offset += (N_EXPERTS * n_bytes) as u64;
        tensor
    };
    let tensors: Vec<_> = (0..).zip(PART_BYTES).map(&mut tensor).collect();
    file.write_all(&vec![1; offset as usize]).unwrap();
    let file = ModelFile::open(file.as_fd()).unwrap();
    let aligns = [file.align()];
    let all = Layout::new(&tensors, &aligns, u64::MAX).unwrap();
    let slots = all.pools.iter().map(|p| p.slot_bytes * p.n_slots as usize);
    let budget = slots.sum::<usize>() * percent / 100;
    let layout = Layout::new(&tensors, &aligns, budget as u64).unwrap();
    assert_eq!(layout.pools.len(), 2);
    let options = QueueOptions {
        kind: QueueKind::Auto,
        queue_depth: QueueDepth {
            depth: 8,
            ..QueueDepth::default()
        },
        faults: Faults::default(),
    };
    Engine::new(layout, vec![file], policy, options).unwrap()
}

/// Computes `n_tokens` tokens, each with expert 0 and another one of every layer.
fn compute(engine: &Engine, n_tokens: usize) {
    compute_in(engine, n_tokens, &Batch::default());
}

fn compute_in(engine: &Engine, n_tokens: usize, batch: &Batch) {
    for token in 0..n_tokens {
        for layer in 0..PART_BYTES.len() {
            let other = 1 + (token * (1 + layer) + token / 5) % 7;
            let ids = [0, other as i32];
            let mut rows = [0; N_EXPERTS];
            ids.iter().for_each(|&id| rows[id as usize] += 1);
            let routing = Routing {
                picks: Picks::new(&ids, 2, 2),
                n_rows: &rows,
                batch,
                inputs: Inputs::default(),
            };
            engine.route(layer, 0, 1, 1, &routing).unwrap();
            for i in 0.. {
                if engine.acquire(layer, 1, 0, i).unwrap().is_none() {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_whole_run_is_compared_with_what_happened() {
    for policy in ["lru", "lfu"] {
        let engine = engine(policy, 50);
        compute(&engine, 200);
        let stats = Stats::of(&engine, policy).unwrap();
        let hindsight = stats.hindsight.as_ref().unwrap();
        assert!(hindsight.is_whole_run);
        assert_eq!((hindsight.picks, hindsight.warm_picks), (200 * 3 * 2, 0));
        assert_eq!(stats.generation.picks(), hindsight.picks);
        assert_eq!(hindsight.active_hits, stats.generation.hits);
        assert!(hindsight.active_hits > 0 && hindsight.active_hits < hindsight.belady_hits);
        assert_eq!(hindsight.lru_hits == hindsight.active_hits, policy == "lru");
        let recent = Stats::recent(&engine, policy).unwrap().hindsight;
        assert_eq!(recent.as_ref(), Some(hindsight));
        assert!(
            Stats::counters(&engine, policy)
                .unwrap()
                .hindsight
                .is_none()
        );

        // Of eight experts one is in every token: a tenth, rounded up, and half of all picks.
        let heat = stats.generation_heat.as_ref().unwrap();
        assert!((heat.hottest_tenth - 0.5).abs() < 1e-12, "{heat:?}");
        assert!(
            heat.hottest_quarter > 0.55 && heat.hottest_quarter < 0.65,
            "{heat:?}"
        );
        assert!(
            heat.hottest_half > 0.7 && heat.hottest_half < 0.8,
            "{heat:?}"
        );
        assert!(
            heat.entropy_bits > 2.0 && heat.entropy_bits < 2.45,
            "{heat:?}"
        );
        assert_eq!(heat.flat_bits, 3.0);
        assert!(stats.prompt_heat.is_none());
        let text = report::text(&stats);
        let best = 100.0 * hindsight.belady_hits as f64 / 1200.0;
        assert!(text.contains("hit rate on this routing: lru "), "{text}");
        assert!(
            text.contains(&format!("best possible (Belady) {best:.1} %")),
            "{text}"
        );
    }
}

/// 12 000 tokens are 72 000 picks, of which a report during the run looks at 65 536: two thirds of the
/// pool with two of three layers, one third of the other, in whole events of two picks.
#[test]
fn reports_during_a_run_look_at_its_end() {
    let engine = engine("lfu", 100);
    compute(&engine, 12_000);
    let stats = Stats::recent(&engine, "lfu").unwrap();
    let hindsight = stats.hindsight.as_ref().unwrap();
    assert!(!hindsight.is_whole_run);
    assert_eq!(hindsight.picks + hindsight.warm_picks, 43_690 + 21_844);
    assert!((32_767..32_771).contains(&hindsight.picks), "{hindsight:?}");
    // Everything fits, so that after the first half everything hits.
    let hits = [
        hindsight.active_hits,
        hindsight.lru_hits,
        hindsight.belady_hits,
    ];
    assert_eq!(hits, [hindsight.picks; 3]);
    let line = report::line(&stats);
    let expected = format!(
        "; on the last {} routed experts lru 100.0 %, lfu 100.0 %, best possible (Belady) 100.0 %",
        hindsight.picks
    );
    assert!(line.ends_with(&expected), "{line}");
    let at_exit = Stats::of(&engine, "lfu").unwrap().hindsight.unwrap();
    assert!(at_exit.is_whole_run);
    assert_eq!(at_exit.picks, 72_000);
    assert_eq!(at_exit.belady_hits, 72_000 - 24);
}

/// Before, between and after what counts.
#[test]
fn trials_leave_no_trace() {
    let mut trial = Batch::default();
    trial.set_trial(true);
    let run = |has_trials: bool| {
        let engine = engine("adaptive", 50);
        for n_tokens in [0, 5, 200] {
            compute(&engine, n_tokens);
            let before = Stats::of(&engine, "adaptive").map(|stats| stats.n_resident);
            if has_trials {
                compute_in(&engine, 9, &trial);
            }
            let after = Stats::of(&engine, "adaptive").map(|stats| stats.n_resident);
            assert_eq!(after, before);
        }
        let stats = Stats::of(&engine, "adaptive").unwrap();
        Stats {
            model: String::new(),
            busy_ms: 0.0,
            stalled_ms: 0.0,
            generation_time: Times::default(),
            prompt_time: Times::default(),
            // The only counter that is of what was read, whatever for.
            bytes_read_uncounted: 0,
            ..stats
        }
    };
    let json = |stats: Stats| serde_json::to_value(stats).unwrap();
    assert_eq!(json(run(true)), json(run(false)));
    let none = engine("lru", 50);
    compute_in(&none, 3, &trial);
    let stats = Stats::of(&none, "lru").unwrap();
    assert_eq!(stats.generation, Tally::default());
    assert!(stats.hindsight.is_none() && stats.busy_ms == 0.0 && !stats.has_staged);
    assert_eq!(none.meter().bytes_read.load(Relaxed), 0);
    assert_eq!(none.meter().stalled().as_nanos(), 0);
}

/// Scripts read these: a field that goes or changes its name breaks them.
#[test]
fn the_fields_of_the_json_file_stay() {
    let engine = engine("lru", 50);
    compute(&engine, 10);
    let stats = Stats::of(&engine, "lru").unwrap();
    let value = serde_json::to_value(&stats).unwrap();
    let names = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let fields = |text: &str| {
        let mut fields: Vec<_> = text.split_whitespace().map(str::to_string).collect();
        fields.sort();
        fields
    };
    let expected = fields(
        "model policy io n_layers n_experts n_slots n_resident expert_bytes arena_bytes generation prompt \
         n_reads bytes_read n_retries bytes_read_uncounted stalled_ms generation_time prompt_time busy_ms has_staged is_repacked \
         generation_heat prompt_heat hindsight",
    );
    let found = names(&value);
    assert!(
        expected.iter().all(|name| found.contains(name)),
        "{found:?}"
    );
    let hindsight = "picks warm_picks is_whole_run active_hits more_hits lru_hits belady_hits";
    assert_eq!(names(&value["hindsight"]), fields(hindsight));
    let heat = "hottest_tenth hottest_quarter hottest_half entropy_bits flat_bits";
    assert_eq!(names(&value["generation_heat"]), fields(heat));
    assert!(value["prompt_heat"].is_null());
}

/// However often the lock is taken meanwhile, and however long it is held by a change of the size.
#[test]
fn no_report_is_left_out_because_the_engine_is_busy() {
    let engine = engine("lru", 100);
    compute(&engine, 50);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                engine.resize(0).unwrap();
                (0..100).for_each(|_| {
                    engine.size();
                });
                engine.resize(u64::MAX).unwrap();
            }
        });
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                engine.size();
            }
        });
        let n_reports = (0..100)
            .filter(|_| Stats::of(&engine, "lru").is_some())
            .count();
        is_over.store(true, Relaxed);
        assert_eq!(n_reports, 100);
    });
}

/// The log of an engine of which nobody will ask.
#[test]
fn without_a_log_there_is_nothing_to_compare() {
    let mut engine = engine("lru", 50);
    engine.keep_nothing_recent();
    compute(&engine, 50);
    let hindsight = Stats::of(&engine, "lru").unwrap().hindsight.unwrap();
    assert_eq!(
        (
            hindsight.picks,
            hindsight.warm_picks,
            hindsight.is_whole_run
        ),
        (0, 0, false)
    );
    engine.inspect(|_, Pooled { recent: log, .. }| assert_eq!(log.n_bytes(), size_of_val(log)));
}

/// More than the log holds: what is compared is the end of the run, and says so.
#[test]
fn a_long_run_is_compared_with_its_end() {
    let engine = engine("lru", 50);
    compute(&engine, 20_000);
    let stats = Stats::of(&engine, "lru").unwrap();
    let hindsight = stats.hindsight.as_ref().unwrap();
    assert!(!hindsight.is_whole_run);
    let n_picks = hindsight.picks + hindsight.warm_picks;
    assert!(
        n_picks <= PICKS_MAX as u64 && n_picks > PICKS_MAX as u64 * 9 / 10,
        "{hindsight:?}"
    );
    let text = report::text(&stats);
    let expected = format!("hit rate on the last {} routed experts", hindsight.picks);
    assert!(text.contains(&expected), "{text}");
    let mut n_bytes = 0;
    engine.inspect(|_, Pooled { recent: log, .. }| n_bytes += log.n_bytes());
    assert!(n_bytes <= ENGINE_BYTES, "{n_bytes}");
}
