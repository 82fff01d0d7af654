//! Whether a model fits in memory when it is loaded as usual: what it takes, against what there is.
//!
//! Who says yes too soon gets what stock llama.cpp does, a model whose pages come and go. Who says no too soon gets experts
//! that are streamed, all of them into memory if they fit after all. So what is not known is rather more than less.

use super::auto_size;

/// What llama.cpp leaves of the memory of the machine when it chooses a context.
const HOST_MARGIN: u64 = 1 << 30;
/// It does not choose a shorter one than this.
const N_CTX_MIN: u64 = 4096;
/// Contexts are multiples of this.
const N_CTX_STEP: u64 = 256;

/// What a model takes when it is loaded as usual, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Its weights.
    pub weights: u64,
    /// The KV cache, for each token of the context.
    pub token_bytes: u64,
    /// Tokens of the context.
    pub n_ctx: u64,
    /// Intermediate results.
    pub buffers: u64,
}

impl Needs {
    /// The KV cache.
    pub fn context(&self) -> u64 {
        self.token_bytes.saturating_mul(self.n_ctx)
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        let beside = self.weights.saturating_add(self.buffers);
        beside.saturating_add(self.context())
    }

    /// The same with the context that llama.cpp chooses for a model that was trained with `n_ctx_train` tokens: all of
    /// them, unless the machine has too little memory, of which `host` is what it has in all.
    pub fn with_chosen_context(self, n_ctx_train: u64, host: u64) -> Self {
        let beside = Self { n_ctx: 0, ..self }.total().saturating_add(HOST_MARGIN);
        let left = host.saturating_sub(beside);
        let n_ctx = left.checked_div(self.token_bytes).unwrap_or(n_ctx_train);
        let least = N_CTX_MIN.min(n_ctx_train);
        Self {
            n_ctx: n_ctx.clamp(least, n_ctx_train),
            ..self
        }
    }
}

/// What there is for it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What the machine and its control groups leave; pages of files that are mapped are in use.
    pub available: u64,
    /// What devices have free for weights.
    pub devices: u64,
}

impl Room {
    /// What is left to the rest of the system.
    pub fn reserve(&self) -> u64 {
        self.available - auto_size::at_start(self.available, 0)
    }

    /// What a model may take.
    pub fn usable(&self) -> u64 {
        auto_size::at_start(self.available, 0).saturating_add(self.devices)
    }
}

/// What a model takes, and what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// What it takes.
    pub needs: Needs,
    /// What there is.
    pub room: Room,
}

impl Fit {
    /// Whether it fits.
    pub fn is_whole(&self) -> bool {
        self.needs.total() <= self.room.usable()
    }

    /// Of a model that does not fit: the longest context with which it would, if that is of use.
    pub fn n_ctx_most(&self) -> Option<u64> {
        let beside = Needs { n_ctx: 0, ..self.needs }.total();
        let left = self.room.usable().checked_sub(beside)?;
        let n_ctx = left.checked_div(self.needs.token_bytes)?;
        let n_ctx = n_ctx - n_ctx % N_CTX_STEP;
        (N_CTX_MIN..self.needs.n_ctx).contains(&n_ctx).then_some(n_ctx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    const NEEDS: Needs = Needs {
        weights: 10 * GIB,
        token_bytes: 96 << 10,
        n_ctx: 8192,
        buffers: GIB / 4,
    };

    fn fit(needs: Needs, available: u64, devices: u64) -> Fit {
        Fit { needs, room: Room { available, devices } }
    }

    #[test]
    fn a_model_fits_beside_context_buffers_and_reserve() {
        assert_eq!(NEEDS.total(), 11 * GIB);
        // A sixteenth is left to others.
        let least = 11 * GIB * 16 / 15 + 1;
        assert!(fit(NEEDS, least, 0).is_whole());
        assert!(!fit(NEEDS, least - (1 << 20), 0).is_whole());
        assert!(fit(NEEDS, least - 4 * GIB, 4 * GIB).is_whole());
        assert!(!fit(NEEDS, 0, 0).is_whole());
        let huge = Needs { n_ctx: u64::MAX, ..NEEDS };
        assert!(!fit(huge, u64::MAX, 0).is_whole());
    }

    #[test]
    fn a_shorter_context_is_named_only_if_it_helps() {
        let long = Needs { n_ctx: 131_072, ..NEEDS };
        let fit_of = |needs, gib: u64| fit(needs, gib * GIB, 0);
        let shorter = fit_of(long, 12);
        assert!(!shorter.is_whole());
        let n_ctx = shorter.n_ctx_most().unwrap();
        assert_eq!(n_ctx % N_CTX_STEP, 0);
        for (n_ctx, is_whole) in [(n_ctx, true), (n_ctx + N_CTX_STEP, false)] {
            assert_eq!(fit_of(Needs { n_ctx, ..long }, 12).is_whole(), is_whole);
        }
        // Not even the weights, or no context worth having.
        assert_eq!(fit_of(long, 10).n_ctx_most(), None);
        assert_eq!(fit_of(long, 11).n_ctx_most(), None);
        assert_eq!(fit_of(Needs { token_bytes: 0, ..long }, 10).n_ctx_most(), None);
    }

    #[test]
    fn the_chosen_context_is_what_the_machine_has_left() {
        let chosen = |host: u64, n_train| NEEDS.with_chosen_context(n_train, host * GIB).n_ctx;
        assert_eq!(chosen(64, 131_072), 131_072);
        assert_eq!(chosen(16, 131_072), (19 * GIB / 4) / (96 << 10));
        assert_eq!(chosen(8, 131_072), N_CTX_MIN);
        assert_eq!(chosen(8, 512), 512);
    }
}
