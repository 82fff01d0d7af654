//! Installing the hook with the settings of the environment, in programs that are not ours.

use super::hook;
use crate::config::Config;
use crate::error::Result;
use std::sync::OnceLock;

/// As [`hook::install`], with the settings of the environment. Later calls change nothing, and end as the first did.
pub fn install_from_env() -> Result<()> {
    static FIRST: OnceLock<Result<()>> = OnceLock::new();
    match FIRST.get_or_init(|| Config::from_env().and_then(hook::install)) {
        Ok(()) => Ok(()),
        Err(error) => Err(error.again()),
    }
}

/// What `llama_backend_init()` of a patched llama.cpp calls, see `patches/`: the program of somebody who has built it
/// with hotset, and knows nothing of it, ends as ours do where the settings are wrong.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_llama_install_or_exit() {
    if let Err(error) = install_from_env() {
        crate::report::say(&format!("hotset: error: {error}"));
        std::process::exit(2);
    }
}
