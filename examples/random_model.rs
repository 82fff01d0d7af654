//! Writes a model with random weights of any size, for benchmarks on machines without network.
//!
//! ```text
//! cargo run --release --no-default-features --example random_model -- random.gguf --size 4GB
//! HOTSET_RAM=30% llama-bench -m random.gguf --no-warmup -p 0 -n 64
//! ```
//!
//! Qwen3's architecture with experts in Q8_0, MXFP4, Q4_0, Q4_K, or Q4_K with down in Q6_K in every other layer, and tokens
//! that are bytes; a token uses `--used` experts of each layer. The same options give the same bytes on any machine. What it says makes no sense, and no workload is routed
//! like it: good for speed, not for hit rates.

#[path = "../tests/tiny/mod.rs"]
mod tiny;

use anyhow::{Context, ensure};
use bytesize::ByteSize;
use clap::Parser;
use hotset::output::Draft;
use std::path::{Path, PathBuf};
use tiny::{Arch, Spec, Type};

/// What experts are stored as.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    #[value(name = "q8_0")]
    Q8_0,
    Mxfp4,
    #[value(name = "q4_0")]
    Q4_0,
    #[value(name = "q4_k")]
    Q4K,
    #[value(name = "q4_k_m")]
    Q4KM,
}

impl Format {
    /// Weights that rows have a multiple of.
    fn block(self) -> usize {
        match self {
            Self::Q8_0 | Self::Mxfp4 | Self::Q4_0 => 32,
            Self::Q4K | Self::Q4KM => 256,
        }
    }

    fn types(self) -> &'static [[Type; 3]] {
        match self {
            Self::Q8_0 => &[[Type::Q8_0; 3]],
            Self::Mxfp4 => &[[Type::Mxfp4; 3]],
            Self::Q4_0 => &[[Type::Q4_0; 3]],
            Self::Q4K => &[[Type::Q4K; 3]],
            // As llama.cpp's mixture has it: half of the layers are larger.
            Self::Q4KM => &[[Type::Q4K; 3], [Type::Q4K, Type::Q4K, Type::Q6K]],
        }
    }
}

/// Write a mixture-of-experts model with random weights
#[derive(Parser)]
struct Args {
    /// The file to write
    out: PathBuf,
    /// Bytes of all experts, about
    #[arg(long, default_value = "4GB")]
    size: ByteSize,
    /// Layers
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    layers: u16,
    /// Experts of a layer
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512))]
    experts: u16,
    /// Experts of a layer that a token uses
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=512))]
    used: u16,
    /// Width of the embedding, a multiple of 256
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u16).range(256..=16384))]
    width: u16,
    /// What experts are stored as
    #[arg(long = "type", value_enum, default_value = "q8_0")]
    format: Format,
    /// Chooses the weights
    #[arg(long, default_value_t = 1)]
    seed: u32,
}

impl Args {
    /// The model whose experts come closest to the size.
    fn spec(&self) -> anyhow::Result<Spec> {
        let (used, experts, width) = (self.used, self.experts, self.width);
        ensure!(
            used <= experts,
            "--used {used}: there are {experts} experts"
        );
        ensure!(
            width.is_multiple_of(256),
            "--width {width}: must be a multiple of 256"
        );
        // For each block of its hidden layer an expert has so many bytes, on average.
        let types = self.format.types();
        let shape = [usize::from(width), self.format.block()];
        let bytes: usize = types.iter().flatten().map(|of| of.n_bytes(&shape)).sum();
        let block_bytes = (bytes / types.len()) as u64;
        let n_experts = u64::from(self.layers) * u64::from(experts);
        let n_blocks =
            (self.size.as_u64() + n_experts * block_bytes / 2) / (n_experts * block_bytes);
        ensure!(
            n_blocks > 0,
            "--size {}: {n_experts} experts of this width have at least {}",
            self.size,
            ByteSize(n_experts * block_bytes)
        );
        Ok(Spec {
            name: "random",
            arch: Arch::Qwen3Moe,
            n_layer: self.layers.into(),
            n_embd: width.into(),
            n_expert: experts.into(),
            top_k: used.into(),
            n_ff: usize::try_from(n_blocks)? * self.format.block(),
            types,
            seed: self.seed.into(),
            splits: 1,
        })
    }
}

/// The whole file or nothing.
fn write(spec: &Spec, path: &Path) -> anyhow::Result<u64> {
    let draft = Draft::whole(path)?;
    tiny::write_to(spec, &mut &draft)?;
    Ok(draft.keep()?.metadata()?.len())
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let spec = args.spec()?;
    let path = &args.out;
    let n_bytes = write(&spec, path).with_context(|| format!("writing {}", path.display()))?;
    println!(
        "{}: {}, {} layers of {} experts with a hidden layer of {}",
        path.display(),
        ByteSize(n_bytes),
        spec.n_layer,
        spec.n_expert,
        spec.n_ff
    );
    Ok(())
}
