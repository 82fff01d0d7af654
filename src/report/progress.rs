//! How far a long read is.

#[cfg(feature = "cli")]
use indicatif::{ProgressBar, ProgressStyle};

/// A bar on standard error. There is none where that is no terminal, nor in a library without the feature `cli`.
pub struct Progress(#[cfg(feature = "cli")] ProgressBar);

impl Progress {
    /// Of reading `n_bytes` of experts.
    pub fn of_bytes(n_bytes: u64) -> Self {
        const STYLE: &str = "hotset: reading experts {bar:30} {binary_bytes} of {binary_total_bytes}, {eta} left";
        Self::new(n_bytes, STYLE)
    }

    /// Of reading the tokens of a text, as many as there turn out to be.
    pub fn of_tokens() -> Self {
        Self::new(
            0,
            "hotset: reading {bar:30} {human_pos} of {human_len} tokens, {eta} left",
        )
    }

    /// There are so many in all.
    pub fn set_length(&self, n: u64) {
        #[cfg(feature = "cli")]
        self.0.set_length(n);
        let _ = n;
    }

    /// So many are done.
    pub fn set(&self, n: u64) {
        #[cfg(feature = "cli")]
        self.0.set_position(n);
        let _ = n;
    }

    /// All are done: the bar goes.
    pub fn finish(self) {
        #[cfg(feature = "cli")]
        self.0.finish_and_clear();
    }

    #[cfg(feature = "cli")]
    fn new(n: u64, style: &str) -> Self {
        let style = ProgressStyle::with_template(style).expect("the template is right");
        Self(ProgressBar::new(n).with_style(style))
    }

    #[cfg(not(feature = "cli"))]
    fn new(_: u64, _: &str) -> Self {
        Self()
    }
}
