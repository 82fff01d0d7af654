//! Tiny random models of upstream's architectures.

use super::parts::{files, tree_with};
use super::runner::take_hook;
use hotset::llama::sys::*;
use sha2::{Digest, Sha256};
use std::env;
use std::ffi::{CString, c_char};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Upstream's test, which knows what each architecture needs.
const SOURCE: &str = "tests/test-llama-archs.cpp";
const OURS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/architectures/save.cpp");
/// Where the headers are that it includes.
const INCLUDES: [&str; 4] = ["include", "ggml/include", "common", "src"];

/// A tensor that a router picks from, and its bytes.
pub type Weight = (String, u64);

/// The program that saves models.
pub struct Maker {
    program: PathBuf,
}

impl Maker {
    /// Compiles it, unless that is done; `None` if there is nothing of upstream's to compile.
    pub fn new() -> Option<Self> {
        let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("architectures");
        let source = tree_with(&work, SOURCE).join(SOURCE);
        let upstreams = fs::read(&source).ok()?;
        // Beside us are the libraries that it may load when it runs.
        let program = env::current_exe()
            .unwrap()
            .with_file_name("save-architecture");
        let hash = Sha256::new_with_prefix(env!("BUILD_LIBRARIES"))
            .chain_update(&upstreams)
            .chain_update(fs::read(OURS).unwrap());
        let (stamp, key) = (work.join("built"), format!("{:x}", hash.finalize()));
        if !program.exists() || !files::has_stamp(&stamp, &key) {
            compile(source.parent().unwrap(), &program);
            fs::create_dir_all(&work).unwrap();
            files::write_stamp(&stamp, &key).unwrap();
        }
        Some(Self { program })
    }

    /// The names of all architectures.
    pub fn architectures(&self) -> Vec<String> {
        let names = succeed(&mut Command::new(&self.program)).stdout;
        let names = String::from_utf8(names).unwrap();
        names.lines().map(str::to_owned).collect()
    }

    /// Saves a model, with experts if the architecture has any; or says why upstream's test cannot make one.
    pub fn save(&self, architecture: &str, to: &Path) -> Result<Vec<Weight>, String> {
        let mut command = Command::new(&self.program);
        command.arg(architecture).arg(to);
        let output = command.env("GGML_NO_BACKTRACE", "1").output().unwrap();
        let [printed, said] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        if !output.status.success() {
            let first = said.lines().next().unwrap_or_default();
            let why = &first[first.find("GGML_ASSERT").unwrap_or(0)..];
            let why = why.trim_start_matches("llama_model_load: error loading model: ");
            return Err(why.to_owned());
        }
        let weight = |line: &str| {
            let (name, n_bytes) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), n_bytes.parse().unwrap())
        };
        Ok(printed.lines().map(weight).collect())
    }
}

fn compile(source: &Path, program: &Path) {
    let compiler = env::var("CXX").unwrap_or("c++".to_owned());
    let mut command = Command::new(compiler);
    command.args(["-std=c++17", "-O1", "-w"]);
    command.arg("-I").arg(source);
    for folder in INCLUDES {
        command.arg(format!("-I{}/{folder}", env!("BUILD_LLAMA_SRC")));
    }
    command.arg(OURS).arg("-o").arg(program);
    let is_grouped = cfg!(target_os = "linux");
    command.args(is_grouped.then_some("-Wl,--start-group"));
    command.args(env!("BUILD_LIBRARIES").split('\t'));
    command.args(is_grouped.then_some("-Wl,--end-group"));
    succeed(&mut command);
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}",
        output.status
    );
    output
}

/// Writes the model with its experts in another type. Not all graphs take other weights in it.
pub fn quantise(from: &Path, to: &Path, ftype: llama_ftype) {
    let _hook = take_hook(None);
    let [from, to] = [from, to].map(|path| CString::new(path.to_str().unwrap()).unwrap());
    let stays = |pattern: *const c_char| llama_model_tensor_override {
        pattern,
        type_: GGML_TYPE_F32,
    };
    let overrides = [c"^(?!.*_exps)".as_ptr(), std::ptr::null()].map(stays);
    // SAFETY: C strings, a list with an end, and default parameters with plain values changed.
    let status = unsafe {
        let mut params = llama_model_quantize_default_params();
        params.ftype = ftype;
        params.pure_ = true;
        params.nthread = 2;
        params.tt_overrides = overrides.as_ptr();
        llama_model_quantize(from.as_ptr(), to.as_ptr(), &params)
    };
    assert_eq!(status, 0, "{from:?}");
}
