//! Activation profiles: what a workload picks, kept from one run to the next.
//!
//! # The format
//!
//! One JSON object in a file, gzip if its name ends in `.gz`. The fields are those of [`Profile`]. Which experts a
//! workload picks hardly depends on the quantisation, so neither does a profile: the model is known by its
//! [`Fingerprint`].
//!
//! Each layer has a [`Heat`] for prompts and one for generation. The weights fade: a pick that was followed by
//! [`HALF_LIFE`] tokens of its phase weighs half. Counts never fade.

mod choose;
mod file;
mod folder;
mod format;
mod import;
mod learn;
mod learner;
mod memory;
mod mix;
mod own_name;
pub mod recognizer;
mod similarity;
mod weighted_path;

pub use choose::{Chooser, Verdict};
pub(crate) use file::NAME_BYTES_MAX;
pub use folder::{is_named_so, read_folder, read_folder_sparing};
pub use format::{Fingerprint, HALF_LIFE, Heat, LayerHeat, PRIOR_TOKENS, Profile, Tokens, VERSION};
pub use import::import;
pub use learn::Lesson;
pub use learner::{Learner, ModelLayers, Say};
pub use memory::{Memory, weight_beside};
pub use mix::{Blend, merge};
pub use own_name::own_name;
pub use similarity::{layer_similarities, similarity};
pub(crate) use weighted_path::WEIGHT_MAX;
pub use weighted_path::path_and_weight;
