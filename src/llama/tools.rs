//! Upstream's programs, as functions.

use super::{certificates, ending, hook, loading, placement, signals};
use crate::config::{Config, ProfileSource};
use crate::error::Result;
use std::ffi::{CString, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Status for settings that are wrong.
const BAD_INPUT: u8 = 2;

/// About the context of programs that make it for what they compute, if nobody says.
const N_CTX_SHORT: u64 = 2048;

/// A program of llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// llama-cli
    Cli,
    /// llama-server
    Server,
    /// llama-bench
    Bench,
    /// llama-perplexity
    Perplexity,
    /// llama-completion
    Completion,
}

impl Tool {
    /// The program that is meant by the name that this one was started under, as a link to it has it.
    pub fn called() -> Option<Self> {
        let path = PathBuf::from(std::env::args_os().next()?);
        match path.file_name()?.to_str()? {
            "llama-cli" => Some(Self::Cli),
            "llama-server" => Some(Self::Server),
            "llama-bench" => Some(Self::Bench),
            "llama-perplexity" => Some(Self::Perplexity),
            "llama-completion" => Some(Self::Completion),
            _ => None,
        }
    }
}

unsafe extern "C" {
    fn hotset_tool_cli(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn hotset_tool_server(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn hotset_tool_bench(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn hotset_tool_perplexity(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn hotset_tool_completion(argc: c_int, argv: *mut *mut c_char) -> c_int;
}

/// The whole `main` of one of our `llama-*` programs: installs the hook with the settings of the
/// environment and runs upstream's program.
pub fn main(tool: Tool) -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let run = |config: Config| {
        placement::begin(&config, false);
        main_with(tool, &args, config)
    };
    match Config::from_env().and_then(run) {
        Ok(code) => code,
        Err(error) => {
            crate::report::say(&format!("hotset: error: {error}"));
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// Runs `tool` with these settings. Fails before it starts if they cannot hold. Call it before there are threads.
pub fn main_with(tool: Tool, args: &[OsString], mut config: Config) -> Result<ExitCode> {
    let is_auto = matches!(config.profile, Some(ProfileSource::Auto(_)));
    if tool == Tool::Bench && (config.profile_save.take().is_some() || is_auto) {
        crate::report::say("hotset: llama-bench computes no text, so it teaches no profile");
    }
    if matches!(tool, Tool::Bench | Tool::Perplexity) {
        config.asked.n_ctx.get_or_insert(N_CTX_SHORT);
    }
    // SAFETY: a program begins with this, and has no other thread yet.
    if let Some(line) = unsafe { certificates::find(args) } {
        crate::report::say(&line);
    }
    signals::begin();
    hook::install(config)?;
    if tool == Tool::Bench {
        // Each of its runs is to begin as the first one.
        hook::teach_nothing();
    }
    // A server prints no text. It may sleep often, and live long.
    if tool != Tool::Server {
        hook::hold_tables();
    }
    ending::report_at_exit();
    let status = run(tool, args);
    let reported = hook::finish();
    // As the system does with what a program returns.
    let status = status as u8;
    Ok(ExitCode::from(match status {
        0 if !reported => 1,
        // As for what is refused before there is a model.
        1 if loading::is_refused() => BAD_INPUT,
        status => status,
    }))
}

/// Puts settings into the environment, for the programs that llama-server starts for its models.
/// Call it before there are threads.
pub fn export(settings: &[(&str, OsString)]) {
    for (name, value) in settings {
        // SAFETY: the caller says that no other thread can read the environment.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Runs `tool` in this process and returns its exit status; `args[0]` is the program's name.
///
/// Upstream's programs may call `exit`, so code after this call may never run. Panics if an
/// argument holds a NUL byte, which an argument of a process can't.
pub fn run(tool: Tool, args: &[OsString]) -> i32 {
    let mut argv: Vec<_> = args
        .iter()
        .map(|arg| {
            CString::new(arg.clone().into_vec())
                .expect("an argument holds a NUL byte")
                .into_raw()
        })
        .collect();
    let argc = argv.len() as c_int;
    // C promises its programs a NULL after the last argument.
    argv.push(std::ptr::null_mut());
    let entry = match tool {
        Tool::Cli => hotset_tool_cli,
        Tool::Server => hotset_tool_server,
        Tool::Bench => hotset_tool_bench,
        Tool::Perplexity => hotset_tool_perplexity,
        Tool::Completion => hotset_tool_completion,
    };
    // SAFETY: `argv` is what C promises to `main`. The strings are leaked, because upstream may keep
    // pointers to them, and as raw allocations they may be written to. Nothing unwinds: the shim's
    // functions are noexcept.
    unsafe { entry(argc, argv.leak().as_mut_ptr()) }
}
