//! Which events the lines of a valid trace are.

use super::{Copied, copied, gzip, header, read, read_gzip, read_to};
use hotset::expert::Spot;
use hotset::trace::{Header, PoolSpec, Prefill, Segment, Trace};

fn event(first_token: u32, layer: u32, n_tokens: u32, picks: &[(u32, u32)]) -> Copied {
    let (experts, rows) = picks.iter().copied().unzip();
    (first_token, layer, n_tokens, experts, rows)
}

#[test]
fn a_line_is_an_event_of_one_token() {
    let trace = read(&(header("") + "0 0 5,1,7\n0 2 3\n3 0 0\n4 1 2,1")).unwrap();
    let expected = [
        event(0, 0, 1, &[(1, 1), (5, 1), (7, 1)]),
        event(0, 2, 1, &[(3, 1)]),
        event(3, 0, 1, &[(0, 1)]),
        event(4, 1, 1, &[(1, 1), (2, 1)]),
    ];
    assert_eq!(copied(&trace), expected);
    assert_eq!(trace.n_tokens(), 5);
}

#[test]
fn lines_of_a_batch_are_one_event() {
    let text = header(",\"batched\":true")
        + "0 0 5,1\n1 0 1\n2 0 1,6\n\
           0 1 2\n1 1 2\n\n2 1 2\n\
           3 0 4\n\n\n\
           4 0 4\n6 0 4\n";
    let expected = [
        event(0, 0, 3, &[(1, 3), (5, 1), (6, 1)]),
        event(0, 1, 2, &[(2, 2)]),
        event(2, 1, 1, &[(2, 1)]),
        event(3, 0, 1, &[(4, 1)]),
        event(4, 0, 1, &[(4, 1)]),
        event(6, 0, 1, &[(4, 1)]),
    ];
    assert_eq!(copied(&read(&text).unwrap()), expected);
}

/// A mark is of a whole event.
#[test]
fn what_was_left_aside_is_marked() {
    let text =
        header(",\"batched\":true") + "0 0 5,1 aside\n1 0 1 aside\n2 0 1\n3 0 2 aside\n3 1 4\n";
    let trace = read(&text).unwrap();
    let recorded = trace.recorded().map(|r| (r.event.n_tokens, r.is_aside));
    let expected = [(2, true), (1, false), (1, true), (1, false)];
    assert!(recorded.eq(expected));
    for line in [
        "0 0 5,1 asid",
        "0 0 5,1 aside ",
        "0 0 aside",
        "0 0 5 aside aside",
    ] {
        assert!(read(&(header("") + line)).is_err(), "{line:?}");
    }
}

/// So are the sequences: of tokens that were generated, however many.
#[test]
fn what_was_generated_has_sequences() {
    let many: String = (0..40).map(|i| format!("{i} 2 1,0,4 @{i}\n")).collect();
    let text = header(",\"batched\":true")
        + &many
        + "40 0 1,0,5 @3\n41 0 5,6,7 @0\n\n42 0 1 @2 aside\n43 0 2 aside\n44 0 1 @1\n45 0 1,2 @2\n";
    let trace = read(&text).unwrap();
    let events: Vec<_> = trace.events().map(|(_, event)| event).collect();
    assert!(events[0].n_tokens == 40 && !events[0].is_prefill());
    let tokens = |i: usize| {
        let spot = |(spot, picks): (Spot, &[u32])| (spot.seq, spot.pos, picks.to_vec());
        events[i].tokens().map(spot).collect::<Vec<_>>()
    };
    assert_eq!(tokens(0)[39], (39, 39, vec![0, 1, 4]));
    assert_eq!(tokens(1), [(3, 40, vec![0, 1, 5]), (0, 41, vec![5, 6, 7])]);
    assert_eq!(tokens(2), [(2, 42, vec![1])]);
    assert_eq!(tokens(3), []);
    // Where it is not the same number of experts each, nobody says whose they are.
    assert_eq!((events[4].sequences, tokens(4)), (&[1, 2][..], vec![]));
    assert_eq!(events.len(), 5);
    for line in [
        "0 0 5 @",
        "0 0 5 @x",
        "0 0 5 @4294967295",
        "0 0 @1",
        "0 0 5 aside @1",
    ] {
        assert!(read(&(header("") + line)).is_err(), "{line:?}");
    }
}

/// Traces of one sequence each, dealt out.
#[test]
fn sequences_are_put_side_by_side() {
    let tokens = |from: u32| {
        (from..from + 5)
            .map(|i| format!("{i} 0 {}\n{i} 2 7\n", i % 7))
            .collect::<String>()
    };
    let [one, other] = [0, 2].map(|from| read(&(header("") + &tokens(from))).unwrap());
    let parallel = Trace::side_by_side(&[&one, &other], 3).unwrap();
    // Ten tokens, three for each: 0 1 2, 3 4 2, 3 4 5.
    let expected = [
        event(0, 0, 3, &[(0, 1), (3, 2)]),
        event(0, 2, 3, &[(7, 3)]),
        event(3, 0, 3, &[(1, 1), (4, 2)]),
        event(3, 2, 3, &[(7, 3)]),
        event(6, 0, 3, &[(2, 2), (5, 1)]),
        event(6, 2, 3, &[(7, 3)]),
    ];
    assert_eq!(copied(&parallel), expected);
    assert!(
        parallel
            .events()
            .all(|(_, event)| event.sequences == [0, 1, 2])
    );
    assert_eq!(parallel.n_tokens(), 9);

    let batched = read(&(header(",\"batched\":true") + "0 0 1\n1 0 2\n")).unwrap();
    let larger = "{\"n_layers\":4,\"n_experts\":8,\"top_k\":3}\n0 0 1\n";
    let larger = read(larger).unwrap();
    for (other, why) in [
        (&batched, "with others"),
        (&larger, "4 layers of 8 experts, 3 a token"),
    ] {
        let (i, error) = Trace::side_by_side(&[&one, other], 2).err().unwrap();
        assert!(i == 1 && error.contains(why), "{i}: {error}");
    }
}

/// The ranks of each event.
fn ranks(trace: &Trace) -> Vec<Vec<u32>> {
    trace.events().map(|(_, e)| e.ranks.to_vec()).collect()
}

#[test]
fn ids_have_ranks_where_they_are_ranked() {
    let lines = "0 0 5,1,7\n0 1 3\n1 0 1,0\n1 1 3,7,5\n2 0 4,5\n2 1 7\n";
    let alone = [
        vec![1, 0, 2],
        vec![0],
        vec![1, 0],
        vec![0, 2, 1],
        vec![0, 1],
        vec![0],
    ];
    // The best of any token: of experts 0 1 4 5 7, and 3 5 7.
    let together = [vec![1, 0, 0, 0, 2], vec![0, 2, 0]];
    let prompt = ",\"segments\":[[0,3,\"prefill\"]]";
    let whole = Prefill::Batch(3);

    let ranked = header(&format!("{prompt},\"ranked\":true")) + lines;
    assert_eq!(ranks(&read(&ranked).unwrap()), alone);
    let batch = read(&ranked).unwrap().with_prefill(whole);
    assert_eq!(ranks(&batch), together);
    let skipped = header(",\"segments\":[[0,1,\"prefill\"]],\"ranked\":true") + lines;
    let skipped = read(&skipped).unwrap().with_prefill(Prefill::Skip);
    assert_eq!(ranks(&skipped), alone[2..]);
    let batched = header(",\"ranked\":true,\"batched\":true")
        + "0 0 5,1,7\n1 0 1,0\n2 0 4,5\n0 1 3\n1 1 3,7,5\n2 1 7\n";
    assert_eq!(ranks(&read(&batched).unwrap()), together);

    let unranked = header(prompt) + lines;
    assert_eq!(ranks(&read(&unranked).unwrap()), vec![[0u32; 0]; 6]);
    let batch = read(&unranked).unwrap().with_prefill(whole);
    assert_eq!(ranks(&batch), vec![[0u32; 0]; 2]);
}

/// Another context computes its tokens in between, and later tokens come before earlier ones.
#[test]
fn contexts_interleave() {
    let text = header(",\"batched\":true")
        + "10 0 1\n11 0 2\n0 0 3\n10 1 4\n11 1 5\n0 1 6\n0 2 7\n10 2 0\n11 2 0\n";
    let expected = [
        event(10, 0, 2, &[(1, 1), (2, 1)]),
        event(0, 0, 1, &[(3, 1)]),
        event(10, 1, 2, &[(4, 1), (5, 1)]),
        event(0, 1, 1, &[(6, 1)]),
        event(0, 2, 1, &[(7, 1)]),
        event(10, 2, 2, &[(0, 2)]),
    ];
    let trace = read(&text).unwrap();
    assert_eq!(copied(&trace), expected);
    assert_eq!(trace.n_tokens(), 12);
}

#[test]
fn a_limit_keeps_the_first_tokens_and_checks_all() {
    let text = header("") + "0 0 1\n1 0 2\n1 1 3\n2 0 4\n";
    let trace = read_to(&text, 2).unwrap();
    assert_eq!(trace.events().count(), 3);
    assert_eq!(trace.n_tokens(), 2);
    assert!(read_to(&(text + "3 0 8\n"), 2).is_err());

    let batched = header(",\"batched\":true") + "0 0 1\n1 0 2\n2 0 2\n0 1 5\n1 1 5\n2 1 5\n";
    let trace = read_to(&batched, 2).unwrap();
    let expected = [event(0, 0, 2, &[(1, 1), (2, 1)]), event(0, 1, 2, &[(5, 2)])];
    assert_eq!(copied(&trace), expected);
}

#[test]
fn parts_of_a_gzip_file_are_one_text() {
    let parts = [gzip(&(header("") + "0 0 1\n1 ")), gzip("0 2\n")].concat();
    assert_eq!(read_gzip(&parts).unwrap().events().count(), 2);
}

#[test]
fn a_header_is_written_as_it_is_read() {
    let full = Header {
        n_layers: 3,
        n_experts: 8,
        top_k: 3,
        model: Some("m \"quoted\"".to_string()),
        workload: Some("w".to_string()),
        phase: Some("mixed".to_string()),
        n_tokens: Some(7),
        ranked: true,
        segments: vec![Segment {
            first_token: 2,
            n_tokens: 3,
            label: Segment::PREFILL.to_string(),
        }],
        batched: true,
        expert_bytes: vec![100, 200, 100],
        pools: vec![
            PoolSpec {
                layers: vec![0, 2],
                n_slots: 16,
                preloaded: true,
                device: false,
            },
            PoolSpec {
                layers: vec![1],
                n_slots: 0,
                preloaded: false,
                device: false,
            },
        ],
        format: None,
    };
    let text = serde_json::to_string(&full).unwrap();
    assert!(text.contains("\"segments\":[[2,3,\"prefill\"]]"), "{text}");
    assert!(
        text.contains("{\"layers\":[0,2],\"slots\":16,\"preloaded\":true}"),
        "{text}"
    );
    assert_eq!(*read(&text).unwrap().header(), full);

    let least = Header {
        n_layers: 3,
        n_experts: 8,
        top_k: 3,
        ..Header::default()
    };
    let text = serde_json::to_string(&least).unwrap() + "\n";
    assert_eq!(text, header(""));
    assert_eq!(*read(&text).unwrap().header(), least);
    let other = header(",\"licence\":\"MIT\",\"source\":{\"n_layers\":[9]}");
    assert_eq!(*read(&other).unwrap().header(), least);
}

#[test]
fn sizes_of_experts_are_of_the_header_or_else_as_told() {
    let bytes = |trace: Trace| -> Vec<u64> {
        let shape = trace.with_expert_bytes(7).header().shape();
        (0..3).map(|layer| shape.expert_bytes(layer)).collect()
    };
    assert_eq!(bytes(read(&header("")).unwrap()), [7, 7, 7]);
    let known = read(&header(",\"expert_bytes\":[1,2,3]")).unwrap();
    assert_eq!(bytes(known), [1, 2, 3]);
}
