//! Files that the system cannot map, as on some network and FUSE mounts: experts stream from them all the same.

#![cfg(all(feature = "llama", feature = "cli"))]

mod child;
mod tiny;

use child::{Ended, StatsFile, completion, polyglot, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lets no file be mapped whose name ends like a model's.
const UNMAPPABLE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static int is_model(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = fd < 0 ? -1 : readlink(link, path, sizeof path);
    return n > 5 && memcmp(path + n - 5, ".gguf", 5) == 0;
}
#define WRAP(name) \
    void * name(void * at, size_t n, int protection, int flags, int fd, off_t offset) { \
        void * (*real)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, #name); \
        if (is_model(fd)) { \
            errno = ENODEV; \
            return MAP_FAILED; \
        } \
        return real(at, n, protection, flags, fd, offset); \
    }
WRAP(mmap)
WRAP(mmap64)
"#;

/// A library for `LD_PRELOAD`.
fn unmappable(dir: &Path) -> PathBuf {
    let (source, library) = (dir.join("unmappable.c"), dir.join("unmappable.so"));
    std::fs::write(&source, UNMAPPABLE).unwrap();
    let compiler = std::env::var("CC").unwrap_or("cc".to_owned());
    let mut cc = Command::new(compiler);
    cc.args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl");
    assert!(cc.status().unwrap().success(), "{cc:?}");
    library
}

struct Mount {
    dir: tempfile::TempDir,
    library: PathBuf,
}

impl Mount {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = unmappable(dir.path());
        Self { dir, library }
    }

    fn run(&self, model: &Path, vars: &[(&str, &str)], args: &[&str]) -> Ended {
        let few = [&["-n", "12", "--temp", "0"], args].concat();
        let mut command = completion(model, vars, &few);
        command.env("LD_PRELOAD", &self.library);
        run(command)
    }
}

/// Budgets at which all experts are there, few are, and hardly any.
const BUDGETS: [&str; 4] = ["auto", "100%", "30%", "1%"];

#[test]
fn experts_stream_from_what_cannot_be_mapped() {
    let mount = Mount::new();
    let off = [("HOTSET", "off")];
    let stock = mount.run(&polyglot(), &off, &["--load-mode", "none"]);
    for ram in BUDGETS {
        let stats = StatsFile::new();
        let vars = [("HOTSET_RAM", ram), ("HOTSET_STATS", &*stats.path())];
        let ended = mount.run(&polyglot(), &vars, &[]);
        assert_eq!(ended.text(), stock.text(), "{ram}");
        let said = "the model file cannot be mapped (No such device)";
        assert_eq!(ended.stderr.matches(said).count(), 1, "{}", ended.stderr);
        assert!(child::count(&stats.read(), "tokens") > 0);
    }
    for mode in ["none", "dio"] {
        let vars = [("HOTSET_RAM", "30%")];
        let ended = mount.run(&polyglot(), &vars, &["--load-mode", mode]);
        assert_eq!(ended.text(), stock.text(), "{mode}");
    }
}

/// Dense weights are to be mapped, which is as impossible as it is without hotset.
#[test]
fn a_mapping_that_was_asked_for_is_missed() {
    let mount = Mount::new();
    for vars in [("HOTSET", "off"), ("HOTSET_RAM", "30%")] {
        let ended = mount.run(&polyglot(), &[vars], &["--load-mode", "mmap"]);
        assert_eq!(ended.code(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("mmap failed: No such device"));
    }
}

/// A model of several files, one of which has an expert that no computation gives.
#[test]
fn tensors_are_checked_where_they_lie() {
    let mount = Mount::new();
    let spec = tiny::all()[7];
    let model = tiny::write(&spec, mount.dir.path());
    let vars = [("HOTSET_RAM", "30%")];
    let check = || mount.run(&model, &vars, &["--check-tensors"]);
    let ended = check();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    damage(
        &mount
            .dir
            .path()
            .join(format!("{}-00001-of-00003.gguf", spec.name)),
    );
    let ended = check();
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("invalid data"), "{}", ended.stderr);
    assert!(ended.stderr.contains("_exps.weight"), "{}", ended.stderr);
}

/// Makes the last bytes of a file, which are an expert's, what is no number in F16.
fn damage(path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let n = file.metadata().unwrap().len();
    file.write_all_at(&[0xff; 4096], n - 4096).unwrap();
}
