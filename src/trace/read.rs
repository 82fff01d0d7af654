//! Reads traces, and trusts nothing in them: what is accepted keeps every promise of the format, and
//! what it takes in memory is bounded by what was read.

use super::{ASIDE, Header, Recorded};
use crate::error::{Error, Result};
use crate::expert::{Event, Picked};
use crate::log::EventLog;
use flate2::read::MultiGzDecoder;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Longest header, which may list thousands of segments.
const HEADER_BYTES_MAX: usize = 16 << 20;

/// The events of a trace, in the order in which they happened.
pub struct Trace {
    pub(super) header: Header,
    /// One more than the highest token that was kept; 0 if there is none.
    pub(super) n_tokens: u32,
    /// By event.
    first_tokens: Vec<u32>,
    aside: Vec<bool>,
    log: EventLog,
}

impl Trace {
    /// Reads the tokens below `limit` of a file. All of it is checked.
    pub fn open(path: &Path, limit: u32) -> Result<Self> {
        let file = File::open(path).map_err(|cause| damaged(path, cause.to_string()))?;
        Self::read(path, file, limit)
    }

    /// Reads compressed data; errors call it `name`.
    pub fn read(name: &Path, gzip: impl Read, limit: u32) -> Result<Self> {
        let text = BufReader::with_capacity(1 << 16, MultiGzDecoder::new(BufReader::new(gzip)));
        Self::read_text(name, text, limit)
    }

    /// Reads what the compressed data holds; errors call it `name`.
    pub fn read_text(name: &Path, text: impl BufRead, limit: u32) -> Result<Self> {
        let mut lines = Lines {
            text,
            number: 0,
            bytes: Vec::new(),
        };
        read(&mut lines, limit)
            .map_err(|why| damaged(name, format!("line {}: {why}", lines.number)))
    }

    /// No events yet.
    pub(super) fn empty(header: Header) -> Self {
        Self {
            header,
            n_tokens: 0,
            first_tokens: Vec::new(),
            aside: Vec::new(),
            log: EventLog::new(usize::MAX),
        }
    }

    /// The same trace; where it does not say how many bytes an expert has, `n_bytes` is believed.
    pub fn with_expert_bytes(mut self, n_bytes: u64) -> Self {
        if self.header.expert_bytes.is_empty() {
            self.header.expert_bytes = vec![n_bytes; self.header.n_layers as usize];
        }
        self
    }

    /// What the first line says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Tokens from 0 to the last one, computed or not.
    pub fn n_tokens(&self) -> u32 {
        self.n_tokens
    }

    /// The events with the first token of each, in their order.
    pub fn events(&self) -> impl Iterator<Item = (u32, Event<'_>)> {
        self.entries()
            .map(|(token, recorded)| (token, recorded.event))
    }

    /// The events as the run had them, in their order.
    pub fn recorded(&self) -> impl Iterator<Item = Recorded<'_>> {
        self.entries().map(|(_, recorded)| recorded)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, Recorded<'_>)> {
        let events = self.log.iter().zip(&self.aside);
        let events = events.map(|(event, &is_aside)| Recorded { event, is_aside });
        self.first_tokens.iter().copied().zip(events)
    }

    /// Appends an event.
    pub(super) fn add(&mut self, first_token: u32, recorded: &Recorded) {
        self.first_tokens.push(first_token);
        self.aside.push(recorded.is_aside);
        self.log.push(&recorded.event);
    }

    /// Appends an event. `picks` holds what its tokens picked, each expert with its rank, which is
    /// used where the ids are ranked; it is emptied.
    pub(super) fn push(
        &mut self,
        layer: u32,
        first_token: u32,
        n_tokens: u32,
        is_aside: bool,
        picks: &mut Vec<(u32, u32)>,
    ) {
        let picked = Picked::of(picks);
        let ranks: &[u32] = match self.header.ranked {
            true => &picked.ranks,
            false => &[],
        };
        let event = Event {
            layer,
            n_tokens,
            experts: &picked.experts,
            rows: &picked.rows,
            ranks,
        };
        self.add(first_token, &Recorded { event, is_aside });
        picks.clear();
    }
}

fn damaged(path: &Path, why: String) -> Error {
    Error::File {
        path: path.to_path_buf(),
        why,
    }
}

type Checked<T> = std::result::Result<T, String>;

/// Lines of bounded length.
struct Lines<R> {
    text: R,
    /// Of the line read last, from 1.
    number: u64,
    bytes: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// The next line without its end, or `None` after the last one.
    fn next(&mut self, n_bytes_max: usize) -> Checked<Option<&str>> {
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
        } else if self.bytes.len() > n_bytes_max {
            return Err(format!("it is longer than {n_bytes_max} bytes"));
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(line) => Ok(Some(line)),
            Err(cause) => Err(format!("it is not UTF-8: {cause}")),
        }
    }
}

fn read(lines: &mut Lines<impl BufRead>, limit: u32) -> Checked<Trace> {
    let line = lines.next(HEADER_BYTES_MAX)?.ok_or("there is no header")?;
    let header = header(line)?;
    // Two numbers of up to 10 digits and `top_k` ids, each with a separator, and the mark.
    let n_bytes_max = 11 * (2 + header.top_k as usize) + ASIDE.len();
    let mut order = match header.batched {
        true => Order::ByToken(HashMap::new()),
        false => Order::Sorted(None),
    };
    let mut open: Option<Open> = None;
    let mut picks = Vec::new();
    let mut trace = Trace::empty(header);
    while let Some(line) = lines.next(n_bytes_max)? {
        if line.is_empty() && trace.header.batched {
            close(&mut open, &mut picks, &mut trace);
            continue;
        }
        let Line {
            token,
            layer,
            ids,
            is_aside,
        } = fields(line)?;
        if layer >= trace.header.n_layers {
            return Err(format!(
                "layer {layer} is outside 0..{}",
                trace.header.n_layers
            ));
        }
        order.check(token, layer)?;
        let continues = trace.header.batched
            && open
                .as_ref()
                .is_some_and(|open| open.is_before(token, layer, is_aside));
        if !continues {
            close(&mut open, &mut picks, &mut trace);
        }
        let n_before = picks.len();
        push_ids(ids, &trace.header, &mut picks)?;
        if token >= limit {
            picks.truncate(n_before);
            continue;
        }
        trace.n_tokens = trace.n_tokens.max(token + 1);
        let open = open.get_or_insert(Open {
            layer,
            first_token: token,
            n_tokens: 0,
            is_aside,
        });
        open.n_tokens += 1;
    }
    close(&mut open, &mut picks, &mut trace);
    Ok(trace)
}

fn header(line: &str) -> Checked<Header> {
    // Serde would also take an array of the fields.
    if !line.starts_with('{') {
        return Err("the header is not a JSON object".to_string());
    }
    let header: Header =
        serde_json::from_str(line).map_err(|cause| format!("the header is wrong: {cause}"))?;
    header.check()?;
    Ok(header)
}

/// The event that lines are being added to.
struct Open {
    layer: u32,
    first_token: u32,
    n_tokens: u32,
    is_aside: bool,
}

impl Open {
    /// Whether a line of `token` and `layer` belongs to it.
    fn is_before(&self, token: u32, layer: u32, is_aside: bool) -> bool {
        let is_next = token == self.first_token + self.n_tokens;
        is_next && (layer, is_aside) == (self.layer, self.is_aside)
    }
}

fn close(open: &mut Option<Open>, picks: &mut Vec<(u32, u32)>, trace: &mut Trace) {
    if let Some(open) = open.take() {
        let Open {
            layer,
            first_token,
            n_tokens,
            is_aside,
        } = open;
        trace.push(layer, first_token, n_tokens, is_aside, picks);
    }
}

/// Which token and layer may come next.
enum Order {
    /// Only what is above the last one.
    Sorted(Option<(u32, u32)>),
    /// Only layers above the last one of the same token.
    ByToken(HashMap<u32, u32>),
}

impl Order {
    fn check(&mut self, token: u32, layer: u32) -> Checked<()> {
        let before = match self {
            Self::Sorted(last) => last
                .replace((token, layer))
                .filter(|&last| last >= (token, layer)),
            Self::ByToken(last) => last
                .insert(token, layer)
                .filter(|&last| last >= layer)
                .map(|last| (token, last)),
        };
        match before {
            None => Ok(()),
            Some((last_token, last_layer)) => Err(format!(
                "token {token} layer {layer} is out of order after token {last_token} layer {last_layer}"
            )),
        }
    }
}

/// What a line says.
struct Line<'a> {
    token: u32,
    layer: u32,
    ids: &'a str,
    is_aside: bool,
}

fn fields(line: &str) -> Checked<Line<'_>> {
    let mut fields = line.split(' ');
    let mut next = || fields.next();
    match (next(), next(), next(), next(), next()) {
        (Some(token), Some(layer), Some(ids), mark @ (None | Some(ASIDE)), None) => Ok(Line {
            token: number("token", token)?,
            layer: number("layer", layer)?,
            ids,
            is_aside: mark.is_some(),
        }),
        _ => Err(format!("{line:?} is not `token layer id,id,...`")),
    }
}

/// Adds the ids with their ranks.
fn push_ids(ids: &str, header: &Header, picks: &mut Vec<(u32, u32)>) -> Checked<()> {
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
