//! What a server answers, as far as it is shown. What else it says is passed over.

use serde::Deserialize;

/// An object of `GET /hotset/stats`: the counters of one model.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Stats {
    pub model: String,
    pub policy: String,
    /// 0 where nothing is streamed.
    pub n_experts: u64,
    pub n_slots: u64,
    pub n_resident: u64,
    pub generation: Tally,
    pub prompt: Tally,
    pub bytes_read: u64,
    pub bytes_read_uncounted: u64,
    pub generation_time: Times,
    pub prompt_time: Times,
    pub devices: Vec<Device>,
    pub live: Live,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Tally {
    pub tokens: u64,
    pub hits: u64,
    pub misses: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Times {
    pub busy_ms: f64,
    pub stalled_ms: f64,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Device {
    pub device: String,
    pub n_experts: u64,
    pub n_slots: u64,
    pub n_resident: u64,
    pub slot_bytes: u64,
    pub generation: Tally,
    pub bytes_uploaded: u64,
    pub bytes_warmed: u64,
}

/// What a server says of a model besides its counters.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Live {
    /// The setting as it was written; empty where nothing is streamed.
    pub ram: String,
    pub budget_bytes: u64,
    pub budget_bytes_max: u64,
    pub available_bytes: u64,
    pub disk_bytes_per_s: Option<f64>,
    pub policies: Vec<Policy>,
    pub profile: Profile,
    pub uptime_s: f64,
    /// Age of the counters: since the start, or since they were reset.
    pub since_s: f64,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Policy {
    pub name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Profile {
    pub saves_to: Option<String>,
    pub used: Vec<String>,
    pub folder: Option<String>,
    pub workload: Option<Workload>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Workload {
    pub name: String,
    pub sureness: f64,
    pub changes: u64,
}

/// An object of `GET /hotset/heat`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Heat {
    pub layers: Vec<Layer>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Layer {
    pub block: u32,
    /// Of the layer's picks, by expert.
    pub share: Vec<f64>,
    /// A letter for each expert: `g` on a device, `m` in memory, `d` on disk only.
    pub tier: String,
}

/// An object of `GET /hotset/plan`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Plan {
    pub now: Point,
    pub rows: Vec<Point>,
    pub step_bytes: u64,
}

/// What an amount of memory brings.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Point {
    pub budget_bytes: u64,
    pub hit_percent: f64,
    pub tokens_per_s: Option<f64>,
}

/// The answer to a budget.
#[derive(Debug, Deserialize)]
pub struct Budgets {
    pub models: Vec<Budget>,
}

#[derive(Debug, Deserialize)]
pub struct Budget {
    pub ram: String,
    pub budget_bytes: u64,
    pub n_slots: u64,
}

/// The answer to the name of a policy.
#[derive(Debug, Deserialize)]
pub struct Chosen {
    pub policy: String,
}

/// The answer to `{"save":true}`.
#[derive(Debug, Deserialize)]
pub struct Saved {
    pub saved: Vec<String>,
}
