//! How the memory of devices is divided: what each token needs first, then a reserve, and the rest is for experts.

/// Caches are multiples of this, and so are the sizes that people read.
pub const MIB: u64 = 1 << 20;

/// A device, and what a model takes of it beside experts, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    /// Its name.
    pub device: String,
    /// What nobody has taken yet.
    pub free: u64,
    /// Dense weights.
    pub dense: u64,
    /// The KV cache, or whatever else a context remembers.
    pub context: u64,
    /// Buffers for what is computed.
    pub compute: u64,
    /// What is left to others, and to what nobody can foresee.
    pub reserve: u64,
}

impl Room {
    /// The same in whole MiB, with rather less room: what is written of it adds up, and is what is gone by.
    pub fn in_mib(self) -> Self {
        let up = |n: u64| n.next_multiple_of(MIB);
        Self {
            device: self.device,
            free: self.free - self.free % MIB,
            dense: up(self.dense),
            context: up(self.context),
            compute: up(self.compute),
            reserve: up(self.reserve),
        }
    }

    /// What the model takes of it.
    pub fn taken(&self) -> u64 {
        self.dense + self.context + self.compute
    }

    /// What is left when the model has what it takes; `None` if that is too much.
    pub fn left(&self) -> Option<u64> {
        self.free.checked_sub(self.taken() + self.reserve)
    }

    /// What it will have free when a cache is made, by which llama.cpp shares the cache among devices. Buffers are made
    /// later.
    fn weight(&self) -> f64 {
        self.free.saturating_sub(self.dense + self.context) as f64
    }
}

/// Whether the model fits all of them.
pub fn fits(rooms: &[Room]) -> bool {
    rooms.iter().all(|room| room.left().is_some())
}

/// The size of a cache, of all of these devices together, with which none gets more than it has left. Experts take
/// `most`. 0 if there is room for none.
pub fn cache_bytes(rooms: &[Room], most: u64) -> u64 {
    let sum: f64 = rooms.iter().map(Room::weight).sum();
    let of_one = |room: &Room| {
        let left = room.left().unwrap_or(0) as f64;
        left * (sum / room.weight().max(1.0))
    };
    let size = rooms.iter().map(of_one).fold(f64::INFINITY, f64::min);
    let size = match rooms.is_empty() {
        true => 0,
        false => (size as u64).min(most.next_multiple_of(MIB)),
    };
    size - size % MIB
}

/// Contexts of a model, between which nobody has chosen: of these tokens, with what they take.
pub struct Contexts<'a> {
    /// The shortest, which fits.
    pub least: (u32, &'a [Room]),
    /// The longest.
    pub most: (u32, &'a [Room]),
    /// What it is a multiple of.
    pub multiple: u32,
}

impl Contexts<'_> {
    /// The longest one that leaves experts half of what the shortest leaves, on each device.
    pub fn choose(&self) -> u32 {
        let ((n_least, least), (n_most, most)) = (self.least, self.most);
        let share = |(least, most): (&Room, &Room)| {
            let half = least.left().unwrap_or(0) as f64 / 2.0;
            let more = most.taken().saturating_sub(least.taken());
            half / more.max(1) as f64
        };
        let share = least.iter().zip(most).map(share).fold(1.0, f64::min);
        let n_ctx = n_least + (f64::from(n_most.saturating_sub(n_least)) * share) as u32;
        match n_ctx {
            n if n >= n_most => n_most,
            n => (n - n % self.multiple).max(n_least),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice::from_ref;

    const GIB: u64 = 1 << 30;

    /// In GiB: free, dense, context; a quarter for buffers, and one in reserve.
    fn room(free: u64, dense: u64, context: u64) -> Room {
        Room {
            device: "GPU".to_string(),
            free: free * GIB,
            dense: dense * GIB,
            context: context * GIB,
            compute: GIB / 4,
            reserve: GIB,
        }
    }

    #[test]
    fn one_device_gives_all_that_is_left() {
        let only = room(8, 2, 1);
        assert_eq!(only.left(), Some(15 * GIB / 4));
        assert_eq!(cache_bytes(from_ref(&only), u64::MAX - MIB), 15 * GIB / 4);
        // Not more than there are experts, in whole MiB.
        assert_eq!(cache_bytes(&[only], 3 * MIB + 1), 4 * MIB);
    }

    #[test]
    fn what_is_too_much_is_no_size() {
        assert!(fits(&[room(8, 2, 1)]));
        let full = room(4, 2, 1);
        assert_eq!(full.left(), None);
        assert!(!fits(&[room(8, 2, 1), full.clone()]));
        assert_eq!(cache_bytes(&[full], GIB), 0);
        assert_eq!(cache_bytes(&[], GIB), 0);
        // A MiB less a byte is not worth having.
        let mut tight = room(8, 2, 1);
        tight.reserve += tight.left().unwrap() - MIB + 1;
        assert_eq!(cache_bytes(&[tight], GIB), 0);
    }

    #[test]
    fn no_device_gets_more_than_it_has_left() {
        for rooms in [
            vec![room(8, 2, 1), room(24, 6, 3)],
            vec![room(8, 3, 1), room(8, 1, 1)],
            vec![room(24, 2, 1), room(8, 6, 0), room(12, 2, 2)],
        ] {
            let size = cache_bytes(&rooms, u64::MAX - MIB) as f64;
            let sum: f64 = rooms.iter().map(Room::weight).sum();
            // As llama.cpp shares it.
            let over = |room: &Room| size * room.weight() / sum - room.left().unwrap() as f64;
            let most = rooms.iter().map(over).fold(f64::MIN, f64::max);
            // And one of them gives all it has, but for the MiB.
            assert!(most <= 1.0 && most > -(MIB as f64), "{rooms:?}: {most}");
        }
    }

    #[test]
    fn a_context_nobody_chose_leaves_half_to_experts() {
        let choose = |least: &[Room], most: &[Room]| {
            let (least, most) = ((4096, least), (131_072, most));
            let multiple = 256;
            Contexts { least, most, multiple }.choose()
        };
        // 4.75 GiB left, 16 more would be taken.
        let [least, most] = [room(8, 2, 0), room(8, 2, 16)];
        let n_ctx = choose(from_ref(&least), from_ref(&most));
        let expected = 4096 + (126_976.0 * 2.375 / 16.0) as u32;
        assert_eq!(n_ctx, expected - expected % 256);
        // The tightest device decides.
        let ample = room(80, 2, 0);
        assert_eq!(choose(&[ample.clone(), least.clone()], &[room(80, 2, 16), most]), n_ctx);
        assert_eq!(choose(from_ref(&ample), &[room(80, 2, 16)]), 131_072);
        let mut full = room(8, 2, 0);
        full.reserve += full.left().unwrap();
        assert_eq!(choose(&[full], &[room(8, 2, 160)]), 4096);
        // Nothing grows.
        assert_eq!(choose(from_ref(&least), from_ref(&least)), 131_072);
    }
}
