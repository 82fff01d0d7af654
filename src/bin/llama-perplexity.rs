//! Upstream's llama-perplexity with the expert hook.

use hotset::llama::tools::{self, Tool};
use std::process::ExitCode;

fn main() -> ExitCode {
    tools::main(Tool::Perplexity)
}
