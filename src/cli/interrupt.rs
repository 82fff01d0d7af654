//! Signals that ask a command to end, which has something to clean up.

use anyhow::{Context, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of the signal that asked this program to end, or 0.
#[derive(Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// From now on such a signal is only noted.
    pub fn watch() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            flag::register_usize(signal, interrupt.0.clone(), signal as usize)
                .context("catching signals")?;
        }
        Ok(interrupt)
    }

    /// Whether none has come.
    pub fn check(&self) -> anyhow::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => bail!("interrupted"),
        }
    }

    /// Ends the program as the signal would have, if one has come.
    pub fn end(&self) -> anyhow::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Ok(low_level::emulate_default_handler(signal as i32)?),
        }
    }
}
