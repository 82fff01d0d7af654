//! `hotset replay`: recorded routing under other policies and budgets.

use super::files::{check_outputs, open_trace, save};
use super::out::print;
use super::{cells, curve, number_args};
use anyhow::Context;
use clap::ValueEnum;
use hotset::error::Error;
use hotset::numbers;
use hotset::replay::grid::{Grid, Named, Report, Request, policies};
use hotset::replay::{Budget, Scope};
use hotset::trace::{Header, Prefill, Trace};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// As many as llama.cpp knows.
const SEQUENCES_MAX: u64 = 256;

/// Replay recorded routing with other policies and budgets, beside the best possible one
#[derive(clap::Args)]
#[command(
    after_help = "`lru` and `belady`, the best possible policy, are always there. Hit rates \
    begin after 64 tokens or an eighth of the trace and leave prompts out, unless nothing else is there."
)]
pub struct Args {
    /// Traces, as HOTSET_TRACE records them
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// `all`, or names that `hotset policies` lists, as in lru,decay:16
    #[arg(long, value_name = "NAMES", default_value = "all")]
    policies: String,
    /// Shares of the experts as 12.5%, sizes as 2GiB, or `run` for the pools that were recorded
    #[arg(
        long,
        value_name = "LIST",
        default_value = "5%,10%,20%,30%,40%,50%,60%,70%"
    )]
    budgets: String,
    /// Whether layers share their slots
    #[arg(long, default_value = "global")]
    scope: ScopeName,
    /// Prompts: `decode` = as recorded, `batch:N` = N tokens at a time, `skip`
    #[arg(long, value_name = "HOW", default_value = "decode", value_parser = prefill)]
    prefill: Prefill,
    /// Replay the first N tokens of each trace
    #[arg(long, value_name = "N", value_parser = number_args::whole::<u32>(1..=number_args::NUMBER_MAX))]
    limit: Option<u32>,
    /// Replay the tokens of all traces as N sequences that are generated side by side, as in 1,4,16
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = number_args::whole::<u32>(1..=SEQUENCES_MAX))]
    parallel: Vec<u32>,
    /// Of a damaged trace, read what comes before the damage
    #[arg(long)]
    salvage: bool,
    /// Bytes of one expert, for traces that do not say
    #[arg(long, value_name = "SIZE", value_parser = expert_bytes)]
    expert_bytes: Option<u64>,
    /// A trace of the same model, from which policies learn before they begin
    #[arg(long, value_name = "TRACE")]
    prior: Option<PathBuf>,
    /// What to print
    #[arg(long, default_value = "table")]
    format: Format,
    /// The file to write, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ScopeName {
    Global,
    Layer,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
    Svg,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(path) = &args.output {
        check_outputs(&[("--output", path)], args.traces.iter().chain(&args.prior))?;
    }
    let request = args.request()?;
    let read = |path: &PathBuf| args.read(path);
    let mut traces: Vec<Named> = args.traces.iter().map(read).collect::<Result<_, _>>()?;
    check_names(&traces)?;
    if !args.parallel.is_empty() {
        traces = args.side_by_side(&traces)?;
    }
    let grid = Grid::new(&traces, &request)?;
    let bar = cells_bar(grid.n_cells() as u64);
    let report = grid.run(&|| bar.inc(1))?;
    bar.finish_and_clear();
    let text = args.render(&report)?;
    match &args.output {
        Some(path) => save(path, &text).with_context(|| path.display().to_string()),
        None => print(&text),
    }
}

impl Args {
    fn request(&self) -> Result<Request, Error> {
        let mut seen = HashSet::new();
        let texts = self.budgets.split(',').filter(|&text| seen.insert(text));
        let budget = |text: &str| Ok((text.to_string(), Budget::parse(text)?));
        Ok(Request {
            policies: policies(&self.policies)?,
            budgets: texts.map(budget).collect::<Result<_, Error>>()?,
            scope: match self.scope {
                ScopeName::Global => Scope::Global,
                ScopeName::Layer => Scope::Layer,
            },
            // All of it: a limit is about what is replayed.
            prior: match &self.prior {
                Some(path) => Some(named(path, open_trace(path, u32::MAX, self.salvage)?)),
                None => None,
            },
        })
    }

    fn read(&self, path: &Path) -> Result<Named, Error> {
        let mut trace = open_trace(path, self.limit.unwrap_or(u32::MAX), self.salvage)?;
        if let Some(n_bytes) = self.expert_bytes {
            trace = trace.with_expert_bytes(n_bytes);
        }
        Ok(named(path, trace.with_prefill(self.prefill)))
    }

    /// Each number of sequences is a trace, in which they are generated side by side.
    fn side_by_side(&self, traces: &[Named]) -> Result<Vec<Named>, Error> {
        let all: Vec<&Trace> = traces.iter().map(|named| &named.trace).collect();
        let named = |&n_sequences: &u32| {
            let trace = Trace::side_by_side(&all, n_sequences).map_err(|(i, why)| {
                let why = format!("--parallel {n_sequences}: {why}");
                Error::file(&traces[i].path, why)
            });
            Ok(Named {
                name: format!("parallel-{n_sequences}"),
                path: traces[0].path.clone(),
                trace: trace?,
            })
        };
        let mut seen = HashSet::new();
        self.parallel
            .iter()
            .filter(|&n| seen.insert(n))
            .map(named)
            .collect()
    }

    fn render(&self, report: &Report) -> anyhow::Result<String> {
        match self.format {
            Format::Table => Ok(cells::table(report)),
            Format::Csv => cells::csv(report),
            Format::Json => Ok(serde_json::to_string_pretty(report)? + "\n"),
            Format::Svg => curve::svg(report),
        }
    }
}

fn named(path: &Path, trace: Trace) -> Named {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Named {
        name: name.strip_suffix(".trace.gz").unwrap_or(&name).to_string(),
        path: path.to_path_buf(),
        trace,
    }
}

/// Cells say which trace they belong to by its name alone.
fn check_names(traces: &[Named]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    match traces.iter().find(|named| !seen.insert(&named.name)) {
        None => Ok(()),
        Some(named) => Err(Error::file(
            named.path.clone(),
            format!("another trace is called {}, too", named.name),
        )),
    }
}

/// Reads `decode`, `batch:512` or `skip`.
fn prefill(text: &str) -> Result<Prefill, String> {
    let n_tokens = || {
        numbers::whole(text.strip_prefix("batch:")?)?
            .try_into()
            .ok()
            .filter(|&n| n > 0)
    };
    match text {
        "decode" => Ok(Prefill::Decode),
        "skip" => Ok(Prefill::Skip),
        _ => n_tokens()
            .map(Prefill::Batch)
            .ok_or_else(|| "expected decode, skip, or batch:N with N above 0".to_string()),
    }
}

/// Unlike memory, experts of some hundred thousand bytes are usual, and their number is what is known.
fn expert_bytes(text: &str) -> Result<u64, String> {
    let n_bytes = numbers::plain_size(text).filter(|n| *n <= Header::EXPERT_BYTES_MAX);
    n_bytes.ok_or_else(|| "expected a size from 1KiB to 1TiB such as 6MiB or 786432".to_string())
}

/// A progress bar on standard error; hidden where that is no terminal.
fn cells_bar(n_cells: u64) -> ProgressBar {
    let style = "hotset: replaying {bar:30} {pos} of {len}, {eta} left";
    let style = ProgressStyle::with_template(style).expect("the template is right");
    ProgressBar::new(n_cells).with_style(style)
}
