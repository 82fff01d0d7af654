//! Histories short enough to be worked out by hand.

use crate::expert::{Event, Shape};
use crate::residency::{Buffers, Residency};

/// What a pool of `n_slots` under `policy` does as `picks` come, each in an event of one token: `.` is
/// a hit, `+` takes a free slot, and a letter is the victim of a miss. Letters are experts, small ones
/// of layer 0 and capital ones of layer 1.
pub(super) fn replay(policy: &str, n_slots: u32, picks: &str) -> String {
    let shape = Shape::uniform(2, 26);
    let policy = super::by_name(policy, &shape).expect("it is in the registry");
    let mut residency = Residency::new(shape, n_slots, policy);
    let mut outcome = |pick: u8| {
        let layer = u32::from(pick.is_ascii_uppercase());
        let event = Event {
            layer,
            n_tokens: 1,
            experts: &[u32::from(pick.to_ascii_lowercase() - b'a')],
            rows: &[1],
            ..Event::default()
        };
        let planned = residency
            .plan(&event, Buffers::default())
            .expect("it is valid");
        let fill = planned.fills.first().copied();
        let committed = residency.commit(planned);
        residency.release(committed);
        let Some(fill) = fill else {
            return '.';
        };
        fill.victim.map_or('+', |id| {
            let first = [b'a', b'A'][id.layer as usize];
            char::from(first + id.expert as u8)
        })
    };
    picks.bytes().map(&mut outcome).collect()
}
