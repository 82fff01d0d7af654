//! Lists of which tensors go where, as llama.cpp has them: a pattern and a type of buffer each, and an end.

use super::sys::{
    ggml_backend_cpu_buffer_type, llama_model_params, llama_model_tensor_buft_override,
};
use std::ffi::{CStr, CString};
use std::sync::OnceLock;

/// Experts, as `--cpu-moe` names them.
pub const EXPERTS: &CStr = c"\\.ffn_(up|down|gate|gate_up)_(ch|)exps";
/// No tensor is called so.
const NOTHING: &CStr = c"^$";

/// What ends a list.
pub const END: llama_model_tensor_buft_override = llama_model_tensor_buft_override {
    pattern: std::ptr::null(),
    buft: std::ptr::null_mut(),
};

/// A list of one, which leaves tensors of a pattern in host memory.
pub fn of(pattern: &'static CStr) -> [llama_model_tensor_buft_override; 2] {
    let one = llama_model_tensor_buft_override {
        pattern: pattern.as_ptr(),
        // SAFETY: a plain getter.
        buft: unsafe { ggml_backend_cpu_buffer_type() },
    };
    [one, END]
}

/// A list that is there, and of no tensor.
pub fn nothing() -> *const llama_model_tensor_buft_override {
    struct List([llama_model_tensor_buft_override; 2]);
    // SAFETY: the pointers are to what lives for ever and does not change.
    unsafe impl Send for List {}
    // SAFETY: the same.
    unsafe impl Sync for List {}
    static LIST: OnceLock<List> = OnceLock::new();
    LIST.get_or_init(|| List(of(NOTHING))).0.as_ptr()
}

/// Those of a model, without what ends them.
///
/// # Safety
///
/// The parameters are good for loading.
pub unsafe fn listed(model: &llama_model_params) -> &[llama_model_tensor_buft_override] {
    let list = model.tensor_buft_overrides;
    if list.is_null() {
        return &[];
    }
    // SAFETY: the caller promises a list that ends with a pattern that is NULL.
    let is_one = |i: &usize| unsafe { !(*list.add(*i)).pattern.is_null() };
    let n = (0..).take_while(is_one).count();
    // SAFETY: there are so many, which live as long as the parameters.
    unsafe { std::slice::from_raw_parts(list, n) }
}

/// What they are of.
///
/// # Safety
///
/// The parameters are good for loading.
pub unsafe fn patterns(model: &llama_model_params) -> Vec<CString> {
    // SAFETY: the caller says so.
    let list = unsafe { listed(model) };
    // SAFETY: a pattern is a C string.
    let of = |one: &llama_model_tensor_buft_override| unsafe { CStr::from_ptr(one.pattern) };
    list.iter().map(|one| of(one).to_owned()).collect()
}
