//! Gives the crate llama.cpp: fetches the pinned tree, applies `patches/`, generates bindings, and
//! with the feature `llama` builds it once for all profiles and links it into the programs.
//!
//! Nothing of this happens with `--no-default-features`.

#[cfg(feature = "hooks")]
#[path = "build/mod.rs"]
mod llama;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    #[cfg(feature = "hooks")]
    if let Err(error) = llama::prepare() {
        // Not `main() -> Result`: its output would hide the cause under a backtrace of this file.
        eprintln!("\nerror: {error:#}\n");
        std::process::exit(1);
    }
}
