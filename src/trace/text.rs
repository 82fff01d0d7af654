//! Lines of a trace.

use super::{ASIDE, SEQUENCE};

/// What is known of an event beside its ids.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// Its layer.
    pub layer: u32,
    /// Its first token, and how many there are.
    pub first_token: u32,
    pub n_tokens: u32,
    /// Ids of each token.
    pub top_k: u32,
    /// The cache of its device was left aside.
    pub is_aside: bool,
    /// The sequence of each token is known.
    pub has_sequences: bool,
}

impl Head {
    const N_VALUES: usize = 6;

    /// As [`Text::add`] takes it.
    pub fn values(&self) -> [u32; Self::N_VALUES] {
        [
            self.layer,
            self.first_token,
            self.n_tokens,
            self.top_k,
            self.is_aside.into(),
            self.has_sequences.into(),
        ]
    }

    fn of(values: &[u32; Self::N_VALUES]) -> Self {
        let &[layer, first_token, n_tokens, top_k, is_aside, has_sequences] = values;
        Self {
            layer,
            first_token,
            n_tokens,
            top_k,
            is_aside: is_aside != 0,
            has_sequences: has_sequences != 0,
        }
    }
}

/// Lines, as text.
#[derive(Default)]
pub struct Text {
    /// What was added, until somebody takes it.
    pub out: Vec<u8>,
    /// The layer of the last line, and the token that would continue its event.
    next: Option<(u32, u32)>,
}

impl Text {
    /// Adds events: of each, the values of its [`Head`], then its ids, then its sequences if they are known.
    pub fn add(&mut self, values: &[u32]) {
        let mut rest = values;
        while let Some((head, others)) = rest.split_first_chunk() {
            let head = Head::of(head);
            let (ids, others) = others.split_at((head.n_tokens * head.top_k) as usize);
            let n_sequences = if head.has_sequences { head.n_tokens } else { 0 };
            let (sequences, others) = others.split_at(n_sequences as usize);
            rest = others;
            self.event(&head, ids, sequences);
        }
    }

    fn event(&mut self, head: &Head, ids: &[u32], sequences: &[u32]) {
        if self.next == Some((head.layer, head.first_token)) {
            self.out.push(b'\n');
        }
        let mut sequences = sequences.iter();
        for (token, row) in (head.first_token..).zip(ids.chunks(head.top_k as usize)) {
            self.number(token, b' ');
            self.number(head.layer, b' ');
            for &id in row {
                self.number(id, b',');
            }
            self.out.pop();
            if let Some(&sequence) = sequences.next() {
                self.out.extend_from_slice(&[b' ', SEQUENCE as u8]);
                self.number(sequence, b' ');
                self.out.pop();
            }
            if head.is_aside {
                self.out.push(b' ');
                self.out.extend_from_slice(ASIDE.as_bytes());
            }
            self.out.push(b'\n');
        }
        self.next = Some((head.layer, head.first_token + head.n_tokens));
    }

    /// Adds `n` and `end`, a few times faster than the formatter of the library, which would be half
    /// of what a recording costs.
    fn number(&mut self, mut n: u32, end: u8) {
        let mut digits = [0; 10];
        let mut begin = digits.len();
        loop {
            begin -= 1;
            digits[begin] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[begin..]);
        self.out.push(end);
    }
}
