//! Models of several processes on a machine that is only said to be: each looks four times a second, not at the same
//! moment, and what it takes is filled as it computes.

use super::*;
use crate::memory::division::divide;

const MIB: u64 = 1 << 20;
const TICK_MS: u64 = 10;
const LOOK_MS: u64 = 250;
/// Bytes that a model reads in a tick while it stalls: 2 GB/s.
const READ: u64 = 20 * MIB;

struct Model {
    auto: Auto,
    turns: Turns,
    told: Member,
    held: u64,
    /// What of that has memory.
    filled: u64,
    /// What it uses of its experts: with that it does not stall.
    uses: u64,
    is_busy: bool,
    busy_at: u64,
    /// Stopped by a signal.
    is_stopped: bool,
    /// Cannot give anything back for the moment.
    is_stuck: bool,
    /// Its looks are at this part of each interval.
    phase: u64,
    /// When it changed, and to what.
    changes: Vec<(u64, u64)>,
}

impl Model {
    fn new(number: u64, wanted: u64, held: u64) -> Self {
        let told = Member {
            wanted: wanted * MIB,
            held: held * MIB,
            least: 60 * MIB,
            process: number,
            ..Member::default()
        };
        Self {
            auto: Auto::new(told.wanted, MIB),
            turns: Turns::default(),
            told,
            held: told.held,
            filled: told.held,
            uses: told.wanted,
            is_busy: false,
            busy_at: 0,
            is_stopped: false,
            is_stuck: false,
            phase: number * 70 % LOOK_MS / TICK_MS * TICK_MS,
            changes: Vec::new(),
        }
    }

    fn tell(&mut self, now: u64, room: u64) {
        let stalls = self.is_busy && self.held < self.uses;
        self.told = Member {
            held: self.held,
            needed: self.held - self.filled,
            room,
            told_at: now,
            busy_at: self.busy_at,
            stalled: if stalls { 400 } else { 0 },
            ..self.told
        };
    }
}

struct World {
    now: u64,
    /// For all and the reserve.
    n_bytes: u64,
    models: Vec<Model>,
}

impl World {
    /// Models that could use and have so many mebibytes.
    fn new(n_mib: u64, models: &[(u64, u64)]) -> Self {
        let models = (1..)
            .zip(models)
            .map(|(n, &(wanted, held))| Model::new(n, wanted, held));
        let mut world = Self {
            now: 100_000,
            n_bytes: n_mib * MIB,
            models: models.collect(),
        };
        let room = world.room();
        world
            .models
            .iter_mut()
            .for_each(|m| m.tell(world.now, room));
        world
    }

    fn held(&self) -> Vec<u64> {
        self.models.iter().map(|m| m.held / MIB).collect()
    }

    /// What the system says is available.
    fn room(&self) -> u64 {
        let filled: u64 = self.models.iter().map(|m| m.filled).sum();
        self.n_bytes.saturating_sub(filled)
    }

    fn sum(&self) -> u64 {
        self.models.iter().map(|m| m.held).sum()
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.now += TICK_MS;
            for i in 0..self.models.len() {
                let model = &mut self.models[i];
                if model.is_stopped {
                    continue;
                }
                if model.is_busy {
                    model.busy_at = self.now;
                    model.filled = model.held.min(model.filled + READ);
                }
                if self.now % LOOK_MS == model.phase {
                    self.look(i);
                }
            }
        }
    }

    fn look(&mut self, i: usize) {
        let filled: u64 = self.models.iter().map(|m| m.filled).sum();
        let now = self.now;
        let others: Vec<Member> = (0..self.models.len())
            .filter(|&j| j != i)
            .map(|j| self.models[j].told)
            .collect();
        let model = &mut self.models[i];
        model.tell(now, self.n_bytes.saturating_sub(filled));
        let sample = Sample {
            at: Duration::from_millis(now),
            spare: self.n_bytes as i64 - filled as i64 - model.told.needed as i64,
            in_use: model.held,
            most: u64::MAX,
        };
        let decided = model
            .turns
            .decide(&mut model.auto, &sample, &model.told, &others);
        let decided = decided.filter(|(n_bytes, _)| !model.is_stuck || *n_bytes > model.held);
        if let Some((n_bytes, _)) = decided {
            model.held = n_bytes / MIB * MIB;
            model.filled = model.filled.min(model.held);
            model.changes.push((now, model.held));
            let room = self.room();
            self.models[i].tell(now, room);
        }
    }

    /// Nothing changes for a long time.
    fn assert_at_rest(&mut self, what: &str) {
        self.models.iter_mut().for_each(|m| m.changes.clear());
        self.run(120_000);
        for model in &self.models {
            assert_eq!(model.changes, [], "{what}: {:?}", self.held());
        }
    }
}

/// 1500 MiB and a reserve, for models of 2000 MiB each.
const N_MIB: u64 = 1600;

fn idle_beside_new() -> World {
    let mut world = World::new(N_MIB, &[(2000, 1500), (2000, 0)]);
    world.run(10_000);
    assert_eq!(world.held(), [1500, 0]);
    world
}

#[test]
fn an_idle_one_gives_way_within_five_seconds_and_gets_it_back() {
    let mut world = idle_beside_new();
    for turn in [1, 0, 1, 0] {
        world.models[turn].is_busy = true;
        world.models.iter_mut().for_each(|m| m.changes.clear());
        world.run(5000);
        let most = world.models[turn].held;
        assert!(most > world.sum() / 10 * 9, "{:?}", world.held());
        assert!(
            world.sum() > 1400 * MIB,
            "nothing is left lying: {:?}",
            world.held()
        );
        let given = &world.models[1 - turn].changes;
        for pair in given.windows(2) {
            assert!(
                pair[1].0 - pair[0].0 >= 1000,
                "one step a second: {given:?}"
            );
            assert!(pair[0].1 - pair[1].1 <= 500 * MIB, "small steps: {given:?}");
        }
        world.models[turn].is_busy = false;
        world.assert_at_rest("both are idle");
    }
}

#[test]
fn those_who_both_stall_get_the_same_and_stay_there() {
    let mut world = idle_beside_new();
    world.models[0].is_busy = true;
    world.models[1].is_busy = true;
    world.run(6000);
    let held = world.held();
    assert!(held[0].abs_diff(held[1]) < 120, "{held:?}");
    world.assert_at_rest("both stall");
    // A third one comes.
    world.models.push(Model::new(3, 2000, 0));
    world.models[2].is_busy = true;
    world.run(6000);
    let held = world.held();
    assert!(
        held.iter().max().unwrap() - held.iter().min().unwrap() < 150,
        "{held:?}"
    );
    world.assert_at_rest("three stall");
}

/// It stalls at first, then not any more: it keeps what it has.
#[test]
fn who_has_what_it_uses_leaves_the_rest() {
    let mut world = idle_beside_new();
    world.models[0].is_busy = true;
    world.models[1].is_busy = true;
    world.models[1].uses = 300 * MIB;
    world.run(6000);
    let held = world.held();
    assert!((300..600).contains(&held[1]), "{held:?}");
    assert!(held[0] > 900, "{held:?}");
    world.assert_at_rest("one stalls");
}

#[test]
fn who_is_killed_leaves_all_at_once() {
    let mut world = idle_beside_new();
    world.models[0].is_busy = true;
    world.models[1].is_busy = true;
    world.run(6000);
    world.models.remove(0);
    world.run(5000);
    assert!(world.held()[0] > 700, "{:?}", world.held());
    world.run(30_000);
    assert!(world.held()[0] > 1350, "{:?}", world.held());
}

/// What it has cannot be taken, nobody waits for it, and it takes part again when it goes on.
#[test]
fn who_is_stopped_keeps_what_it_has() {
    let mut world = idle_beside_new();
    world.models[0].is_stopped = true;
    world.models[1].is_busy = true;
    world.run(20_000);
    assert_eq!(world.held(), [1500, 0]);
    world.models.push(Model::new(3, 2000, 0));
    world.n_bytes += 300 * MIB;
    world.run(20_000);
    assert_eq!(world.held()[0], 1500);
    assert!(world.held()[1] > 150, "{:?}", world.held());
    // Memory becomes short while it cannot give any.
    world.n_bytes -= 200 * MIB;
    world.run(2000);
    assert!(world.sum() + 50 * MIB < world.n_bytes, "{:?}", world.held());
    world.models[0].is_stopped = false;
    world.run(5000);
    assert!(world.held()[1] > 1200, "{:?}", world.held());
    assert!(world.sum() + 50 * MIB < world.n_bytes, "{:?}", world.held());
}

/// Nobody waits for long: neither for one that stalled when it was stopped, nor for one that cannot.
#[test]
fn what_others_do_not_give_back_is_given_by_the_rest() {
    for is_stopped in [true, false] {
        let mut world = World::new(N_MIB, &[(2000, 750), (2000, 750)]);
        world.models.iter_mut().for_each(|m| m.is_busy = true);
        world.run(10_000);
        world.models[0].is_stopped = is_stopped;
        world.models[0].is_stuck = true;
        world.run(2300);
        world.n_bytes = 1200 * MIB;
        world.run(if is_stopped {
            2 * LOOK_MS
        } else {
            1000 + 2 * LOOK_MS
        });
        let held = world.held();
        assert!(held[0] > 700 && held[1] < 420, "{is_stopped}: {held:?}");
    }
}

/// What was given may be somebody else's already: another member's, or that of a program that is none.
#[test]
fn only_what_is_left_of_what_was_given_is_taken() {
    let own = Member {
        wanted: 2000 * MIB,
        told_at: 9000,
        busy_at: 9000,
        stalled: 500,
        ..Member::default()
    };
    // What the other one has at three looks, at which time; at the last one so much is free and it will fill so much.
    let takes = |held: [u64; 3], last_at: u64, spare: i64, needed: u64| {
        let mut auto = Auto::new(own.wanted, MIB);
        let mut turns = Turns::default();
        let mut look = |at, held: u64, spare: i64| {
            let now = Sample {
                at: Duration::from_millis(at),
                spare: spare * MIB as i64,
                in_use: 0,
                most: u64::MAX,
            };
            let idle = Member {
                held: held * MIB,
                needed: needed * MIB,
                busy_at: 0,
                process: 1,
                ..own
            };
            turns.decide(&mut auto, &now, &own, &[idle])
        };
        let before = 50 + needed as i64;
        look(0, held[0], before);
        look(250, held[1], before);
        let taken = look(last_at, held[2], spare);
        taken.map(|(n_bytes, cause)| (n_bytes / MIB, cause))
    };
    let others = |n_mib| Some((n_mib, Cause::Others));
    assert_eq!(takes([1500, 1500, 1000], 500, 600, 0), others(500));
    assert_eq!(takes([1500, 1500, 1500], 500, 600, 0), None, "it has it");
    assert_eq!(takes([1500, 1000, 1000], 5000, 600, 0), others(500));
    assert_eq!(takes([1500, 1000, 1000], 6000, 600, 0), None, "long ago");
    assert_eq!(takes([1500, 1000, 1500], 500, 600, 0), None, "it was taken");
    // The reserve of all stays, and what the other one will fill.
    assert_eq!(takes([1500, 1500, 1000], 500, 300, 0), others(218));
    assert_eq!(takes([1500, 1500, 1000], 500, 700, 400), others(218));
    assert_eq!(takes([1500, 1500, 1000], 500, 60, 0), None);
}

#[test]
fn what_is_missing_is_given_back_by_all_at_the_next_look() {
    for n_mib in [1500, 1000, 500, 90] {
        let mut world = World::new(N_MIB, &[(2000, 750), (2000, 750)]);
        world.models.iter_mut().for_each(|m| m.is_busy = true);
        world.run(10_000);
        world.n_bytes = n_mib * MIB;
        world.run(LOOK_MS * 2);
        let reserve = reserve(world.n_bytes);
        assert!(
            world.sum() + reserve / 2 <= world.n_bytes,
            "{n_mib}: {:?}",
            world.held()
        );
        assert!(
            world.sum() + reserve + 100 * MIB > world.n_bytes,
            "no more than that: {n_mib}: {:?}",
            world.held()
        );
        world.assert_at_rest("it is short");
        let held = world.held();
        assert!(held[0].abs_diff(held[1]) <= 60, "{n_mib}: {held:?}");
    }
}

/// Another one has taken memory and has not used it yet: that is not free.
#[test]
fn what_others_will_fill_is_theirs() {
    let mut world = World::new(N_MIB, &[(2000, 100), (2000, 1200)]);
    world.models[1].filled = 0;
    let room = world.room();
    world.models[1].tell(world.now, room);
    world.models[0].is_busy = true;
    world.run(20_000);
    assert!(world.sum() <= 1500 * MIB, "{:?}", world.held());
    let of = |process| Member {
        process,
        needed: 7,
        room: 100,
        ..Member::default()
    };
    let all = [of(1), of(1), of(2)];
    assert_eq!(others_need(3, 100, &all), 14);
    assert_eq!(others_need(2, 100, &all), 7, "two models of one process");
    assert_eq!(others_need(2, 200, &all), 7, "somebody has ended");
    assert_eq!(others_need(2, 95, &all), 2, "it fills what it has");
    assert_eq!(others_need(2, 0, &all), 0);
}

/// Whatever they do, they never have more than there is, and when all stay as they are, they come to rest.
#[test]
fn nothing_swings() {
    let mut state = 7u64;
    let mut random = move |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        (state >> 33) % n
    };
    for round in 0..60 {
        let n = 2 + random(3);
        let models: Vec<_> = (0..n).map(|_| (300 + random(2000), 1400 / n)).collect();
        let mut world = World::new(N_MIB, &models);
        for _ in 0..30 {
            let i = random(n) as usize;
            let model = &mut world.models[i];
            match random(4) {
                0 => model.is_busy = false,
                1 => model.is_stopped = !model.is_stopped,
                _ => {
                    model.is_busy = true;
                    model.uses = 100 * MIB + random(model.told.wanted);
                }
            }
            world.run(500 + random(8000));
            let reserve = reserve(world.n_bytes);
            assert!(
                world.sum() + reserve / 2 <= world.n_bytes,
                "{round}: {:?}",
                world.held()
            );
        }
        world.models.iter_mut().for_each(|m| m.is_stopped = false);
        world.run(60_000);
        world.assert_at_rest(&format!("round {round}"));
        // And they have about what the division says.
        let size = world.n_bytes - reserve(world.n_bytes);
        let told: Vec<_> = world.models.iter().map(|m| m.told).collect();
        for (model, part) in world.models.iter().zip(divide(size, &told, world.now)) {
            let is_short = model.told.stalls(world.now) && model.held + 200 * MIB < part;
            assert!(!is_short, "{round}: {:?} of {part}", world.held());
        }
    }
}
