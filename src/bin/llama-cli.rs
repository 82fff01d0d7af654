//! Upstream's llama-cli with the expert hook.

use hotset::llama::tools::{self, Tool};
use std::process::ExitCode;

fn main() -> ExitCode {
    tools::main(Tool::Cli)
}
