//! Builds llama.cpp with cmake and ninja, and the shim that gives its programs C names.

use super::Dirs;
use super::arguments;
use super::files;
use super::link;
use super::portable;
use super::run::{run_watched, say};
use super::settings;
use super::tls;
use super::toolkits;
use super::tools::Tools;
use super::ui::{self, Page};
use super::upstream::Upstream;
use super::vulkan;
use anyhow::{Context, Result};
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The programs whose `main` becomes a function of ours.
const PROGRAMS: &[&str] = &[
    "llama-cli",
    "llama-server",
    "llama-bench",
    "llama-perplexity",
    "llama-completion",
];

/// Those that are made of the server.
const OF_SERVER: &[&str] = &["llama-cli", "llama-server"];

/// How often a long build says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Builds what the programs link, in `root/build`, and tells cargo to link it.
pub fn build(dirs: &Dirs, tools: &Tools, tree: &Upstream, root: &Path) -> Result<()> {
    let programs = programs(tree);
    let mut targets: Vec<_> = programs.iter().map(|name| format!("{name}-impl")).collect();
    if cfg!(feature = "rpc") {
        targets.push("ggml-rpc-server".to_owned());
    }
    if is_portable()? {
        targets.push("ggml".to_owned());
    }
    let users = users_options(tree)?;
    let page = page(dirs, tools, tree, root, &users);
    if let Some(line) = &page.missing {
        println!("cargo:warning={line}");
    }
    let options = options(dirs, tree, &users)?;
    let stamp = root.join("built");
    let stamp_text = format!(
        "{options:?}\n{targets:?}\n{:?}\n{}\n",
        compiler_settings(),
        page.id
    );
    if !files::has_stamp(&stamp, &stamp_text) {
        if cfg!(feature = "vulkan") {
            vulkan::check(dirs)?;
        }
        // It is true again only when all is done: the settings could be changed back before.
        files::remove(&stamp)?;
        ui::install(&page, root)?;
        say(&format!("configuring llama.cpp {}", tree.name));
        configure(tools, &options, root)?;
        compile(tools, &tree.name, &targets, root)?;
        files::write_stamp(&stamp, &stamp_text)?;
    }
    if is_portable()? {
        portable::place(&root.join("build"), &dirs.out)?;
    }
    if let Some(line) = tls::missing(&users, &root.join("build"))? {
        println!("cargo:warning={line}");
    }
    let shim = compile_shim(dirs, &root.join("src"), tree.has_server())?;
    link::emit(&shim, &root.join("build"), &programs)
}

/// Those of [`PROGRAMS`] that the tree has the sources of.
fn programs(tree: &Upstream) -> Vec<&'static str> {
    let is_there = |name: &&str| tree.has_server() || !OF_SERVER.contains(name);
    PROGRAMS.iter().copied().filter(is_there).collect()
}

/// What the environment says to compilers, as cmake, nvcc and the `cmake` and `cc` crates read it.
fn compiler_settings() -> Vec<Option<String>> {
    let mut names = vec!["CC", "CXX", "CFLAGS", "CXXFLAGS", "RUSTFLAGS"];
    if cfg!(feature = "cuda") {
        names.extend(toolkits::CUDA_VARIABLES);
    }
    if cfg!(feature = "vulkan") {
        names.extend(vulkan::VARIABLES);
    }
    names.into_iter().map(settings::text).collect()
}

/// Whether the build is for other machines too.
pub fn is_portable() -> Result<bool> {
    arguments::portable(&settings::text("HOTSET_PORTABLE").unwrap_or_default())
}

/// What `CMAKE_ARGS` says.
fn users_options(tree: &Upstream) -> Result<Vec<(String, String)>> {
    let ours = our_options(tree)?;
    let names: Vec<_> = ours.iter().map(|(name, _)| *name).collect();
    arguments::parse(&settings::text("CMAKE_ARGS").unwrap_or_default(), &names)
}

/// Our options, then the user's.
fn options(
    dirs: &Dirs,
    tree: &Upstream,
    users: &[(String, String)],
) -> Result<Vec<(String, String)>> {
    let mut ours = our_options(tree)?;
    // Upstream's build takes the page that we made before, if any, and is not to look for another.
    if ui::ways(users).is_some() {
        ours.push(("LLAMA_BUILD_UI", "OFF".to_owned()));
        ours.push(("LLAMA_USE_PREBUILT_UI", "OFF".to_owned()));
    }
    if tls::is_ours(users) {
        ours.extend(tls::options(&tls::source(&dirs.package, &dirs.target)?));
    }
    let ours = ours
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    Ok(ours.chain(users.iter().cloned()).collect())
}

/// The page of llama-server, as far as it is ours to make.
fn page(
    dirs: &Dirs,
    tools: &Tools,
    tree: &Upstream,
    root: &Path,
    users: &[(String, String)],
) -> Page {
    let maker = ui::Maker {
        pristine: &tree.root,
        src: &root.join("src"),
        number: &tree.number.to_string(),
        dir: &dirs.target.join("llama").join(format!("{}-ui", tree.name)),
        path: &tools.search_path(),
        npm_limit: ui::NPM_LIMIT,
        say,
    };
    match ui::ways(users).filter(|_| tree.has_server()) {
        Some(ways) => maker.page(ways),
        None => maker.of_tree(),
    }
}

fn our_options(tree: &Upstream) -> Result<Vec<(&'static str, String)>> {
    let switch = |on: bool| if on { "ON" } else { "OFF" }.to_owned();
    let off = |name| (name, switch(false));
    let mut options = vec![
        off("BUILD_SHARED_LIBS"),
        ("CMAKE_POSITION_INDEPENDENT_CODE", switch(true)),
        ("GGML_CUDA", switch(cfg!(feature = "cuda"))),
        ("GGML_METAL", switch(cfg!(feature = "metal"))),
        ("GGML_NATIVE", switch(!is_portable()?)),
        ("GGML_RPC", switch(cfg!(feature = "rpc"))),
        ("GGML_VULKAN", switch(cfg!(feature = "vulkan"))),
        off("GGML_CCACHE"),
        off("LLAMA_BUILD_APP"),
        off("LLAMA_BUILD_EXAMPLES"),
        off("LLAMA_BUILD_TESTS"),
        ("LLAMA_BUILD_SERVER", switch(tree.has_server())),
        ("LLAMA_BUILD_TOOLS", switch(true)),
        ("LLAMA_BUILD_NUMBER", tree.number.to_string()),
        ("LLAMA_BUILD_COMMIT", tree.name.clone()),
    ];
    if is_portable()? {
        options.extend(portable::options());
    }
    Ok(options)
}

fn configure(tools: &Tools, options: &[(String, String)], root: &Path) -> Result<()> {
    // What cmake remembers: options and compilers that are no longer asked for. What is compiled stays, and
    // ninja compiles again what has another command line than before.
    for name in ["CMakeCache.txt", "CMakeFiles"] {
        files::remove(&root.join("build").join(name))?;
    }
    // The file API's question; the answer is what `link` reads.
    let query = root.join("build/.cmake/api/v1/query");
    fs::create_dir_all(&query)
        .and_then(|()| fs::write(query.join("codemodel-v2"), ""))
        .with_context(|| format!("writing to {}", query.display()))?;
    let mut config = cmake::Config::new(root.join("src"));
    config
        .generator("Ninja")
        .profile("Release")
        .out_dir(root)
        .env("PATH", tools.search_path())
        // llama.cpp would take the commit of a repository above its tree for its own.
        .env("GIT_CEILING_DIRECTORIES", root)
        // The target that brings the build files up to date: compiling is `compile`'s work.
        .build_target("build.ninja");
    if cfg!(feature = "cuda") {
        config.env("CUDACXX", toolkits::nvcc(|name| env::var_os(name))?);
    }
    for (name, value) in options {
        config.define(name, value);
    }
    config.build();
    Ok(())
}

fn compile(tools: &Tools, tag: &str, targets: &[String], root: &Path) -> Result<()> {
    let mut said_at = None::<Instant>;
    run_watched(
        "building llama.cpp",
        Command::new("ninja")
            .env("PATH", tools.search_path())
            .env("GIT_CEILING_DIRECTORIES", root)
            .arg("-C")
            .arg(root.join("build"))
            .args(["-j", &env::var("NUM_JOBS").unwrap_or("1".to_owned())])
            .args(targets),
        |line| {
            let is_due = said_at.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY);
            if let Some((done, all)) = steps(line).filter(|_| is_due) {
                said_at = Some(Instant::now());
                let percent = 100 * done / all;
                say(&format!(
                    "building llama.cpp {tag}: {percent} % ({done}/{all})"
                ));
            }
        },
    )?;
    say(&format!("llama.cpp {tag} is built"));
    Ok(())
}

/// The numbers of ninja's `[3/224] Building ...`.
fn steps(line: &str) -> Option<(u32, u32)> {
    let (done, all) = line.strip_prefix('[')?.split_once(']')?.0.split_once('/')?;
    Some((done.parse().ok()?, all.parse().ok().filter(|&all| all > 0)?))
}

/// Compiles the shims, whose archive is linked with llama.cpp's and never goes into our own.
fn compile_shim(dirs: &Dirs, src: &Path, has_server: bool) -> Result<std::path::PathBuf> {
    let mut build = cc::Build::new();
    if !has_server {
        build.define("HOTSET_NO_SERVER", None);
    }
    for folder in ["common", "include", "ggml/include"] {
        // As a system's: upstream's headers may warn.
        build.flag(format!("-isystem{}", src.join(folder).display()));
    }
    build
        .cpp(true)
        .std("c++17")
        .warnings_into_errors(true)
        .file(dirs.package.join("src/llama/shim.cpp"))
        .file(dirs.package.join("src/llama/fit_shim.cpp"))
        .cargo_metadata(false)
        .try_compile("hotset-shim")
        .context("compiling src/llama/*shim.cpp")?;
    Ok(dirs.out.join("libhotset-shim.a"))
}
