//! The hook of a patched llama.cpp, for a program that installs it itself.

use super::status::{Status, guard};

/// `hotset_llama_install` of the header, which says why its symbol is another one.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_llama_install_status() -> Status {
    guard(crate::llama::install_from_env)
}
