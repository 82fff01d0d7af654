//! Names of the files that runs leave behind. They are bytes: nobody promises that they are UTF-8.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// How a trace's name ends.
pub const TRACE_SUFFIX: &str = ".trace.gz";
/// How a profile's name ends.
pub const PROFILE_SUFFIXES: [&str; 2] = [".json", ".json.gz"];

/// The file of the `n`-th model of a process, counted from 1, when that of the first is `path`: `run.2.trace.gz` for
/// the second of `run.trace.gz`.
pub fn numbered(path: &Path, n: u32) -> PathBuf {
    match n {
        0 | 1 => path.to_path_buf(),
        _ => inserted(path, &n.to_string()),
    }
}

/// The file for the model called `model` when others have `path`: `chat.mixtral-8x7b.json` beside `chat.json`.
/// Of a name only letters, digits and a few signs are kept.
pub fn model_path(path: &Path, model: &str) -> PathBuf {
    /// Enough to tell models apart, and short enough for any file system.
    const CHARS_MAX: usize = 60;
    let name: String = plain(model).chars().take(CHARS_MAX).collect();
    inserted(path, if name.is_empty() { "model" } else { &name })
}

/// `path` with `what` before the end that says what kind of file it is.
pub fn inserted(path: &Path, what: &str) -> PathBuf {
    let path = path.as_os_str();
    let (stem, suffix) = split(path).unwrap_or((path.as_bytes(), b""));
    let parts = [stem, b".", what.as_bytes(), suffix];
    PathBuf::from(OsString::from_vec(parts.concat()))
}

/// A name with a dash for whatever not every file system takes.
pub fn plain(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_+".contains(c);
    let chars = text.chars();
    chars.map(|c| if is_plain(c) { c } else { '-' }).collect()
}

/// Parts a name before the end that says what kind of file it is.
pub fn split(name: &OsStr) -> Option<(&[u8], &[u8])> {
    let name = name.as_bytes();
    let [json, json_gz] = PROFILE_SUFFIXES;
    let suffixes = [TRACE_SUFFIX, json_gz, json].into_iter();
    let mut suffixes = suffixes.filter(|suffix| name.ends_with(suffix.as_bytes()));
    let n_bytes = name.len() - suffixes.next()?.len();
    Some(name.split_at(n_bytes))
}

/// Whether a name ends so.
pub fn ends_with(name: &OsStr, suffix: &str) -> bool {
    name.as_bytes().ends_with(suffix.as_bytes())
}

/// The folder that holds `path`, the current one for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths that are no UTF-8 among them.
    #[test]
    fn files_of_one_process_have_names_of_their_own() {
        for (path, second, of_model) in [
            (
                &b"a/run.trace.gz"[..],
                &b"a/run.2.trace.gz"[..],
                &b"a/run.Mi-x.trace.gz"[..],
            ),
            (b"chat.json", b"chat.2.json", b"chat.Mi-x.json"),
            (b"chat.json.gz", b"chat.2.json.gz", b"chat.Mi-x.json.gz"),
            (
                b"\xff\xfe/\xe9.json",
                b"\xff\xfe/\xe9.2.json",
                b"\xff\xfe/\xe9.Mi-x.json",
            ),
        ] {
            let path = Path::new(OsStr::from_bytes(path));
            let bytes = |path: PathBuf| path.into_os_string().into_vec();
            assert_eq!(numbered(path, 1), path);
            assert_eq!(bytes(numbered(path, 2)), second);
            assert_eq!(bytes(model_path(path, "Mi/x")), of_model);
        }
        assert_eq!(
            model_path(Path::new("a.json"), ""),
            Path::new("a.model.json")
        );
        let long = model_path(Path::new("a.json"), &"\u{e9}".repeat(999));
        assert_eq!(long.as_os_str().len(), 60 + "a..json".len());
    }
}
