//! Numbers as people write and read them. What `parse` would take besides, as a sign, an exponent or `inf`, is more often a
//! slip than meant.

use bytesize::ByteSize;

/// Plain numbers below this are not meant to be bytes.
const PLAIN_BYTES_MIN: u64 = 1 << 20;
/// Nor are those above this mebibytes.
const MEBIBYTES_MAX: f64 = 65_536.0;
/// No size of anything is below this.
const BYTES_MIN: u64 = 1 << 10;
/// Nor above this.
const BYTES_MAX: u64 = 1 << 60;

/// A whole number: digits only.
pub fn whole(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

/// A number with or without a point: digits on one side of it at least.
pub fn decimal(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number = text.parse().ok().filter(|_| is_plain);
    number.filter(|n: &f64| n.is_finite())
}

/// The bytes of a size such as `6GiB`, above 0; `None` for all else, and for more than there is anywhere.
pub fn size(text: &str) -> Option<u64> {
    let begins = text.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let size: ByteSize = text.parse().ok().filter(|_| begins)?;
    Some(size.as_u64()).filter(|n| (1..=BYTES_MAX).contains(n))
}

/// The same where a number without a unit is bytes, whatever it is.
pub fn plain_size(text: &str) -> Option<u64> {
    size(text).filter(|n| *n >= BYTES_MIN)
}

/// What to write instead of a size that is far too small to be meant, as `6` for `6GiB`.
pub fn too_small(text: &str) -> Option<String> {
    let n_bytes = size(text)?;
    let is_bare = whole(text).is_some();
    if n_bytes >= BYTES_MIN && !(is_bare && n_bytes < PLAIN_BYTES_MIN) {
        return None;
    }
    let number = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match decimal(number) {
        Some(n) if n <= 512.0 => "GiB",
        Some(n) if n > MEBIBYTES_MAX => {
            return Some(format!(
                "that is {n_bytes} bytes; if so few are meant, write {number}B"
            ));
        }
        _ => "MiB",
    };
    Some(format!("that is {n_bytes} bytes; write {number}{unit}"))
}

/// Bytes as people read them: `1.5 GiB`.
pub fn bytes(n: u64) -> String {
    ByteSize(n).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_are_whole_numbers() {
        assert_eq!(whole("042"), Some(42));
        for bad in ["", "+1", "-1", "1.0", "1e3", "0x10", " 1", "\u{0663}"] {
            assert_eq!(whole(bad), None, "{bad}");
        }
        assert_eq!(whole("18446744073709551616"), None);
    }

    #[test]
    fn decimals_have_neither_sign_nor_exponent() {
        assert_eq!(decimal("12.5"), Some(12.5));
        assert_eq!(decimal(".5"), Some(0.5));
        for bad in ["", ".", "1.2.3", "+1", "-1", "1e3", "inf", "nan", "0x1"] {
            assert_eq!(decimal(bad), None, "{bad}");
        }
        assert_eq!(decimal(&"9".repeat(400)), None);
    }

    #[test]
    fn sizes_are_what_a_machine_can_have() {
        for (text, n_bytes) in [
            ("6GiB", 6 << 30),
            ("6gb", 6_000_000_000),
            ("6 G", 6_000_000_000),
            ("1.5 KiB", 1536),
            ("1073741824", 1 << 30),
            ("786432B", 786_432),
        ] {
            assert_eq!(size(text), Some(n_bytes), "{text}");
            assert_eq!(plain_size(text), Some(n_bytes), "{text}");
            assert_eq!(too_small(text), None, "{text}");
        }
        for bad in [
            "",
            "0",
            "0GiB",
            "-1GiB",
            "+1GiB",
            "6.5.5GiB",
            "1e400",
            "99999999999GiB",
            "18446744073709551615",
            "inf",
            "0x10",
            "6 parrots",
            "\u{0663}GiB",
            "GiB",
        ] {
            assert_eq!(size(bad), None, "{bad}");
            assert_eq!(too_small(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_meant_says_what_may_be() {
        for (text, why) in [
            ("6", "that is 6 bytes; write 6GiB"),
            ("6000", "that is 6000 bytes; write 6000MiB"),
            ("6.5B", "that is 6 bytes; write 6.5GiB"),
            ("65536", "that is 65536 bytes; write 65536MiB"),
            (
                "1000000",
                "that is 1000000 bytes; if so few are meant, write 1000000B",
            ),
        ] {
            assert_eq!(too_small(text).as_deref(), Some(why));
        }
        assert_eq!(plain_size("786432"), Some(786_432));
        assert_eq!([plain_size("6"), plain_size("1023B")], [None; 2]);
    }
}
