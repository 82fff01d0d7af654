//! The glue between llama.cpp's expert hook and the engine.

#![allow(unsafe_code)]

mod auto_profile;
mod banks;
mod batch;
mod batch_hook;
mod bell;
mod bound;
mod budget;
#[cfg(feature = "llama")]
mod certificates;
mod compute_hook;
mod copies;
mod device;
mod device_hook;
pub mod device_list;
mod drawing;
mod ending;
mod fatal;
mod foresight;
mod hook;
mod http_hook;
mod install;
mod live;
mod live_models;
mod lives;
mod load_hook;
mod loaded;
mod loaded_model;
mod loading;
#[cfg(feature = "llama")]
pub mod measured_run;
mod metering;
mod model;
mod neighbours;
mod observer;
#[cfg(feature = "llama")]
mod overrides;
mod packed;
#[cfg(feature = "llama")]
pub mod packing;
mod picks;
#[cfg(feature = "llama")]
pub mod placement;
mod pressure;
mod processor;
mod quietly;
mod repack;
mod repack_trial;
mod reports;
mod requests;
mod room;
mod saving;
#[cfg(feature = "llama")]
pub mod session;
mod shares;
mod signals;
mod speaker;
#[cfg(feature = "llama")]
pub mod states;
mod steering;
#[cfg(feature = "internals")]
#[allow(missing_docs)]
pub mod sys;
#[cfg(not(feature = "internals"))]
#[allow(missing_docs)]
mod sys;
mod tapes;
mod target;
#[cfg(feature = "llama")]
pub mod text;
mod title;
#[cfg(feature = "llama")]
pub mod tools;
mod trials;
mod unmoved;
mod whole;
mod workload;

pub use hook::{finish, install, stats, uninstall};
pub use install::install_from_env;
