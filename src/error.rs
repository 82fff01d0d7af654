//! Everything that can go wrong, in one place.

use std::path::PathBuf;

/// Why a call failed. Each variant maps to one C status, see `ffi::status`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A required pointer was NULL.
    #[error("`{0}` is NULL")]
    Null(&'static str),
    /// The router named an expert the layer does not have.
    #[error("expert {id} is outside 0..{n_experts}")]
    ExpertOutOfRange {
        /// The id that was passed.
        id: i64,
        /// How many experts the layer has.
        n_experts: u32,
    },
    /// A layer that does not exist.
    #[error("layer {layer} is outside 0..{n_layers}")]
    LayerOutOfRange {
        /// The layer that was passed.
        layer: u32,
        /// How many layers there are.
        n_layers: u32,
    },
    /// A routing event that contradicts itself.
    #[error("routing event of layer {layer}: {why}")]
    Event {
        /// Its layer.
        layer: u32,
        /// What is wrong, with the values.
        why: String,
    },
    /// There is no plan to commit or to roll back.
    #[error("there is no plan, or it is committed already")]
    NoPlan,
    /// A setting has a value it cannot have.
    #[error("{name}={value}: {allowed}")]
    Setting {
        /// The variable or option.
        name: String,
        /// What it was set to.
        value: String,
        /// What is valid, or why the value is not.
        allowed: String,
    },
    /// Bytes of a model could not be read.
    #[error("{what}: reading {n_bytes} bytes at offset {offset} of {}: {cause}", path.display())]
    Read {
        /// The tensor and expert.
        what: String,
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// How many bytes.
        n_bytes: usize,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A file that is damaged or of another kind.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file operation failed.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// A result of this library.
pub type Result<T> = std::result::Result<T, Error>;
