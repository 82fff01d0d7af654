//! Memory of others in this process that is known to be filled: buffers of weights, of the KV cache and of
//! intermediate results.
//!
//! What is mapped tells nothing: stacks of threads, heaps and what a host reserves are mapped and stay empty. So
//! buffers are told, and the system says which of their pages are there already. A chunk that once was there as a
//! whole is not looked at again: nobody gives parts of a buffer back.

use crate::store::resident_bytes;
use crate::sync::lock_soon;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What is looked at as a whole.
const CHUNK_BYTES: usize = 32 << 20;
/// Looking takes no more than this part of the time: large buffers that stay empty are looked at less often. 16 GiB
/// that nobody has touched take 4 ms, and up to 100 ms when each of their page tables is there.
const TIME_PART: u32 = 250;

/// All buffers of this process.
static BUFFERS: Mutex<Buffers> = Mutex::new(Buffers::new());

/// A buffer of `n_bytes` will be filled, or, with 0 bytes, goes.
pub fn note(address: usize, n_bytes: usize) {
    // The end of the process frees buffers, too, and may have interrupted this very function.
    if let Some(mut buffers) = lock_soon(&BUFFERS) {
        buffers.note(address, n_bytes);
    }
}

/// The buffers with something at one of these addresses hold weights.
pub fn note_weights(addresses: &[usize]) {
    if let Some(mut buffers) = lock_soon(&BUFFERS) {
        buffers.note_weights(addresses);
    }
}

/// What is noted of buffers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noted {
    /// Bytes of those with weights.
    pub weights: u64,
    /// Bytes of the others.
    pub rest: u64,
}

/// All buffers by what they hold, touched or not.
pub fn noted() -> Noted {
    let buffers = lock_soon(&BUFFERS);
    buffers.map_or_else(Noted::default, |buffers| buffers.noted())
}

/// Bytes of the buffers that have not been touched yet.
pub fn untouched() -> u64 {
    let buffers = lock_soon(&BUFFERS);
    buffers.map_or(0, |mut buffers| buffers.untouched(Instant::now()))
}

struct Buffers {
    /// By address.
    by_address: BTreeMap<usize, Buffer>,
    untouched: u64,
    /// Whether there are other buffers than at the last look.
    has_changed: bool,
    /// When it began, and how long it took.
    last_look: Option<(Instant, Duration)>,
}

struct Buffer {
    n_bytes: usize,
    has_weights: bool,
    /// Those that were not there as a whole yet.
    chunks: Vec<Chunk>,
}

struct Chunk {
    begin: usize,
    end: usize,
}

impl Buffers {
    const fn new() -> Self {
        Self {
            by_address: BTreeMap::new(),
            untouched: 0,
            has_changed: false,
            last_look: None,
        }
    }

    fn note(&mut self, address: usize, n_bytes: usize) {
        self.has_changed = true;
        if n_bytes == 0 {
            self.by_address.remove(&address);
            return;
        }
        let end = address.saturating_add(n_bytes);
        let chunk = |begin: usize| Chunk {
            begin,
            end: begin.saturating_add(CHUNK_BYTES).min(end),
        };
        let chunks = (address..end).step_by(CHUNK_BYTES).map(chunk);
        let buffer = Buffer {
            n_bytes,
            has_weights: false,
            chunks: chunks.collect(),
        };
        self.by_address.insert(address, buffer);
    }

    fn note_weights(&mut self, addresses: &[usize]) {
        for &address in addresses {
            let (begin, buffer) = match self.by_address.range_mut(..=address).next_back() {
                Some(found) => found,
                None => continue,
            };
            buffer.has_weights |= address - begin < buffer.n_bytes;
        }
    }

    fn noted(&self) -> Noted {
        let mut noted = Noted::default();
        for buffer in self.by_address.values() {
            match buffer.has_weights {
                true => noted.weights += buffer.n_bytes as u64,
                false => noted.rest += buffer.n_bytes as u64,
            }
        }
        noted
    }

    fn untouched(&mut self, now: Instant) -> u64 {
        let is_soon = |(at, took): (Instant, Duration)| now - at < TIME_PART * took;
        if self.has_changed || !self.last_look.is_some_and(is_soon) {
            self.look();
            self.has_changed = false;
            self.last_look = Some((now, now.elapsed()));
        }
        self.untouched
    }

    fn look(&mut self) {
        self.untouched = 0;
        for buffer in self.by_address.values_mut() {
            buffer.chunks.retain(|chunk| {
                // What is not mapped any more will not be filled.
                let (n_bytes, n_resident) =
                    resident_bytes(chunk.begin..chunk.end).unwrap_or((0, 0));
                self.untouched += (n_bytes - n_resident) as u64;
                n_resident < n_bytes
            });
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::store::Arena;

    const MIB: usize = 1 << 20;

    /// Memory that is noted, and filled by the system.
    struct Memory(Arena);

    impl Memory {
        fn new(n_bytes: usize, buffers: &mut Buffers) -> Self {
            let memory = Self(Arena::map(n_bytes).unwrap());
            buffers.note(memory.0.addr(), n_bytes);
            memory
        }

        fn touch(&self, range: std::ops::Range<usize>) {
            assert!(self.0.commit(range), "MADV_POPULATE_WRITE");
        }
    }

    fn look(buffers: &mut Buffers) -> usize {
        buffers.look();
        buffers.untouched as usize / MIB
    }

    #[test]
    fn what_is_touched_or_gone_does_not_count() {
        let mut buffers = Buffers::new();
        let one = Memory::new(200 * MIB, &mut buffers);
        let other = Memory::new(100 * MIB, &mut buffers);
        assert_eq!(look(&mut buffers), 300);
        one.touch(0..MIB);
        // With huge pages it may be a little more.
        assert!((298..300).contains(&look(&mut buffers)));
        one.touch(0..128 * MIB);
        assert_eq!(look(&mut buffers), 172);
        let n_chunks = |buffers: &Buffers| buffers.by_address[&one.0.addr()].chunks.len();
        assert_eq!(n_chunks(&buffers), 3, "four are done");
        let noted = |weights, rest| Noted {
            weights: (weights as u64) << 20,
            rest: (rest as u64) << 20,
        };
        assert_eq!(buffers.noted(), noted(0, 300));
        let end = other.0.addr() + 100 * MIB;
        buffers.note_weights(&[end - 1, end - 2]);
        assert_eq!(buffers.noted(), noted(100, 200));
        buffers.note_weights(&[1]);
        assert_eq!(buffers.noted(), noted(100, 200));
        buffers.note(other.0.addr(), 0);
        assert_eq!(look(&mut buffers), 72);
        one.touch(0..200 * MIB);
        assert_eq!(look(&mut buffers), 0);
        assert_eq!(n_chunks(&buffers), 0);
        buffers.note(one.0.addr(), 0);
        assert!(buffers.by_address.is_empty());
    }

    #[test]
    fn what_is_not_mapped_is_not_expected_to_be_filled() {
        let mut buffers = Buffers::new();
        // The system gives out addresses from the top: nothing is where a TiB begins, whatever other threads map.
        for (address, n_bytes) in [(1, 1), (usize::MAX - 5, usize::MAX), (0, 10 * MIB), (1 << 40, 64 * MIB)] {
            buffers.note(address, n_bytes);
            assert_eq!(look(&mut buffers), 0);
        }
    }

    #[test]
    fn looks_take_a_small_part_of_the_time() {
        let mut buffers = Buffers::new();
        let memory = Memory::new(64 * MIB, &mut buffers);
        let begin = Instant::now();
        assert_eq!(buffers.untouched(begin), 64 << 20);
        // As if there were much to look at.
        buffers.last_look = Some((begin, Duration::from_millis(10)));
        memory.touch(0..64 * MIB);
        let after = |ms| begin + Duration::from_millis(ms);
        assert_eq!(buffers.untouched(after(2400)), 64 << 20);
        assert_eq!(buffers.untouched(after(2600)), 0);
        // What is new is looked at in any case.
        buffers.last_look = Some((after(2600), Duration::from_millis(10)));
        let _more = Memory::new(64 * MIB, &mut buffers);
        assert_eq!(buffers.untouched(after(2700)), 64 << 20);
    }
}
