//! The policies by name.

use super::sized::{Grows, StructPlace};
use super::status::{Status, guard};
use crate::error::Error;
use crate::policy::{REGISTRY, Spec};
use std::ffi::{CString, c_char};
use std::mem::offset_of;
use std::sync::LazyLock;

/// Mirrors `struct hotset_policy`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetPolicy {
    pub(super) size: usize,
    pub(super) name: *const c_char,
    pub(super) about: *const c_char,
    pub(super) when: *const c_char,
    pub(super) source: *const c_char,
    pub(super) param: *const c_char,
    pub(super) param_default: u32,
    pub(super) param_min: u32,
    pub(super) param_max: u32,
    pub(super) reserved: u32,
}

// SAFETY: it is `repr(C)` and begins with its size; NULL and 0 are values of the others.
unsafe impl Grows for HotsetPolicy {
    const NAME: &'static str = "hotset_policy";
    const SIZE_MIN: usize = offset_of!(Self, about);
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

/// `hotset_policy_count`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_policy_count() -> usize {
    REGISTRY.len()
}

/// `hotset_policy_name`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_policy_name(i: usize) -> *const c_char {
    TEXTS
        .get(i)
        .map_or(std::ptr::null(), |texts| texts.name.as_ptr())
}

/// `hotset_policy_info`.
///
/// # Safety
///
/// `policy_out` must be NULL or satisfy the header: its size is set, and there is place for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_policy_info(i: usize, policy_out: *mut HotsetPolicy) -> Status {
    guard(|| {
        // SAFETY: passed on from our caller.
        let out = unsafe { StructPlace::new(policy_out, "policy_out") }?;
        let (Some(texts), Some(spec)) = (TEXTS.get(i), REGISTRY.get(i)) else {
            return Err(Error::setting("i", i, format!("there are {} policies", REGISTRY.len())));
        };
        let param = texts.param.as_ref();
        out.write(&HotsetPolicy {
            size: size_of::<HotsetPolicy>(),
            name: texts.name.as_ptr(),
            about: texts.about.as_ptr(),
            when: texts.when.as_ptr(),
            source: texts.source.as_ptr(),
            param: param.map_or(std::ptr::null(), |param| param.as_ptr()),
            param_default: spec.param.map_or(0, |param| param.default),
            param_min: spec.param.map_or(0, |param| param.min),
            param_max: spec.param.map_or(0, |param| param.max),
            reserved: 0,
        });
        Ok(())
    })
}
