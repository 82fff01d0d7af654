//! What the next layers will probably pick, and how likely: learnt while a model computes.

mod chances;
mod correction;
mod familiar;
mod features;
mod habits;
mod predictor;
#[cfg(test)]
mod predictor_tests;
mod product;
mod router;

pub use predictor::{DISTANCE_MAX, Predictor};
pub use router::{Gate, Groups, Router, Routers};
