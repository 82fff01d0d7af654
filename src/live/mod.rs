//! What a running server answers: below `/hotset`, and for experts in `/metrics`.
//!
//! Here is what is said, of values that somebody else has looked up; `llama` finds the models and does what is asked.

mod answer;
mod events;
mod heat;
mod metrics;
mod pace;
mod plan;
mod request;

pub use answer::{Answer, error_json};
pub use events::{Tick, ticks_text};
pub use heat::{LayerHeat, ModelHeat};
pub use metrics::{Counters, DeviceUse, FAMILIES, Family, Metered};
pub use pace::Pace;
pub use plan::{LivePlan, Speed, WINDOW_PICKS};
pub use request::{PAGE, ProfileWish, Request, parse};
