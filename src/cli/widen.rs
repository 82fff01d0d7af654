//! `hotset widen`: a heavier model that computes the same, to measure with.

use super::files::check_outputs;
use super::out;
use super::tiles::{Format, divide, divisor, hidden_dimension, write_tiled};
use anyhow::{Context, bail};
use hotset::error::{Error, Result};
use hotset::gguf::{self, Head, Part, Tensor, Value, Values, types};
use hotset::output::Draft;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Larger than this is no model that anybody measures with.
const FACTOR_MAX: u64 = 4096;
/// Larger than any expert; one of them is in memory at a time.
const EXPERT_BYTES_MAX: u64 = 1 << 32;
/// Bytes in memory of a tensor that stays as it is.
const COPY_BYTES: u64 = 1 << 20;

/// Make the experts of a GGUF model several times larger without changing what it computes
#[derive(clap::Args)]
#[command(
    after_help = "Experts must be Q8_0, F16 or F32. With a power of two the weights are exact."
)]
pub struct Args {
    /// The model: one GGUF file
    input: PathBuf,
    /// How many times larger
    #[arg(long, value_name = "M", value_parser = super::number_args::whole::<u32>(1..=FACTOR_MAX))]
    factor: u32,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// The widened file before its tensors' bytes, and what those are made of.
struct Widening {
    head: Vec<u8>,
    pieces: Vec<Piece>,
    /// Of the whole file.
    n_bytes: u64,
}

/// A tensor of the model.
struct Piece {
    tensor: Tensor,
    /// Without padding.
    n_bytes: u64,
    /// What it is of experts.
    widened: Option<(Part, Format)>,
}

/// Why a model can't be widened.
type Checked<T> = std::result::Result<T, String>;

/// The number of the signal that asked this program to end, or 0.
type Interrupt = Arc<AtomicUsize>;

/// Widens a file. What is there under the output's name is replaced at the end, or not at all.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let plan = plan(&args.input, args.factor)?;
    check_outputs(&[("--output", &args.output)], [&args.input])?;
    let interrupt = watch().context("catching signals")?;
    let draft = begin(&args.output)?;
    let result = write(args, &plan, draft, &interrupt);
    match interrupt.load(Ordering::Relaxed) {
        0 => {}
        signal => low_level::emulate_default_handler(signal as i32)?,
    }
    result?;
    out::print(&format!(
        "{}: {}, experts x{}\n",
        args.output.display(),
        hotset::numbers::bytes(plan.n_bytes),
        args.factor
    ))
}

/// Begins the file; one that could be left half written is bad input, a full disk is not.
fn begin(path: &Path) -> Result<Draft> {
    Draft::whole(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::io(path, cause),
        _ => Error::setting("--output", path.display().to_string(), cause),
    })
}

/// Lets an interrupted run clean up.
fn watch() -> io::Result<Interrupt> {
    let interrupt = Interrupt::default();
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register_usize(signal, interrupt.clone(), signal as usize)?;
    }
    Ok(interrupt)
}

/// Checks that the model can be widened, and lays the new file out.
fn plan(input: &Path, factor: u32) -> Result<Widening> {
    let gguf::Listing {
        mut values,
        tensors,
    } = gguf::list(input)?;
    lay_out(&mut values, tensors, factor).map_err(|why| Error::file(input, why))
}

fn lay_out(values: &mut Values, tensors: Vec<Tensor>, factor: u32) -> Checked<Widening> {
    let n_files = values.get("split.count");
    if n_files.is_some_and(|n| n.as_number().is_none_or(|n| n > 1)) {
        return Err("one file of several; merge them with llama-gguf-split first".to_string());
    }
    widen_lengths(values, &tensors, factor)?;
    let mut head = Head::new(std::mem::take(values));
    let mut pieces = Vec::new();
    for tensor in tensors {
        let n_bytes = tensor.bare_bytes()?;
        let mut shape = tensor.shape;
        let mut widened = None;
        if let Some(part) = tensor.part() {
            widened = Some((part, format_of(&tensor)?));
            check_experts(&tensor, n_bytes)?;
            let hidden = &mut shape[hidden_dimension(part)];
            *hidden = hidden.saturating_mul(factor.into());
        }
        // The tensor itself is fine.
        head.add(&tensor.name, tensor.ty, shape)
            .map_err(|_| format!("too large with factor {factor}"))?;
        pieces.push(Piece {
            tensor,
            n_bytes,
            widened,
        });
    }
    let n_data_bytes = head.n_data_bytes();
    let head = head.to_bytes();
    Ok(Widening {
        n_bytes: head.len() as u64 + n_data_bytes,
        head,
        pieces,
    })
}

fn format_of(tensor: &Tensor) -> Checked<Format> {
    match tensor.ty {
        types::Q8_0 => Ok(Format::Q8_0),
        types::F16 => Ok(Format::F16),
        types::F32 => Ok(Format::F32),
        other => Err(format!(
            "tensor '{}' is {}, only q8_0, f16 and f32 can be widened",
            tensor.name,
            types::find(other).map_or("of an unknown type", |(name, ..)| name)
        )),
    }
}

/// Experts are matrices, of which one after the other is held in memory.
fn check_experts(tensor: &Tensor, n_bytes: u64) -> Checked<()> {
    let Tensor { name, shape, .. } = tensor;
    if shape[3] != 1 {
        return Err(format!(
            "tensor '{name}' is of {shape:?} numbers: experts are matrices"
        ));
    }
    let expert_bytes = n_bytes / shape[2];
    if expert_bytes > EXPERT_BYTES_MAX {
        return Err(format!(
            "tensor '{name}' has experts of {expert_bytes} bytes, above {EXPERT_BYTES_MAX}"
        ));
    }
    Ok(())
}

/// Changes the lengths of hidden layers and the name.
fn widen_lengths(values: &mut Values, tensors: &[Tensor], factor: u32) -> Checked<()> {
    for key in lengths(values, tensors)? {
        let Some(value) = values.get(&key) else {
            continue;
        };
        let Some(n) = value.as_u32() else {
            return Err(format!("{key} is {value}, not one number of 32 bits"));
        };
        let n = n.checked_mul(factor);
        let n = n.ok_or_else(|| format!("{key} is too large with factor {factor}"))?;
        values.set(&key, Value::u32(n));
    }
    if let Some(name) = values.text("general.name") {
        let name = format!("{name}-x{factor}");
        values.set("general.name", Value::text(&name));
    }
    Ok(())
}

/// The keys of the lengths of experts' hidden layers.
fn lengths(values: &Values, tensors: &[Tensor]) -> Checked<Vec<String>> {
    let Some(arch) = values.text("general.architecture") else {
        return Err("has no general.architecture".to_string());
    };
    let find = |end: &str| tensors.iter().find(|t| t.name.ends_with(end));
    for end in [
        "ffn_gate_up_exps.weight",
        "ffn_gate_exps.bias",
        "ffn_up_exps.bias",
    ] {
        if let Some(Tensor { name, .. }) = find(end) {
            return Err(format!(
                "tensor '{name}' is of a kind that can't be widened"
            ));
        }
    }
    if !tensors.iter().any(|tensor| tensor.part().is_some()) {
        return Err("has no experts".to_string());
    }
    let key = |name: &str| format!("{arch}.{name}");
    let is_there = |name: &str| values.get(&key(name)).is_some();
    // Where shared experts have no length of their own, it follows from that of the others.
    let shared = find("ffn_down_shexp.weight");
    let has_length_of_shared = is_there("expert_shared_feed_forward_length");
    if let (Some(Tensor { name, .. }), false) = (shared, has_length_of_shared) {
        return Err(format!("shared experts ('{name}') can't be widened"));
    }
    // Layers without experts use the other length and must keep it.
    let dense = find("ffn_down.weight");
    match (is_there("expert_feed_forward_length"), dense) {
        (true, Some(_)) => Ok(vec![key("expert_feed_forward_length")]),
        (true, None) => Ok(vec![
            key("expert_feed_forward_length"),
            key("feed_forward_length"),
        ]),
        (false, None) => Ok(vec![key("feed_forward_length")]),
        (false, Some(Tensor { name, .. })) => {
            Err(format!("its experts are as long as the dense '{name}'"))
        }
    }
}

/// Writes the file under another name, and renames it when it is complete.
fn write(args: &Args, plan: &Widening, draft: Draft, interrupt: &Interrupt) -> anyhow::Result<()> {
    let failed = |cause| Error::io(args.output.clone(), cause);
    let bar = ProgressBar::new(plan.n_bytes).with_style(ProgressStyle::with_template(
        "{bar:40} {binary_bytes} of {binary_total_bytes}, {eta} left",
    )?);
    let mut out = BufWriter::with_capacity(1 << 20, bar.wrap_write(&draft));
    copy(args, plan, &mut out, interrupt)?;
    out.flush().map_err(failed)?;
    drop(out);
    bar.finish_and_clear();
    draft.keep().map_err(failed)?;
    Ok(())
}

fn copy(
    args: &Args,
    plan: &Widening,
    out: &mut impl Write,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let failed = |cause| Error::io(args.output.clone(), cause);
    let mut source =
        BufReader::new(File::open(&args.input).map_err(|e| Error::file(&args.input, e))?);
    out.write_all(&plan.head).map_err(failed)?;
    for piece in &plan.pieces {
        let Piece {
            tensor, n_bytes, ..
        } = piece;
        // An expert, or as much as is worth a read.
        let unit_bytes = piece
            .widened
            .map_or(COPY_BYTES, |_| n_bytes / tensor.shape[2]);
        for at in (0..*n_bytes).step_by(unit_bytes as usize) {
            if interrupt.load(Ordering::Relaxed) != 0 {
                bail!("interrupted");
            }
            let n_unit = unit_bytes.min(n_bytes - at);
            let mut bytes = read(&mut source, tensor.offset + at, n_unit)
                .map_err(|e| Error::file(&args.input, format!("tensor '{}': {e}", tensor.name)))?;
            write_unit(out, &mut bytes, piece, args.factor).map_err(failed)?;
        }
        let n_written = n_bytes * piece.widened.map_or(1, |_| u64::from(args.factor));
        let n_padding = gguf::padded(n_written) - n_written;
        out.write_all(&vec![0; n_padding as usize])
            .map_err(failed)?;
    }
    Ok(())
}

fn read(source: &mut (impl Read + Seek), offset: u64, n_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; n_bytes as usize];
    source.seek(SeekFrom::Start(offset))?;
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Writes one expert, or some of a tensor that stays as it is.
fn write_unit(
    out: &mut impl Write,
    bytes: &mut [u8],
    piece: &Piece,
    factor: u32,
) -> io::Result<()> {
    let Some((part, format)) = piece.widened else {
        return out.write_all(bytes);
    };
    divide(bytes, format, divisor(part, factor));
    let row_bytes = bytes.len() / piece.tensor.shape[1] as usize;
    write_tiled(out, bytes, part, row_bytes, factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Vec<u8> {
        let mut values = Values::default();
        values.set("general.architecture", Value::text("a"));
        values.set("general.name", Value::text("b"));
        values.set("a.feed_forward_length", Value::u32(32));
        let mut head = Head::new(values);
        for (name, ty, shape) in [
            ("blk.0.ffn_up_exps.weight", types::F32, [3, 32, 2, 1]),
            ("blk.0.ffn_down_exps.weight", types::Q8_0, [32, 3, 2, 1]),
            ("x", types::F16, [5, 1, 1, 1]),
        ] {
            head.add(name, ty, shape).unwrap();
        }
        let mut bytes = head.to_bytes();
        bytes.resize(bytes.len() + head.n_data_bytes() as usize, 9);
        bytes
    }

    /// Cut off or changed anywhere, a model is refused, or what is made of it is whole and no larger than it should be.
    #[test]
    fn damaged_models_are_refused_or_harmless() {
        let whole = small();
        let folder = tempfile::tempdir().unwrap();
        let [input, output] = ["in.gguf", "out.gguf"].map(|name| folder.path().join(name));
        let args = Args {
            input,
            factor: 3,
            output,
        };
        let widened = |bytes: &[u8]| {
            std::fs::write(&args.input, bytes).unwrap();
            let plan = match plan(&args.input, args.factor) {
                Ok(plan) => plan,
                Err(Error::File { .. }) => return false,
                Err(other) => panic!("{other}"),
            };
            assert!(plan.n_bytes <= 3 * bytes.len() as u64);
            let mut out = Vec::new();
            copy(&args, &plan, &mut out, &Interrupt::default()).unwrap();
            assert_eq!(out.len() as u64, plan.n_bytes);
            std::fs::write(&args.output, out).unwrap();
            let found = gguf::list(&args.output).unwrap();
            found.tensors.iter().for_each(|t| {
                t.bare_bytes().unwrap();
            });
            true
        };
        assert!(widened(&whole));
        for n in 0..whole.len() {
            // The padding at the end may be missing.
            assert_eq!(widened(&whole[..n]), n + 22 >= whole.len(), "{n}");
        }
        let n_head = whole.len() - 768 - 224 - 32;
        let damaged = |bit: usize| {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            widened(&damaged)
        };
        let n_widened = (0..8 * n_head).filter(|bit| damaged(*bit)).count();
        assert!(n_widened > 500, "{n_widened}");
    }
}
