//! Numbers that nobody can have meant, and names that are no text.

use super::{error_of, hotset, run, text};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

const POLYGLOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/polyglot-moe.gguf");

/// Sizes that no memory, disk or expert has.
const SIZES: &[&str] = &[
    "",
    "0",
    "0GiB",
    "-1GiB",
    "+1GiB",
    "6",
    "6B",
    "4096",
    "6.5.5GiB",
    "1e400",
    "99999999999GiB",
    "18446744073709551616",
    "nan",
    "inf",
    "0x10MiB",
    "6 parrots",
    "\u{0663}GiB",
];
/// Whole numbers above 0 that an option of 32 bits has not.
const NUMBERS: &[&str] = &[
    "",
    "0",
    "-1",
    "1.5",
    "1e3",
    "+5",
    " 5",
    "nan",
    "inf",
    "0x10",
    "4294967296",
    "18446744073709551616",
    "\u{0663}",
    "ten",
];

/// Each with what its error must say.
#[test]
fn settings_refuse_what_nobody_can_mean() {
    let knobs: &[(&str, &[&str], &str)] = &[
        ("HOTSET_RAM", &["0", "-1", "0GiB", "99999999999GiB"], "6GiB"),
        ("HOTSET_RAM", &["1e400", "6.5.5GiB", "+6GiB", "nan"], "6GiB"),
        ("HOTSET_RAM", &["0x10MiB", "\u{0663}GiB", "inf"], "6GiB"),
        ("HOTSET_RAM", &["0%", "101%", "nan%", "-5%", "1e1%"], "100%"),
        ("HOTSET_RAM", &["6"], "that is 6 bytes; write 6GiB"),
        ("HOTSET_RAM", &["6000"], "6000 bytes; write 6000MiB"),
        (
            "HOTSET_RAM",
            &["1000000"],
            "if so few are meant, write 1000000B",
        ),
        ("HOTSET_RAM", &["6B"], "that is 6 bytes; write 6GiB"),
        (
            "HOTSET_STATS",
            &[
                "0", "1e-9", "1e300", "nan", "-1", "0x10", "1.5", "+5", "86401",
            ],
            "from 1 to 86400",
        ),
        (
            "HOTSET_PREWARM",
            &["0", "-1", "nan", "1e3", "+5", "86401", "0x10", "1.5"],
            "from 1 to 86400",
        ),
        (
            "HOTSET_FAULT",
            &["read=0", "read=-1", "short=+1", "read=1e3", "delay_ms=1e9"],
            "counts begin at 1",
        ),
        ("HOTSET_FAULT", &["delay_ms=60001"], "times end at 60000"),
        (
            "HOTSET_POLICY",
            &["decay:0", "decay:", "decay:-1", "decay:1e3", "decay:4097"],
            "1 to 4096",
        ),
        ("HOTSET_POLICY", &["window:999999999999999"], "window[:"),
        ("HOTSET_POLICY", &["static:-1", "static:nan"], "static[:"),
        (
            "HOTSET_PROFILE",
            &[
                "Cargo.toml:0",
                "Cargo.toml:-1",
                "Cargo.toml:nan",
                "Cargo.toml:inf",
                "Cargo.toml:1e308",
                "Cargo.toml:1e2",
                "Cargo.toml:+2",
            ],
            "above 0 and at most 1000",
        ),
    ];
    for (name, values, allowed) in knobs {
        for value in *values {
            let error = error_of(hotset(&["run"]).env(name, value), 2);
            assert!(error.contains(&format!("{name}={value}: ")), "{error}");
            assert!(error.contains(allowed), "{error}");
        }
    }
    for good in ["6gb", "6 G", "512 MiB", "1048576", "1000000B", "0.001%"] {
        let output = run(hotset(&["run", "--tool", "none"]).env("HOTSET_RAM", good));
        assert!(!text(&output.stderr).contains("HOTSET_RAM"), "{good}");
    }
}

#[test]
fn options_refuse_what_nobody_can_mean() {
    let plan: &[&str] = &["plan", "x"];
    let replay: &[&str] = &["replay", "x"];
    let bench: &[&str] = &["bench", "-m", "x"];
    let demo: &[&str] = &["demo"];
    let widen: &[&str] = &["widen", "x", "-o", "y"];
    let merge: &[&str] = &["profile", "merge", "-o", "y.json"];
    let speeds: &[&str] = &[
        "", "0", "-1", "nan", "inf", "1e300", "1e3", "+5", "0x10", "fast",
    ];
    let large = |n: &[&'static str]| [NUMBERS, n].concat();
    // These may be small, and are counted in bytes.
    let sizes: Vec<&str> = SIZES.iter().copied().filter(|n| *n != "4096").collect();
    let seeds: Vec<&str> = NUMBERS.iter().copied().filter(|n| *n != "0").collect();
    let options: &[(&[&str], &str, &[&str])] = &[
        (plan, "--disk", SIZES),
        (plan, "--speed", speeds),
        (plan, "--limit", NUMBERS),
        (replay, "--limit", NUMBERS),
        (replay, "--expert-bytes", &sizes),
        (replay, "--expert-bytes", &["2TiB"]),
        (replay, "--budgets", SIZES),
        (replay, "--budgets", &["0%", "101%", "nan%", "1e1%"]),
        (
            replay,
            "--prefill",
            &["batch:0", "batch:-1", "batch:+1", "batch:1e3", "batch:"],
        ),
        (demo, "-n", &large(&["481"])),
        (demo, "--seed", &seeds),
        (widen, "--factor", &large(&["4097"])),
        (bench, "--rest", SIZES),
        (bench, "-n", &large(&["16777217"])),
        (bench, "--prompt-tokens", NUMBERS),
        (bench, "--repeat", &large(&["1001"])),
        (bench, "--seed", &seeds),
        (bench, "--threads", &large(&["513"])),
        (bench, "--ctx-size", NUMBERS),
        (bench, "--ubatch-size", NUMBERS),
        (
            bench,
            "--read-ahead-kb",
            &["", "-1", "+1", "1e3", "1048577", "nan"],
        ),
        #[cfg(feature = "llama")]
        (bench, "--cap", SIZES),
        #[cfg(feature = "llama")]
        (bench, "--ram", SIZES),
        (
            merge,
            "",
            &[
                "a:0", "a:-1", "a:+1", "a:nan", "a:inf", "a:1e308", "a:1e2", ":1",
            ],
        ),
    ];
    for (command, option, values) in options {
        for value in *values {
            let argument = match *option {
                "" => value.to_string(),
                short if short.len() == 2 => format!("{short}{value}"),
                long => format!("{long}={value}"),
            };
            let error = error_of(hotset(command).arg(&argument), 2);
            assert!(error.contains(value), "{command:?} {argument}: {error}");
        }
    }
}

/// Unix promises bytes, and files have such names.
#[test]
fn names_need_not_be_unicode() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &[u8]| folder.path().join(OsStr::from_bytes(name));
    let (trace, profile) = (path(b"\xff\xe9.trace.gz"), path(b"a\xff,b:3.json"));
    fs::copy(super::replay::ITALIAN, &trace).unwrap();
    let written = super::profile::small("it", [4, 3, 2, 1]);
    written.write(&profile).unwrap();
    let works = |command: &mut std::process::Command| {
        let output = run(command);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    works(hotset(&["replay", "--budgets", "10%", "--limit", "9"]).arg(&trace));
    works(hotset(&["plan", "--limit", "99", "--format", "json", "-m", POLYGLOT]).arg(&trace));
    works(hotset(&["profile", "show", "--json"]).arg(&profile));
    let (svg, merged) = (path(b"\xe9.svg"), path(b"\xe9.json"));
    works(hotset(&["profile", "plot", "-o"]).arg(&svg).arg(&profile));
    works(
        hotset(&["profile", "merge", "--name", "x", "-o"])
            .arg(&merged)
            .arg(&profile),
    );
    assert!(svg.is_file() && merged.is_file());
    // The settings are right: what is missing is the program, or llama.cpp.
    let json = path(b"\xff.json");
    let mut weighed = profile.clone().into_os_string();
    weighed.push(":2,");
    weighed.push(&merged);
    for (name, value) in [
        ("HOTSET_PROFILE", profile.as_os_str()),
        ("HOTSET_PROFILE", &weighed),
        ("HOTSET_PROFILE_SAVE", json.as_os_str()),
        ("HOTSET_TRACE", trace.as_os_str()),
        ("HOTSET_STATS", json.as_os_str()),
    ] {
        let config = hotset::config::Config::from_vars([(name, value)]);
        assert!(config.is_ok(), "{name}: {:?}", config.err());
    }
}

#[test]
fn other_settings_than_names_of_files_are_text() {
    let odd = OsStr::from_bytes(b"6\xffGiB");
    for name in ["HOTSET", "HOTSET_RAM", "HOTSET_POLICY", "HOTSET_PREWARM"] {
        let error = error_of(hotset(&["run"]).env(name, odd), 2);
        let said = format!("{name}=6\u{fffd}GiB: it is not UTF-8; expected ");
        assert!(error.contains(&said), "{error}");
    }
    let error = error_of(
        hotset(&["run"]).env(OsStr::from_bytes(b"HOTSET_\xff"), "1"),
        2,
    );
    assert!(
        error.contains("HOTSET_\u{fffd}=1: no such setting"),
        "{error}"
    );
    // In the command line, too.
    let error = error_of(hotset(&["run", "--ram"]).arg(odd), 2);
    assert!(error.contains("HOTSET_RAM=6\u{fffd}GiB"), "{error}");
    let error = error_of(hotset(&["fly"]).arg(odd), 2);
    assert!(error.contains("fly"), "{error}");
}
