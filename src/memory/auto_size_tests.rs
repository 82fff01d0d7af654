//! What `HOTSET_RAM=auto` comes to on machines that are only said to be.

use super::*;

const MIB: u64 = 1 << 20;
const TICK: Duration = Duration::from_millis(250);

/// Models on a machine: what they hold, and the memory that is there for them and their reserve.
struct World {
    at: Duration,
    n_bytes: i64,
    models: Vec<(Auto, u64)>,
    /// When and which model changed, and its bytes then.
    changes: Vec<(Duration, usize, u64)>,
}

impl World {
    /// Models that hold all they can use, so many mebibytes, with `n_mib` for all and the reserve.
    fn new(n_mib: u64, all: &[u64]) -> Self {
        let both: Vec<_> = all.iter().map(|&mib| (mib, mib)).collect();
        Self::starting(n_mib, &both)
    }

    /// Models that hold so many mebibytes and can use so many.
    fn starting(n_mib: u64, models: &[(u64, u64)]) -> Self {
        let model = |(start, all): &(u64, u64)| (Auto::new(all * MIB, MIB), start * MIB);
        Self {
            at: Duration::ZERO,
            n_bytes: (n_mib * MIB) as i64,
            models: models.iter().map(model).collect(),
            changes: Vec::new(),
        }
    }

    fn in_use(&self) -> u64 {
        self.models.iter().map(|m| m.1).sum()
    }

    fn spare(&self) -> i64 {
        self.n_bytes - self.in_use() as i64
    }

    /// All models look at the memory at the same time and then change.
    fn run(&mut self, seconds: u64) {
        for _ in 0..4 * seconds {
            self.at += TICK;
            let (at, spare) = (self.at, self.spare());
            for (i, (auto, in_use)) in self.models.iter_mut().enumerate() {
                let now = Sample {
                    at,
                    spare,
                    in_use: *in_use,
                    most: u64::MAX,
                };
                if let Some(n) = auto.decide(&now) {
                    // Whole slots.
                    *in_use = n / MIB * MIB;
                    self.changes.push((at, i, *in_use));
                }
            }
        }
    }

    fn set_mib(&mut self, n_mib: i64) {
        self.n_bytes = n_mib * MIB as i64;
    }
}

#[test]
fn a_sixteenth_is_left_at_the_start_and_at_least_64_mib() {
    assert_eq!(at_start(3200 * MIB, 0), 3000 * MIB);
    assert_eq!(at_start(3200 * MIB, 1000 * MIB), 2000 * MIB);
    assert_eq!(at_start(320 * MIB, 56 * MIB), 200 * MIB);
    assert_eq!(at_start(100 * MIB, 50 * MIB), 0);
}

#[test]
fn a_real_part_of_the_addresses_is_left() {
    for (there_are, start, n_bytes) in [
        (400 * MIB, 0, 200 * MIB),
        (400 * MIB, 100 * MIB, 200 * MIB),
        (400 * MIB, 300 * MIB, 300 * MIB),
        (400 * MIB, 9000 * MIB, 336 * MIB),
        (3000 * MIB, 0, 1976 * MIB),
        (8000 * MIB, 0, 6000 * MIB),
        (0, 0, 0),
    ] {
        assert_eq!(of_addresses(there_are, start), n_bytes, "{there_are}");
    }
    assert!(of_addresses(u64::MAX, 0) > 1 << 63);
}

#[test]
fn nothing_changes_while_there_is_about_the_reserve() {
    let mut world = World::new(3200, &[3000]);
    world.run(60);
    // Others take and leave half of the reserve; there is more than ever.
    for n_mib in [3110, 3200, 3110, 9000] {
        world.set_mib(n_mib);
        world.run(60);
    }
    assert_eq!(world.changes, []);
}

/// Less than half of the reserve is left: it is restored at once, also far below the limit.
#[test]
fn what_is_missing_is_given_back_at_the_next_look() {
    for (n_mib, left) in [(3060, 2868), (1600, 1500), (640, 576), (60, 0), (-500, 0)] {
        let mut world = World::new(3200, &[3000]);
        world.run(10);
        world.set_mib(n_mib);
        world.run(1);
        let at = Duration::from_millis(10_250);
        assert_eq!(world.changes, [(at, 0, left * MIB)], "{n_mib}");
        world.run(600);
        assert_eq!(world.changes.len(), 1, "{n_mib}: {:?}", world.changes);
    }
}

#[test]
fn slots_that_cannot_go_are_asked_for_again() {
    let mut auto = Auto::new(1000 * MIB, MIB);
    for i in 0..8 {
        let now = Sample {
            at: i * TICK,
            spare: 0,
            in_use: 1000 * MIB,
            most: u64::MAX,
        };
        assert_eq!(auto.decide(&now), Some(936 * MIB));
    }
}

#[test]
fn memory_that_is_free_again_is_taken_back_in_steps() {
    let mut world = World::new(3200, &[3000]);
    world.set_mib(1600);
    world.run(1);
    world.changes.clear();
    world.set_mib(3200);
    world.run(2);
    assert_eq!(world.changes, [], "not at once");
    world.run(120);
    let sizes: Vec<u64> = world.changes.iter().map(|c| c.2).collect();
    assert!(sizes.is_sorted() && sizes.len() > 5, "{sizes:?}");
    // But for what is too little to matter.
    let last = *sizes.last().unwrap();
    assert!((3000 - 128..=3000).contains(&(last / MIB)), "{sizes:?}");
    for pair in world.changes.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= WAIT_MIN);
    }
    // With more than enough all of it comes back, and no more.
    world.set_mib(9000);
    world.run(120);
    assert_eq!(world.in_use(), 3000 * MIB);
}

/// Also one that began with nothing, and soon.
#[test]
fn memory_that_becomes_free_is_taken_up_to_all_that_can_be_used() {
    let mut world = World::starting(90, &[(0, 230)]);
    world.run(60);
    assert_eq!(world.changes, [], "nothing but the reserve");
    world.set_mib(394);
    world.run(20);
    assert_eq!(world.in_use(), 230 * MIB, "{:?}", world.changes);
    world.set_mib(9000);
    world.run(600);
    assert_eq!(world.in_use(), 230 * MIB);
    // Far more than there is: most of what there is.
    for start in [0, 1000] {
        let mut world = World::starting(3200, &[(start, 90_000)]);
        world.run(60);
        let most = 3000 - SURPLUS_BYTES_MAX / MIB..=3000;
        assert!(
            most.contains(&(world.in_use() / MIB)),
            "{:?}",
            world.changes
        );
    }
}

/// It began while the first one had nearly all.
#[test]
fn a_model_grows_when_the_one_beside_it_ends() {
    let mut world = World::starting(394, &[(230, 230), (10, 230)]);
    world.run(60);
    let before = world.in_use();
    assert!(before < 340 * MIB, "{:?}", world.changes);
    world.models.remove(0);
    world.run(30);
    assert!(world.in_use() > 220 * MIB, "{:?}", world.changes);
}

/// Slots of which the rest has room for one are no reason to take memory from others again and again.
#[test]
fn a_surplus_below_two_slots_is_left_alone() {
    let mut auto = Auto::new(1000 * MIB, 300 * MIB);
    let mut decide = |at, spare: i64| {
        let at = Duration::from_secs(at);
        let spare = spare * MIB as i64;
        auto.decide(&Sample {
            at,
            spare,
            in_use: 0,
            most: u64::MAX,
        })
    };
    assert_eq!([decide(0, 660), decide(9, 660)], [None, None]);
    assert_eq!([decide(20, 670), decide(29, 670)], [None, Some(300 * MIB)]);
}

#[test]
fn models_beside_each_other_come_to_rest() {
    let starts = [1000, 1000, 700];
    let mut world = World::new(2880, &starts);
    for n_mib in [2000, 2880, 2400, 500, 2880] {
        world.set_mib(n_mib);
        world.run(200);
        world.changes.clear();
        world.run(400);
        assert_eq!(world.changes, [], "at rest with {n_mib} MiB");
        let reserve = reserve((n_mib as u64) * MIB) as i64;
        assert!(world.spare() >= reserve / 2, "{n_mib}");
        // Each leaves as much as it does not care for.
        let most = reserve + (starts.len() as u64 * SURPLUS_BYTES_MAX) as i64;
        assert!(
            world.spare() < most || world.in_use() == 2700 * MIB,
            "{n_mib}"
        );
    }
}

/// Somebody needs the memory for ten seconds of every twenty.
#[test]
fn memory_that_comes_and_goes_is_let_go() {
    let mut world = World::new(3200, &[3000]);
    let mut n_changes = Vec::new();
    for _ in 0..30 {
        world.set_mib(1600);
        world.run(10);
        world.set_mib(3200);
        world.run(10);
        n_changes.push(std::mem::take(&mut world.changes).len());
    }
    assert!(n_changes[0] > 2 && n_changes[1] > 1, "{n_changes:?}");
    assert!(n_changes[4..].iter().all(|&n| n == 0), "{n_changes:?}");
    // When it stays, it is taken, and soon as fast as ever.
    world.run(600);
    assert!(world.in_use() > 2800 * MIB);
    assert_eq!(world.models[0].0.wait, WAIT_MIN);
}

#[test]
fn a_step_buys_a_slot_at_least() {
    let mut auto = Auto::new(4000 * MIB, 500 * MIB);
    let mut decide = |at, spare| {
        let at = Duration::from_secs(at);
        let spare = (spare * MIB) as i64;
        auto.decide(&Sample {
            at,
            spare,
            in_use: 2000 * MIB,
            most: u64::MAX,
        })
    };
    // Less than two slots are left alone.
    assert_eq!([decide(0, 1150), decide(9, 1150)], [None, None]);
    assert_eq!(
        [decide(20, 1300), decide(29, 1300)],
        [None, Some(2500 * MIB)]
    );
}

/// Nothing is taken, so nothing shows that memory stays.
#[test]
fn what_the_system_does_not_promise_is_not_asked_for() {
    for (most, n_mib) in [(300, None), (301, None), (310, Some(310)), (900, Some(465))] {
        let mut auto = Auto::new(1000 * MIB, 10 * MIB);
        auto.has_grown = true;
        auto.wait = WAIT_MAX;
        let mut decide = |at| {
            auto.decide(&Sample {
                at: Duration::from_secs(at),
                spare: 724 * MIB as i64,
                in_use: 300 * MIB,
                most: most * MIB,
            })
        };
        let decided = [decide(0), decide(301)];
        assert_eq!(decided, [None, n_mib.map(|n_mib| n_mib * MIB)]);
        assert_eq!(auto.wait < WAIT_MAX, n_mib.is_some());
    }
}

#[test]
fn lines_are_few() {
    let second = Duration::from_secs;
    let mut announcer = Announcer::new(2048 * MIB, 2048 * MIB);
    assert_eq!(announcer.line(second(0), 2000 * MIB, Cause::Memory), None);
    let line = announcer.line(second(1), 1024 * MIB, Cause::Memory);
    let short = "hotset: memory is short: experts get 1.0 GiB instead of 2.0 GiB";
    assert_eq!(line.as_deref(), Some(short));
    assert_eq!(announcer.line(second(2), 512 * MIB, Cause::Memory), None, "too soon");
    let line = announcer.line(second(11), 512 * MIB, Cause::Memory);
    let short = "hotset: memory is short: experts get 512.0 MiB instead of 1.0 GiB";
    assert_eq!(line.as_deref(), Some(short));
    let line = announcer.line(second(21), 2048 * MIB, Cause::Memory);
    let free = "hotset: memory is free again: experts get 2.0 GiB instead of 512.0 MiB";
    assert_eq!(line.as_deref(), Some(free));
    assert_eq!(announcer.line(second(41), 2048 * MIB, Cause::Memory), None);
    let mut announcer = Announcer::new(2048 * MIB, 0);
    assert_eq!(announcer.line(second(0), 100 * MIB, Cause::Memory), None);
    let line = announcer.line(second(3), 1024 * MIB, Cause::Memory);
    let free = "hotset: memory is free again: experts get 1.0 GiB instead of 0 B";
    assert_eq!(line.as_deref(), Some(free));
    let line = announcer.line(second(20), 512 * MIB, Cause::Others);
    let given = "hotset: another model needs memory: experts get 512.0 MiB instead of 1.0 GiB";
    assert_eq!(line.as_deref(), Some(given));
}
