//! Commands that need llama.cpp, in a program that was built without it.

/// The error of such a command.
pub fn no_llama<T>(command: &str) -> anyhow::Result<T> {
    anyhow::bail!(
        "`hotset {command}` needs llama.cpp, and this hotset was built without llama.cpp: \
         build it with the feature `llama`, which is on by default"
    )
}
