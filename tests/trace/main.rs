//! Reading traces: what events they are, and that nothing damaged is taken for one.

use flate2::Compression;
use flate2::write::GzEncoder;
use hotset::error::Result;
use hotset::trace::Trace;
use std::io::Write;
use std::path::Path;

mod damage;
mod events;
mod fuzz;
#[path = "../mutant/mod.rs"]
mod mutant;
mod prefill;

/// First token, layer, tokens, experts, rows.
type Copied = (u32, u32, u32, Vec<u32>, Vec<u32>);

fn copied(trace: &Trace) -> Vec<Copied> {
    let copy = |(first_token, e): (u32, hotset::expert::Event)| {
        (
            first_token,
            e.layer,
            e.n_tokens,
            e.experts.to_vec(),
            e.rows.to_vec(),
        )
    };
    trace.events().map(copy).collect()
}

/// The header of a model of 3 layers of 8 experts, top 3, with `more` fields.
fn header(more: &str) -> String {
    format!("{{\"n_layers\":3,\"n_experts\":8,\"top_k\":3{more}}}\n")
}

fn read(text: &str) -> Result<Trace> {
    read_to(text, u32::MAX)
}

fn read_to(text: &str, limit: u32) -> Result<Trace> {
    Trace::read_text(Path::new("some.trace.gz"), text.as_bytes(), limit)
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn read_gzip(bytes: &[u8]) -> Result<Trace> {
    Trace::read(Path::new("some.trace.gz"), bytes, u32::MAX)
}
