//! Damaged text, for whoever reads files.

#![allow(dead_code)]

/// Random numbers that are the same on any machine (splitmix64).
pub fn rng(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |limit| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

/// What a kind of text is made of.
pub struct Grammar {
    /// Bytes that mean something in it.
    pub bytes: &'static [u8],
    /// Numbers near its limits.
    pub numbers: &'static [&'static str],
    /// What ends its parts.
    pub end: u8,
}

impl Grammar {
    /// Damages `text` in one of a few ways.
    pub fn mutate(&self, text: &mut Vec<u8>, below: &mut impl FnMut(usize) -> usize) {
        if text.is_empty() {
            return;
        }
        let at = below(text.len());
        match below(7) {
            0 => text[at] ^= 1 << below(8),
            1 => text.truncate(at),
            2 => {
                let end = (at + 1 + below(6)).min(text.len());
                text.drain(at..end);
            }
            3 => text.insert(at, self.bytes[below(self.bytes.len())]),
            4 | 5 => self.replace_number(text, at, below),
            _ => {
                let mut parts: Vec<&[u8]> = text.split_inclusive(|&b| b == self.end).collect();
                let (a, b) = (below(parts.len()), below(parts.len()));
                match below(3) {
                    0 => parts.swap(a, b),
                    1 => parts[a] = parts[b],
                    _ => parts.insert(a, parts[b]),
                }
                *text = parts.concat();
            }
        }
    }

    /// Replaces the first number from `at` on.
    fn replace_number(
        &self,
        text: &mut Vec<u8>,
        at: usize,
        below: &mut impl FnMut(usize) -> usize,
    ) {
        let is_digit = |b: &u8| b.is_ascii_digit();
        let Some(start) = text[at..].iter().position(is_digit) else {
            return;
        };
        let start = at + start;
        let n = text[start..].iter().take_while(|b| is_digit(b)).count();
        let number = self.numbers[below(self.numbers.len())];
        text.splice(start..start + n, number.bytes());
    }
}
