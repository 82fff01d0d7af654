//! GGUF files: what they list, the experts among it, and the head of a new file.

mod experts;
mod head;
mod part;
mod reader;
mod tensor;
#[cfg(test)]
mod tests;
pub mod types;
mod values;

pub use experts::{Experts, files, others, read};
pub use head::{Head, padded};
pub use part::{Part, expert_part};
pub use reader::{Listing, floats, list, list_from};
pub use tensor::Tensor;
pub use values::{Value, Values};
