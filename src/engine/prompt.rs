//! Prompts that are computed in several batches read their experts as often.

use super::run::N_LANES;
use crate::notice::Notice;

/// Bytes that the batches after the first must have read before anything is said.
const BYTES_MIN: u64 = 256 << 20;

/// The prompt that is being computed.
#[derive(Default)]
pub(super) struct Prompt {
    n_batches: u32,
    n_tokens: u64,
    /// Bytes that had been read when the second batch began.
    bytes_before: u64,
}

/// The prompts of all lanes, and the last one that of what devices compute by themselves.
#[derive(Default)]
pub(super) struct Prompts {
    by_lane: Vec<Prompt>,
    /// Whether a larger batch was suggested: once is enough.
    is_told: bool,
}

impl Prompts {
    /// A batch of `n_tokens` of prompts, 0 if it generates, begins in lane `at`, or on a device, as [`Prompt::note`].
    pub fn note(&mut self, at: Option<usize>, n_tokens: u32, bytes_read: u64) -> Option<Notice> {
        let at = at.unwrap_or(N_LANES);
        if self.by_lane.len() <= at {
            self.by_lane.resize_with(at + 1, Prompt::default);
        }
        let notice = self.by_lane[at].note(n_tokens, bytes_read)?;
        (!std::mem::replace(&mut self.is_told, true)).then_some(notice)
    }

    /// Another thread has lane `at`: what it computes is another prompt.
    pub fn forget(&mut self, at: usize) {
        if let Some(prompt) = self.by_lane.get_mut(at) {
            *prompt = Prompt::default();
        }
    }
}

impl Prompt {
    /// A batch of `n_tokens` of a prompt begins, or of generation if there are none, after `bytes_read` bytes of experts have been read. Returns what to
    /// say when a prompt has ended that read much more than once.
    fn note(&mut self, n_tokens: u32, bytes_read: u64) -> Option<Notice> {
        if n_tokens > 0 {
            self.n_batches += 1;
            self.n_tokens += u64::from(n_tokens);
            if self.n_batches == 2 {
                self.bytes_before = bytes_read;
            }
            return None;
        }
        let ended = std::mem::take(self);
        // Reads that were counted may have been recalled since.
        let n_bytes = bytes_read.saturating_sub(ended.bytes_before);
        if ended.n_batches < 2 || n_bytes < BYTES_MIN {
            return None;
        }
        Some(Notice::LargerBatch {
            n_tokens: ended.n_tokens,
            n_batches: ended.n_batches,
            n_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_batch_is_suggested_once_and_only_where_it_would_save_reads() {
        const GIB: u64 = 1 << 30;
        let mut prompts = Prompts::default();
        let mut note = |n_tokens, bytes_read| prompts.note(Some(0), n_tokens, bytes_read);
        assert_eq!(note(0, 0), None);
        // One batch reads what it must.
        assert_eq!(note(512, 0), None);
        assert_eq!(note(0, GIB), None);
        // The second one reads nothing.
        assert_eq!(note(512, GIB), None);
        assert_eq!(note(500, 2 * GIB), None);
        assert_eq!(note(0, 2 * GIB), None);
        for batch in 0..4 {
            assert_eq!(note(128, (2 + batch) * GIB), None);
        }
        let text = note(0, 6 * GIB).unwrap().to_string();
        assert!(
            text.contains("512 tokens") && text.contains("4 batches"),
            "{text}"
        );
        assert!(
            text.contains("3.0 GiB") && text.contains("-ub 512 -b 512"),
            "{text}"
        );
        for batch in 0..4 {
            assert_eq!(note(128, (6 + batch) * GIB), None);
        }
        assert_eq!(note(0, 10 * GIB), None);
    }

    /// Another context generates meanwhile, on a device or in a lane; and what was counted can be recalled.
    #[test]
    fn prompts_of_several_lanes_are_apart() {
        const GIB: u64 = 1 << 30;
        for other in [None, Some(1)] {
            let mut prompts = Prompts::default();
            for batch in 0..4 {
                assert_eq!(prompts.note(Some(0), 128, batch * GIB), None);
                assert_eq!(prompts.note(other, 0, batch * GIB), None);
            }
            let text = prompts.note(Some(0), 0, 4 * GIB).unwrap().to_string();
            assert!(
                text.contains("512 tokens") && text.contains("3.0 GiB"),
                "{text}"
            );
        }
        let mut prompts = Prompts::default();
        for bytes_read in [0, 2 * GIB, 3 * GIB] {
            assert_eq!(prompts.note(Some(0), 128, bytes_read), None);
        }
        assert_eq!(prompts.note(Some(0), 0, GIB), None);
        assert_eq!(prompts.note(Some(0), 128, GIB), None);
        assert_eq!(prompts.note(Some(0), 128, GIB), None);
        prompts.forget(0);
        assert_eq!(prompts.note(Some(0), 0, 4 * GIB), None);
    }
}
