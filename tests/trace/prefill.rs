//! The ways to replay a prompt.

use super::{copied, header, read};
use hotset::trace::{Prefill, Trace};

/// Tokens 1 to 5 are a prompt, of which token 3 has no line of layer 0; 6 is another prompt.
fn mixed() -> Trace {
    let segments = ",\"segments\":[[0,1,\"a\"],[1,5,\"prefill\"],[6,1,\"prefill\"],[7,1,\"b\"]]";
    let mut text = header(segments);
    for token in 0..8 {
        if token != 3 {
            text += &format!("{token} 0 {}\n", token % 2);
        }
        text += &format!("{token} 1 7,{}\n", token % 3);
    }
    read(&text).unwrap()
}

#[test]
fn as_recorded() {
    assert_eq!(
        copied(&mixed().with_prefill(Prefill::Decode)),
        copied(&mixed())
    );
}

#[test]
fn in_batches() {
    let trace = mixed().with_prefill(Prefill::Batch(3));
    let expected = [
        (0, 0, 1, vec![0], vec![1]),
        (0, 1, 1, vec![0, 7], vec![1, 1]),
        // Tokens 1, 2 and 3, of which two have layer 0.
        (1, 0, 2, vec![0, 1], vec![1, 1]),
        (1, 1, 3, vec![0, 1, 2, 7], vec![1, 1, 1, 3]),
        // Tokens 4 and 5.
        (4, 0, 2, vec![0, 1], vec![1, 1]),
        (4, 1, 2, vec![1, 2, 7], vec![1, 1, 2]),
        (6, 0, 1, vec![0], vec![1]),
        (6, 1, 1, vec![0, 7], vec![1, 1]),
        (7, 0, 1, vec![1], vec![1]),
        (7, 1, 1, vec![1, 7], vec![1, 1]),
    ];
    assert_eq!(copied(&trace), expected);
    assert_eq!(trace.n_tokens(), 8);
    let one = mixed().with_prefill(Prefill::Batch(1));
    assert_eq!(copied(&one), copied(&mixed()));
    let whole = mixed().with_prefill(Prefill::Batch(u32::MAX));
    assert_eq!(whole.events().filter(|(token, _)| *token == 1).count(), 2);
    assert_eq!(whole.events().nth(2).unwrap().1.n_tokens, 4);
}

#[test]
fn not_at_all() {
    let trace = mixed().with_prefill(Prefill::Skip);
    let tokens: Vec<u32> = trace.events().map(|(token, _)| token).collect();
    assert_eq!(tokens, [0, 0, 7, 7]);
    assert_eq!(trace.n_tokens(), 8);
}

/// A batched trace has its prompts as they were: in large events.
#[test]
fn of_a_batched_trace() {
    let text = |n_prompt: u32| {
        let mut text = header(",\"batched\":true");
        (0..n_prompt).for_each(|token| text += &format!("{token} 0 1\n"));
        text + &format!("\n{n_prompt} 0 1\n\n{} 0 1\n", n_prompt + 1)
    };
    let trace = read(&text(33)).unwrap();
    assert_eq!(trace.warm(), [false, true, true]);
    assert_eq!(
        copied(&trace),
        copied(&read(&text(33)).unwrap().with_prefill(Prefill::Batch(4)))
    );
    assert_eq!(trace.with_prefill(Prefill::Skip).events().count(), 2);
    let small = read(&text(32)).unwrap();
    assert_eq!(small.with_prefill(Prefill::Skip).events().count(), 3);
}

#[test]
fn hit_rates_count_what_is_warm_and_no_prompt() {
    let trace = mixed();
    // An eighth of 8 tokens is one; 7 is the only one that is neither cold nor of a prompt.
    let warm: Vec<u32> = trace
        .events()
        .zip(trace.warm())
        .filter_map(|((token, _), is_warm)| is_warm.then_some(token))
        .collect();
    assert_eq!(warm, [7, 7]);
    // Nothing is left of this but what is cold.
    let text = header(",\"segments\":[[1,15,\"prefill\"]]") + "0 0 1\n1 0 1\n15 0 1\n";
    assert_eq!(read(&text).unwrap().warm(), [true; 3]);
    assert!(read(&header("")).unwrap().warm().is_empty());
}
