//! `hotset pack`: experts in a file of their own, as they are read and computed.

use std::path::PathBuf;

/// Write the experts of a model to a file of their own, as this processor computes them
#[derive(clap::Args)]
#[command(after_help = "\
The file is used from then on, if it lies beside the model under its default name: nothing is repacked any more while the
model runs. It is of use on machines with the same kind of processor, takes as many bytes as the experts do, and the model
itself is needed as well. When it is interrupted, the same command goes on.")]
pub struct Args {
    /// The model: a GGUF file, or the first of several
    model: PathBuf,
    /// The file to write [default: MODEL.packed for MODEL.gguf]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Packs a model.
#[cfg(not(feature = "llama"))]
pub fn run(_: &Args) -> anyhow::Result<()> {
    super::no_llama::no_llama("pack")
}

#[cfg(feature = "llama")]
pub use with_llama::run;

#[cfg(feature = "llama")]
mod with_llama {
    use super::Args;
    use crate::cli::files::check_outputs;
    use crate::cli::out;
    use anyhow::Context;
    use hotset::error::Error;
    use hotset::gguf;
    use hotset::llama::packing::Packing;
    use hotset::numbers::bytes;
    use hotset::pack::{Head, PLAIN, Writer, beside, target_of};
    use hotset::report::Progress;
    use std::fs::{self, File};
    use std::path::Path;

    /// Packs a model.
    pub fn run(args: &Args) -> anyhow::Result<()> {
        let inputs = gguf::files(&args.model)?;
        let output = match &args.output {
            Some(output) => output.clone(),
            // Where it is looked for: beside the file itself, whatever links lead there.
            None => beside(&fs::canonicalize(&args.model).map_err(|e| Error::io(&args.model, e))?),
        };
        check_outputs(&[("--output", &output)], &inputs)?;
        target_of(&output)?;
        let packing = Packing::load(&args.model)?;
        let head = packing.head();
        if is_there(&output, head) {
            return out::print(&format!(
                "{} is there, and of this model\n",
                output.display()
            ));
        }
        let mut writer = Writer::begin(&output, head)?;
        let n_before = writer.n_bytes();
        let written = write(&packing, &mut writer);
        if let Err(changed) = packing.check_unchanged() {
            writer.discard()?;
            return Err(changed.into());
        }
        written.with_context(|| {
            format!(
                "{} is gone on with by the same command",
                writer.path().display()
            )
        })?;
        writer.keep()?;
        let n_repacked = head
            .tensors
            .iter()
            .filter(|tensor| tensor.layout != PLAIN)
            .count();
        let there_were = match n_before {
            0 => String::new(),
            n => format!(", of which {} were there", bytes(n)),
        };
        out::print(&format!(
            "{}: {}{there_were}; {n_repacked} of {} tensors are repacked\n",
            output.display(),
            bytes(head.n_bytes),
            head.tensors.len(),
        ))
    }

    /// Whether the file has been written before.
    fn is_there(path: &Path, head: &Head) -> bool {
        let file = File::open(path).ok();
        file.and_then(|file| Head::read(&file, path).ok())
            .is_some_and(|(there, _)| there == *head)
    }

    /// Writes what is not there yet.
    fn write(packing: &Packing, writer: &mut Writer) -> Result<(), Error> {
        let head = packing.head();
        let bar = Progress::of_bytes(head.n_bytes);
        let mut expert_bytes = Vec::new();
        let n_before = writer.n_bytes();
        for expert in head.experts().filter(|expert| expert.offset >= n_before) {
            expert_bytes.clear();
            expert_bytes.resize(expert.n_bytes, 0);
            let first = head.tensors[expert.parts.start].offset;
            for at in expert.parts {
                let part = &head.tensors[at];
                let begin = (part.offset - first) as usize;
                packing.read(
                    at,
                    expert.number,
                    &mut expert_bytes[begin..begin + part.n_bytes],
                )?;
            }
            writer.add(&expert_bytes)?;
            bar.set(writer.n_bytes());
        }
        bar.finish();
        Ok(())
    }
}
