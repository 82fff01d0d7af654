//! What is in the way of writing a file, asked before any work.

use super::names::folder_of;
use super::place::{self, Place};
use crate::error::Error;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whether `path` can be written; what is in the way if not. Leaves nothing behind and changes nothing.
///
/// What stays as it is for now, a full disk, is not in the way.
pub fn check(path: &Path) -> Result<(), String> {
    let refused = |cause: io::Error| format!("it cannot be written: {}", said(&cause));
    match Place::of(path).map_err(refused)? {
        Place::Stream(_) => Ok(()),
        Place::Special(meta) => match place::unwritable(&meta) {
            Some(kind) => Err(format!("it is {kind}")),
            // It is not opened: whoever reads a pipe would see its end.
            None => accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS)
                .map_err(|cause| refused(cause.into())),
        },
        Place::File { .. } => {
            let opened = OpenOptions::new().write(true).open(path);
            opened.map(drop).map_err(refused)
        }
        Place::Missing(target) => check_folder(path, &target),
    }
}

/// Refuses files that could not be written in the end, two of them that are one, and those that are `read` as well.
/// Each comes with what names it: a variable, an option, or words. To be done before any work.
pub fn check_all(written: &[(&str, &Path)], read: &[(String, &Path)]) -> Result<(), Error> {
    let mut seen: Vec<(&str, Identity)> = Vec::new();
    for &(name, path) in written {
        let wrong =
            |allowed: String| Error::setting(name, path.to_string_lossy().into_owned(), allowed);
        check(path).map_err(wrong)?;
        let Some(own) = identity(path) else {
            continue;
        };
        let is_read = |(_, path): &&(String, &Path)| identity(path).as_ref() == Some(&own);
        let others = seen.iter().find(|(_, seen)| *seen == own);
        let other = others.map(|(other, _)| *other);
        let other = other.or_else(|| read.iter().find(is_read).map(|(words, _)| words.as_str()));
        if let Some(other) = other {
            return Err(wrong(format!("{other} names the same file")));
        }
        seen.push((name, own));
    }
    Ok(())
}

/// Whether a file `target`, to which `path` leads, can be made.
fn check_folder(path: &Path, target: &Path) -> Result<(), String> {
    let folder = folder_of(target);
    let whose = match target == path {
        true => "its folder".to_string(),
        false => format!(
            "it is a link to {}, whose folder",
            target.to_string_lossy().escape_debug()
        ),
    };
    match fs::metadata(folder) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            return Err(format!("{whose} does not exist"));
        }
        Err(cause) if cause.kind() == ErrorKind::NotADirectory => {
            return Err(format!("{whose} is not a folder"));
        }
        Err(cause) => return Err(format!("{whose} cannot be looked into: {}", said(&cause))),
        Ok(meta) if !meta.is_dir() => return Err(format!("{whose} is not a folder")),
        Ok(_) => {}
    }
    // Tried for real: to root, permissions say nothing.
    match tempfile::tempfile_in(folder) {
        Err(cause) if !is_full(&cause) => Err(format!("{whose} takes no files: {}", said(&cause))),
        _ => Ok(()),
    }
}

/// What the system said, without the temporary file that it was said of: it has another name each time.
pub(super) fn said(cause: &io::Error) -> String {
    let text = cause.to_string();
    match text.split_once(" at path ") {
        Some((said, _)) => said.to_string(),
        None => text,
    }
}

pub(super) fn is_full(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

/// What tells a file from others, whatever path leads to it and whether it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The file with this device and number.
    File(u64, u64),
    /// A name in the folder with this device and number.
    Name(u64, u64, OsString),
}

/// The file that `path` leads to; `None` for what others may be written to as well, as a pipe, and for what cannot
/// be found.
pub fn identity(path: &Path) -> Option<Identity> {
    match Place::of(path).ok()? {
        Place::Stream(_) | Place::Special(_) => None,
        Place::File { meta, .. } => Some(Identity::File(meta.dev(), meta.ino())),
        Place::Missing(target) => {
            let folder = fs::metadata(folder_of(&target)).ok()?;
            let name = target.file_name()?.to_os_string();
            Some(Identity::Name(folder.dev(), folder.ino(), name))
        }
    }
}
