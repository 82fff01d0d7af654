//! One run, as a process.

use super::variants::{Comparison, Variant, Workload};
use anyhow::{Context, bail};
use hotset::error::Error;
use hotset::measuring::Run;
use hotset::measuring::limited::LimitedGroup;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How often a process is looked at.
const EVERY: Duration = Duration::from_millis(20);
/// Lines of a process that failed.
const N_LINES: usize = 5;

/// Starts runs, until somebody wants the program to end.
pub struct Starter<'a> {
    plan: &'a Comparison<'a>,
    is_interrupted: Arc<AtomicBool>,
}

/// A run that is to be made.
pub struct Job<'a> {
    /// What errors call it.
    pub title: String,
    pub workload: &'a Workload,
    pub variant: &'a Variant,
    /// `HOTSET_RAM`.
    pub ram: Option<String>,
    pub group: Option<&'a LimitedGroup>,
    pub n_generate: u32,
    pub is_reference: bool,
}

/// Kills a process that nobody waits for any more.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail if it has ended, and then nothing is to be done.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl<'a> Starter<'a> {
    /// From now on signals end the runs in an orderly way.
    pub fn new(plan: &'a Comparison<'a>) -> anyhow::Result<Self> {
        let is_interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&is_interrupted))?;
        }
        Ok(Self {
            plan,
            is_interrupted,
        })
    }

    /// Makes a run. Fails with the last lines of the process if that fails.
    pub fn run(&self, job: &Job) -> anyhow::Result<Run> {
        let folder = tempfile::tempdir().context("a folder for the output of a run")?;
        let [out, log] = ["out", "log"].map(|name| folder.path().join(name));
        let create = |path: &Path| File::create(path).context("a file for the output of a run");
        let mut command = self.command(job)?;
        command
            .stdin(Stdio::null())
            .stdout(create(&out)?)
            .stderr(create(&log)?);
        let child = command.spawn().context("starting a run")?;
        let status = self.wait(Guard(child), &job.title)?;
        if !status.success() {
            let killed = job.group.map_or(0, LimitedGroup::n_killed) > 0;
            return Err(failure(job, status, killed, &log));
        }
        let text = fs::read_to_string(&out).context("the output of a run")?;
        serde_json::from_str(&text).with_context(|| format!("{}: its output '{text}'", job.title))
    }

    fn command(&self, job: &Job) -> anyhow::Result<Command> {
        let (plan, args) = (self.plan, self.plan.args);
        let program = std::env::current_exe().context("the path of this program")?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOTSET") && name != "HOTSET_IO" {
                command.env_remove(name);
            }
        }
        command
            .env("HOTSET_STATS", "off")
            .envs(
                job.variant
                    .settings
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .envs(job.ram.as_ref().map(|ram| ("HOTSET_RAM", ram)));
        command.arg("bench-row").arg("--model").arg(&args.model);
        for path in &job.workload.turns {
            command.arg("--prompt").arg(path);
        }
        for (name, value) in [
            ("--prompt-tokens", args.prompt_tokens),
            ("-n", job.n_generate),
            ("--seed", args.seed),
            ("--threads", plan.n_threads),
            ("--ctx-size", plan.n_context),
            ("--ubatch-size", args.ubatch_size),
        ] {
            command.arg(name).arg(value.to_string());
        }
        if job.is_reference {
            command.arg("--reference");
        }
        if let Some(group) = job.group {
            command.arg("--group").arg(group.dir());
        }
        Ok(command)
    }

    fn wait(&self, mut child: Guard, title: &str) -> anyhow::Result<ExitStatus> {
        loop {
            // First: Ctrl-C ends the process too, and that is not a failure of its own.
            if self.is_interrupted.load(Ordering::Relaxed) {
                bail!("interrupted while '{title}' ran");
            }
            if let Some(status) = child.0.try_wait().context("waiting for a run")? {
                if self.is_interrupted.load(Ordering::Relaxed) {
                    bail!("interrupted while '{title}' ran");
                }
                return Ok(status);
            }
            thread::sleep(EVERY);
        }
    }
}

/// Says which run failed and how. Wrong input of the run is wrong input of the benchmark.
fn failure(job: &Job, status: ExitStatus, killed: bool, log: &Path) -> anyhow::Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(N_LINES)..].join(" | ");
    let why = match killed {
        true => format!(
            "the kernel killed it at the memory limit, which is too small, or --rest is: {last}"
        ),
        false => format!("{status}: {last}"),
    };
    match status.code() {
        Some(2) => Error::setting("run", &job.title, &why).into(),
        _ => anyhow::anyhow!("run={}: {why}", job.title),
    }
}
