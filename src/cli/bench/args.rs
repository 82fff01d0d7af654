//! What `hotset bench` is told.

use crate::cli::number_args::{NUMBER_MAX, size, whole};
use std::path::PathBuf;

/// No context of a model is longer.
const TOKENS_MAX: u64 = 1 << 24;
/// A GiB.
const READ_AHEAD_KB_MAX: u64 = 1 << 20;

/// Measure stock llama.cpp and hotset side by side, under limits on memory
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each run is a process of its own, in a control group with the limit; making these \
    needs root or a delegated group. Runs are interleaved, the page cache is dropped before each, and all \
    runs of a workload must write the same tokens. `OF BOUND` is the part of the speed that computing alone \
    and reading alone would allow. Of the settings only HOTSET_IO is taken from the environment. \
    llama.cpp's llama-bench is another command: hotset llama-bench."
)]
pub struct Args {
    /// The model's GGUF file, the first of several
    #[arg(short, long, value_name = "MODEL")]
    pub(super) model: PathBuf,
    /// Memory limits of the whole process: shares of the model's bytes, or sizes as 6GiB [default:
    /// 70%,40%,20%]
    #[arg(long, value_name = "LIST", conflicts_with = "ram")]
    pub(super) cap: Option<String>,
    /// Memory for experts: shares of their bytes, or sizes; the limit is that and the rest of the process
    #[arg(long, value_name = "LIST")]
    pub(super) ram: Option<String>,
    /// What the process takes besides experts [default: measured, and 64 MiB more]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(super) rest: Option<u64>,
    /// Policies of hotset, as in lru,decay:16
    #[arg(long, value_name = "NAMES", default_value = "adaptive,lru")]
    pub(super) policies: String,
    /// Whether hotset reads ahead: `off`, `auto`, or both
    #[arg(long, value_name = "LIST", default_value = "off,auto")]
    pub(super) prefetch: String,
    /// Texts of workloads, which are named after them; `a.txt+b.txt` is a chat of two turns, of which the last
    /// is measured [default: five short ones that are part of hotset]
    #[arg(long, value_name = "FILE", num_args = 1.., value_delimiter = ',')]
    pub(super) prompts: Vec<PathBuf>,
    /// Tokens to generate in each turn
    #[arg(short, value_name = "N", default_value_t = 128, value_parser = whole::<u32>(1..=TOKENS_MAX))]
    pub(super) n: u32,
    /// Tokens of each prompt: the first ones of its text, or the next ones if a turn before had that
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = whole::<u32>(1..=TOKENS_MAX))]
    pub(super) prompt_tokens: u32,
    /// Runs of each row
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = whole::<u32>(1..=1000))]
    pub(super) repeat: u32,
    /// Seed of the sampler
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u32>(0..=NUMBER_MAX))]
    pub(super) seed: u32,
    /// Threads that compute [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = whole::<u32>(1..=512))]
    pub(super) threads: Option<u32>,
    /// Tokens of the context [default: those of all prompts and those generated]
    #[arg(short, long, value_name = "N", value_parser = whole::<u32>(1..=TOKENS_MAX))]
    pub(super) ctx_size: Option<u32>,
    /// Tokens of the prompt that are computed at once; also -ub
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = whole::<u32>(1..=TOKENS_MAX))]
    pub(super) ubatch_size: u32,
    /// Set no limits: for where control groups cannot be made
    #[arg(long)]
    pub(super) no_limit: bool,
    /// Set the read-ahead of the model's disk meanwhile; it needs root
    #[arg(long, value_name = "N", value_parser = whole::<u64>(0..=READ_AHEAD_KB_MAX))]
    pub(super) read_ahead_kb: Option<u64>,
    /// A folder for the report: README.md, raw.json, chart.svg; it must be empty or not exist
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// A file for all that was measured
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// A file for the chart
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
}
