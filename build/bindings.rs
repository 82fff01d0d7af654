//! Rust declarations of llama.cpp's C API, written to `OUT_DIR/llama.rs`.

use anyhow::{Context, Result};
use std::env;
use std::path::Path;
use std::process::Command;

const HEADERS: &[&str] = &[
    "ggml.h",
    "gguf.h",
    "ggml-cpu.h",
    "ggml-backend.h",
    "ggml-expert-hook.h",
    "llama.h",
];

/// Generates the bindings from the headers below `src`.
pub fn generate(src: &Path, libclang: &Path, out: &Path) -> Result<()> {
    // SAFETY: this program has one thread.
    #[allow(unsafe_code)]
    unsafe {
        env::set_var("LIBCLANG_PATH", libclang)
    };
    let includes: String = HEADERS
        .iter()
        .map(|h| format!("#include <{h}>\n"))
        .collect();
    let names = "(ggml|gguf|llama|GGML|GGUF|LLAMA)_.*";
    let mut builder = bindgen::builder()
        .header_contents("hotset.h", &includes)
        .clang_arg(format!("-I{}/ggml/include", src.display()))
        .clang_arg(format!("-I{}/include", src.display()))
        .allowlist_function(names)
        .allowlist_type(names)
        .allowlist_var(names)
        .prepend_enum_name(false)
        .derive_default(true)
        .generate_comments(false)
        .layout_tests(false);
    if let Some(dir) = compiler_headers() {
        builder = builder.clang_args(["-isystem", &dir]);
    }
    let bindings = builder
        .generate()
        .context("generating bindings to llama.cpp")?;
    let path = out.join("llama.rs");
    bindings
        .write_to_file(&path)
        .with_context(|| format!("writing {}", path.display()))
}

/// Where stddef.h is: a libclang that came without a compiler has no headers of its own.
fn compiler_headers() -> Option<String> {
    let compiler = env::var("CC").unwrap_or("cc".to_owned());
    let output = Command::new(compiler)
        .arg("-print-file-name=include")
        .output()
        .ok()?;
    let dir = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Path::new(&dir).is_absolute().then_some(dir)
}
