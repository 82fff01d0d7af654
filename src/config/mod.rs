//! The settings, and the one place where the environment is read.

mod asked;
mod choices;
mod environment;
mod files;
mod knobs;
mod router;
mod settings;
mod values;

pub use asked::Asked;
pub use choices::Choices;
pub use knobs::{KNOBS, Knob};
pub use router::Routed;
pub use settings::{Config, DEFAULT_POLICY, Repack};
pub use values::{IF_NEEDED, ProfileSource, Ram, StatsTo};
