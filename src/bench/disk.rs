//! How fast this disk reads what hotset reads: parts of experts, in any order, many at once.

use crate::error::{Error, Result};
use crate::gguf::{self, expert_part};
use crate::store::{
    Arena, Faults, ModelFile, QUEUE_DEPTH, QueueKind, QueueOptions, Read, ReadFailure, ReadQueue,
    Sink, Span, span,
};
use serde::Serialize;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

/// Memory for reads: fewer are on their way at once if as many as hotset allows would take more.
const ARENA_BYTES_MAX: usize = 256 << 20;

/// No file system asks for a larger alignment of memory.
const PLACE_ALIGN: usize = 1 << 16;

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speed {
    /// Bytes that arrived in a second.
    pub bytes_per_s: f64,
    /// Bytes of a read, the most of any.
    pub read_bytes: usize,
    /// Reads at once, and how they were done.
    pub io: String,
    /// Whether reads bypassed the page cache.
    pub is_direct: bool,
}

/// The experts of one tensor.
struct Part {
    file: u32,
    /// What offsets of reads must be multiples of.
    align: usize,
    name: String,
    offset: u64,
    expert_bytes: u64,
    n_experts: u64,
}

impl Part {
    fn span(&self, expert: u64) -> Span {
        let offset = self.offset + expert * self.expert_bytes;
        span(offset, self.expert_bytes as usize, self.align)
    }
}

/// Hands on what is done.
struct Done(Sender<(u64, std::result::Result<(), ReadFailure>)>);

impl Sink for Done {
    fn done(&self, tag: u64, result: std::result::Result<(), ReadFailure>) {
        // Nobody listens any more after the first failure.
        let _ = self.0.send((tag, result));
    }
}

/// Where reads come from and go to.
struct Reads {
    parts: Vec<Part>,
    seed: u64,
    /// Bytes of memory for one read.
    place_bytes: usize,
}

impl Reads {
    /// The read with this number, to this place: the seed and the number choose the expert.
    fn get(&self, number: u64, place: u64) -> Read {
        let mut hasher = DefaultHasher::new();
        (self.seed, number).hash(&mut hasher);
        let dice = hasher.finish();
        let part = &self.parts[(dice % self.parts.len() as u64) as usize];
        let Span { offset, len, skip } = part.span((dice >> 32) % part.n_experts);
        Read {
            file: part.file,
            offset,
            len,
            need: skip + part.expert_bytes as usize,
            dst: place as usize * self.place_bytes,
            tag: place,
        }
    }
}

/// Reads experts of the model at `path` for `duration`, chosen by `seed`, as hotset would.
///
/// Fails if the model has no experts or cannot be read.
pub fn measure(path: &Path, duration: Duration, seed: u64) -> Result<Speed> {
    let (parts, files) = open(path)?;
    let is_direct = files.iter().all(ModelFile::is_direct);
    // Wherever an expert begins, its span is at most this long.
    let longest = parts.iter().map(|p| p.expert_bytes as usize + 2 * p.align);
    let place_bytes = longest.max().unwrap_or(1).next_multiple_of(PLACE_ALIGN);
    let depth = (ARENA_BYTES_MAX / place_bytes).clamp(1, QUEUE_DEPTH as usize);
    let reads = Reads {
        parts,
        seed,
        place_bytes,
    };
    let first: Vec<Read> = (0..depth as u64).map(|n| reads.get(n, n)).collect();
    let arena = Arc::new(Arena::map(depth * place_bytes)?);
    let (sender, receiver) = mpsc::channel();
    let options = QueueOptions {
        kind: QueueKind::Auto,
        depth: depth as u32,
        faults: Faults::default(),
    };
    let queue = ReadQueue::new(files, arena, Arc::new(Done(sender)), options)?;
    let begin = Instant::now();
    queue.submit(&first);
    let mut n_submitted = first.len() as u64;
    let mut n_under_way = first.len();
    while n_under_way > 0 {
        let (place, result) = receiver.recv().expect("the queue reports every read");
        result.map_err(|failure| failure.into_error("measuring the disk".to_string()))?;
        n_under_way -= 1;
        if begin.elapsed() < duration {
            queue.submit(&[reads.get(n_submitted, place)]);
            n_submitted += 1;
            n_under_way += 1;
        }
    }
    Ok(Speed {
        bytes_per_s: queue.stats().bytes_read as f64 / begin.elapsed().as_secs_f64(),
        read_bytes: first.iter().map(|read| read.len).max().unwrap_or(0),
        io: queue.about().to_string(),
        is_direct,
    })
}

/// The expert tensors of a model, and its files.
fn open(path: &Path) -> Result<(Vec<Part>, Vec<ModelFile>)> {
    let mut parts = Vec::new();
    let mut files = Vec::new();
    for (number, path) in (0..).zip(gguf::files(path)?) {
        let file = File::open(&path).map_err(|cause| Error::Io {
            path: path.clone(),
            cause,
        })?;
        let file = ModelFile::open(file.as_fd())?;
        let tensors = gguf::list(&path)?.tensors.into_iter();
        for tensor in tensors.filter(|tensor| expert_part(&tensor.name).is_some()) {
            parts.push(Part {
                file: number,
                align: file.align(),
                offset: tensor.offset,
                expert_bytes: tensor.n_bytes / tensor.n_last().max(1),
                n_experts: tensor.n_last(),
                name: tensor.name,
            });
        }
        files.push(file);
    }
    if let Some(part) = parts.iter().find(|part| part.expert_bytes == 0) {
        let why = format!("'{}' has experts of no bytes", part.name);
        return Err(wrong(path, why));
    }
    match parts.is_empty() {
        true => Err(wrong(path, "it has no routed experts".to_string())),
        false => Ok((parts, files)),
    }
}

fn wrong(path: &Path, why: String) -> Error {
    Error::File {
        path: path.to_path_buf(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_of_the_bundled_model_are_read() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/polyglot-moe.gguf");
        let speed = measure(&model, Duration::from_millis(20), 1).unwrap();
        assert!(speed.bytes_per_s > 1e5, "{speed:?}");
        // A part of an expert is 13056 bytes, and alignment adds at most a block at each end.
        assert!(
            (13056..13056 + 2 * 4096).contains(&speed.read_bytes),
            "{speed:?}"
        );
        let error = measure(Path::new("Cargo.toml"), Duration::ZERO, 1).unwrap_err();
        assert!(error.to_string().contains("Cargo.toml"), "{error}");
    }
}
