//! Writing and reading.

use super::{names, random, rng};
use hotset::error::Error;
use hotset::profile::{Fingerprint, HALF_LIFE, Profile};
use hotset::tracker::Phase;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..20 {
        let profile = random(&[3, 1, 8], seed);
        for name in ["plain.json", "small.json.gz"] {
            let path = folder.path().join(name);
            profile.write(&path).unwrap();
            assert_eq!(Profile::read(&path).unwrap(), profile);
        }
    }
    assert_eq!(names(folder.path()), ["plain.json", "small.json.gz"]);
    let read = |name| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("plain.json")[0], b'{');
    assert_eq!(read("small.json.gz")[..2], [0x1f, 0x8b]);
    assert!(read("small.json.gz").len() < read("plain.json").len());
}

#[test]
fn weights_have_four_digits_and_nothing_else_is_rounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.json");
    let mut profile = random(&[8], 1);
    profile.layers[0].prompt.weight = vec![
        0.0,
        1.0,
        123.456,
        9.99951,
        1.00049e-9,
        65432.1,
        9_007_199_254_740_992.0,
        1e-310,
    ];
    profile.layers[0].prompt.count[0] = 9_007_199_254_740_991;
    profile.write(&path).unwrap();
    let read = Profile::read(&path).unwrap();
    let rounded = [0.0, 1.0, 123.5, 10.0, 1e-9, 65430.0, 9.007e15, 1e-310];
    assert_eq!(read.layers[0].prompt.weight, rounded);
    profile.layers[0].prompt.weight = rounded.to_vec();
    assert_eq!(read, profile);
    read.write(&path).unwrap();
    assert_eq!(Profile::read(&path).unwrap(), profile);
}

/// The largest models there are: a few experts take most picks, and most have long faded.
#[test]
fn a_large_model_after_a_million_tokens_is_below_a_megabyte() {
    const N_TOKENS: f64 = 1e6;
    const TOP_K: f64 = 10.0;
    let model = Fingerprint {
        architecture: "large".to_string(),
        name: "Large".to_string(),
        n_layers: 60,
        n_experts: 512,
        top_k: TOP_K as u32,
    };
    let mut profile = Profile::new("large", model, &[512; 60]);
    let mut below = rng(7);
    for layer in &mut profile.layers {
        for phase in Phase::ALL {
            let heat = layer.heat_mut(phase);
            let shares: Vec<f64> = (1..=512).map(|rank| 1.0 / f64::from(rank)).collect();
            let sum: f64 = shares.iter().sum();
            for (expert, share) in shares.iter().enumerate() {
                let share = share / sum * TOP_K * (0.5 + below(1000) as f64 / 1000.0);
                let faded = 0.5f64.powf(below(20) as f64);
                heat.weight[expert] = share * HALF_LIFE as f64 / 2f64.ln() * faded;
                heat.count[expert] = (share * N_TOKENS / 2.0) as u64;
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.json");
    profile.write(&path).unwrap();
    let n_bytes = fs::metadata(&path).unwrap().len();
    assert!((500_000..1_000_000).contains(&n_bytes), "{n_bytes}");
    assert_eq!(Profile::read(&path).unwrap().layers.len(), 60);
}

#[test]
fn a_file_has_the_permissions_of_any_other_or_keeps_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mode = |name| {
        let meta = fs::metadata(folder.path().join(name)).unwrap();
        meta.permissions().mode() & 0o7777
    };
    File::create(folder.path().join("other")).unwrap();
    let path = folder.path().join("some.json");
    random(&[2], 1).write(&path).unwrap();
    assert_eq!(mode("some.json"), mode("other"));
    for kept in [0o600, 0o666] {
        fs::set_permissions(&path, Permissions::from_mode(kept)).unwrap();
        random(&[2], 2).write(&path).unwrap();
        assert_eq!(mode("some.json"), kept);
    }
}

#[test]
fn links_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("other")).unwrap();
    symlink("other/link.json", at("first.json")).unwrap();
    symlink("target.json", at("other/link.json")).unwrap();
    // At first the link leads nowhere.
    for seed in [1, 2] {
        random(&[2], seed).write(&at("first.json")).unwrap();
        let is_link = |name| fs::symlink_metadata(at(name)).unwrap().is_symlink();
        assert!(is_link("first.json") && is_link("other/link.json"));
        let read = Profile::read(&at("other/target.json")).unwrap();
        assert_eq!(read.layers, random(&[2], seed).layers);
    }
    assert_eq!(names(&at("other")), ["link.json", "target.json"]);
    symlink("round.json", at("round.json")).unwrap();
    let error = random(&[2], 1).write(&at("round.json")).unwrap_err();
    assert!(error.to_string().contains("symbolic links"), "{error}");
}

#[test]
fn what_cannot_be_replaced_stays() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let profile = random(&[2], 1);
    let error = profile.write(&at("none/some.json")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(error.to_string().contains("none/some.json"), "{error}");
    fs::create_dir(at("folder.json")).unwrap();
    assert!(profile.write(&at("folder.json")).is_err());
    assert!(profile.write(&at("..")).is_err());

    // A profile that could not be read again.
    profile.write(&at("some.json")).unwrap();
    let mut wrong = profile.clone();
    wrong.layers[0].prompt.weight[1] = f64::NAN;
    let error = wrong.write(&at("some.json")).unwrap_err().to_string();
    assert!(
        error.contains("some.json: layers[0].prompt.weight[1]: NaN"),
        "{error}"
    );
    assert_eq!(Profile::read(&at("some.json")).unwrap(), profile);
    assert_eq!(names(folder.path()), ["folder.json", "some.json"]);
}

const FULL: &str = "TEST_PROFILE_FULL";

/// Runs in a process of `a_write_that_fails_halfway_leaves_the_old_file`.
#[test]
#[ignore = "part of another test"]
fn write_where_nothing_fits() {
    if let Some(path) = std::env::var_os(FULL) {
        let error = random(&[500; 20], 2).write(path.as_ref()).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
}

#[test]
fn a_write_that_fails_halfway_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.json");
    let old = random(&[2], 1);
    old.write(&path).unwrap();
    // Files may not grow beyond 8 blocks, as if the disk were full.
    let status = Command::new("sh")
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 8; exec \"$0\" --ignored --exact file::write_where_nothing_fits")
        .arg(std::env::current_exe().unwrap())
        .env(FULL, &path)
        // What the child prints may go to a file that is larger already.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(Profile::read(&path).unwrap(), old);
    assert_eq!(names(folder.path()), ["some.json"]);
}

#[test]
fn what_a_killed_writer_left_is_removed_when_it_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let old = SystemTime::now() - Duration::from_secs(7200);
    for name in [
        ".some.json.abc.tmp",
        ".some.json.abc",
        "some.json.abc.tmp",
        ".other.json.abc.tmp",
    ] {
        let file = File::create(at(name)).unwrap();
        file.set_modified(old).unwrap();
    }
    File::create(at(".some.json.new.tmp")).unwrap();
    random(&[2], 1).write(&at("some.json")).unwrap();
    assert_eq!(
        names(folder.path()),
        [
            ".other.json.abc.tmp",
            ".some.json.abc",
            ".some.json.new.tmp",
            "some.json",
            "some.json.abc.tmp"
        ]
    );
}
