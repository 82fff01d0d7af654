//! The cells of a grid and their summary.

use super::trace;
use hotset::replay::grid::{Cell, Grid, Named, Report, Request, policies};
use hotset::replay::{Budget, Replay, Scope};
use hotset::trace::Trace;
use std::path::Path;

fn named(name: &str, text: &str) -> Named {
    Named {
        name: name.to_string(),
        path: Path::new("folder").join(name),
        trace: trace(text),
    }
}

fn request(names: &str, budgets: &[&str], scope: Scope) -> Request {
    let budget = |text: &&str| (text.to_string(), Budget::parse(text).unwrap());
    Request {
        policies: policies(names).unwrap(),
        budgets: budgets.iter().map(budget).collect(),
        scope,
        prior: None,
    }
}

fn run(traces: &[Named], request: &Request) -> Report {
    let n_done = std::sync::atomic::AtomicUsize::new(0);
    let grid = Grid::new(traces, request).unwrap();
    let report = grid.run(&|| {
        n_done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    let report = report.unwrap();
    assert_eq!(n_done.into_inner(), grid.n_cells());
    assert_eq!(report.cells.len(), grid.n_cells());
    report
}

fn cell<'a>(report: &'a Report, trace: &str, budget: &str, policy: &str) -> &'a Cell {
    let is_it = |c: &&Cell| (&*c.trace, &*c.budget, &*c.policy) == (trace, budget, policy);
    let mut found = report.cells.iter().filter(is_it);
    let cell = found.next().expect("there is such a cell");
    assert!(found.next().is_none());
    cell
}

/// One layer of `n_experts`, one expert a token.
fn one_layer(n_experts: u32, experts: &[u32], more: &str) -> String {
    let mut text = format!("{{\"n_layers\":1,\"n_experts\":{n_experts},\"top_k\":1{more}}}\n");
    for (token, expert) in experts.iter().enumerate() {
        text += &format!("{token} 0 {expert}\n");
    }
    text
}

/// Tokens 0, 1 and 2 in turn, with two slots: LRU never hits, the optimum every second time.
fn cycle(n_tokens: u32) -> Vec<u32> {
    (0..n_tokens).map(|token| token % 3).collect()
}

#[test]
fn a_cell_counts_by_hand() {
    let text = one_layer(4, &cycle(24), ",\"expert_bytes\":[100]");
    let report = run(
        &[named("m-a", &text)],
        &request("lru", &["50%"], Scope::Global),
    );
    assert_eq!(report.unit, "bytes");
    let lru = cell(&report, "m-a", "50%", "lru");
    assert_eq!(
        (lru.slots, lru.slot_share, lru.scope),
        (2, 0.5, Scope::Global)
    );
    assert_eq!(
        (lru.hits, lru.misses, lru.evictions),
        (Some(0), Some(24), Some(22))
    );
    assert_eq!(
        (lru.bytes, lru.hit_rate, lru.gap_closed),
        (2400, 0.0, Some(0.0))
    );
    let belady = cell(&report, "m-a", "50%", "belady");
    // Misses are tokens 0, 1, 2, 4, 6, 8, ...; hit rates begin with token 3.
    assert_eq!(
        (belady.hits, belady.misses, belady.evictions),
        (Some(11), Some(13), Some(11))
    );
    assert_eq!(belady.hit_rate, 11.0 / 21.0);
    assert_eq!(belady.hit_rate_cold, 11.0 / 24.0);
    assert_eq!((belady.bytes, belady.gap_closed), (1300, Some(1.0)));
    assert_eq!(report.cells.len(), 2);
}

#[test]
fn without_sizes_experts_are_counted() {
    let with = one_layer(4, &cycle(24), ",\"expert_bytes\":[100]");
    let traces = [named("a", &with), named("b", &one_layer(4, &cycle(24), ""))];
    let report = run(&traces, &request("lru", &["50%"], Scope::Global));
    assert_eq!(report.unit, "experts");
    for name in ["a", "b"] {
        assert_eq!(cell(&report, name, "50%", "lru").bytes, 24);
    }
}

/// Layer 1 always picks the same expert; layer 0 always another one.
#[test]
fn the_worst_layer_is_named() {
    let mut text = "{\"n_layers\":2,\"n_experts\":8,\"top_k\":1}\n".to_string();
    for token in 0..32 {
        text += &format!("{token} 0 {}\n{token} 1 0\n", token % 8);
    }
    let report = run(
        &[named("a", &text)],
        &request("lru", &["25%"], Scope::Layer),
    );
    let lru = cell(&report, "a", "25%", "lru");
    let worst = lru.worst_layer.as_ref().unwrap();
    assert_eq!((worst.layer, worst.hit_rate), (0, 0.0));
    assert_eq!((lru.hit_rate, lru.slots, lru.hits), (0.5, 4, Some(31)));
}

/// Prompts are not counted, unless there is nothing else.
#[test]
fn hit_rates_are_of_what_is_warm() {
    let hits_at = |experts: &[u32], more: &str| {
        let named = [named("a", &one_layer(8, experts, more))];
        let report = run(&named, &request("lru", &["25%"], Scope::Global));
        cell(&report, "a", "25%", "lru").hit_rate
    };
    // 16 tokens: warm from token 2. Tokens 8 to 15 all hit, of 2 to 7 none does.
    let experts = [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7];
    assert_eq!(hits_at(&experts, ""), 8.0 / 14.0);
    let prompt = |first, n| format!(",\"segments\":[[{first},{n},\"prefill\"]]");
    assert_eq!(hits_at(&experts, &prompt(0, 8)), 1.0);
    assert_eq!(hits_at(&experts, &prompt(8, 8)), 0.0);
    assert_eq!(hits_at(&experts, &prompt(0, 16)), 8.0 / 14.0);
    assert_eq!(
        hits_at(&experts, ",\"segments\":[[0,8,\"other\"]]"),
        8.0 / 14.0
    );
    // At most 64 tokens are cold.
    let mut long = vec![0; 1024];
    (0..64).for_each(|token| long[token] = 7 - token as u32 % 8);
    assert_eq!(hits_at(&long, ""), 1.0);
}

#[test]
fn the_summary_weighs_models_not_traces_or_cells() {
    // LFU keeps what is hot, which LRU loses each time, and what was hot once.
    let changes = [[0, 0].repeat(100), [1, 2].repeat(50), cycle(150)].concat();
    // A gap of a fifth of a point, which is none.
    let hot = [vec![0; 500], cycle(6), vec![0; 500]].concat();
    let traces = [
        named("x-a", &one_layer(4, &[0, 0, 1, 2].repeat(100), "")),
        named("x-b", &one_layer(4, &changes, "")),
        named("y-a", &one_layer(4, &[0, 0, 1, 2, 0, 3].repeat(50), "")),
        named("z-hot", &one_layer(4, &hot, "")),
    ];
    let request = request("lfu,lru", &["50%", "75%"], Scope::Global);
    let report = run(&traces, &request);
    let gap = |trace, budget| cell(&report, trace, budget, "lfu").gap_closed;
    let mean = |gaps: &[Option<f64>]| {
        let gaps: Vec<f64> = gaps.iter().flatten().copied().collect();
        assert!(!gaps.is_empty());
        gaps.iter().sum::<f64>() / gaps.len() as f64
    };
    assert_eq!((gap("z-hot", "50%"), gap("z-hot", "75%")), (None, None));
    // For each budget the models that have a gap there count alike.
    let of_budget = |budget| {
        let x = [gap("x-a", budget), gap("x-b", budget)];
        let x = x.iter().any(Option::is_some).then(|| mean(&x));
        let models = [x, gap("y-a", budget)];
        models.iter().any(Option::is_some).then(|| mean(&models))
    };
    let expected = mean(&[of_budget("50%"), of_budget("75%")]);
    let names: Vec<_> = report.summary.iter().map(|s| &*s.policy).collect();
    assert_eq!(names, ["lfu", "lru", "belady"]);
    let lfu = &report.summary[0];
    assert!(
        (lfu.gap_closed.unwrap() - expected).abs() < 1e-12,
        "{lfu:?}"
    );
    assert_eq!(report.summary[1].gap_closed, Some(0.0));
    assert_eq!(report.summary[2].gap_closed, Some(1.0));

    let rate = |trace, budget, policy| cell(&report, trace, budget, policy).hit_rate;
    let mut n_lfu_below = 0;
    let mut n_lru_below = 0;
    for trace in ["x-a", "x-b", "y-a", "z-hot"] {
        for budget in ["50%", "75%"] {
            let (lfu, lru) = (rate(trace, budget, "lfu"), rate(trace, budget, "lru"));
            n_lfu_below += usize::from(lfu < lru - 0.003);
            n_lru_below += usize::from(lru < lfu - 0.003);
        }
    }
    assert!(n_lfu_below > 0 && n_lru_below > 0);
    let counts = |i: usize| {
        let s = &report.summary[i];
        (s.cells, s.cells_below_lru, s.cells_below_best)
    };
    assert_eq!(counts(0), (8, n_lfu_below, n_lfu_below));
    assert_eq!(counts(1), (8, 0, n_lru_below));
    assert_eq!(counts(2), (8, 0, 0));
}

#[test]
fn where_sizes_differ_bytes_have_a_bound() {
    let mut text =
        "{\"n_layers\":2,\"n_experts\":4,\"top_k\":1,\"expert_bytes\":[10,30]}\n".to_string();
    for token in 0..40 {
        text += &format!("{token} 0 {}\n{token} 1 {}\n", token % 4, token % 3);
    }
    let report = run(
        &[named("a", &text)],
        &request("lru", &["60%", "100%"], Scope::Global),
    );
    let bound = cell(&report, "a", "60%", "belady-bytes");
    let belady = cell(&report, "a", "60%", "belady");
    assert_eq!((bound.hits, bound.gap_closed), (None, None));
    assert!(bound.worst_layer.is_none());
    assert!(bound.bytes < belady.bytes, "{bound:?} {belady:?}");
    // 96 of 160 bytes: 24 for the small ones, 72 for the large ones, 16 left over for a small one.
    assert_eq!(bound.slots, 5);
    // All fit: each of the 7 experts in use is read once.
    for policy in ["lru", "belady", "belady-bytes"] {
        let all = cell(&report, "a", "100%", policy);
        assert_eq!(
            (all.bytes, all.hit_rate),
            (4 * 10 + 3 * 30, 1.0),
            "{policy}"
        );
        assert_eq!(
            all.hit_rate_cold,
            if all.hits.is_none() {
                1.0 - 130.0 / 1600.0
            } else {
                73.0 / 80.0
            }
        );
    }
    assert_eq!(report.summary.len(), 2);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let traces = [
        named("a-1", &one_layer(4, &cycle(50), "")),
        named("a-2", &one_layer(6, &cycle(90), "")),
    ];
    let request = request("all", &["20%", "50%", "80%"], Scope::Global);
    let cells = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(n_threads)
            .build()
            .unwrap();
        let mut report = pool.install(|| run(&traces, &request));
        report
            .cells
            .iter_mut()
            .for_each(|cell| cell.ns_per_expert = 0.0);
        report
            .summary
            .iter_mut()
            .for_each(|line| line.ns_per_expert = 0.0);
        serde_json::to_string(&report).unwrap()
    };
    assert_eq!(cells(1), cells(4));
}

/// Rates and bytes are of the events that look into a device. Layers differ in size, so there is a bound in bytes.
#[test]
fn what_a_device_was_not_asked_for_is_left_out() {
    let header = "{\"n_layers\":2,\"n_experts\":4,\"top_k\":2,\"batched\":true,\"expert_bytes\":[5,7],\"pools\":[\
                  {\"layers\":[0],\"slots\":2,\"device\":true},{\"layers\":[1],\"slots\":0,\"device\":true}]}\n";
    let token = |token: u32, ids: &str| format!("{token} 0 {ids}\n{token} 1 {ids}\n");
    let prompt: String = (1..34).map(|token| format!("{token} 0 2,3\n")).collect();
    let lines = [
        token(0, "0,1"),
        prompt,
        token(34, "2,3 aside"),
        token(35, "0,1"),
        token(36, "1,2"),
    ];
    let traces = [named("a", &(header.to_string() + &lines.concat()))];
    let names: Vec<_> = hotset::policy::REGISTRY.iter().map(|p| p.name).collect();
    let report = run(&traces, &request(&names.join(","), &["run"], Scope::Global));
    // Tokens 35 and 36 are warm.
    for cell in &report.cells {
        let what = format!("{cell:?}");
        assert_eq!(cell.hit_rate, 3.0 / 4.0, "{what}");
        assert_eq!(cell.hit_rate_cold, 3.0 / 6.0, "{what}");
        assert_eq!(cell.bytes, 3 * 5, "{what}");
        assert!(cell.misses.is_none_or(|n| n == 3), "{what}");
    }
}

#[test]
fn the_prior_is_the_share_of_tokens() {
    let text = one_layer(4, &[3, 2, 3, 3, 0, 1, 2, 3].repeat(8), "");
    let traces = [named("a", &text)];
    let mut with = request("decay", &["50%"], Scope::Global);
    with.prior = Some(named("prior", &one_layer(4, &[3, 3, 2, 3], "")));
    let mut replay = Replay::new(
        &traces[0].trace.header().shape(),
        &Budget::Share(0.5)
            .pools(
                traces[0].trace.header(),
                &traces[0].trace.header().shape(),
                Scope::Global,
            )
            .unwrap(),
        "decay",
        Some(&[0.0, 0.0, 0.25, 0.75]),
    );
    let hits = replay
        .as_mut()
        .unwrap()
        .run(traces[0].trace.events().map(|(_, e)| e))
        .unwrap();
    let n_hits: u32 = hits.iter().sum();
    let report = run(&traces, &with);
    assert_eq!(cell(&report, "a", "50%", "decay").hits, Some(n_hits.into()));
}

#[test]
fn what_a_trace_lacks_is_said_with_its_path() {
    let refused = |text: &str, request: &Request| {
        let traces = [named("bad", text)];
        let error = Grid::new(&traces, request).err().unwrap().to_string();
        assert!(error.contains("folder/bad"), "{error}");
        error
    };
    let text = one_layer(4, &[0, 1], "");
    let error = refused(&text, &request("lru", &["run"], Scope::Global));
    assert!(error.contains("what pools"), "{error}");
    let error = refused(&text, &request("lru", &["2GiB"], Scope::Global));
    assert!(error.contains("how many bytes"), "{error}");
    let error = refused(
        &one_layer(4, &[], ""),
        &request("lru", &["50%"], Scope::Global),
    );
    assert!(error.contains("no events"), "{error}");
    let mut with = request("lru", &["50%"], Scope::Global);
    with.prior = Some(named("prior", &one_layer(5, &[0], "")));
    let error = refused(&text, &with);
    assert!(
        error.contains("folder/prior") && error.contains("1 of 5"),
        "{error}"
    );
}

#[test]
fn policies_are_named_once_and_lru_is_among_them() {
    assert_eq!(
        policies("lfu,decay:4,lfu").unwrap(),
        ["lru", "lfu", "decay:4"]
    );
    assert_eq!(policies("decay,lru").unwrap(), ["decay", "lru"]);
    assert_eq!(
        policies("all").unwrap().len(),
        hotset::policy::REGISTRY.len()
    );
    for names in ["mru", "", "lru,,lfu", "belady", "decay:0"] {
        let error = policies(names).unwrap_err().to_string();
        assert!(
            error.contains("--policies") && error.contains("lfu"),
            "{error}"
        );
    }
}

/// A recorded trace is read whole for this: it is here, and not in the small ones, that rounding shows.
#[test]
fn cells_say_what_a_replay_of_all_events_says() {
    let trace = Trace::open(&super::data("it.trace.gz"), 500).unwrap();
    let warm = trace.warm();
    assert_eq!(warm.iter().filter(|&&is_warm| !is_warm).count(), 62 * 6);
    let traces = [Named {
        name: "it".into(),
        path: "it".into(),
        trace,
    }];
    let report = run(&traces, &request("decay", &["30%"], Scope::Layer));
    let header = traces[0].trace.header();
    let pools = Budget::Share(0.3)
        .pools(header, &header.shape(), Scope::Layer)
        .unwrap();
    let mut replay = Replay::new(&header.shape(), &pools, "decay", None).unwrap();
    let hits = replay
        .run(traces[0].trace.events().map(|(_, e)| e))
        .unwrap();
    let n_warm: u32 = hits
        .iter()
        .zip(&warm)
        .filter(|(_, w)| **w)
        .map(|(n, _)| n)
        .sum();
    let found = cell(&report, "it", "30%", "decay");
    assert_eq!(found.hit_rate, f64::from(n_warm) / f64::from(438 * 48));
    assert_eq!(
        found.misses,
        Some(500 * 48 - u64::from(hits.iter().sum::<u32>()))
    );
}
