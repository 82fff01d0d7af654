//! Reading a text with a model, in this process: for the profile of a workload.

use super::hook;
use super::session::{Outputs, Session, Sizes, available_threads};
use crate::config::Config;
use crate::error::Result;
use crate::expert::Event;
use crate::profile::Profile;
use std::path::Path;

/// Tokens of one window: they see only those before them in it.
const N_CONTEXT: usize = 2048;
/// Tokens that are computed at once.
const N_BATCH: usize = 256;
/// Tokens of the shortest batch that counts as a prompt.
const N_TOKENS_MIN: usize = Event::DECODE_TOKENS_MAX as usize + 1;

/// Reads `text` with the model at `path` under `config` and returns the profile of what was picked, as
/// prompts. Calls `progress` with the tokens done and all tokens.
///
/// Call it while no other model is loaded. Fails if the model cannot be loaded or has no experts, and if
/// the text has 32 tokens or less.
pub fn read(
    path: &Path,
    text: &str,
    mut config: Config,
    mut progress: impl FnMut(usize, usize),
) -> Result<Profile> {
    // Sessions repack nothing.
    config.packs = false;
    hook::install_to_learn(config)?;
    let reader = Session::load(
        path,
        Sizes {
            n_context: N_CONTEXT,
            n_batch: N_BATCH,
            n_threads: available_threads(),
        },
    )?;
    let tokens = reader.tokenize(text)?;
    if tokens.len() < N_TOKENS_MIN {
        let n = tokens.len();
        let why = format!("the text has {n} tokens, a profile needs {N_TOKENS_MIN} or more");
        return Err(reader.wrong(&why));
    }
    let mut n_done = 0;
    for window in even(&tokens, N_CONTEXT) {
        reader.begin();
        let mut first = 0;
        for batch in even(window, N_BATCH) {
            // The last layer is computed only for tokens with outputs.
            reader.compute(batch, first, Outputs::All)?;
            first += batch.len();
            n_done += batch.len();
            progress(n_done, tokens.len());
        }
    }
    let learnt = hook::profiles().pop();
    learnt.ok_or_else(|| {
        reader.wrong("its routing cannot be seen: it has no experts, or they are on a device")
    })
}

/// Parts of `n_max` tokens at most, none much shorter than another: the rest of a text would otherwise be
/// a batch so short that it does not count as a prompt.
fn even(tokens: &[i32], n_max: usize) -> impl Iterator<Item = &[i32]> {
    let n_parts = tokens.len().div_ceil(n_max);
    let begin = move |part: usize| part * tokens.len() / n_parts;
    (0..n_parts).map(move |part| &tokens[begin(part)..begin(part + 1)])
}
