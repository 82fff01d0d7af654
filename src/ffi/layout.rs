//! The header and these functions say the same: sizes, places of members, numbers. The C compiler is asked.

use super::cache::*;
use super::policies::*;
use super::profile::*;
use super::queries::*;
use super::status::*;
use super::trace::*;
use super::version::*;
use crate::tracker::{Phase, Span};
use std::fmt::Write;
use std::mem::offset_of;
use std::process::Command;

/// A struct of the header, with all its members in their order, as Rust has it.
macro_rules! mirrored {
    ($rust:ident = $c:literal { $($member:ident),* }) => {
        Mirrored {
            name: $c,
            size: size_of::<$rust>(),
            members: vec![$((stringify!($member), offset_of!($rust, $member))),*],
        }
    };
}

struct Mirrored {
    name: &'static str,
    size: usize,
    members: Vec<(&'static str, usize)>,
}

fn all() -> Vec<Mirrored> {
    vec![
        mirrored!(HotsetFill = "hotset_fill" { expert, slot }),
        mirrored!(HotsetCacheParams = "hotset_cache_params" {
            size, n_experts, n_layers, n_slots, policy, expert_bytes
        }),
        mirrored!(HotsetProfileParams = "hotset_profile_params" {
            size, name, n_experts, n_layers, top_k, architecture, model_name
        }),
        mirrored!(HotsetCounts = "hotset_counts" {
            size, hits, misses, evictions, staged, prefill_hits, prefill_misses, prefill_staged
        }),
        mirrored!(HotsetUsage = "hotset_usage" { size, n_tokens, age }),
        mirrored!(HotsetHeat = "hotset_heat" {
            size, n_tokens, hottest_tenth, hottest_quarter, hottest_half, entropy_bits
        }),
        mirrored!(HotsetHindsight = "hotset_hindsight" {
            size, picks, warm_picks, policy_hits, lru_hits, belady_hits
        }),
        mirrored!(HotsetPolicy = "hotset_policy" {
            size, name, about, when, source, param, param_default, param_min, param_max, reserved
        }),
        mirrored!(HotsetTally = "hotset_tally" { hits, misses, evictions }),
        mirrored!(HotsetReplayResult = "hotset_replay_result" {
            size, n_tokens, n_experts, policy, lru, belady
        }),
    ]
}

const HEADER: &str = include_str!("../../include/hotset.h");

/// The structs that the header defines, with the names of their members.
fn structs_of_header() -> Vec<(String, Vec<String>)> {
    let code = HEADER.lines().map(|line| line.split("//").next().unwrap());
    let code = code.collect::<Vec<_>>().join(" ");
    let is_name = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let member = |text: &str| {
        let member = text.trim().rsplit([' ', '*']).next();
        member.filter(|member| !member.is_empty()).map(String::from)
    };
    let definition = |(at, begin): (usize, &str)| {
        let (name, rest) = code[at + begin.len()..].split_once(" {")?;
        let (body, _) = rest.split_once('}')?;
        let members = body.split(';').filter_map(member).collect();
        is_name(name).then(|| (name.to_string(), members))
    };
    code.match_indices("struct ")
        .filter_map(definition)
        .collect()
}

fn compiles(source: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("layout.c");
    std::fs::write(&file, source).unwrap();
    let compiler = std::env::var("CC").unwrap_or("cc".to_string());
    let output = Command::new(compiler)
        .args(["-std=c11", "-Wall", "-Werror", "-fsyntax-only"])
        .arg(concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include"))
        .arg(&file)
        .output()
        .expect("a C compiler");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

#[test]
#[cfg_attr(miri, ignore)]
fn structs_are_those_of_the_header() {
    let ours: Vec<_> = all()
        .iter()
        .map(|s| {
            let members = s.members.iter().map(|(name, _)| name.to_string());
            (s.name.to_string(), members.collect::<Vec<_>>())
        })
        .collect();
    let mut theirs = structs_of_header();
    theirs.sort();
    let mut sorted = ours.clone();
    sorted.sort();
    assert_eq!(theirs, sorted);

    let mut source = String::from("#include <hotset.h>\n");
    for Mirrored {
        name,
        size,
        members,
    } in all()
    {
        writeln!(
            source,
            "_Static_assert(sizeof(struct {name}) == {size}, \"{name}\");"
        )
        .unwrap();
        for (member, offset) in members {
            let text = format!("offsetof(struct {name}, {member}) == {offset}");
            writeln!(source, "_Static_assert({text}, \"{name}.{member}\");").unwrap();
        }
    }
    compiles(&source);
}

#[test]
#[cfg_attr(miri, ignore)]
fn numbers_are_those_of_the_header() {
    let mut source = String::from("#include <hotset.h>\n");
    let mut expect = |name: &str, number: i64| {
        assert!(HEADER.contains(name), "{name}");
        writeln!(source, "_Static_assert({name} == {number}, \"{name}\");").unwrap();
    };
    let names = [
        "OK",
        "ARGUMENT",
        "PANIC",
        "MISMATCH",
        "IO",
        "CORRUPT",
        "STATE",
        "NO_MEMORY",
    ];
    assert_eq!(
        HEADER.matches("    HOTSET_STATUS_").count(),
        Status::ALL.len()
    );
    for (name, status) in names.iter().zip(Status::ALL) {
        expect(&format!("HOTSET_STATUS_{name}"), status as i64);
    }
    expect("HOTSET_ABI_VERSION", hotset_abi_version().into());
    expect("HOTSET_NO_SLOT", crate::cache::NO_SLOT.into());
    for phase in Phase::ALL {
        let name = format!("{phase:?}").to_uppercase();
        expect(&format!("HOTSET_PHASE_{name}"), phase as i64);
    }
    for (number, span) in (0..).zip(Span::all()) {
        let name = match span {
            Span::HalfLife(visits) => format!("HALF_LIFE_{visits}"),
            other => format!("{other:?}").to_uppercase(),
        };
        expect(&format!("HOTSET_SPAN_{name}"), number);
    }
    compiles(&source);
}
