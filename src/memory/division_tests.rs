//! What the division promises, for members that are made up.

use super::*;

const NOW: u64 = 100_000;
const AGO: u64 = NOW - 60_000;

fn member(wanted: u64, held: u64) -> Member {
    Member {
        wanted,
        held,
        least: 10,
        told_at: NOW,
        busy_at: AGO,
        ..Member::default()
    }
}

fn idle(wanted: u64, held: u64) -> Member {
    member(wanted, held)
}

fn content(wanted: u64, held: u64) -> Member {
    Member { busy_at: NOW, ..member(wanted, held) }
}

fn stalling(wanted: u64, held: u64) -> Member {
    Member { stalled: 300, ..content(wanted, held) }
}

#[test]
fn who_stalls_gets_what_idle_ones_do_not_use() {
    for (size, members, parts) in [
        // Alone: all it can use.
        (1000, vec![stalling(4000, 10)], vec![1000]),
        (1000, vec![idle(400, 10)], vec![400]),
        // An idle one gives way, down to a token's experts or less.
        (1000, vec![idle(4000, 1000), stalling(4000, 0)], vec![10, 990]),
        (100, vec![idle(4000, 100), stalling(4000, 0)], vec![6, 94]),
        (1000, vec![idle(4000, 5), stalling(4000, 995)], vec![5, 995]),
        // Not to one that can use less.
        (1000, vec![idle(4000, 1000), stalling(300, 0)], vec![700, 300]),
        // Nor to one that is as fast as it can be.
        (1000, vec![idle(4000, 900), content(4000, 100)], vec![900, 100]),
        (1000, vec![idle(4000, 900), idle(4000, 100)], vec![900, 100]),
        // Both stall: the same for both.
        (1000, vec![stalling(4000, 1000), stalling(4000, 0)], vec![500, 500]),
        (1000, vec![stalling(4000, 1000), stalling(4000, 0), idle(4000, 0)], vec![500, 500, 0]),
        // One computes without stalls: it keeps that, up to an even part.
        (1000, vec![content(4000, 200), stalling(4000, 0)], vec![200, 800]),
        (1000, vec![content(4000, 900), stalling(4000, 0)], vec![500, 500]),
        // What nobody has.
        (1000, vec![idle(4000, 100), idle(4000, 100)], vec![500, 500]),
        (1000, vec![idle(4000, 600), idle(4000, 100)], vec![600, 400]),
        (1000, vec![idle(150, 100), stalling(600, 100)], vec![150, 600]),
        (0, vec![idle(150, 100), stalling(600, 100)], vec![0, 0]),
    ] {
        assert_eq!(divide(size, &members, NOW), parts, "{size}: {members:?}");
    }
}

#[test]
fn what_one_says_of_itself_becomes_old() {
    let mut one = stalling(100, 50);
    assert!(one.answers(NOW) && one.is_busy(NOW) && one.stalls(NOW));
    assert!(!one.stalls(NOW + IDLE_MS + 1) && one.answers(NOW + SILENCE_MS));
    assert!(!one.answers(NOW + SILENCE_MS + 1));
    // Clocks that are not quite the same.
    assert!(one.answers(NOW - 5) && one.stalls(NOW - 5));
    one.stalled = STALLED_MIN - 1;
    assert!(!one.stalls(NOW));
    one.stalled = 1000;
    one.held = 100;
    assert!(!one.stalls(NOW), "it has all");
}

#[test]
fn a_record_is_what_was_told() {
    let member = Member {
        wanted: 1,
        held: 2,
        least: 3,
        needed: 4,
        room: 5,
        process: u64::MAX,
        told_at: 6,
        busy_at: 7,
        stalled: 8,
    };
    assert_eq!(Member::of(&member.numbers()), Some(member));
    assert_eq!(Member::of(&member.numbers()[1..]), None);
}

/// Whoever they are: no more than there is, nothing left that somebody could use, an even part for who stalls, a
/// little for who is idle, and the same whatever the order.
#[test]
fn parts_are_fair_and_no_more_than_there_is() {
    let mut state = 1u64;
    let mut random = move |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        (state >> 33) % n
    };
    for _ in 0..4000 {
        let size = random(1000);
        let mut members: Vec<Member> = (0..1 + random(5))
            .map(|_| {
                let (wanted, held) = (random(600), random(600));
                [idle, content, stalling][random(3) as usize](wanted, held)
            })
            .collect();
        let n = members.len() as u64;
        let parts = divide(size, &members, NOW);
        let about = format!("{size}: {members:?} get {parts:?}");
        let sum: u64 = parts.iter().sum();
        let most = size.min(members.iter().map(|m| m.wanted).sum());
        assert!(sum <= most && sum + n > most, "{about}");
        for (m, &part) in members.iter().zip(&parts) {
            assert!(part <= m.wanted, "{about}");
            let floor = m.wanted.min(m.held).min(m.least).min(size / (FLOOR_PART * n));
            assert!(part >= floor, "{about}");
            assert!(!m.stalls(NOW) || part >= m.wanted.min(size / n), "{about}");
        }
        members.reverse();
        let reversed = divide(size, &members, NOW);
        assert!(reversed.iter().rev().eq(&parts), "{about}");
    }
}
