//! Links what cmake would link: asks its file API for the libraries of upstream's own programs.

use super::portable;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// What `src/llama/fit_shim.cpp` is asked for in place of llama.cpp. With another signature linking fails.
const WRAPPED: [&str; 2] = [
    "_Z17common_fit_paramsPKcP18llama_model_paramsP20llama_context_paramsPfP32llama_model_tensor_buft_override\
     PmjPK22common_fit_extra_model14ggml_log_level",
    "llama_model_load_from_file",
];

/// Tells cargo to link the shim and the libraries of `programs` into our programs and tests.
///
/// These are arguments of the linker and no `rustc-link-lib`: that would put llama.cpp into
/// libhotset.a, which is for people who build llama.cpp themselves.
pub fn emit(shim: &Path, build: &Path, programs: &[&str]) -> Result<()> {
    let mut args = Vec::new();
    for program in programs {
        for arg in fragments(build, program)? {
            if !args.contains(&arg) {
                args.push(arg);
            }
        }
    }
    args.push(runtime().to_owned());
    // For a test that links a program of its own.
    println!("cargo:rustc-env=BUILD_LIBRARIES={}", args.join("\t"));
    args.insert(0, shim.display().to_string());
    // The order of several programs' libraries in one line can't suit each of them.
    let args = if cfg!(target_os = "macos") {
        [args.clone(), args].concat()
    } else {
        let wraps = WRAPPED.map(|name| format!("-Wl,--wrap={name}"));
        let start = vec!["-Wl,--start-group".to_owned()];
        [
            wraps.into(),
            start,
            args,
            vec!["-Wl,--end-group".to_owned()],
        ]
        .concat()
    };
    for arg in args {
        println!("cargo:rustc-link-arg={arg}");
    }
    Ok(())
}

fn runtime() -> &'static str {
    if cfg!(target_os = "macos") {
        "-lc++"
    } else {
        "-lstdc++"
    }
}

/// The linker's arguments for one of upstream's programs, beside its own objects.
fn fragments(build: &Path, program: &str) -> Result<Vec<String>> {
    let target = target(build, program)?;
    let fragments = target["link"]["commandFragments"].as_array();
    let mut args = Vec::new();
    for fragment in fragments.context("cmake's reply has no link line")? {
        let text = fragment["fragment"].as_str().unwrap_or_default();
        if fragment["role"] == "flags" || text.is_empty() {
            continue;
        }
        if let Some(name) = text.strip_prefix("-framework ") {
            args.push(format!("-Wl,-framework,{name}"));
            continue;
        }
        // As ninja and a shell would have to be told.
        if text.ends_with(&format!("{}\"", portable::RPATH)) {
            args.push(format!("-Wl,-rpath,{}", portable::RPATH));
            continue;
        }
        // cmake leaves room behind an rpath, which the loader would take for the current directory.
        let text = text.trim_matches('"').trim_end_matches(':');
        let file = build.join(text);
        let is_built = !text.starts_with('-') && Path::new(text).is_relative();
        args.push(if is_built {
            file.display().to_string()
        } else {
            text.to_owned()
        });
    }
    Ok(args)
}

/// What the file API says of one target.
fn target(build: &Path, name: &str) -> Result<Value> {
    let reply = build.join(".cmake/api/v1/reply");
    let index = newest_index(&reply)?;
    let objects = index["objects"].as_array().into_iter().flatten();
    for object in objects.filter(|object| object["kind"] == "codemodel") {
        let model = read(&reply, object)?;
        let targets = model["configurations"][0]["targets"].as_array();
        if let Some(found) = targets.into_iter().flatten().find(|t| t["name"] == name) {
            return read(&reply, found);
        }
    }
    bail!("cmake's reply in {} has no target {name}", reply.display())
}

/// The newest reply is the one whose name is last.
fn newest_index(reply: &Path) -> Result<Value> {
    let context = || format!("reading {}", reply.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(reply).with_context(context)? {
        names.push(entry.with_context(context)?.file_name());
    }
    names.retain(|name| name.to_string_lossy().starts_with("index-"));
    let name = names.into_iter().max().with_context(context)?;
    parse(&reply.join(name))
}

/// Reads the file that `object` refers to.
fn read(reply: &Path, object: &Value) -> Result<Value> {
    let name = object["jsonFile"]
        .as_str()
        .context("cmake's reply names no file")?;
    parse(&reply.join(name))
}

fn parse(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("parsing {}", path.display()))
}
