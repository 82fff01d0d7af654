use super::*;

/// Layer, tokens, experts, rows, ranks.
type Copied = (u32, u32, Vec<u32>, Vec<u32>, Vec<u32>);

fn copied(recent: &RecentEvents) -> Vec<Copied> {
    let copy = |e: Event| {
        let [experts, rows, ranks] = [e.experts, e.rows, e.ranks].map(<[u32]>::to_vec);
        (e.layer, e.n_tokens, experts, rows, ranks)
    };
    recent.iter().map(copy).collect()
}

/// Against a list that keeps everything, with events of 0 to 6 picks in a recent of 10, which wraps
/// many times, and of 3, which some events exceed.
#[test]
fn keeps_the_newest_whole_events() {
    for n_picks_max in [0, 3, 10] {
        let mut recent = RecentEvents::new(n_picks_max);
        let mut all: Vec<Copied> = Vec::new();
        for i in 0..200u32 {
            let experts: Vec<u32> = (0..(i * 5) % 7).map(|e| e * 3 + i).collect();
            let rows = experts
                .iter()
                .map(|e| if i % 3 == 0 { e % 4 + 1 } else { 1 })
                .collect();
            let ranks = experts
                .iter()
                .map(|e| e % 5)
                .filter(|_| i % 4 < 2)
                .collect();
            all.push((i % 4, i + 1, experts, rows, ranks));
            let (layer, n_tokens, experts, rows, ranks) = &all[i as usize];
            recent.push(&Event {
                layer: *layer,
                n_tokens: *n_tokens,
                experts,
                rows,
                ranks,
                ..Event::default()
            });

            let mut n_picks = 0;
            let n_kept = all.iter().rev().take_while(|event| {
                n_picks += event.2.len();
                n_picks <= n_picks_max
            });
            // An event without picks takes no room, so the ones at the edge may stay or go.
            let n_kept = n_kept.count();
            let n_events = recent.n_events();
            assert!(n_events <= n_kept, "max {n_picks_max} event {i}");
            assert!(
                all[all.len() - n_kept..all.len() - n_events]
                    .iter()
                    .all(|e| e.2.is_empty())
            );
            let expected = &all[all.len() - n_events..];
            assert_eq!(copied(&recent), expected, "max {n_picks_max} event {i}");
            assert_eq!(
                recent.n_picks(),
                expected.iter().map(|e| e.2.len()).sum::<usize>()
            );
            assert_eq!(recent.n_events_dropped(), (all.len() - n_events) as u64);
            assert!(recent.blocks.len() <= 2, "dropped values pile up");
        }
    }
}
/// Whose a token is, and where it stands: a draft that stays is heard of before the token after it, layer by layer.
#[test]
fn tokens_are_kept() {
    let mut recent = RecentEvents::new(100);
    let one = |layer, position: &'static [u32]| Event {
        layer,
        n_tokens: 1,
        experts: &[4, 9],
        rows: &[1, 1],
        sequences: &[0],
        positions: position,
        ..Event::default()
    };
    let two = Event {
        n_tokens: 2,
        rows: &[2, 1],
        sequences: &[3, 1],
        positions: &[7, 70],
        picks: &[4, 9, 9, 4],
        ..one(1, &[])
    };
    let pushed = [one(0, &[7]), one(0, &[8]), one(1, &[7]), two, one(1, &[8])];
    pushed.iter().for_each(|event| recent.push(event));
    assert!(recent.iter().eq(pushed));
}

/// A tail is what a smaller recent would hold, and can be written to like one.
#[test]
fn a_tail_is_a_smaller_log() {
    let mut recent = RecentEvents::new(40);
    for i in 0..100u32 {
        let experts: Vec<u32> = (0..1 + (i * 5) % 7).collect();
        let rows = vec![1 + i % 2; experts.len()];
        let ranks = &rows[..experts.len() * (i as usize / 2 % 2)];
        let event = Event {
            layer: i,
            n_tokens: 2,
            experts: &experts,
            rows: &rows,
            ranks,
            ..Event::default()
        };
        recent.push(&event);
        for n_picks_max in [0, 1, 6, 20, 40, 99] {
            let mut tail = recent.tail(n_picks_max);
            let all = copied(&recent);
            let n = tail.n_events();
            assert_eq!(
                copied(&tail),
                all[all.len() - n..],
                "{n_picks_max}, event {i}"
            );
            let n_picks = |events: &[Copied]| events.iter().map(|e| e.2.len()).sum::<usize>();
            assert_eq!(tail.n_picks(), n_picks(&all[all.len() - n..]));
            assert!(tail.n_picks() <= n_picks_max);
            assert!(n == all.len() || n_picks(&all[all.len() - n - 1..]) > n_picks_max);
            let n_pushed = tail.n_events_dropped() + n as u64;
            assert_eq!(n_pushed, u64::from(i) + 1);
            tail.push(&event);
            assert!(n_picks_max < experts.len() || copied(&tail).last() == all.last());
        }
    }
}
/// An event of `n` picks with ranks, and rows in every other one.
fn push_some(recent: &mut RecentEvents, i: u32, n: u32) {
    let experts: Vec<u32> = (0..n).collect();
    let rows = vec![1 + i % 2; experts.len()];
    recent.push(&Event {
        layer: i % 60,
        n_tokens: 1,
        experts: &experts,
        rows: &rows,
        ranks: &experts,
        ..Event::default()
    });
}

/// Bounds of a few blocks, and of none, with events of one pick, of some, and of more than a block holds.
#[test]
fn a_log_stays_within_its_bytes() {
    for n_bytes_max in [0, 100, 5_000, 20_000, 1 << 20] {
        for sizes in [&[1][..], &[8], &[3, 700, 1, 40], &[2000]] {
            let mut recent = RecentEvents::within(n_bytes_max, usize::MAX);
            // Miri checks each access, and needs fewer of them.
            let n_bytes: u32 = if cfg!(miri) { 1 << 15 } else { 3 << 20 };
            let n_pushed = n_bytes / 12 / sizes[0];
            for i in 0..n_pushed {
                push_some(&mut recent, i, sizes[i as usize % sizes.len()]);
                if i % 97 == 0 || i + 9 > n_pushed {
                    let heap = recent.n_bytes() - size_of::<RecentEvents>();
                    let about = format!("{heap} of {n_bytes_max}, {sizes:?}, event {i}");
                    assert!(heap == 0 || recent.n_bytes() <= n_bytes_max, "{about}");
                    let n_all = recent.n_events() as u64 + recent.n_events_dropped();
                    assert_eq!(n_all, u64::from(i) + 1, "{about}");
                    assert_eq!(recent.iter().count(), recent.n_events(), "{about}");
                    let n_picks = recent.iter().map(|e| e.experts.len()).sum::<usize>();
                    assert_eq!(recent.n_picks(), n_picks, "{about}");
                }
            }
            let n_kept = recent.n_events() as u32;
            for (i, event) in (n_pushed - n_kept..).zip(recent.iter()) {
                assert_eq!((event.layer, event.rows[0]), (i % 60, 1 + i % 2));
            }
            let top_k = recent.n_picks() * 8;
            // Little is there for nothing, where there is room for more than a few events.
            let is_roomy =
                !cfg!(miri) && n_bytes_max >= 20_000 && sizes.len() == 1 && sizes[0] < 100;
            assert!(
                !is_roomy || 5 * top_k > n_bytes_max,
                "{top_k} {n_bytes_max}"
            );
        }
    }
}

/// However many pools and contexts there are.
#[test]
fn the_logs_of_a_model_share_what_it_may_take() {
    for n_pools in [1, 3, 60, 900] {
        let pools_of = |n_bytes| (0..n_pools).map(move |_| share(n_bytes, 1, n_pools));
        let contexts = (0..n_pools).map(device_bytes);
        let all = std::iter::once(ENGINE_BYTES).chain(contexts);
        let sum: usize = all.flat_map(pools_of).sum();
        assert!(sum <= MODEL_BYTES && sum > MODEL_BYTES / 2, "{sum}");
    }
    let mut logs: Vec<_> = (0..40)
        .map(|_| RecentEvents::of_pool(ENGINE_BYTES, 1, 40))
        .collect();
    let n_events = if cfg!(miri) { 4_000 } else { 400_000 };
    for i in 0..n_events {
        push_some(&mut logs[i as usize % 40], i, 8);
    }
    let n_bytes: usize = logs.iter().map(RecentEvents::n_bytes).sum();
    let n_picks: usize = logs.iter().map(RecentEvents::n_picks).sum();
    assert!(n_bytes <= ENGINE_BYTES, "{n_bytes}");
    assert!(
        n_picks <= PICKS_MAX && (cfg!(miri) || n_picks > PICKS_MAX * 9 / 10),
        "{n_picks}"
    );
}
