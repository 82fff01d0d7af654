//! Everything that can go wrong, in one place.

use std::path::PathBuf;

/// Why a call failed. Each variant maps to one C status, see `ffi/status.rs`.
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
    /// A call that is right, at the wrong time.
    #[error("{0}")]
    State(String),
    /// A profile is not of the model that it is used for.
    #[error("profile={profile}: {why}")]
    Mismatch {
        /// What it is called.
        profile: String,
        /// How they differ.
        why: String,
    },
    /// The system has no memory for what is asked for.
    #[error("there is no memory for {what}, which may take {n_bytes} bytes")]
    NoMemory {
        /// What it is for.
        what: String,
        /// The most that it may take.
        n_bytes: u64,
    },
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
    /// A file that somebody has named is not there, or the system does not give what is in it.
    #[error("{}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A file operation failed.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The system refused something that is not about a file.
    #[error("{what}: {cause}")]
    System {
        /// What it was to do.
        what: String,
        /// What it said.
        cause: std::io::Error,
    },
}

impl Error {
    /// A setting or an option `name` that cannot be `value`: `allowed` says what is valid, or why it is not.
    pub fn setting(name: impl ToString, value: impl ToString, allowed: impl ToString) -> Self {
        Self::Setting {
            name: name.to_string(),
            value: value.to_string(),
            allowed: allowed.to_string(),
        }
    }

    /// A file that is not what it should be.
    pub fn file(path: impl Into<PathBuf>, why: impl ToString) -> Self {
        Self::File {
            path: path.into(),
            why: why.to_string(),
        }
    }

    /// What the system said to an operation on a file.
    pub fn io(path: impl Into<PathBuf>, cause: std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            cause,
        }
    }

    /// What the system refused to do, which no other input would change.
    pub fn system(what: impl ToString, cause: impl Into<std::io::Error>) -> Self {
        Self::System {
            what: what.to_string(),
            cause: cause.into(),
        }
    }

    /// The same error for somebody else who asks: what the system said cannot be cloned.
    pub fn again(&self) -> Self {
        match self {
            Self::Null(what) => Self::Null(what),
            &Self::ExpertOutOfRange { id, n_experts } => Self::ExpertOutOfRange { id, n_experts },
            &Self::LayerOutOfRange { layer, n_layers } => Self::LayerOutOfRange { layer, n_layers },
            Self::Event { layer, why } => Self::Event {
                layer: *layer,
                why: why.clone(),
            },
            Self::NoPlan => Self::NoPlan,
            Self::State(why) => Self::State(why.clone()),
            Self::Mismatch { profile, why } => Self::Mismatch {
                profile: profile.clone(),
                why: why.clone(),
            },
            Self::NoMemory { what, n_bytes } => Self::NoMemory {
                what: what.clone(),
                n_bytes: *n_bytes,
            },
            Self::Setting {
                name,
                value,
                allowed,
            } => Self::Setting {
                name: name.clone(),
                value: value.clone(),
                allowed: allowed.clone(),
            },
            Self::Read {
                what,
                path,
                offset,
                n_bytes,
                cause,
            } => Self::Read {
                what: what.clone(),
                path: path.clone(),
                offset: *offset,
                n_bytes: *n_bytes,
                cause: cause_again(cause),
            },
            Self::File { path, why } => Self::File {
                path: path.clone(),
                why: why.clone(),
            },
            Self::Io { path, cause } => Self::io(path, cause_again(cause)),
            Self::System { what, cause } => Self::system(what, cause_again(cause)),
            Self::Unreadable { path, cause } => Self::Unreadable {
                path: path.clone(),
                cause: cause_again(cause),
            },
        }
    }
}

/// What the system said, once more.
pub(crate) fn cause_again(cause: &std::io::Error) -> std::io::Error {
    match cause.raw_os_error() {
        Some(code) => std::io::Error::from_raw_os_error(code),
        None => std::io::Error::new(cause.kind(), cause.to_string()),
    }
}

/// A result of this library.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_again_is_told_the_same() {
        let path = || PathBuf::from("m.gguf");
        let refused = || std::io::Error::from_raw_os_error(libc::EACCES);
        let text = || "text".to_string();
        for error in [
            Error::Null("cache"),
            Error::Event {
                layer: 3,
                why: text(),
            },
            Error::Setting {
                name: text(),
                value: text(),
                allowed: text(),
            },
            Error::Read {
                what: text(),
                path: path(),
                offset: 1,
                n_bytes: 2,
                cause: std::io::Error::other("a cause"),
            },
            Error::io(path(), refused()),
            Error::system(text(), refused()),
            Error::State(text()),
            Error::Mismatch {
                profile: text(),
                why: text(),
            },
            Error::NoMemory {
                what: text(),
                n_bytes: 7,
            },
            Error::Unreadable {
                path: path(),
                cause: refused(),
            },
        ] {
            assert_eq!(format!("{:?}", error.again()), format!("{error:?}"));
            assert_eq!(error.again().to_string(), error.to_string());
        }
    }
}
