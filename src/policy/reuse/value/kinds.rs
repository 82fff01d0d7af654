//! Kinds of experts, which the cells of the tables stand for, and first guesses of what they are worth.

/// The age of an expert that was not picked for longer than the table tells apart, or never.
pub(super) const NEVER: u8 = 129;

/// The whole part of `x`, which is in 0..255 and not within 1e-5 below a whole number.
///
/// Rounding to whole numbers by adding a large one leaves it in the lowest bits: two operations where a
/// conversion takes many.
#[inline(always)]
pub(super) fn low_byte(x: f32) -> u8 {
    (x - 0.499_99 + 12_582_912.0).to_bits() as u8
}

/// Where the next kind of age begins, in visits.
const AGES: [u8; 11] = [1, 2, 3, 4, 6, 9, 13, 21, 33, 65, NEVER];

/// 0 to 11. Comparisons instead of a table, because they are made for 32 experts at a time.
#[inline(always)]
pub(super) fn kind_of_age(age: u8) -> u8 {
    AGES.iter().map(|&from| u8::from(age >= from)).sum()
}

/// How much likelier than its frequency says an expert of this age is picked.
fn recency(age_bin: usize) -> f32 {
    [2.0, 1.6, 1.4, 1.2, 1.1]
        .get(age_bin)
        .copied()
        .unwrap_or(0.8)
}

/// Of 12 ages the smallest first, and for each of 16 frequencies in half octaves.
pub(super) fn guess_by_age(share: f32) -> impl Fn(usize) -> f32 {
    let half_octave = std::f32::consts::SQRT_2;
    move |cell| {
        // 6 is what an average expert has.
        let frequency = match cell % 16 {
            0 => 0.3,
            octave @ 1..6 => (octave..6).fold(1.0, |f, _| f / half_octave),
            octave => (6..octave).fold(1.0, |f, _| f * half_octave),
        };
        (frequency * share * recency(cell / 16)).clamp(0.002, 0.9)
    }
}

/// Of 16 confidences the lowest first, and for each of 16 votes.
pub(super) fn guess_by_vote(share: f32) -> impl Fn(usize) -> f32 {
    move |cell| {
        let (confidence, vote) = ((cell / 16) as f32 / 15.0, (cell % 16) as f32 / 15.0);
        (0.7 * share + vote * (0.2 + 0.6 * confidence)).min(0.95)
    }
}

/// Of 12 ages, and for each of 16 ranks.
pub(super) fn guess_by_rank(share: f32) -> impl Fn(usize) -> f32 {
    move |cell| {
        let first = 1.3 - 0.04 * (cell % 16) as f32;
        (first * share * recency(cell / 16)).clamp(0.002, 0.9)
    }
}
