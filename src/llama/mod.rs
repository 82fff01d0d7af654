//! The glue between llama.cpp's expert hook and the engine.

#![allow(unsafe_code)]

mod banks;
mod batch_hook;
mod copies;
mod device;
mod device_hook;
mod ending;
mod foresight;
#[cfg(feature = "llama")]
pub mod gguf;
mod hook;
mod install;
mod loaded;
mod loaded_model;
mod loading;
#[cfg(feature = "llama")]
pub mod measured_run;
mod model;
mod pressure;
mod record;
mod reports;
mod room;
#[cfg(feature = "llama")]
pub mod session;
mod shares;
mod signals;
#[allow(missing_docs)]
pub mod sys;
mod tapes;
#[cfg(feature = "llama")]
pub mod text;
#[cfg(feature = "llama")]
pub mod tools;
mod workload;

pub use hook::{finish, install, stats, uninstall};
pub use install::install_from_env;
