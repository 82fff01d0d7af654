//! Where llama.cpp keeps what it has downloaded.

use super::names::best;
use std::fs;
use std::path::{Path, PathBuf};

/// The first file of the model that `quant` names in `repo`, if it is on this machine. `variable` looks into the environment.
pub fn find(repo: &str, quant: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let of_hub = hub_folder(variable).and_then(|folder| in_hub(&folder, repo, quant));
    of_hub.or_else(|| in_flat(&flat_folder(variable)?, repo, quant))
}

/// The folder that llama.cpp shares with the hub's own programs.
fn hub_folder(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let places = [
        ("LLAMA_CACHE", ""),
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
        ("HOME", ".cache/huggingface/hub"),
    ];
    places
        .into_iter()
        .find_map(|(name, below)| Some(Path::new(&variable(name)?).join(below)))
}

/// The folder that older builds used, with all files side by side.
fn flat_folder(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let own = variable("LLAMA_CACHE").map(PathBuf::from);
    own.or_else(|| Some(dirs::cache_dir()?.join("llama.cpp")))
}

/// `models--user--name/snapshots/COMMIT/`, where `refs/main` says which.
fn in_hub(folder: &Path, repo: &str, quant: &str) -> Option<PathBuf> {
    let place = folder.join(format!("models--{}", repo.replace('/', "--")));
    let commit = |path: PathBuf| {
        let text = fs::read_to_string(path).ok()?;
        let commit = text.trim().to_string();
        let is_one = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
        is_one.then_some(commit)
    };
    let any = || {
        let refs = fs::read_dir(place.join("refs")).ok()?;
        refs.flatten().find_map(|entry| commit(entry.path()))
    };
    let commit = commit(place.join("refs/main")).or_else(any)?;
    let snapshot = place.join("snapshots").join(commit);
    let mut paths = Vec::new();
    list(&snapshot, "", &mut paths, 0);
    paths.sort();
    Some(snapshot.join(best(&paths, quant)?))
}

/// Adds the files below `folder` with their names from there.
fn list(folder: &Path, before: &str, paths: &mut Vec<String>, depth: usize) {
    const DEEP: usize = 8;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{before}{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true if depth < DEEP => list(&entry.path(), &format!("{name}/"), paths, depth + 1),
            true => {}
            false => paths.push(name),
        }
    }
}

/// `user_name_FILE`.
fn in_flat(folder: &Path, repo: &str, quant: &str) -> Option<PathBuf> {
    let start = format!("{}_", repo.replace('/', "_"));
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        paths.extend(name.strip_prefix(&start).map(str::to_string));
    }
    paths.sort();
    Some(folder.join(format!("{start}{}", best(&paths, quant)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_caches_are_looked_into() {
        let root = tempfile::tempdir().unwrap();
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let place = root.path().join("models--me--big");
        let snapshot = place.join("snapshots").join(commit).join("q");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(place.join("refs")).unwrap();
        fs::write(place.join("refs/main"), commit).unwrap();
        fs::write(snapshot.join("big-Q8_0.gguf"), "").unwrap();
        fs::write(root.path().join("me_small_small-Q4_0.gguf"), "").unwrap();
        let home = root.path().to_str().unwrap().to_string();
        let variable = |name: &str| (name == "LLAMA_CACHE").then(|| home.clone());
        let found = |repo, quant| find(repo, quant, &variable);
        assert_eq!(found("me/big", ""), Some(snapshot.join("big-Q8_0.gguf")));
        assert_eq!(found("me/big", "Q4_0"), None);
        assert_eq!(
            found("me/small", "q4_0"),
            Some(root.path().join("me_small_small-Q4_0.gguf"))
        );
        assert_eq!(found("you/big", ""), None);
    }
}
