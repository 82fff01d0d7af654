//! Reading what a router has picked.

use super::sys::ggml_tensor;
use crate::trace::Picks;

/// What a tensor of ids says.
///
/// # Safety
///
/// `ids` is a matrix of 32-bit numbers in memory, a column for each token, and lives as long as the
/// result.
pub unsafe fn picks(ids: &ggml_tensor) -> Picks<'_> {
    const ID_BYTES: usize = size_of::<i32>();
    let [top_k, n_tokens] = [ids.ne[0] as usize, ids.ne[1] as usize];
    assert!(
        ids.nb[0] == ID_BYTES && ids.nb[1].is_multiple_of(ID_BYTES),
        "the ids of one token follow each other"
    );
    let stride = ids.nb[1] / ID_BYTES;
    let n_ids = (n_tokens - 1) * stride + top_k;
    // SAFETY: the caller promises that the tensor lies there, and operations have at least one token.
    let ids = unsafe { std::slice::from_raw_parts(ids.data.cast::<i32>(), n_ids) };
    Picks::new(ids, top_k, stride)
}
