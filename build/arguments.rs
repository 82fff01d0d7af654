//! Options of the user's for llama.cpp's build: `CMAKE_ARGS`, as other packages that build it take them, and
//! `HOTSET_PORTABLE`.

use super::settings;
use anyhow::{Context, Result, ensure};

/// The options in `text`, which is quoted as in a shell; `own` are those that the build sets.
pub fn parse(text: &str, own: &[&str]) -> Result<Vec<(String, String)>> {
    let words = shlex::split(text).with_context(|| format!("CMAKE_ARGS={text}: an open quote"))?;
    words.iter().map(|word| option(word, own)).collect()
}

fn option(word: &str, own: &[&str]) -> Result<(String, String)> {
    let pair = word
        .strip_prefix("-D")
        .and_then(|rest| rest.split_once('='));
    let (key, value) = pair.filter(|(key, _)| !key.is_empty()).with_context(|| {
        format!("CMAKE_ARGS: {word}: not of the form -DNAME=VALUE, which is what is passed on")
    })?;
    // As in -DNAME:BOOL=ON.
    let name = key.split(':').next().unwrap_or(key);
    ensure!(
        !own.contains(&name),
        "CMAKE_ARGS: {word}: hotset's build sets {name}, from its features where one has that name and from \
         HOTSET_PORTABLE"
    );
    Ok((key.to_owned(), value.to_owned()))
}

/// Whether `HOTSET_PORTABLE`, which holds `text`, asks for programs that run on other machines too.
pub fn portable(text: &str) -> Result<bool> {
    let means = [
        "for programs that run on other machines too",
        "for those that use all instructions of this one",
    ];
    settings::switch("HOTSET_PORTABLE", text, means)
}
