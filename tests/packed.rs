//! Experts in a file of their own, as `hotset pack` writes them: the logits are the same to the bit, and a file that is not
//! of the model or not of this processor is left aside.

#![cfg(all(feature = "llama", feature = "cli"))]

mod child;
mod runner;
mod tiny;

use child::{Ended, command};
use hotset::config::{Config, Repack};
use hotset::pack::{Head, PLAIN, beside};
use runner::{Options, Output, run, same, streaming};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const OPTIONS: Options = Options::REPACKED;

fn pack(model: &Path, args: &[&str]) -> Ended {
    let mut pack = command(env!("CARGO_BIN_EXE_hotset"), &[]);
    pack.arg("pack").arg(model).args(args);
    child::run(pack)
}

/// Packs it beside itself.
fn packed(model: &Path) -> PathBuf {
    let ended = pack(model, &[]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let path = beside(model);
    assert!(
        ended.text().contains(&*path.to_string_lossy()),
        "{}",
        ended.text()
    );
    path
}

fn head(path: &Path) -> (Head, u64) {
    Head::read(&File::open(path).unwrap(), path).unwrap()
}

fn stock(model: &Path, options: Options, repacks: bool) -> Output {
    run(model, None, Options { repacks, ..options }).0
}

/// Of each type that is repacked, one of them in several files, and of all others.
#[test]
fn output_is_that_of_stock() {
    let dir = TempDir::new().unwrap();
    let mut specs = tiny::repacked();
    let n_repacked = specs.len();
    specs[0].splits = 3;
    specs.extend(tiny::all().into_iter().take(2));
    for (i, spec) in specs.iter().enumerate() {
        let path = tiny::write(spec, dir.path());
        let (head, _) = head(&packed(&path));
        let is_repacked = head.tensors.iter().any(|tensor| tensor.layout != PLAIN);
        let is_known = i >= n_repacked || !cfg!(target_arch = "x86_64");
        assert!(is_repacked || is_known, "{}", spec.name);
        for options in OPTIONS.shapes() {
            let stock = stock(&path, options, true);
            for percent in [100.0, 30.0, 15.0, 0.0001] {
                for repack in [Repack::Auto, Repack::On] {
                    let stats = same(&path, &streaming(percent, repack), options, &stock);
                    // Whatever would pay without it.
                    assert_eq!(stats.is_repacked, is_repacked, "{}", spec.name);
                    assert_eq!(
                        stats.generation.evictions > 0,
                        percent > 1.0 && percent < 100.0
                    );
                }
            }
        }
    }
}

/// Changes a byte in the middle of each expert of a packed file, and reads it.
fn damage(path: &Path) {
    let (head, begin) = head(path);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    for expert in head.experts() {
        let at = begin + expert.offset + expert.n_bytes as u64 / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
    }
}

/// A model that this processor computes with other rounding when it is repacked, and what it computes with and without.
fn rounded_otherwise(dir: &Path) -> (PathBuf, [Output; 2]) {
    let computed = |spec: tiny::Spec| {
        let path = tiny::write(&spec, dir);
        let outputs = [true, false].map(|repacks| stock(&path, OPTIONS, repacks));
        (path, outputs)
    };
    let mut all = tiny::repacked().into_iter().map(computed);
    let found = all.find(|(_, [repacked, plain])| repacked.logits != plain.logits);
    found.expect("some type is rounded otherwise")
}

/// What is read is the packed file; and it is not where it is not to be.
#[test]
fn it_is_used_where_it_belongs() {
    let dir = TempDir::new().unwrap();
    let (path, [repacked, plain]) = rounded_otherwise(dir.path());
    let packed = packed(&path);
    damage(&packed);
    let logits = |config: &Config, repacks| {
        run(&path, Some(config), Options { repacks, ..OPTIONS })
            .0
            .logits
    };
    let config = streaming(30.0, Repack::On);
    let used = logits(&config, true);
    assert!(used != repacked.logits && used != plain.logits);

    // Other layouts are wanted.
    assert_eq!(logits(&streaming(30.0, Repack::Off), true), plain.logits);
    assert_eq!(logits(&config, false), plain.logits);
    // It is not to be used.
    let mut off = config.clone();
    off.set("HOTSET_PACK", "off").unwrap();
    assert_eq!(logits(&off, true), repacked.logits);
    // It is of another processor.
    let whole = fs::read(&packed).unwrap();
    let (head, begin) = head(&packed);
    let mut other = head.clone();
    let layout = other
        .tensors
        .iter_mut()
        .find(|tensor| tensor.layout != PLAIN);
    layout.unwrap().layout = "0123456789abcdef".to_string();
    let with_head = |head: &Head| [&head.to_bytes(), &whole[begin as usize..]].concat();
    fs::write(&packed, with_head(&other)).unwrap();
    assert_eq!(logits(&config, true), repacked.logits);
    // It is cut off, or something else.
    for n in [0, 100, whole.len() - 1] {
        fs::write(&packed, &whole[..n]).unwrap();
        assert_eq!(logits(&config, true), repacked.logits);
    }
    fs::write(&packed, &whole).unwrap();
    assert_eq!(logits(&config, true), used);
}

/// One expert of the model has changed since, in its weights alone.
#[test]
fn a_model_that_was_trained_further_is_another_one() {
    let dir = TempDir::new().unwrap();
    let path = tiny::write(&tiny::repacked()[1], dir.path());
    let packed = packed(&path);
    let listing = hotset::gguf::list(&path).unwrap();
    let tensor = listing
        .tensors
        .iter()
        .rfind(|tensor| tensor.part().is_some())
        .unwrap();
    let expert_bytes = tensor.n_bytes / tensor.n_last();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let middle = tensor.offset + 3 * expert_bytes + expert_bytes / 2;
    file.write_all_at(&[0x11; 64], middle).unwrap();
    damage(&packed);
    let options = OPTIONS;
    let stock = stock(&path, options, true);
    same(&path, &streaming(30.0, Repack::On), options, &stock);
}

/// Killed when enough of it is written, it goes on; what comes out is what comes out of one run, and is not written again.
#[test]
fn packing_goes_on_after_a_kill() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("wide.gguf");
    child::widen("60", &path);
    let whole = packed(&path);
    let other = dir.path().join("other.packed");
    let part = dir.path().join("other.packed.part");
    let args = ["-o", other.to_str().unwrap()];
    for (signal, n_mib) in [
        (libc::SIGKILL, 100),
        (libc::SIGINT, 400),
        (libc::SIGTERM, 500),
    ] {
        let mut pack = command(env!("CARGO_BIN_EXE_hotset"), &[]);
        pack.arg("pack").arg(&path).args(args);
        let mut running = child::Running::start(pack);
        let size = || fs::metadata(&part).map_or(0, |meta| meta.len());
        running.wait_until("some of it is written", |_| {
            size() > n_mib << 20 || other.exists()
        });
        running.signal(signal);
        assert!(
            !running.wait().status.success(),
            "it was done before it was killed"
        );
        assert!(part.exists() && !other.exists());
    }
    let ended = pack(&path, &args);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.text().contains("were there"), "{}", ended.text());
    assert!(!part.exists());
    assert!(fs::read(&other).unwrap() == fs::read(&whole).unwrap());

    let time = || fs::metadata(&other).unwrap().modified().unwrap();
    let before = time();
    let ended = pack(&path, &args);
    assert!(ended.text().contains("is there"), "{}", ended.text());
    assert_eq!(time(), before);
}

/// A link leads to the model: the file lies where it is looked for.
#[test]
fn links_lead_to_it() {
    let dir = TempDir::new().unwrap();
    let path = tiny::write(&tiny::repacked()[0], dir.path());
    let link = dir.path().join("link.gguf");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let ended = pack(&link, &[]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let packed = beside(&path);
    assert!(packed.exists() && !beside(&link).exists());
    let config = streaming(30.0, Repack::On);
    let stock = stock(&link, OPTIONS, true);
    same(&link, &config, OPTIONS, &stock);
    damage(&packed);
    assert!(run(&link, Some(&config), OPTIONS).0 != stock);
}

/// A model that was only copied or touched is the same.
#[test]
fn other_times_are_no_other_model() {
    let dir = TempDir::new().unwrap();
    let path = tiny::write(&tiny::repacked()[2], dir.path());
    damage(&packed(&path));
    let config = streaming(30.0, Repack::On);
    let used = run(&path, Some(&config), OPTIONS).0;
    assert!(used != stock(&path, OPTIONS, true));
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert!(run(&path, Some(&config), OPTIONS).0 == used);
}

/// One line that names what is wrong, and nothing written.
#[test]
fn what_cannot_be_packed_is_refused() {
    let dir = TempDir::new().unwrap();
    let dense = tiny::write(&tiny::dense(), dir.path());
    let model = tiny::write(&tiny::repacked()[0], dir.path());
    let before = fs::read(&model).unwrap();
    let text = dir.path().join("text.gguf");
    fs::write(&text, "once upon a time").unwrap();
    let missing = dir.path().join("missing.gguf");
    for (model, args, code, what) in [
        (&dense, vec![], 2, "no routed experts"),
        (&text, vec![], 2, "text.gguf"),
        (&missing, vec![], 2, "missing.gguf"),
        (&model, vec!["-o", model.to_str().unwrap()], 2, "the input"),
        (
            &model,
            vec!["-o", dir.path().to_str().unwrap()],
            2,
            "--output",
        ),
        (
            &model,
            vec!["-o", "/no/such/folder/x.packed"],
            2,
            "/no/such/folder",
        ),
    ] {
        let ended = pack(model, &args);
        assert_eq!(ended.code(), code, "{}", ended.stderr);
        assert!(ended.error_line().contains(what), "{}", ended.stderr);
    }
    assert!(fs::read(&model).unwrap() == before);
    let is_pack = |name: &fs::DirEntry| name.file_name().to_string_lossy().contains(".packed");
    let names = fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
    assert_eq!(names.filter(is_pack).count(), 0);
}
