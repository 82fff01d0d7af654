//! The hook of a patched llama.cpp, for a program that installs it itself.

use super::status::{Status, guard};

/// `hotset_llama_install`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_llama_install() -> Status {
    guard(crate::llama::install_from_env)
}
