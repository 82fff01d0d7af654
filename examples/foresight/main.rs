//! How well the engine foresees what the next layers pick, on text of a real model.
//!
//! ```text
//! cargo run --release --example foresight -- record MODEL.gguf TEXT.txt STATES [PROMPT_TOKENS [TOKENS]]
//! cargo run --release --example foresight -- score STATES [PERCENT...]
//! ```
//!
//! `record` reads the first PROMPT_TOKENS of a text as a prompt, the others one at a time, as they would be
//! generated, and writes what each router saw and picked. `score` lets the engine's own predictor guess, with PERCENT
//! of the experts resident under `adaptive`, and prints how many of the guesses were right and how many of the misses
//! were guessed.

#[cfg(feature = "llama")]
mod record;
mod score;
mod states;

use anyhow::{Context, bail};
use states::States;
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["score", path, ref shares @ ..] => {
            let states = States::read(Path::new(path))?;
            let shares = if shares.is_empty() {
                &["40", "20"]
            } else {
                shares
            };
            for share in shares {
                let percent: f64 = share.parse().with_context(|| share.to_string())?;
                score::score(&states, percent / 100.0)?;
            }
            Ok(())
        }
        #[cfg(feature = "llama")]
        ["record", model, text, out, ref sizes @ ..] if sizes.len() <= 2 => {
            let size =
                |at: usize, usual: usize| sizes.get(at).map_or(Ok(usual), |text| text.parse());
            let (n_prompt, n_tokens) = (size(0, 256)?, size(1, 1280)?);
            record::record(Path::new(model), Path::new(text), n_prompt, n_tokens)?
                .write(Path::new(out))
        }
        _ => bail!(
            "usage: foresight record MODEL TEXT STATES [PROMPT_TOKENS [TOKENS]], or score STATES [PERCENT...]"
        ),
    }
}
