//! Where time goes.

use serde::{Deserialize, Serialize};

/// Where the time of batches went that were computed here, in milliseconds, as the first thread saw it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// From the first layer's routing to the end of the last layer.
    pub busy_ms: f64,
    /// Of this, waiting for experts.
    pub stalled_ms: f64,
    /// Of that, for experts that had been asked for before their router had run.
    pub early_ms: f64,
    /// Of all, planning events and asking for what they miss.
    pub bookkeeping_ms: f64,
    /// Of all, the disk had nothing to do, and then something was asked for and waited for.
    pub disk_idle_ms: f64,
    /// What of the waiting a disk would save that is twice as fast.
    pub faster_disk_ms: f64,
}

impl Times {
    /// Each of them, changed with that of `other`.
    pub fn zip(&self, other: &Self, of: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            busy_ms: of(self.busy_ms, other.busy_ms),
            stalled_ms: of(self.stalled_ms, other.stalled_ms),
            early_ms: of(self.early_ms, other.early_ms),
            bookkeeping_ms: of(self.bookkeeping_ms, other.bookkeeping_ms),
            disk_idle_ms: of(self.disk_idle_ms, other.disk_idle_ms),
            faster_disk_ms: of(self.faster_disk_ms, other.faster_disk_ms),
        }
    }
}
