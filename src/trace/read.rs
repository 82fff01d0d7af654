//! Reads traces, and trusts nothing in them: what is accepted keeps every promise of the format, and
//! what it takes in memory is bounded by what was read.

use super::lines::{Checked, Line, Lines, fields, header, push_ids};
use super::{ASIDE, Header, Recorded, SEQUENCE};
use crate::error::{Error, Result};
use crate::expert::{Event, Picked, Spot};
use crate::recent_events::RecentEvents;
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
    recent: RecentEvents,
}

impl Trace {
    /// Reads the tokens below `limit` of a file. All of it is checked.
    pub fn open(path: &Path, limit: u32) -> Result<Self> {
        Self::read(path, open(path)?, limit)
    }

    /// As [`Trace::open`], but of a file that is damaged it reads what comes before the damage, and says what that is.
    pub fn salvage(path: &Path, limit: u32) -> Result<(Self, Option<Error>)> {
        let (trace, damage) = Self::read_to_damage(path, lines_of(open(path)?), limit);
        match (trace, damage) {
            (Some(trace), damage) => Ok((trace, damage)),
            (None, damage) => Err(damage.expect("a trace is read to its end or to its damage")),
        }
    }

    /// Reads compressed data; errors call it `name`.
    pub fn read(name: &Path, gzip: impl Read, limit: u32) -> Result<Self> {
        Self::read_text(name, lines_of(gzip), limit)
    }

    /// Reads what the compressed data holds; errors call it `name`.
    pub fn read_text(name: &Path, text: impl BufRead, limit: u32) -> Result<Self> {
        match Self::read_to_damage(name, text, limit) {
            (Some(trace), None) => Ok(trace),
            (Some(_), Some(Error::File { path, why })) => {
                Err(Error::file(&path, why + " (--salvage reads them)"))
            }
            (_, damage) => Err(damage.expect("a trace is read to its end or to its damage")),
        }
    }

    /// What comes before the damage, if that is anything, and the damage, if there is any.
    fn read_to_damage(
        name: &Path,
        text: impl BufRead,
        limit: u32,
    ) -> (Option<Self>, Option<Error>) {
        let mut lines = Lines::new(text);
        let begun = lines.next(HEADER_BYTES_MAX).and_then(|line| {
            let line = line.ok_or("there is no header")?;
            Ok(Reader::new(header(line)?, limit))
        });
        let mut reader = match begun {
            Ok(reader) => reader,
            Err(why) => return (None, Some(Error::file(name, format!("line 1: {why}")))),
        };
        let Err(why) = reader.read(&mut lines) else {
            return (Some(reader.trace), None);
        };
        let mut why = format!("line {}: {why}", lines.number);
        let is_any = reader.n_events > 0;
        if is_any {
            why += &format!(
                "; {} events of {} tokens before it are whole",
                reader.n_events, reader.n_tokens
            );
        }
        (is_any.then_some(reader.trace), Some(Error::file(name, why)))
    }

    /// No events yet.
    pub(super) fn empty(header: Header) -> Self {
        Self {
            header,
            n_tokens: 0,
            first_tokens: Vec::new(),
            aside: Vec::new(),
            recent: RecentEvents::new(usize::MAX),
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
        let events = self.recent.iter().zip(&self.aside);
        let events = events.map(|(event, &is_aside)| Recorded { event, is_aside });
        self.first_tokens.iter().copied().zip(events)
    }

    /// Appends an event.
    pub(super) fn add(&mut self, first_token: u32, recorded: &Recorded) {
        self.first_tokens.push(first_token);
        self.aside.push(recorded.is_aside);
        self.recent.push(&recorded.event);
    }

    /// Appends an event. `picks` holds what its tokens picked, each expert with its rank, which is
    /// used where the ids are ranked; it is emptied. `spots` says where they are, if that is known.
    pub(super) fn push(
        &mut self,
        layer: u32,
        first_token: u32,
        n_tokens: u32,
        is_aside: bool,
        picks: &mut Vec<(u32, u32)>,
        spots: &[Spot],
    ) {
        // Lines may have fewer than others.
        let is_even = spots.len() > 1 && picks.len() == spots.len() * self.header.top_k as usize;
        let by_token: Vec<u32> = picks
            .iter()
            .map(|(id, _)| *id)
            .filter(|_| is_even)
            .collect();
        let mut picked = Picked::of(picks);
        if !self.header.ranked {
            picked.ranks.clear();
        }
        picked.tokens.place(spots);
        picked.tokens.picks = by_token;
        let event = picked.event(layer, n_tokens);
        self.add(first_token, &Recorded { event, is_aside });
        picks.clear();
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|cause| Error::Unreadable {
        path: path.to_path_buf(),
        cause,
    })
}

fn lines_of(gzip: impl Read) -> impl BufRead {
    BufReader::with_capacity(1 << 16, MultiGzDecoder::new(BufReader::new(gzip)))
}

/// A trace that is being read.
struct Reader {
    trace: Trace,
    limit: u32,
    order: Order,
    /// The event that lines are being added to, and what its tokens picked.
    open: Option<Open>,
    picks: Vec<(u32, u32)>,
    spots: Vec<Spot>,
    /// Whole events so far, and one more than their highest token.
    n_events: u64,
    n_tokens: u32,
}

impl Reader {
    fn new(header: Header, limit: u32) -> Self {
        Self {
            order: match header.batched {
                true => Order::ByToken(HashMap::new()),
                false => Order::Sorted(None),
            },
            trace: Trace::empty(header),
            limit,
            open: None,
            picks: Vec::new(),
            spots: Vec::new(),
            n_events: 0,
            n_tokens: 0,
        }
    }

    /// Reads all lines that follow the header. After an error the trace has the events before it: not the one that
    /// was being read, of which nobody knows whether all is there.
    fn read(&mut self, lines: &mut Lines<impl BufRead>) -> Checked<()> {
        // Two numbers of up to 10 digits and `top_k` ids, each with a separator, and the marks.
        let n_bytes_max =
            11 * (3 + self.trace.header.top_k as usize) + SEQUENCE.len_utf8() + ASIDE.len();
        while let Some(line) = lines.next(n_bytes_max)? {
            match line.is_empty() && self.trace.header.batched {
                true => self.close(),
                false => self.add(&fields(line)?)?,
            }
        }
        self.close();
        Ok(())
    }

    fn add(&mut self, line: &Line) -> Checked<()> {
        let &Line {
            token,
            layer,
            ids,
            sequence,
            is_aside,
        } = line;
        let header = &self.trace.header;
        if layer >= header.n_layers {
            return Err(format!("layer {layer} is outside 0..{}", header.n_layers));
        }
        self.order.check(token, layer)?;
        let is_next = |open: &Open| open.is_before(token, layer, sequence.is_some(), is_aside);
        if !(header.batched && self.open.as_ref().is_some_and(is_next)) {
            self.close();
        }
        let n_before = self.picks.len();
        push_ids(ids, &self.trace.header, &mut self.picks)?;
        let open = self.open.get_or_insert(Open {
            layer,
            first_token: token,
            n_tokens: 0,
            n_kept: 0,
            is_generated: sequence.is_some(),
            is_aside,
        });
        open.n_tokens += 1;
        match token < self.limit {
            true => {
                open.n_kept += 1;
                self.spots
                    .extend(sequence.map(|seq| Spot { seq, pos: token }));
            }
            false => self.picks.truncate(n_before),
        }
        Ok(())
    }

    /// Ends the event that was being read.
    fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        self.n_events += 1;
        self.n_tokens = self.n_tokens.max(open.first_token + open.n_tokens);
        // The tokens below the limit are the first ones.
        if open.n_kept > 0 {
            let trace = &mut self.trace;
            trace.n_tokens = trace.n_tokens.max(open.first_token + open.n_kept);
            let Open {
                layer, first_token, ..
            } = open;
            trace.push(
                layer,
                first_token,
                open.n_kept,
                open.is_aside,
                &mut self.picks,
                &self.spots,
            );
        }
        self.spots.clear();
    }
}

/// An event that is being read.
struct Open {
    layer: u32,
    first_token: u32,
    n_tokens: u32,
    /// Tokens below the limit.
    n_kept: u32,
    is_generated: bool,
    is_aside: bool,
}

impl Open {
    /// Whether a line of `token` and `layer` belongs to it.
    fn is_before(&self, token: u32, layer: u32, is_generated: bool, is_aside: bool) -> bool {
        let is_next = token == self.first_token + self.n_tokens;
        let marks = (self.layer, self.is_generated, self.is_aside);
        is_next && (layer, is_generated, is_aside) == marks
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
