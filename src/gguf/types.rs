//! The types of tensors: how many bytes their numbers take.
//!
//! Only who writes needs this. Readers take a tensor to be as long as the next one is away, which is right for types
//! that do not exist yet.

/// Single precision.
pub const F32: u32 = 0;
/// Half precision.
pub const F16: u32 = 1;
/// Blocks of a scale in half precision and 32 bytes.
pub const Q8_0: u32 = 8;

/// Number, name, numbers of a block and its bytes, as in ggml.
const TYPES: &[(u32, &str, u64, u64)] = &[
    (F32, "f32", 1, 4),
    (F16, "f16", 1, 2),
    (2, "q4_0", 32, 18),
    (3, "q4_1", 32, 20),
    (6, "q5_0", 32, 22),
    (7, "q5_1", 32, 24),
    (Q8_0, "q8_0", 32, 34),
    (9, "q8_1", 32, 36),
    (10, "q2_K", 256, 84),
    (11, "q3_K", 256, 110),
    (12, "q4_K", 256, 144),
    (13, "q5_K", 256, 176),
    (14, "q6_K", 256, 210),
    (15, "q8_K", 256, 292),
    (16, "iq2_xxs", 256, 66),
    (17, "iq2_xs", 256, 74),
    (18, "iq3_xxs", 256, 98),
    (19, "iq1_s", 256, 50),
    (20, "iq4_nl", 32, 18),
    (21, "iq3_s", 256, 110),
    (22, "iq2_s", 256, 82),
    (23, "iq4_xs", 256, 136),
    (24, "i8", 1, 1),
    (25, "i16", 1, 2),
    (26, "i32", 1, 4),
    (27, "i64", 1, 8),
    (28, "f64", 1, 8),
    (29, "iq1_m", 256, 56),
    (30, "bf16", 1, 2),
    (34, "tq1_0", 256, 54),
    (35, "tq2_0", 256, 66),
    (39, "mxfp4", 32, 17),
    (40, "nvfp4", 64, 36),
    (41, "q1_0", 128, 18),
    (42, "q2_0", 64, 18),
];

/// Name, numbers of a block and its bytes; `None` for a type that is not known here.
pub fn find(ty: u32) -> Option<(&'static str, u64, u64)> {
    let found = TYPES.iter().find(|(number, ..)| *number == ty)?;
    Some((found.1, found.2, found.3))
}

/// Bytes of a tensor of this shape, row length first. The error says why there is no such tensor.
pub fn size(ty: u32, shape: [u64; 4]) -> Result<u64, String> {
    let Some((name, n_block, block_bytes)) = find(ty) else {
        return Err(format!(
            "is of type {ty}: only types whose sizes are known can be copied, the last is {}",
            TYPES[TYPES.len() - 1].0
        ));
    };
    let n_row = shape[0];
    if !n_row.is_multiple_of(n_block) {
        return Err(format!(
            "has rows of {n_row} numbers, {name} has blocks of {n_block}"
        ));
    }
    if shape.contains(&0) {
        return Err(format!("is of {shape:?} numbers, which are none"));
    }
    let n_blocks = [n_row / n_block, shape[1], shape[2], shape[3]];
    let size = n_blocks
        .into_iter()
        .try_fold(block_bytes, |size, n| size.checked_mul(n));
    size.ok_or_else(|| format!("is of {shape:?} numbers, more than any file holds"))
}
