//! Which servers the programs trust when they download: those that the machine's root certificates vouch for, which each
//! system keeps elsewhere.

use openssl_probe::{ENV_CERT_DIR, ENV_CERT_FILE, candidate_cert_dirs, probe};
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Tells the programs' TLS where this machine's root certificates are, unless the user has. Returns a line for the user if
/// there are none and `args`, or the environment, ask for a download that needs them.
///
/// # Safety
///
/// No other thread can read the environment.
pub unsafe fn find(args: &[OsString]) -> Option<String> {
    let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let named: Vec<_> = [ENV_CERT_FILE, ENV_CERT_DIR]
        .into_iter()
        .filter_map(|name| Some((name, var(name)?)))
        .collect();
    let why = if !named.is_empty() {
        none_in(&named)?
    } else if let Some((name, path)) = places().find(|(_, path)| has_any(path)) {
        // SAFETY: the caller says that no other thread can read the environment.
        unsafe { env::set_var(name, path) };
        return None;
    } else {
        "this machine has no root certificates: install ca-certificates, or name a file of them in SSL_CERT_FILE".into()
    };
    let needs_them = downloads(args.iter().map(OsString::as_os_str), var);
    needs_them.then(|| format!("hotset: {why}; without them downloads by https trust no server"))
}

/// Where this machine may have them, as variables say it.
fn places() -> impl Iterator<Item = (&'static str, PathBuf)> {
    let file = probe().cert_file.map(|file| (ENV_CERT_FILE, file));
    let dirs = candidate_cert_dirs().map(|dir| (ENV_CERT_DIR, dir.to_owned()));
    file.into_iter().chain(dirs)
}

/// That there are none where the user's variables say, if so.
fn none_in(named: &[(&str, OsString)]) -> Option<String> {
    let mut paths = named.iter().flat_map(|(_, value)| env::split_paths(value));
    if paths.any(|path| has_any(&path)) {
        return None;
    }
    let named = named
        .iter()
        .map(|(name, value)| format!("{name}={}", value.display()));
    Some(format!(
        "no root certificates are in {}",
        named.collect::<Vec<_>>().join(" and ")
    ))
}

/// Whether there is a file with something in it, or a folder.
fn has_any(path: &Path) -> bool {
    match path.metadata() {
        Ok(found) if found.is_dir() => path
            .read_dir()
            .is_ok_and(|mut files| files.next().is_some()),
        Ok(found) => found.len() > 0,
        Err(_) => false,
    }
}

/// Whether something is asked for that comes by https: an address, or a repository of a hub whose address is none of http.
fn downloads<'a>(
    args: impl Iterator<Item = &'a OsStr>,
    var: impl Fn(&str) -> Option<OsString>,
) -> bool {
    const REPOSITORIES: &[&str] = &[
        "-hf",
        "--hf-repo",
        "--spec-draft-hf",
        "-dr",
        "--docker-repo",
    ];
    const VARIABLES: &[&str] = &[
        "LLAMA_ARG_HF_REPO",
        "LLAMA_ARG_SPEC_DRAFT_HF_REPO",
        "LLAMA_ARG_DOCKER_REPO",
    ];
    const ADDRESSES: &[&str] = &["LLAMA_ARG_MODEL_URL", "LLAMA_ARG_MMPROJ_URL"];
    let begins = |text: &OsStr, with: &str| text.as_bytes().starts_with(with.as_bytes());
    let endpoint = var("MODEL_ENDPOINT").or_else(|| var("HF_ENDPOINT"));
    let hub_is_https = !endpoint.is_some_and(|address| begins(&address, "http://"));
    let mut args = args;
    let in_args = args.any(|arg| {
        let is_preset =
            begins(arg, "--") && arg.as_bytes().ends_with(b"-default") && arg != "--spec-default";
        let is_repository = is_preset || REPOSITORIES.iter().any(|option| begins(arg, option));
        begins(arg, "https://") || hub_is_https && is_repository
    });
    let is_https = |name: &&str| var(name).is_some_and(|address| begins(&address, "https://"));
    in_args
        || ADDRESSES.iter().any(|name| is_https(name))
        || hub_is_https && VARIABLES.iter().any(|name| var(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_by_https_are_told_from_others() {
        for (text, wanted) in [
            ("-m model.gguf", false),
            ("-hf user/model:Q4_0", true),
            ("HF_ENDPOINT=https://there -hf user/model", true),
            ("HF_ENDPOINT=http://there -hf user/model", false),
            (
                "HF_ENDPOINT=http://there MODEL_ENDPOINT=https://here -hf user/model",
                true,
            ),
            ("-m here.gguf -mu https://there/it.gguf", true),
            ("-m here.gguf -mu http://there/it.gguf", false),
            ("--gpt-oss-20b-default", true),
            ("-m here.gguf --spec-default", false),
            ("LLAMA_ARG_HF_REPO=user/model", true),
            ("LLAMA_ARG_MODEL_URL=http://there/it.gguf", false),
            ("LLAMA_ARG_MODEL_URL=https://there/it.gguf", true),
        ] {
            let words = || text.split(' ');
            let args = words().filter(|word| !word.contains('='));
            let var = |name: &str| {
                let mut pairs = words().filter_map(|word| word.split_once('='));
                pairs
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| value.into())
            };
            assert_eq!(downloads(args.map(OsStr::new), var), wanted, "{text}");
        }
    }
}
