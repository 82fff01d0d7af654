//! `hotset pack`: experts in a file of their own, as they are read and computed.

#[cfg(feature = "llama")]
use super::files::check_outputs;
#[cfg(feature = "llama")]
use super::interrupt::Interrupt;
#[cfg(feature = "llama")]
use super::out;
use std::path::PathBuf;

/// Write the experts of a model to a file of their own, as this processor computes them
#[derive(clap::Args)]
#[command(after_help = "\
What is written is used from then on, if it lies beside the model under its default name: nothing is repacked while the
model runs, and all of an expert is read at one place. It is of use on machines with the same processor, takes as many
bytes as the experts do, and the model's own file is needed as well. A file that is not finished is gone on with.")]
pub struct Args {
    /// The model: a GGUF file, or the first of several
    model: PathBuf,
    /// The file to write [default: MODEL with .packed for .gguf]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Packs a model.
#[cfg(not(feature = "llama"))]
pub fn run(_: &Args) -> anyhow::Result<()> {
    super::no_llama::no_llama("pack")
}

/// Packs a model.
#[cfg(feature = "llama")]
pub fn run(args: &Args) -> anyhow::Result<()> {
    let default = hotset::pack::beside(&args.model);
    let output = args.output.as_deref().unwrap_or(&default);
    let inputs = hotset::gguf::files(&args.model)?;
    check_outputs(&[("--output", output)], &inputs)?;
    let packing = hotset::llama::packing::Packing::load(&args.model)?;
    let interrupt = Interrupt::watch()?;
    let mut writer = hotset::pack::Writer::begin(output, packing.head())?;
    let n_before = writer.n_bytes();
    let written = write(&packing, &mut writer, &interrupt);
    if let Err(cause) = &written {
        let path = writer.path().display();
        hotset::report::say(&format!(
            "hotset: {cause:#}; the same command goes on with {path}"
        ));
    }
    interrupt.end()?;
    written?;
    writer.keep()?;
    let head = packing.head();
    let is_plain = |tensor: &&hotset::pack::Packed| tensor.layout == hotset::pack::PLAIN;
    let n_plain = head.tensors.iter().filter(is_plain).count();
    let repacked = head.tensors.len() - n_plain;
    let went_on = match n_before {
        0 => String::new(),
        n => format!(", of which {} were there", hotset::numbers::bytes(n)),
    };
    out::print(&format!(
        "{}: {}{went_on}; {repacked} of {} tensors are repacked\n",
        output.display(),
        hotset::numbers::bytes(head.n_bytes),
        head.tensors.len(),
    ))
}

/// Writes what is not there yet.
#[cfg(feature = "llama")]
fn write(
    packing: &hotset::llama::packing::Packing,
    writer: &mut hotset::pack::Writer,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let head = packing.head();
    let bar = hotset::report::Progress::of_bytes(head.n_bytes);
    let mut bytes = Vec::new();
    let n_before = writer.n_bytes();
    for expert in head.experts().filter(|expert| expert.offset >= n_before) {
        interrupt.check()?;
        bytes.clear();
        bytes.resize(expert.n_bytes, 0);
        let first = head.tensors[expert.parts.start].offset;
        for at in expert.parts {
            let part = &head.tensors[at];
            let begin = (part.offset - first) as usize;
            packing.read(at, expert.number, &mut bytes[begin..begin + part.n_bytes])?;
        }
        writer.add(&bytes)?;
        bar.set(writer.n_bytes());
    }
    packing.check_unchanged()?;
    bar.finish();
    Ok(())
}
