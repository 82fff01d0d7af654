//! The order of the steps, and where each one leaves its result.
//!
//! ```text
//! vendor/llama.cpp                    the tree of the default tag, as upstream published it
//! target/tools                        cmake, ninja and libclang where the machine lacks them
//! target/llama/sdist                  the package the tree came in
//! target/llama/<tag>-ui               the page of llama-server
//! target/llama/cargo                  what cargo is asked with for packages: BoringSSL, trees of other tags
//! target/llama/<tag>-<features>/src   the tree with the patches
//! target/llama/<tag>-<features>/build its build, shared by all profiles
//! ```

#[cfg(feature = "llama")]
mod arguments;
mod bindings;
mod checkout;
mod files;
#[cfg(feature = "llama")]
mod link;
#[cfg(feature = "llama")]
mod native;
mod patches;
mod pins;
#[cfg(feature = "llama")]
mod portable;
mod registry;
mod run;
mod settings;
#[cfg(feature = "llama")]
mod tls;
#[cfg(feature = "llama")]
mod toolkits;
mod tools;
#[cfg(feature = "llama")]
mod ui;
mod upstream;
#[cfg(feature = "llama")]
mod vulkan;

use anyhow::{Context, Result};
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Directories of this build.
pub struct Dirs {
    /// The package: where `Cargo.toml` is.
    pub package: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// This build script's own output.
    pub out: PathBuf,
}

/// Does everything that the enabled features need.
pub fn prepare() -> Result<()> {
    for path in [
        "vendor/UPSTREAM",
        "vendor/tools.txt",
        "patches",
        "src/llama/shim.cpp",
        "src/llama/fit_shim.cpp",
    ] {
        println!("cargo:rerun-if-changed={path}");
    }
    #[cfg(feature = "llama")]
    toolkits::check()?;
    let dirs = dirs()?;
    let _lock = lock(&dirs.target.join("llama"))?;

    let tree = upstream::locate(&dirs)?;
    let name = build_name(&tree.name)?;
    let root = dirs.target.join("llama").join(&name);
    let queue = patches::Queue {
        dir: &dirs.package.join("patches"),
        tag: &tree.patches,
        pristine: &tree.root,
        number: tree.number,
    };
    let changes = patches::plan(&queue, &root.join("src"))?;
    let tools = tools::find(&dirs)?;
    // Before the first write, so that an interrupted build is taken up again.
    if !changes.is_empty() {
        files::remove(&root.join("built"))?;
    }
    changes.apply()?;
    patches::check(&root.join("src"))?;

    bindings::generate(&root.join("src"), &tools.libclang, &dirs.out)?;
    #[cfg(feature = "llama")]
    native::build(&dirs, &tools, &tree, &root)?;

    // For the tests, which look at the trees and build with the same tools. Not named HOTSET: `cargo
    // run` and `cargo test` pass these on to programs that take every such variable for a setting.
    println!(
        "cargo:rustc-env=BUILD_LLAMA_PRISTINE={}",
        tree.root.display()
    );
    println!("cargo:rustc-env=BUILD_LLAMA_SRC={}/src", root.display());
    println!("cargo:rustc-env=BUILD_LLAMA_NAME={}", tree.name);
    println!("cargo:rustc-env=BUILD_LLAMA_PATCHES={}", tree.patches);
    println!(
        "cargo:rustc-env=BUILD_TOOLS_PATH={}",
        tools::join(&tools.path)?
    );
    println!(
        "cargo:rustc-env=BUILD_LIBCLANG={}",
        tools.libclang.display()
    );
    Ok(())
}

fn dirs() -> Result<Dirs> {
    let var = |name: &str| env::var_os(name).with_context(|| format!("cargo did not set {name}"));
    let package = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(var("OUT_DIR")?);
    // Cargo tags its target directory; `OUT_DIR` is four or five levels below it.
    let target = out
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists())
        .or(out.ancestors().nth(4))
        .with_context(|| format!("{} is not in a target directory", out.display()))?
        .to_owned();
    Ok(Dirs {
        package,
        target,
        out,
    })
}

/// `<tag>-hooks`: nothing is built.
#[cfg(not(feature = "llama"))]
fn build_name(tree: &str) -> Result<String> {
    Ok(format!("{tree}-hooks"))
}

/// `<tag>-<features>`: what decides the bytes of a build, beside the patches.
#[cfg(feature = "llama")]
fn build_name(tree: &str) -> Result<String> {
    let features = [
        ("cuda", cfg!(feature = "cuda")),
        ("metal", cfg!(feature = "metal")),
        ("portable", native::is_portable()?),
        ("rpc", cfg!(feature = "rpc")),
        ("vulkan", cfg!(feature = "vulkan")),
    ];
    let on = features.iter().filter(|f| f.1).map(|f| format!("-{}", f.0));
    Ok(format!("{tree}{}", on.collect::<String>()))
}

/// Other profiles build at the same time: one of them works, the others wait and find it done.
fn lock(dir: &Path) -> Result<File> {
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    if file.try_lock().is_err() {
        run::say("waiting for another build of llama.cpp");
        file.lock()
            .with_context(|| format!("locking {}", path.display()))?;
    }
    Ok(file)
}
