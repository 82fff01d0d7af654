//! Profiles side by side: those of a folder.

use super::format::Profile;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Whether a file is named like a profile.
pub fn is_named_so(path: &Path) -> bool {
    let name = path.to_string_lossy();
    name.ends_with(".json") || name.ends_with(".json.gz")
}

/// The profiles of a folder, `*.json` and `*.json.gz`, in the order of their names. One that is damaged is an error.
pub fn read_folder(folder: &Path) -> Result<Vec<(PathBuf, Profile)>> {
    read_folder_sparing(folder, |_| false).map(|(profiles, _)| profiles)
}

/// Files of a folder that are no profiles, and why.
type Spared = Vec<(PathBuf, Error)>;

/// The same, but for files that `is_spared`: those that are damaged are left out, and come apart.
pub fn read_folder_sparing(
    folder: &Path,
    is_spared: impl Fn(&Path) -> bool,
) -> Result<(Vec<(PathBuf, Profile)>, Spared)> {
    let failed = |e: std::io::Error| Error::file(folder, e);
    let mut paths = Vec::new();
    for entry in folder.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if is_named_so(&path) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    let (mut profiles, mut spared) = (Vec::new(), Vec::new());
    for path in paths {
        match Profile::read(&path) {
            Ok(profile) => profiles.push((path, profile)),
            Err(error) if is_spared(&path) => spared.push((path, error)),
            Err(error) => return Err(error),
        }
    }
    Ok((profiles, spared))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Fingerprint;
    use std::fs;

    #[test]
    fn a_damaged_file_is_an_error_unless_it_is_spared() {
        let dir = tempfile::tempdir().unwrap();
        let model = Fingerprint {
            architecture: "test".to_string(),
            name: String::new(),
            n_layers: 1,
            n_experts: 2,
            top_k: 1,
        };
        let [a, cut, empty] = ["a.json", "cut.json", "empty.json.gz"].map(|n| dir.path().join(n));
        Profile::new("a", model, &[2]).write(&a).unwrap();
        fs::write(dir.path().join("notes.txt"), "no profile").unwrap();
        let names = |found: &[(PathBuf, Profile)]| found.len() == 1 && found[0].0 == a;
        assert!(names(&read_folder(dir.path()).unwrap()));

        fs::write(&empty, "").unwrap();
        let half = fs::read(&a).unwrap();
        fs::write(&cut, &half[..half.len() / 2]).unwrap();
        let error = read_folder(dir.path()).unwrap_err().to_string();
        assert!(error.contains("cut.json: "), "{error}");
        let one = read_folder_sparing(dir.path(), |path| path == cut).unwrap_err();
        assert!(one.to_string().contains("empty.json.gz: "), "{one}");
        let (found, spared) = read_folder_sparing(dir.path(), |path| path != a).unwrap();
        assert!(names(&found));
        let paths: Vec<_> = spared.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, [&cut, &empty]);
    }
}
