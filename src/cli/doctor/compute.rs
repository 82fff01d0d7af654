//! How fast the processor could compute a token at best: it reads the weights that the token uses, and multiplies them.

use serde::Serialize;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// What all threads read together: more than caches hold.
const MEMORY_BYTES: usize = 256 << 20;
/// Numbers that are taken at once: of a byte each, less than a cache holds.
const CACHE_BYTES: usize = 16 << 10;
/// How often between two looks at the clock.
const REPEATS: usize = 16;
/// How long each is measured.
const MEMORY_FOR: Duration = Duration::from_millis(300);
const CACHE_FOR: Duration = Duration::from_millis(150);

/// What was measured, of all cores together.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Compute {
    pub n_threads: usize,
    /// Bytes that are read from memory in a second.
    pub memory_bytes_per_s: f64,
    /// Products of small whole numbers, added up, in a second.
    pub products_per_s: f64,
}

/// How much of that llama.cpp's products of quantised weights reach: they unpack them and have scales. And what a layer
/// costs besides: threads that wait for each other after each operation.
const OF_PRODUCTS: f64 = 0.5;
const OF_MEMORY: f64 = 0.7;
const LAYER_S: f64 = 150e-6;

impl Compute {
    /// Seconds that a token takes at least, about, that uses so many bytes and weights.
    pub fn token_s(&self, n_bytes: u64, n_weights: u64, n_layers: u32) -> f64 {
        let reading = n_bytes as f64 / (OF_MEMORY * self.memory_bytes_per_s);
        let multiplying = n_weights as f64 / (OF_PRODUCTS * self.products_per_s);
        reading.max(multiplying) + f64::from(n_layers) * LAYER_S
    }
}

/// Measures for half a second with `n_threads`. Takes no more than an eighth of `available` bytes.
pub fn measure(n_threads: usize, available: u64) -> Compute {
    let n_bytes = MEMORY_BYTES.min((available / 8) as usize) / n_threads;
    let n_words = (n_bytes / size_of::<u64>()).max(CACHE_BYTES);
    Compute {
        n_threads,
        memory_bytes_per_s: of_all(n_threads, &|| {
            let words = vec![1u64; n_words];
            let n = speed(MEMORY_FOR, words.chunks(CACHE_BYTES).map(Sum));
            n * size_of::<u64>() as f64
        }),
        products_per_s: of_all(n_threads, &|| {
            let numbers: Vec<i8> = (0..CACHE_BYTES).map(|i| i as i8).collect();
            let dot = || Dot(&numbers, &numbers);
            speed(CACHE_FOR, std::iter::repeat_with(dot).take(REPEATS))
        }),
    }
}

/// What all threads reach together, each with numbers of its own.
fn of_all(n_threads: usize, speed: &(dyn Fn() -> f64 + Sync)) -> f64 {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(speed)).collect();
        let speeds = threads
            .into_iter()
            .map(|thread| thread.join().expect("it only counts"));
        speeds.sum()
    })
}

/// Numbers that one thread takes in a second, when it does all of `work` again and again for `time`.
fn speed<W: Work>(time: Duration, work: impl Iterator<Item = W> + Clone) -> f64 {
    let arch = pulp::Arch::new();
    let begin = Instant::now();
    let (mut n, mut sum) = (0, 0);
    while begin.elapsed() < time {
        for work in work.clone() {
            n += work.len();
            sum ^= arch.dispatch(work);
        }
    }
    black_box(sum);
    n as f64 / begin.elapsed().as_secs_f64()
}

/// Numbers that are added up.
trait Work: pulp::WithSimd<Output = u64> {
    fn len(&self) -> usize;
}

/// The sum of words.
struct Sum<'a>(&'a [u64]);

// What is not inlined is not compiled for the vector units.
impl pulp::WithSimd for Sum<'_> {
    type Output = u64;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> u64 {
        self.0.iter().fold(0, |sum, word| sum.wrapping_add(*word))
    }
}

impl Work for Sum<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// The sum of products of small numbers.
struct Dot<'a>(&'a [i8], &'a [i8]);

impl pulp::WithSimd for Dot<'_> {
    type Output = u64;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> u64 {
        let products = self
            .0
            .iter()
            .zip(self.1)
            .map(|(&a, &b)| i32::from(a) * i32::from(b));
        products.fold(0, i32::wrapping_add) as u64
    }
}

impl Work for Dot<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn sums_are_right_and_all_threads_count() {
        let arch = pulp::Arch::new();
        let row: Vec<i8> = (-50..51).collect();
        assert_eq!(arch.dispatch(Dot(&row, &[2; 101])), 0);
        assert_eq!(arch.dispatch(Dot(&row[51..], &[2; 50])), 50 * 51);
        assert_eq!(arch.dispatch(Sum(&[3; 100])), 300);
        let ones = AtomicUsize::new(0);
        let all = of_all(3, &|| {
            ones.fetch_add(1, Ordering::Relaxed);
            2.0
        });
        assert_eq!((all, ones.into_inner()), (6.0, 3));
    }

    #[test]
    fn more_bytes_or_weights_take_longer() {
        let compute = Compute {
            n_threads: 1,
            memory_bytes_per_s: 1e9,
            products_per_s: 1e9,
        };
        let layer = compute.token_s(0, 0, 1);
        assert!(compute.token_s(2_000_000, 0, 1) > 0.002 + layer);
        assert!(compute.token_s(2_000_000, 4_000_000, 1) > 0.004 + layer);
        assert!(compute.token_s(0, 0, 2) > layer);
    }
}
