//! `hotset widen`: a heavier model that computes the same, to measure with.

use std::path::PathBuf;

/// Larger than this is no model that anybody measures with.
const FACTOR_MAX: u64 = 4096;

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

/// Says what is missing.
#[cfg(not(feature = "llama"))]
pub fn run(args: &Args) -> anyhow::Result<()> {
    let _ = (&args.input, args.factor, &args.output);
    crate::cli::no_llama::no_llama("widen")
}

#[cfg(feature = "llama")]
pub use writer::run;

#[cfg(feature = "llama")]
mod writer {
    use super::super::files::check_outputs;
    use super::super::out;
    use super::super::tiles::{Format, Part, divide, write_tiled};
    use super::Args;
    use anyhow::{Context, bail};
    use hotset::error::{Error, Result};
    use hotset::llama::gguf::{Gguf, Tensor, Value, type_name};
    use hotset::llama::sys;
    use hotset::output::Draft;
    use indicatif::{ProgressBar, ProgressStyle};
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::{flag, low_level};
    use std::fs::File;
    use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The widened file before its tensors' bytes, and what those are made of.
    struct Plan {
        meta: Gguf,
        tensors: Vec<(Tensor, Option<(Part, Format)>)>,
        n_bytes: u64,
    }

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
    fn plan(input: &Path, factor: u32) -> Result<Plan> {
        let source = Gguf::read(input)?;
        if !matches!(source.value("split.count"), None | Some(Value::U16(0 | 1))) {
            return Err(Error::file(
                input,
                "one file of several; merge them with llama-gguf-split first",
            ));
        }
        let too_large = || Error::file(input, format!("too large with factor {factor}"));
        let mut meta = Gguf::empty();
        meta.set_all(&source);
        let tensors = source.tensors();
        widen_lengths(&mut meta, &tensors, factor).map_err(|why| Error::file(input, why))?;

        let mut planned = Vec::new();
        for tensor in tensors {
            let part = Part::of(&tensor.name);
            let mut shape = tensor.shape;
            if let Some(part) = part {
                let hidden = &mut shape[part.hidden_dimension()];
                *hidden = hidden.checked_mul(factor.into()).ok_or_else(too_large)?;
                // Nothing that follows may overflow; no file system holds more.
                let n_bytes = tensor.n_bytes.checked_mul(factor.into());
                n_bytes.filter(|n| *n < 1 << 56).ok_or_else(too_large)?;
            }
            let format = part.map(|_| format_of(&tensor)).transpose();
            let format = format.map_err(|why| Error::file(input, why))?;
            meta.add_tensor(&tensor.name, tensor.ty, shape);
            planned.push((tensor, part.zip(format)));
        }
        let last = meta.tensors().pop().map_or(0, |t| t.offset + t.n_bytes);
        let n_bytes = meta.to_bytes().len() as u64 + last.next_multiple_of(meta.alignment());
        // Offsets are counted from the start of the file from here on.
        for (tensor, _) in &mut planned {
            tensor.offset += source.data_offset();
        }
        Ok(Plan {
            meta,
            tensors: planned,
            n_bytes,
        })
    }

    fn format_of(tensor: &Tensor) -> std::result::Result<Format, String> {
        match tensor.ty {
            sys::GGML_TYPE_Q8_0 => Ok(Format::Q8_0),
            sys::GGML_TYPE_F16 => Ok(Format::F16),
            sys::GGML_TYPE_F32 => Ok(Format::F32),
            other => Err(format!(
                "tensor '{}' is {}, only q8_0, f16 and f32 can be widened",
                tensor.name,
                type_name(other)
            )),
        }
    }

    /// Changes the lengths of hidden layers and the name. The error is why a model can't be widened.
    fn widen_lengths(
        meta: &mut Gguf,
        tensors: &[Tensor],
        factor: u32,
    ) -> std::result::Result<(), String> {
        let Some(Value::Str(arch)) = meta.value("general.architecture") else {
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
        if !tensors.iter().any(|t| Part::of(&t.name).is_some()) {
            return Err("has no experts".to_string());
        }
        let key = |name: &str| format!("{arch}.{name}");
        let has_length_of_experts = meta.value(&key("expert_feed_forward_length")).is_some();
        // Where shared experts have no length of their own, it follows from that of the others.
        let shared = find("ffn_down_shexp.weight");
        let has_length_of_shared = meta
            .value(&key("expert_shared_feed_forward_length"))
            .is_some();
        if let (Some(Tensor { name, .. }), false) = (shared, has_length_of_shared) {
            return Err(format!("shared experts ('{name}') can't be widened"));
        }
        // Layers without experts use the other length and must keep it.
        let dense = find("ffn_down.weight");
        let keys = match (has_length_of_experts, dense) {
            (true, Some(_)) => vec![key("expert_feed_forward_length")],
            (true, None) => vec![
                key("expert_feed_forward_length"),
                key("feed_forward_length"),
            ],
            (false, None) => vec![key("feed_forward_length")],
            (false, Some(Tensor { name, .. })) => {
                return Err(format!("its experts are as long as the dense '{name}'"));
            }
        };
        for key in keys {
            match meta.value(&key) {
                None => {}
                Some(Value::U32(n)) => {
                    let n = n.checked_mul(factor);
                    meta.set_u32(
                        &key,
                        n.ok_or(format!("{key} is too large with factor {factor}"))?,
                    );
                }
                Some(other) => return Err(format!("{key} is {other:?}, not one number")),
            }
        }
        if let Some(Value::Str(name)) = meta.value("general.name") {
            meta.set_str("general.name", &format!("{name}-x{factor}"));
        }
        Ok(())
    }

    /// Writes the file under another name, and renames it when it is complete.
    fn write(args: &Args, plan: &Plan, draft: Draft, interrupt: &Interrupt) -> anyhow::Result<()> {
        let failed = |cause| Error::io(args.output.clone(), cause);
        let bar = ProgressBar::new(plan.n_bytes).with_style(ProgressStyle::with_template(
            "{bar:40} {binary_bytes} of {binary_total_bytes}, {eta} left",
        )?);
        let mut source = BufReader::new(
            File::open(&args.input).map_err(|e| Error::file(&args.input, e.to_string()))?,
        );
        let mut out = BufWriter::with_capacity(1 << 20, bar.wrap_write(&draft));
        out.write_all(&plan.meta.to_bytes()).map_err(failed)?;
        for (tensor, how) in &plan.tensors {
            let n_units = how.map_or(1, |_| tensor.shape[2].max(1) as u64);
            let n_bytes = tensor.n_bytes / n_units;
            for i in 0..n_units {
                if interrupt.load(Ordering::Relaxed) != 0 {
                    bail!("interrupted");
                }
                let offset = tensor.offset + i * n_bytes;
                let mut bytes = read(&mut source, offset, n_bytes).map_err(|e| {
                    Error::file(&args.input, format!("tensor '{}': {e}", tensor.name))
                })?;
                write_unit(&mut out, &mut bytes, tensor, *how, args.factor).map_err(failed)?;
            }
            let n_written = n_bytes * n_units * how.map_or(1, |_| u64::from(args.factor));
            let padded = n_written.next_multiple_of(plan.meta.alignment());
            out.write_all(&vec![0; (padded - n_written) as usize])
                .map_err(failed)?;
        }
        out.flush().map_err(failed)?;
        drop(out);
        bar.finish_and_clear();
        draft.keep().map_err(failed)?;
        Ok(())
    }

    fn read(source: &mut (impl Read + Seek), offset: u64, n_bytes: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; n_bytes as usize];
        source.seek(SeekFrom::Start(offset))?;
        source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes one expert, or a whole tensor that stays as it is.
    fn write_unit(
        out: &mut impl Write,
        bytes: &mut [u8],
        tensor: &Tensor,
        how: Option<(Part, Format)>,
        factor: u32,
    ) -> io::Result<()> {
        let Some((part, format)) = how else {
            return out.write_all(bytes);
        };
        divide(bytes, format, part.divisor(factor));
        let row_bytes = bytes.len() / tensor.shape[1].max(1) as usize;
        write_tiled(out, bytes, part, row_bytes, factor)
    }
}
