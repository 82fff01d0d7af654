//! Memory goes back to the system where it counts, and a limit may fall while tokens are generated. Needs the
//! right to make control groups for memory; says `skipped` where there is none.

#![cfg(target_os = "linux")]
// Looks into an arena.
#![allow(unsafe_code)]

#[cfg(feature = "llama")]
#[path = "../child/mod.rs"]
mod child;
#[cfg_attr(not(feature = "llama"), allow(dead_code))]
mod group;
mod huge_pages;
#[cfg(feature = "llama")]
mod limit;
#[cfg(feature = "llama")]
mod mapped;
#[cfg(feature = "llama")]
mod neighbours;
#[cfg(feature = "llama")]
mod routing;
#[cfg(feature = "llama")]
#[path = "../serving/mod.rs"]
mod serving;
#[cfg(feature = "llama")]
#[path = "../tiny/mod.rs"]
mod tiny;
#[cfg(feature = "llama")]
mod waiting;
#[cfg(feature = "llama")]
mod whole;

/// A group for a test, and the bundled model with experts that are `factor` times larger, in a folder that goes when it
/// is dropped. Nothing where there are no groups.
#[cfg(feature = "llama")]
fn heavy(
    test: &str,
    factor: &str,
) -> Option<(group::Group, tempfile::TempDir, std::path::PathBuf)> {
    let group = group::Group::new(test)?;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let model = dir.path().join("heavy.gguf");
    child::widen(factor, &model);
    Some((group, dir, model))
}
