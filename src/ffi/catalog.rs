//! The policies by name, and what they would do with a recorded trace.

use super::{Status, guard, out, str_in};
use crate::error::Error;
use crate::policy::{REGISTRY, Spec};
use crate::replay::{belady, replay};
use crate::residency::Counts;
use crate::trace::Trace;
use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::LazyLock;

/// Mirrors `struct hotset_policy_info`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetPolicyInfo {
    name: *const c_char,
    about: *const c_char,
    when: *const c_char,
    source: *const c_char,
    param: *const c_char,
    param_default: u32,
    param_min: u32,
    param_max: u32,
}

/// Mirrors `struct hotset_tally`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetTally {
    hits: u64,
    misses: u64,
    evictions: u64,
}

impl From<Counts> for HotsetTally {
    fn from(counts: Counts) -> Self {
        let (decode, scan) = (counts.decode, counts.scan);
        Self {
            hits: decode.hits + scan.hits,
            misses: decode.misses + scan.misses,
            evictions: decode.evictions + scan.evictions,
        }
    }
}

/// Mirrors `struct hotset_replay_result`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetReplayResult {
    n_tokens: u64,
    n_experts: u64,
    policy: HotsetTally,
    lru: HotsetTally,
    belady: HotsetTally,
}

/// The strings of one policy, which live as long as the process.
struct Texts {
    name: CString,
    about: CString,
    when: CString,
    source: CString,
    param: Option<CString>,
}

static TEXTS: LazyLock<Vec<Texts>> = LazyLock::new(|| {
    let text = |text: &str| CString::new(text).expect("no text of the registry holds a NUL");
    let texts = |spec: &Spec| Texts {
        name: text(spec.name),
        about: text(spec.about),
        when: text(spec.when),
        source: text(spec.source),
        param: spec.param.map(|param| text(param.name)),
    };
    REGISTRY.iter().map(texts).collect()
});

/// `hotset_policy`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_policy(i: usize) -> *const c_char {
    TEXTS
        .get(i)
        .map_or(std::ptr::null(), |texts| texts.name.as_ptr())
}

/// `hotset_get_policy_info`.
///
/// # Safety
///
/// `info_out` must be NULL or point to a place for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_get_policy_info(
    i: usize,
    info_out: *mut HotsetPolicyInfo,
) -> Status {
    guard(|| {
        // SAFETY: passed on from our caller.
        let out = unsafe { out(info_out, "info_out") }?;
        let (Some(texts), Some(spec)) = (TEXTS.get(i), REGISTRY.get(i)) else {
            return Err(Error::Setting {
                name: "i".to_string(),
                value: i.to_string(),
                allowed: format!("there are {} policies", REGISTRY.len()),
            });
        };
        let param = texts.param.as_ref();
        out.write(HotsetPolicyInfo {
            name: texts.name.as_ptr(),
            about: texts.about.as_ptr(),
            when: texts.when.as_ptr(),
            source: texts.source.as_ptr(),
            param: param.map_or(std::ptr::null(), |param| param.as_ptr()),
            param_default: spec.param.map_or(0, |param| param.default),
            param_min: spec.param.map_or(0, |param| param.min),
            param_max: spec.param.map_or(0, |param| param.max),
        });
        Ok(())
    })
}

/// `hotset_replay`.
///
/// # Safety
///
/// `path` and `policy` must satisfy the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_replay(
    path: *const c_char,
    policy: *const c_char,
    n_slots: u32,
    n_tokens_max: u32,
    result_out: *mut HotsetReplayResult,
) -> Status {
    guard(|| {
        // SAFETY: passed on from our caller.
        let out = unsafe { out(result_out, "result_out") }?;
        // SAFETY: passed on from our caller.
        let path = unsafe { str_in(path, "path") }?;
        // SAFETY: likewise.
        let policy = unsafe { str_in(policy, "policy") }?;
        crate::policy::find(policy)?;
        let trace = Trace::open(Path::new(path), n_tokens_max)?;
        let shape = trace.header().shape();
        let n_slots = n_slots.min(shape.n_total() as u32);
        let events = || trace.events().map(|(_, event)| event);
        out.write(HotsetReplayResult {
            n_tokens: trace.n_tokens().into(),
            n_experts: shape.n_total() as u64,
            policy: replay(events(), &shape, n_slots, policy)?.into(),
            lru: replay(events(), &shape, n_slots, "lru")?.into(),
            belady: belady(events(), &shape, n_slots)?.into(),
        });
        Ok(())
    })
}
