//! Events of many tokens: generated side by side, or read.

use crate::model::Rng;
use crate::{by_name, names};
use hotset::expert::{Event, ExpertId, Shape};
use hotset::residency::{Buffers, Plan, Residency};

const N_MANY: u32 = 64;

/// Plans, commits and releases an event of layer 0 in which each token picked all `experts`; returns its fills,
/// victims and what was staged. `sequences` says who generates.
fn step(
    residency: &mut Residency,
    n_tokens: u32,
    experts: &[u32],
    sequences: &[u32],
) -> [Vec<u32>; 3] {
    let event = Event {
        n_tokens,
        experts,
        rows: &vec![n_tokens; experts.len()],
        sequences,
        positions: &vec![0; sequences.len()],
        picks: if sequences.len() > 1 {
            &experts.repeat(sequences.len())
        } else {
            &[]
        },
        ..Event::default()
    };
    let planned = residency.plan(&event, Buffers::default()).unwrap();
    let Plan { fills, staged, .. } = &*planned;
    let victims = fills
        .iter()
        .filter_map(|fill| fill.victim)
        .map(|id| id.expert);
    let mut outcome = [
        fills.iter().map(|fill| fill.expert).collect(),
        victims.collect(),
        staged.clone(),
    ];
    outcome
        .iter_mut()
        .for_each(|experts: &mut Vec<u32>| experts.sort_unstable());
    let committed = residency.commit(planned);
    residency.release(committed);
    residency.validate();
    outcome
}

/// Eight slots, all of what generation has used.
fn full(name: &str) -> Residency {
    let shape = Shape::uniform(1, 16);
    let mut residency = Residency::new(shape.clone(), 8, by_name(name, &shape));
    for _ in 0..3 {
        step(&mut residency, 1, &[0, 1, 2, 3], &[]);
        step(&mut residency, 1, &[4, 5, 6, 7], &[]);
    }
    residency
}

/// However many sequences there are, what they pick gets slots; the same experts picked by a prompt do not.
#[test]
fn many_sequences_evict_and_a_prompt_does_not() {
    for name in names() {
        let read = step(&mut full(&name), N_MANY, &[8, 9, 10], &[]);
        assert_eq!(
            read,
            [vec![], vec![], vec![8, 9, 10]],
            "{name}: the prompt pushed something out"
        );
        let sequences: Vec<u32> = (0..N_MANY).collect();
        let mut residency = full(&name);
        let [fills, victims, staged] = step(&mut residency, N_MANY, &[8, 9, 10], &sequences);
        assert_eq!(
            (fills, victims.len(), staged),
            (vec![8, 9, 10], 3, vec![]),
            "{name}"
        );
        let again = step(&mut residency, N_MANY, &[8, 9, 10], &sequences);
        assert_eq!(
            again,
            [vec![0u32; 0], vec![], vec![]],
            "{name}: they stayed"
        );
        assert_eq!(
            residency.counts().prefill.events,
            0,
            "{name}: nothing was read"
        );
    }
}

/// Where nothing is generated, as by what embeds and ranks, what is resident follows what is read. What generation
/// has used stays.
#[test]
fn what_is_read_replaces_what_was_read() {
    for name in names() {
        let shape = Shape::uniform(1, 16);
        let mut residency = Residency::new(shape.clone(), 8, by_name(&name, &shape));
        step(&mut residency, N_MANY, &[0, 1, 2, 3, 4, 5, 6, 7], &[]);
        step(&mut residency, 1, &[0, 1], &[]);
        let other_text = [6, 7, 8, 9, 10, 11, 12];
        let first = step(&mut residency, N_MANY, &other_text, &[]);
        assert_eq!(
            first,
            [vec![8, 9, 10, 11], vec![2, 3, 4, 5], vec![12]],
            "{name}"
        );
        let again = step(&mut residency, N_MANY, &other_text, &[]);
        assert_eq!(
            again,
            [vec![], vec![], vec![12]],
            "{name}: it flushed itself"
        );
        let back = step(&mut residency, 1, &[0, 1], &[]);
        assert_eq!(
            back,
            [vec![0u32; 0], vec![], vec![]],
            "{name}: what generation uses went"
        );
    }
}

/// What a profile has brought is for what will be generated: a prompt that comes first leaves it alone.
#[test]
fn a_prompt_leaves_what_was_warmed() {
    for name in names() {
        let shape = Shape::uniform(1, 16);
        let mut residency = Residency::new(shape.clone(), 8, by_name(&name, &shape));
        assert_eq!(residency.fill_free(0..8).len(), 8);
        let read = step(&mut residency, N_MANY, &[7, 8, 9, 10], &[]);
        assert_eq!(read, [vec![], vec![], vec![8, 9, 10]], "{name}");
    }
}

/// What is held elsewhere too goes before all else, whoever asks.
#[test]
fn spares_go_first() {
    for (sequences, name) in [false, true]
        .into_iter()
        .flat_map(|is_generated| names().into_iter().map(move |name| (is_generated, name)))
    {
        let sequences: Vec<u32> = (0..N_MANY).filter(|_| sequences).collect();
        let mut residency = full(&name);
        for expert in [6, 2] {
            residency.spare(ExpertId { layer: 0, expert });
        }
        let [fills, victims, _] = step(&mut residency, N_MANY, &[8, 9], &sequences);
        assert_eq!((fills, victims), (vec![8, 9], vec![2, 6]), "{name}");
    }
}

/// Where a token is decides nothing as long as it is alone.
#[test]
fn tokens_one_after_the_other_need_no_places() {
    let shape = Shape::uniform(3, 16);
    for name in names() {
        let [mut told, mut untold] =
            [(); 2].map(|()| Residency::new(shape.clone(), 20, by_name(&name, &shape)));
        let mut rng = Rng(1);
        for step in 0..600 {
            let (token, layer) = (step / 3, step % 3);
            let mut experts = [(); 3].map(|()| rng.below(16).min(rng.below(16)));
            experts.sort_unstable();
            let experts = if experts[0] < experts[1] && experts[1] < experts[2] {
                &experts[..]
            } else {
                &experts[..1]
            };
            let event = Event {
                layer,
                n_tokens: 1,
                experts,
                rows: &[1; 3][..experts.len()],
                ..Event::default()
            };
            // Requests that are served one after the other are sequences of their own.
            let place = Event {
                sequences: &[token / 50],
                positions: &[100 + token % 50],
                ..event
            };
            let [a, b] = [(&mut told, place), (&mut untold, event)].map(|(residency, event)| {
                let planned = residency.plan(&event, Buffers::default()).unwrap();
                let decision = format!("{:?} {:?}", planned.hits, planned.fills);
                let committed = residency.commit(planned);
                residency.release(committed);
                decision
            });
            assert_eq!(a, b, "{name}, step {step}");
        }
    }
}
