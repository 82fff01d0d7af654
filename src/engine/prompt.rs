//! Prompts that are computed in several batches read their experts as often.

use super::{Engine, State};
use crate::expert::Event;
use crate::report;
use std::sync::atomic::Ordering;

/// Bytes that the batches after the first must have read before anything is said.
const BYTES_MIN: u64 = 256 << 20;

/// The prompt that is being computed.
#[derive(Default)]
pub(super) struct Prompt {
    n_batches: u32,
    n_tokens: u64,
    /// Bytes that had been read when the second batch began.
    bytes_before: u64,
    /// Whether a larger batch was suggested: once is enough.
    is_told: bool,
}

impl Prompt {
    /// A batch of `n_tokens` begins, after `bytes_read` bytes of experts have been read. Returns what to
    /// say when a prompt has ended that read much more than once.
    fn note(&mut self, n_tokens: u32, bytes_read: u64) -> Option<String> {
        if n_tokens > Event::SCAN_TOKENS {
            self.n_batches += 1;
            self.n_tokens += u64::from(n_tokens);
            if self.n_batches == 2 {
                self.bytes_before = bytes_read;
            }
            return None;
        }
        let ended = std::mem::take(self);
        self.is_told = ended.is_told;
        let n_bytes = bytes_read - ended.bytes_before;
        if ended.is_told || ended.n_batches < 2 || n_bytes < BYTES_MIN {
            return None;
        }
        self.is_told = true;
        let n_batch = ended.n_tokens.next_power_of_two();
        Some(format!(
            "hotset: this prompt of {} tokens was computed in {} batches, and those after the first read {} of \
             experts once more; -ub {n_batch} -b {n_batch} would save that, but needs more memory",
            ended.n_tokens,
            ended.n_batches,
            report::bytes(n_bytes),
        ))
    }
}

impl Engine {
    /// A batch of `n_tokens` begins.
    pub(super) fn note_batch(&self, state: &mut State, n_tokens: u32) {
        let bytes_read = self.meter.bytes_read.load(Ordering::Relaxed);
        if let Some(text) = state.prompt.note(n_tokens, bytes_read) {
            report::say(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_batch_is_suggested_once_and_only_where_it_would_save_reads() {
        const GIB: u64 = 1 << 30;
        let mut prompt = Prompt::default();
        assert_eq!(prompt.note(1, 0), None);
        // One batch reads what it must.
        assert_eq!(prompt.note(512, 0), None);
        assert_eq!(prompt.note(1, GIB), None);
        // The second one reads nothing.
        assert_eq!(prompt.note(512, GIB), None);
        assert_eq!(prompt.note(500, 2 * GIB), None);
        assert_eq!(prompt.note(1, 2 * GIB), None);
        for batch in 0..4 {
            assert_eq!(prompt.note(128, (2 + batch) * GIB), None);
        }
        let text = prompt.note(1, 6 * GIB).unwrap();
        assert!(
            text.contains("512 tokens") && text.contains("4 batches"),
            "{text}"
        );
        assert!(
            text.contains("3.0 GiB") && text.contains("-ub 512 -b 512"),
            "{text}"
        );
        for batch in 0..4 {
            assert_eq!(prompt.note(128, (6 + batch) * GIB), None);
        }
        assert_eq!(prompt.note(1, 10 * GIB), None);
    }
}
