//! What must never be half a file, and what is not to be written at all.

use super::{Draft, check_all, write};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

/// Writes `text` to `path` without an end, as who is killed.
fn begin_and_drop(path: &Path, text: &str) -> std::io::Result<()> {
    let draft = Draft::whole(path)?;
    (&draft).write_all(text.as_bytes())
}

#[test]
fn a_whole_draft_leaves_what_is_there_until_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let [file, link, new] = ["file", "link", "new"].map(|name| dir.path().join(name));
    fs::write(&file, "precious").unwrap();
    symlink("file", &link).unwrap();
    for path in [&file, &link, &new] {
        begin_and_drop(path, "half").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
    let draft = Draft::whole(&link).unwrap();
    (&draft).write_all(b"all of it").unwrap();
    draft.keep().unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"all of it");
    assert!(link.is_symlink());
    begin_and_drop(Path::new("/dev/null"), "all of it").unwrap();
}

/// Other files are written in place then, and this one is not: it may be too large to be put back.
#[test]
fn a_whole_draft_of_what_has_several_names_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [file, other] = ["file", "other"].map(|name| dir.path().join(name));
    fs::write(&file, "precious").unwrap();
    fs::hard_link(&file, &other).unwrap();
    let error = begin_and_drop(&other, "half").unwrap_err().to_string();
    assert!(error.contains("has 2 names"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    write(&other, b"small").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"small");
    assert_eq!(fs::metadata(&file).unwrap().nlink(), 2);
}

#[test]
fn no_file_is_written_twice_or_over_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, input] = ["a", "b", "input"].map(|name| dir.path().join(name));
    fs::write(&input, "precious").unwrap();
    let read = [("the input".to_string(), input.as_path())];
    assert!(check_all(&[("--a", &a), ("--b", &b)], &read).is_ok());
    symlink("a", &b).unwrap();
    let error = check_all(&[("--a", &a), ("--b", &b)], &read).unwrap_err();
    let said = format!("--b={}: --a names the same file", b.display());
    assert_eq!(error.to_string(), said);
    fs::hard_link(&input, &a).unwrap();
    for path in [&a, &b, &input] {
        let error = check_all(&[("--x", path)], &read).unwrap_err();
        let said = format!("--x={}: the input names the same file", path.display());
        assert_eq!(error.to_string(), said);
    }
    // Others may write there, too.
    let null = Path::new("/dev/null");
    assert!(check_all(&[("--a", null), ("--b", null)], &read).is_ok());
}
