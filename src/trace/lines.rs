//! Lines of a trace that is read, and what they say.

use super::{ASIDE, Header, SEQUENCE};
use std::io::{BufRead, Read};

pub type Checked<T> = std::result::Result<T, String>;

/// What a second header says.
const ANOTHER: &str = "another trace begins here";

/// Lines of bounded length.
pub struct Lines<R> {
    text: R,
    /// Of the line read last, from 1.
    pub number: u64,
    bytes: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Those of `text`.
    pub fn new(text: R) -> Self {
        Self {
            text,
            number: 0,
            bytes: Vec::new(),
        }
    }

    /// The next line without its end, or `None` after the last one.
    pub fn next(&mut self, n_bytes_max: usize) -> Checked<Option<&str>> {
        self.number += 1;
        self.bytes.clear();
        let mut text = (&mut self.text).take(n_bytes_max as u64 + 1);
        text.read_until(b'\n', &mut self.bytes)
            .map_err(|cause| format!("the gzip data is damaged or ends early: {cause}"))?;
        if self.bytes.is_empty() {
            return Ok(None);
        }
        if self.bytes.last() == Some(&b'\n') {
            self.bytes.pop();
        } else if self.bytes.len() > n_bytes_max && self.number > 1 && self.bytes[0] == b'{' {
            return Err(ANOTHER.to_string());
        } else if self.bytes.len() > n_bytes_max {
            return Err(format!("it is longer than {n_bytes_max} bytes"));
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(line) => Ok(Some(line)),
            Err(cause) => Err(format!("it is not UTF-8: {cause}")),
        }
    }
}

/// The header, if it keeps what its fields promise.
pub fn header(line: &str) -> Checked<Header> {
    // Serde would also take an array of the fields.
    if !line.starts_with('{') {
        return Err("the header is not a JSON object".to_string());
    }
    let header: Header =
        serde_json::from_str(line).map_err(|cause| format!("the header is wrong: {cause}"))?;
    header.check()?;
    Ok(header)
}

/// What a line says.
pub struct Line<'a> {
    pub token: u32,
    pub layer: u32,
    pub ids: &'a str,
    pub sequence: Option<u32>,
    pub is_aside: bool,
}

/// Parts a line.
pub fn fields(line: &str) -> Checked<Line<'_>> {
    let mut fields = line.split(' ').peekable();
    let [token, layer, ids] = std::array::from_fn(|_| fields.next());
    let sequence = fields.next_if(|field| field.starts_with(SEQUENCE));
    match (token, layer, ids, fields.next(), fields.next()) {
        (Some(token), Some(layer), Some(ids), mark @ (None | Some(ASIDE)), None) => Ok(Line {
            token: number("token", token)?,
            layer: number("layer", layer)?,
            ids,
            sequence: match sequence {
                Some(mark) => Some(number("sequence", &mark[SEQUENCE.len_utf8()..])?),
                None => None,
            },
            is_aside: mark.is_some(),
        }),
        _ if line.starts_with('{') => Err(ANOTHER.to_string()),
        _ => Err(format!("{line:?} is not `token layer id,id,...`")),
    }
}

/// Adds the ids with their ranks.
pub fn push_ids(ids: &str, header: &Header, picks: &mut Vec<(u32, u32)>) -> Checked<()> {
    let start = picks.len();
    for (rank, id) in (0..).zip(ids.split(',')) {
        let id = number("expert", id)?;
        if id >= header.n_experts {
            return Err(format!("expert {id} is outside 0..{}", header.n_experts));
        }
        if rank == header.top_k {
            return Err(format!(
                "there are more experts than top_k, which is {}",
                header.top_k
            ));
        }
        picks.push((id, rank));
    }
    let picks = &mut picks[start..];
    picks.sort_unstable();
    match picks.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(format!("expert {} is there twice", pair[0].0)),
        None => Ok(()),
    }
}

/// Digits only, below the largest `u32`: the number of what follows still is one.
fn number(name: &str, text: &str) -> Checked<u32> {
    Some(text)
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|&n| n < u32::MAX)
        .ok_or_else(|| format!("{name} {text:?} is not a number in 0..{}", u32::MAX))
}
