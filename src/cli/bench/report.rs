//! What was measured, for people and as JSON.

use super::measure::Measured;
use super::variants::{Comparison, REPORT_FILES};
use super::{chart, table};
use crate::cli::files;
use crate::cli::out::print;
use anyhow::Context;
use comfy_table::presets;
use hotset::measuring::disk::Speed;
use hotset::measuring::host::Machine;
use hotset::measuring::{ALL, Difference, Record, Spread, Summary, differences, summarize};
use hotset::numbers::bytes;
use hotset::store::Dropped;
use serde::Serialize;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

/// All of it: `raw.json`.
#[derive(Serialize)]
struct Report<'a> {
    program: Program,
    machine: &'a Machine,
    model: Model,
    settings: Settings,
    warnings: &'a [String],
    disk: Disk<'a>,
    tokens_equal: bool,
    differences: Vec<Difference>,
    rows: Vec<Summary>,
    runs: &'a [Record],
}

#[derive(Serialize)]
struct Program {
    version: &'static str,
    /// Of the source that the program lies in; null for one that was installed.
    commit: Option<String>,
    command: String,
}

#[derive(Serialize)]
struct Model {
    file: String,
    name: String,
    architecture: String,
    n_bytes: u64,
    expert_bytes: u64,
    n_layers: u32,
    n_experts: usize,
    top_k: u32,
}

#[derive(Serialize)]
struct Settings {
    n_prompt: u32,
    n_generate: u32,
    repeat: u32,
    seed: u32,
    n_threads: u32,
    n_context: u32,
    n_ubatch: u32,
    /// What the process takes besides experts, and whether that was measured.
    rest_bytes: u64,
    rest_is_measured: bool,
    /// Whether there were control groups.
    is_limited: bool,
    dropped_between_runs: Dropped,
}

#[derive(Serialize)]
struct Disk<'a> {
    bytes_per_s: Spread,
    measured: &'a [Speed],
}

/// Prints and writes what was measured. The status is 1 if runs of a workload wrote different tokens.
pub fn write(plan: &Comparison, measured: &Measured) -> anyhow::Result<ExitCode> {
    let report = Report::new(plan, measured)?;
    let json = serde_json::to_string_pretty(&report)? + "\n";
    // The rows of all workloads together where there are some.
    let workload = report.rows.last().map_or(ALL, |row| row.workload.as_str());
    let svg = chart::svg(&report.rows, workload)?;
    let args = plan.args;
    for (path, text) in [(&args.json, &json), (&args.svg, &svg)] {
        if let Some(path) = path {
            save(path, text)?;
        }
    }
    if let Some(folder) = &args.out {
        let texts = [json, svg, report.readme()];
        for (name, text) in REPORT_FILES.iter().zip(&texts) {
            save(&folder.join(name), text)?;
        }
    }
    let table = table::table(&report.rows, presets::NOTHING);
    let notes = report.notes().join("\n");
    let times = match table::times(&report.rows, presets::NOTHING) {
        empty if empty.is_empty() => empty,
        times => format!("{times}\n\n"),
    };
    print(&format!("{table}\n\n{times}{notes}\n"))?;
    Ok(match report.tokens_equal {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn save(path: &Path, text: &str) -> anyhow::Result<()> {
    files::save(path, text).with_context(|| path.display().to_string())
}

impl<'a> Report<'a> {
    fn new(plan: &Comparison, measured: &'a Measured) -> anyhow::Result<Self> {
        let disk = measured.disk_speed();
        let differences = differences(&measured.records);
        let experts = &plan.model.experts;
        let args = plan.args;
        Ok(Self {
            program: Program {
                version: env!("CARGO_PKG_VERSION"),
                commit: commit(),
                command: command(),
            },
            machine: &measured.machine,
            model: Model {
                file: file_name(&args.model),
                name: experts.name.clone(),
                architecture: experts.architecture.clone(),
                n_bytes: plan.model.n_bytes,
                expert_bytes: plan.model.expert_bytes(),
                n_layers: experts.shape.n_layers(),
                n_experts: experts.shape.n_total(),
                top_k: experts.top_k,
            },
            settings: Settings {
                n_prompt: args.prompt_tokens,
                n_generate: args.n,
                repeat: args.repeat,
                seed: args.seed,
                n_threads: plan.n_threads,
                n_context: plan.n_context,
                n_ubatch: args.ubatch_size,
                rest_bytes: measured.rest_bytes,
                rest_is_measured: args.rest.is_none(),
                is_limited: measured.is_limited,
                dropped_between_runs: measured.dropped,
            },
            warnings: &measured.warnings,
            disk: Disk {
                bytes_per_s: disk,
                measured: &measured.disk,
            },
            tokens_equal: differences.is_empty(),
            differences,
            rows: summarize(&measured.records, disk.median)?,
            runs: &measured.records,
        })
    }

    /// Lines about all rows.
    fn notes(&self) -> Vec<String> {
        let mb = |n: f64| format!("{:.0}", n / 1e6);
        let Disk {
            bytes_per_s,
            measured,
        } = &self.disk;
        let io = &measured[0];
        let settings = &self.settings;
        let rest = match settings.rest_is_measured {
            true => "measured",
            false => "given",
        };
        let dropped = match settings.dropped_between_runs {
            Dropped::All => "the page cache was dropped before each run",
            Dropped::Files => "the model's files were dropped from the page cache before each run",
            Dropped::Nothing => "the page cache was not dropped",
        };
        let mut notes = vec![
            format!(
                "disk: {} MB/s ({}-{}), random reads of {}, {} pieces of {} at once",
                mb(bytes_per_s.median),
                mb(bytes_per_s.min),
                mb(bytes_per_s.max),
                bytes(io.read_bytes as u64),
                io.depth,
                bytes(io.piece_bytes as u64)
            ),
            format!(
                "the process takes {} besides its experts ({rest}); {dropped}",
                bytes(settings.rest_bytes)
            ),
        ];
        notes.extend(self.at_once());
        notes.extend(self.warnings.iter().map(|text| format!("warning: {text}")));
        notes.push(match self.tokens_equal {
            true => format!(
                "tokens: equal in all {} runs of each workload",
                self.n_runs()
            ),
            false => "tokens: DIFFERENT".to_string(),
        });
        notes.extend(self.differences.iter().map(|difference| {
            let Difference {
                first,
                second,
                at,
                tokens: [a, b],
            } = difference;
            let name = |token: &Option<i32>| token.map_or("none".to_string(), |t| t.to_string());
            let (a, b) = (name(a), name(b));
            format!("error: token {at} of '{second}' is {b}, and {a} in '{first}'")
        }));
        notes
    }

    /// How computing and the disk slow each other, where that was measured.
    fn at_once(&self) -> Option<String> {
        let both = || {
            self.runs
                .iter()
                .filter_map(|r| Some((&r.run, r.run.together?)))
        };
        let computing =
            Spread::of(both().map(|(run, both)| run.decode_ms_per_token() / both.token_ms))?;
        let disk =
            Spread::of(both().map(|(_, both)| both.bytes_per_s / self.disk.bytes_per_s.median))?;
        Some(format!(
            "at once, each as much as it can: computing has {:.0} % of the speed that it has alone, the disk {:.0} %",
            100.0 * computing.median,
            100.0 * disk.median
        ))
    }

    /// Runs of the first workload.
    fn n_runs(&self) -> usize {
        let first = self.runs.first().map(|run| &run.workload);
        let is_it = |run: &&Record| Some(&run.workload) == first;
        self.runs.iter().filter(is_it).count()
    }

    fn readme(&self) -> String {
        let notes: Vec<String> = self
            .notes()
            .iter()
            .map(|note| format!("- {note}\n"))
            .collect();
        format!(
            "# hotset bench\n\n\
             Stock llama.cpp (mmap) and hotset under limits on memory.\n\n\
             {}{}\n{}\n\n\
             Medians, with the range of all runs; every run is in [raw.json](raw.json). `compute` has every expert in \
             memory and no limit. `OF BOUND` is the part of the possible speed: a token can take no less than computing alone, \
             nor than the disk needs for what missed. `X STOCK` is against stock llama.cpp under the same limit.\n\n{}\n\n\
             Where a token's milliseconds go: computing, also outside of the layers; waiting for experts that had been \
             asked for before their router had run (early), or by it (late); planning. `DISK IDLE` lies within these: the \
             disk had nothing to do, and then something was asked for and waited for. The last column is what of the \
             waiting a disk would save that is twice as fast. `AT LEAST` is what a token could take if all of it \
             overlapped: computing and the disk slow each other as they did when each did all it could.\n\n\
             ![tokens per second](chart.svg)\n",
            self.circumstances(),
            notes.concat(),
            table::table(&self.rows, presets::ASCII_MARKDOWN),
            table::times(&self.rows, presets::ASCII_MARKDOWN),
        )
    }

    /// What was measured, where and how.
    fn circumstances(&self) -> String {
        let Machine {
            cpu,
            n_cores,
            memory_bytes,
            kernel,
            disk,
        } = self.machine;
        let disk = disk.as_ref().map_or("not known".to_string(), |disk| {
            let kb = disk
                .read_ahead_kb
                .map_or("not known".to_string(), |kb| format!("{kb} KiB"));
            let names = format!("{} {}", disk.name, disk.model);
            format!("{}, read-ahead {kb}", names.trim_end())
        });
        let commit = self.program.commit.as_ref();
        let commit = commit.map_or(String::new(), |commit| format!(", commit {commit}"));
        let (model, settings) = (&self.model, &self.settings);
        format!(
            "- hotset {}{commit}\n\
             - machine: {n_cores} cores of {cpu}, {}, {kernel}; disk {disk}\n\
             - model: {}, {} bytes, of which {} in {} experts of {} layers; a token uses {} of a layer\n\
             - command: `{}`\n\
             - {} tokens of prompt, {} generated (temperature 0.9, seed {}), {} threads, ubatch {}; \
             runs of each row: {}, interleaved\n",
            self.program.version,
            bytes(*memory_bytes),
            model.file,
            model.n_bytes,
            model.expert_bytes,
            model.n_experts,
            model.n_layers,
            model.top_k,
            self.program.command,
            settings.n_prompt,
            settings.n_generate,
            settings.seed,
            settings.n_threads,
            settings.n_ubatch,
            settings.repeat,
        )
    }
}

/// The command line, without folders that are this machine's.
fn command() -> String {
    let short = |arg: OsString| match Path::new(&arg).is_absolute() {
        true => file_name(Path::new(&arg)),
        false => arg.to_string_lossy().into_owned(),
    };
    let args: Vec<String> = std::env::args_os().skip(1).map(short).collect();
    format!("hotset {}", args.join(" "))
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The commit of the source tree, if the program lies in the tree it was built from.
fn commit() -> Option<String> {
    const SOURCE: &str = env!("CARGO_MANIFEST_DIR");
    if !std::env::current_exe().ok()?.starts_with(SOURCE) {
        return None;
    }
    let mut git = Command::new("git");
    git.args(["-C", SOURCE, "describe", "--always", "--dirty"]);
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
}
