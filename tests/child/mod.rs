//! Runs our programs as a user would, with a limit on how long they may take.

#![allow(dead_code, unsafe_code)]

use serde_json::Value;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A program that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// More than 32 tokens, so that reading it is a scan.
pub const PROMPT: &str = "Il sistema operativo gestisce la memoria e i processi. Quando un \
    programma chiede una pagina che non c'e, il nucleo la legge dal disco e il programma aspetta.";

/// `exe` with these settings of hotset and no others.
pub fn command(exe: &str, vars: &[(&str, &str)]) -> Command {
    let mut command = Command::new(exe);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOTSET") {
            command.env_remove(name);
        }
    }
    // A shell that runs the tests in the background ignores some of them for all that is started.
    let defaults = || {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: a plain system call.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: only makes system calls.
    unsafe { command.pre_exec(defaults) };
    // What `hotset run` keeps by itself is the user's, whose tests these are.
    command.env("HOTSET_PROFILE", "off");
    // Waiting threads that spin take the cores that the I/O threads and other tests need.
    command.env("OMP_WAIT_POLICY", "passive");
    command.envs(vars.iter().copied());
    command
}

/// How llama-completion samples a text that depends on nothing else.
///
/// Nothing is repacked, because that sums in another order on some machines.
pub const SAMPLED: &[&str] = &[
    "-t",
    "2",
    "--temp",
    "0.9",
    "--seed",
    "7",
    "--ignore-eos",
    "--no-repack",
    "-no-cnv",
    "--no-display-prompt",
];

/// What it is given beside [`SAMPLED`] and the model: to continue [`PROMPT`] by 48 tokens.
pub const ARGS: &[&str] = &["-p", PROMPT, "-n", "48", "-c", "512", "--n-gpu-layers", "0"];

/// llama-completion with [`ARGS`] and [`SAMPLED`]; later options win.
pub fn completion(model: &Path, vars: &[(&str, &str)], args: &[&str]) -> Command {
    completion_of(&[OsStr::new("-m"), model.as_os_str()], vars, args)
}

/// The same of the model that these options name.
pub fn completion_of(model: &[impl AsRef<OsStr>], vars: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_llama-completion"), vars);
    command.args(model).args(ARGS).args(SAMPLED).args(args);
    command
}

/// The model with a real tokenizer.
pub fn polyglot() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/polyglot-moe.gguf")
}

/// Makes the bundled model with experts that are `factor` times larger.
pub fn widen(factor: &str, to: &Path) {
    let mut widen = command(env!("CARGO_BIN_EXE_hotset"), &[]);
    widen.arg("widen").arg(polyglot());
    widen.args(["--factor", factor, "-o"]).arg(to);
    let ended = run(widen);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
}

/// Compute threads of programs that run at the same time would spin on each other's cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A program that has been started; there is one at a time. Dropping it kills it and what it has
/// started.
pub struct Running {
    child: Child,
    begin: Instant,
    /// Files, because a full pipe would stop the program and lets upstream's logger lose lines.
    output: TempDir,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// How a program ended.
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it reported.
    pub stderr: String,
}

impl Running {
    /// Starts a program when no other runs.
    pub fn start(command: Command) -> Self {
        Self::start_reading(command, Stdio::null())
    }

    /// The same with an input.
    pub fn start_reading(mut command: Command, input: Stdio) -> Self {
        Self::start_with(&mut command, input, None, None)
    }

    /// The same with an input, and with where it prints and reports, if these are to be no files.
    pub fn start_with(
        command: &mut Command,
        input: Stdio,
        print: Option<Stdio>,
        report: Option<Stdio>,
    ) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
        Self::spawn(command, input, print, report, Some(turn))
    }

    /// Starts one beside others that the caller has started.
    pub fn start_beside(mut command: Command) -> Self {
        Self::spawn(&mut command, Stdio::null(), None, None, None)
    }

    fn spawn(
        command: &mut Command,
        input: Stdio,
        print: Option<Stdio>,
        report: Option<Stdio>,
        turn: Option<MutexGuard<'static, ()>>,
    ) -> Self {
        let output = tempfile::tempdir().unwrap();
        let file = |name| File::create(output.path().join(name)).unwrap();
        let [stdout, stderr] = ["stdout", "stderr"].map(file);
        command
            .stdin(input)
            .stdout(print.unwrap_or(stdout.into()))
            .stderr(report.unwrap_or(stderr.into()))
            .process_group(0);
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self {
            child,
            begin: Instant::now(),
            output,
            _turn: turn,
        }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> Vec<u8> {
        std::fs::read(self.output.path().join("stdout")).unwrap()
    }

    /// What it has reported so far.
    pub fn stderr(&self) -> String {
        let bytes = std::fs::read(self.output.path().join("stderr")).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until `is_reached`, and fails if the program ends before or takes too long.
    pub fn wait_until(&mut self, what: &str, is_reached: impl Fn(&Self) -> bool) {
        while !is_reached(self) {
            assert!(self.is_running(), "ended before {what}:\n{}", self.stderr());
            self.pause(what);
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: a plain system call; the process is ours and has not been waited for.
        unsafe { libc::kill(self.id() as i32, signal) };
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Waits for its end.
    pub fn wait(self) -> Ended {
        self.wait_watching(|_| {})
    }

    /// Waits for its end and calls `watch` every few milliseconds until then.
    pub fn wait_watching(mut self, mut watch: impl FnMut(&Self)) -> Ended {
        loop {
            watch(&self);
            if let Some(status) = self.child.try_wait().unwrap() {
                return Ended {
                    status,
                    stdout: self.stdout(),
                    stderr: self.stderr(),
                };
            }
            self.pause("its end");
        }
    }

    fn pause(&self, what: &str) {
        let is_late = self.begin.elapsed() > LIMIT;
        assert!(
            !is_late,
            "no sign of {what} after {LIMIT:?}:\n{}",
            self.stderr()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SAFETY: a plain system call; the group is the child's own.
            unsafe { libc::kill(-(self.id() as i32), libc::SIGKILL) };
            let _ = self.child.wait();
        }
    }
}

/// Runs a program to its end.
pub fn run(command: Command) -> Ended {
    Running::start(command).wait()
}

impl Ended {
    /// Its exit status. Fails if a signal killed it.
    pub fn code(&self) -> i32 {
        let signal = self.status.signal();
        assert_eq!(signal, None, "killed by a signal:\n{}", self.stderr);
        self.status.code().unwrap()
    }

    /// What it printed. Fails if it failed.
    pub fn text(&self) -> Cow<'_, str> {
        assert_eq!(self.code(), 0, "{}", self.stderr);
        assert!(!self.stdout.is_empty(), "{}", self.stderr);
        String::from_utf8_lossy(&self.stdout)
    }

    /// The one line in which hotset said why the program ended.
    pub fn error_line(&self) -> &str {
        let mut lines = self.said();
        lines.retain(|line| line.starts_with("hotset: error: "));
        assert_eq!(lines.len(), 1, "one line of error:\n{}", self.stderr);
        lines[0]
    }

    /// The lines that hotset reported.
    pub fn said(&self) -> Vec<&str> {
        said(&self.stderr)
    }
}

/// The lines of hotset's in a report.
///
/// Upstream's logger prints from a thread of its own and a line in pieces, so that the first of them may stand before
/// ours.
pub fn said(report: &str) -> Vec<&str> {
    let begin = |line: &str| line.find("hotset: ");
    let ours = report.lines();
    ours.filter_map(|line| Some(&line[begin(line)?..]))
        .collect()
}

/// Where a program is to write its counters, and the folder that keeps them.
pub struct StatsFile(TempDir);

impl StatsFile {
    /// Nothing is written yet.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The value of `HOTSET_STATS`.
    pub fn path(&self) -> String {
        self.0.path().join("stats.json").to_str().unwrap().into()
    }

    /// What was written for each model, in the order in which they were freed.
    pub fn read_all(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path()).expect("the program wrote its counters");
        serde_json::from_str(&text).unwrap()
    }

    /// The same of a program that may not have written any yet.
    pub fn try_read_all(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Where the child of a router writes those of its model, which has this name.
    pub fn of_child(self, model: &str) -> Self {
        let child = self.0.path().join(format!("stats.{model}.json"));
        std::fs::rename(child, self.path()).expect("the child wrote its counters");
        self
    }

    /// What was written for the only model.
    pub fn read(&self) -> Value {
        let all = self.read_all();
        assert_eq!(all.len(), 1, "{all:#?}");
        all[0].clone()
    }

    /// What was written by a program that had to read experts and to evict some.
    pub fn read_streamed(&self) -> Value {
        let stats = self.read();
        assert!(count(&stats, "misses") > 0, "{stats:#}");
        assert!(count(&stats, "evictions") > 0, "{stats:#}");
        stats
    }
}

/// A counter, of generation and prompts together.
pub fn count(stats: &Value, name: &str) -> u64 {
    let of = |part: &str| stats[part][name].as_u64().unwrap();
    of("generation") + of("prompt")
}
