//! Variables of the environment: reading them, and having cargo build again when they change.

use anyhow::{Result, bail};
use std::env;
use std::ffi::OsString;

/// A variable; an empty one is none.
pub fn get(name: &str) -> Option<OsString> {
    println!("cargo:rerun-if-env-changed={name}");
    env::var_os(name).filter(|value| !value.is_empty())
}

/// As [`get`]; what is not UTF-8 is shown as such, and so fits nothing that is allowed.
pub fn text(name: &str) -> Option<String> {
    Some(get(name)?.to_string_lossy().into_owned())
}

/// Whether the variable `name`, which holds `text`, is on; `means` says what 1 and 0 are for.
pub fn switch(name: &str, text: &str, means: [&str; 2]) -> Result<bool> {
    match text {
        "1" => Ok(true),
        "" | "0" => Ok(false),
        _ => bail!("{name}={text}: it is 1 {}, or 0 {}", means[0], means[1]),
    }
}
