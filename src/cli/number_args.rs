//! Numbers, as options and in tables.

use hotset::numbers;
use std::ops::RangeInclusive;

/// The numbers of 32 bits.
pub const NUMBER_MAX: u64 = u32::MAX as u64;
/// Most tokens that a second can have.
const SPEED_MAX: f64 = 1e12;

/// `93.2 %` of 0.932, a dash where it is not known.
pub fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_string(), |share| format!("{:.1} %", 100.0 * share))
}

/// Reads `6GiB`.
pub fn size(text: &str) -> Result<u64, String> {
    match numbers::too_small(text) {
        Some(why) => Err(why),
        None => {
            numbers::size(text).ok_or_else(|| "expected a size above 0 such as 6GiB".to_string())
        }
    }
}

/// Reads `2GB/s`.
pub fn throughput(text: &str) -> Result<u64, String> {
    let per_s = text.strip_suffix("/s").unwrap_or(text);
    match numbers::too_small(per_s) {
        Some(why) => Err(why + "/s"),
        None => numbers::size(per_s)
            .ok_or_else(|| "expected a size above 0 such as 2GB/s or 500MB/s".to_string()),
    }
}

/// Reads tokens per second.
pub fn speed(text: &str) -> Result<f64, String> {
    let speed = numbers::decimal(text).filter(|speed| *speed > 0.0 && *speed <= SPEED_MAX);
    speed.ok_or_else(|| format!("expected a number above 0 and up to {SPEED_MAX}, in digits"))
}

/// Reads a whole number of `range`.
pub fn whole<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = numbers::whole(text).filter(|number| range.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| {
            let (first, last) = (range.start(), range.end());
            format!("expected a whole number in {first}..={last}")
        })
    }
}
