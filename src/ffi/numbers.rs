//! The numbers of the header's enumerations.

use crate::cache::NO_SLOT;
use crate::error::Error;
use crate::tracker::{Phase, Span};

const _: () = assert!(NO_SLOT == u32::MAX, "HOTSET_NO_SLOT is UINT32_MAX");

/// The phase that `hotset_phase` numbers so.
pub(super) fn phase(number: u32) -> Result<Phase, Error> {
    let phase = Phase::ALL.get(number as usize).copied();
    phase.ok_or_else(|| unknown("phase", number, Phase::ALL.len()))
}

/// The span that `hotset_span` numbers so.
pub(super) fn span(number: u32) -> Result<Span, Error> {
    let span = Span::all().nth(number as usize);
    span.ok_or_else(|| unknown("span", number, Span::all().count()))
}

fn unknown(name: &str, number: u32, n: usize) -> Error {
    Error::setting(name, number.to_string(), format!("must be in 0..{n}"))
}
