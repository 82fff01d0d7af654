//! Servers that a router has started: one process for each model, all with the same environment.

use crate::output::names::plain;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What llama-server sets for those that it starts.
const PORT: &str = "LLAMA_SERVER_ROUTER_PORT";

/// A process that serves one model of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// The router's name of the model, as it is part of the names of files.
    pub name: String,
    /// The folder in which the processes of this router tell each other what they have of a size.
    pub ledger: PathBuf,
}

impl Routed {
    /// What this process is, if a router has started it.
    pub(super) fn of_process() -> Option<Self> {
        let port = std::env::var_os(PORT).filter(|port| !port.is_empty())?;
        let args: Vec<OsString> = std::env::args_os().collect();
        let base = ledgers().swap_remove(0);
        // Containers may have a folder in common, and processes of the same numbers.
        let world = std::fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino());
        let router = std::os::unix::process::parent_id();
        let port = plain(&port.to_string_lossy());
        let folder = format!("router-{world}-{router}-{port}");
        Some(Self {
            name: name_of(&args),
            ledger: base.join(folder),
        })
    }
}

/// Folders in which processes of this user may tell each other what they have, the best one first.
pub(super) fn ledgers() -> Vec<PathBuf> {
    // What only this user's processes can reach, if there is such a folder.
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let own = own.filter(|own| own.is_absolute() && own.is_dir());
    let user = rustix::process::geteuid().as_raw();
    let bases = own.into_iter().chain([std::env::temp_dir()]);
    bases
        .map(|base| base.join(format!("hotset-{user}")))
        .collect()
}

/// The name that a router gives the model of a server with these arguments.
fn name_of(args: &[OsString]) -> String {
    let value = |names: [&str; 2]| {
        let at = args
            .iter()
            .rposition(|arg| names.iter().any(|name| arg == name))?;
        args.get(at + 1)
    };
    let alias = value(["--alias", "-a"]);
    let file = || value(["--model", "-m"]).and_then(|path| Path::new(path).file_stem());
    let name = alias.map(OsString::as_os_str).or_else(file);
    file_part(name.unwrap_or(OsStr::new("model")))
}

/// A name as part of a file's, which no other name becomes: letters, digits and a few signs stay, and where others are
/// lost, a number is added that follows from them.
fn file_part(name: &OsStr) -> String {
    /// Short enough for any file system.
    const CHARS_MAX: usize = 60;
    let text = name.to_string_lossy();
    let mut part: String = plain(&text).chars().take(CHARS_MAX).collect();
    if part.is_empty() || part != text || OsStr::new(&*text) != name {
        part += &format!("-{:08x}", number_of(name.as_bytes()));
    }
    part
}

/// FNV-1a: the same whatever this program was built with.
fn number_of(bytes: &[u8]) -> u32 {
    let add = |number: u32, byte: &u8| (number ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(args: &[&str]) -> String {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        name_of(&args)
    }

    #[test]
    fn files_are_named_after_what_the_router_calls_a_model() {
        assert_eq!(name(&["server", "--alias", "chat"]), "chat");
        assert_eq!(name(&["s", "-m", "a/b.gguf", "-a", "x_1"]), "x_1");
        assert_eq!(name(&["s", "-m", "a/b.gguf"]), "b");
        assert_eq!(name(&["s", "--alias"]), "model");
    }

    #[test]
    fn two_names_never_become_one() {
        let long = "x".repeat(99);
        let longer = "x".repeat(100);
        let names = [
            "a-b", "a/b", "a:b", "a b", "a-b ", "", "A-b", &long, &longer,
        ];
        let mut parts: Vec<String> = names.map(|name| file_part(OsStr::new(name))).into();
        parts.push(file_part(OsStr::from_bytes(b"a\xffb")));
        for part in &parts {
            assert!(part.len() < 80 && part.is_ascii(), "{part}");
            assert_eq!(*part, plain(part));
        }
        let n = parts.len();
        parts.sort();
        parts.dedup();
        assert_eq!(parts.len(), n, "{parts:?}");
    }
}
