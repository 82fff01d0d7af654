//! The example at the top of `history.rs`.

use super::*;

/// The numbers of the example at the top.
#[test]
fn three_tokens_come_to_what_they_do_by_hand() {
    let row = 0..8;
    let memory = Memory {
        n_tokens: 256,
        carried: 4,
    };
    let mut history = History::new(std::slice::from_ref(&row), 2, memory);
    history.set_discount(0.5);
    let likeness = |history: &History, slot: usize| {
        let planes = history.planes.chunks_exact(history.n_words).rev();
        planes.fold(0, |sum, plane| sum * 2 + (plane[0] >> slot & 1))
    };
    assert_eq!(history.one(), 4.0);
    let steps = [
        ([0, 1], [0, 0], 8.0),
        ([0, 2], [4, 0], 10.0),
        ([0, 1], [8, 5], 10.5),
    ];
    for (picks, likenesses, most) in steps {
        history.note(0, None, &picks);
        assert_eq!([0, 1].map(|slot| likeness(&history, slot)), likenesses);
        assert_eq!(history.most, most);
    }
    let planes: Vec<u64> = history
        .planes
        .iter()
        .step_by(history.n_words)
        .copied()
        .collect();
    assert_eq!(planes, [0b10, 0b00, 0b10, 0b01, 0]);
    let pickers: Vec<u64> = history
        .pickers
        .iter()
        .step_by(history.n_words)
        .copied()
        .collect();
    assert_eq!(pickers[..4], [0b111, 0b101, 0b010, 0]);
    assert_eq!(history.columns[..4], [0b111, 0b101, 0b010, 0]);

    history.find_analogs(2);
    assert_eq!(history.analogs[..history.n_analogs], [0, 1]);
    let is_near = |is: f32, expected: f32| (is - expected).abs() < 0.0005;
    assert!(is_near(history.confidence(), 0.762));
    assert!(is_near(history.shares[0], 0.990) && is_near(history.shares[1], 0.010));

    let mut votes = [1.0; 8];
    history.vote(0, &mut votes);
    for (vote, expected) in votes
        .iter()
        .zip([1.0, 0.505, 0.990, 0.0, 0.0, 0.0, 0.0, 0.0])
    {
        assert!(is_near(*vote, expected), "{votes:?}");
    }
}
