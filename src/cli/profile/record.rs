//! `hotset profile record`: the profile of a text.

use clap::ValueEnum;
use std::path::PathBuf;

/// Let a model read a text, and save what it picked as a profile
#[derive(clap::Args)]
pub struct Args {
    /// The model's GGUF file, the first of several
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// A text of the workload: the longer, the better; some thousand tokens do
    #[arg(short, long, value_name = "TEXT")]
    file: PathBuf,
    /// What to call the workload
    #[arg(long)]
    name: String,
    /// Where the profile goes [default: NAME.json]
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Overwrite the file
    #[arg(long)]
    force: bool,
    /// What the text is in the workload
    #[arg(long = "as", value_name = "PHASE", default_value = "both")]
    phase: Role,
    /// Memory for the experts meanwhile, as HOTSET_RAM [default: HOTSET_RAM, else auto]
    #[arg(long, value_name = "VALUE")]
    ram: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Prompt,
    Generation,
    Both,
}

#[cfg(not(feature = "llama"))]
pub fn run(args: &Args) -> anyhow::Result<()> {
    let Args {
        model, file, name, ..
    } = args;
    let _ = (model, file, name, &args.out, &args.ram);
    let _ = (args.force, args.phase, args.json, Role::Prompt);
    crate::cli::no_llama::no_llama("profile record")
}

#[cfg(feature = "llama")]
pub use reading::run;

#[cfg(feature = "llama")]
mod reading {
    use super::{Args, Role};
    use crate::cli::files::check_outputs;
    use crate::cli::out::print;
    use hotset::config::{Config, Ram, StatsTo};
    use hotset::error::Error;
    use hotset::gguf;
    use hotset::llama::text;
    use hotset::profile::{LayerHeat, Profile};
    use hotset::report::Progress;
    use std::path::PathBuf;

    pub fn run(args: &Args) -> anyhow::Result<()> {
        let out = args.out()?;
        let text = std::fs::read_to_string(&args.file).map_err(|e| Error::file(&args.file, e))?;
        let mut config = Config::from_env()?;
        if let Some(ram) = &args.ram {
            config.ram = Some(Ram::parse("--ram", ram)?);
            config.ram_text.clone_from(ram);
        }
        config.enabled = true;
        if matches!(config.ram, None | Some(Ram::IfNeeded)) {
            config.ram = Some(Ram::Auto);
        }
        config.stats = StatsTo::Off;
        (config.profile, config.profile_save) = (None, None);
        let bar = Progress::of_tokens();
        let mut profile = text::read(&args.model, &text, config, |n_done, n_all| {
            bar.set_length(n_all as u64);
            bar.set(n_done as u64);
        })?;
        bar.finish();
        profile.name.clone_from(&args.name);
        args.phase.assign(&mut profile);
        profile.write(&out)?;
        let text = match args.json {
            true => serde_json::to_string(&profile)?,
            false => format!(
                "{}: {} tokens of {}",
                out.display(),
                profile.tokens.prompt.max(profile.tokens.generation),
                args.file.display()
            ),
        };
        print(&format!("{text}\n"))
    }

    impl Args {
        fn out(&self) -> Result<PathBuf, Error> {
            let named = || PathBuf::from(format!("{}.json", self.name));
            let out = self.out.clone().unwrap_or_else(named);
            if out.exists() && !self.force {
                return Err(Error::file(&out, "it exists; --force overwrites it"));
            }
            let models = gguf::files(&self.model)?;
            check_outputs(&[("--out", &out)], models.iter().chain([&self.file]))?;
            Ok(out)
        }
    }

    impl Role {
        /// Moves what was read as a prompt to where it belongs.
        fn assign(self, profile: &mut Profile) {
            let move_layer = |layer: &mut LayerHeat| match self {
                Self::Prompt => {}
                Self::Generation => std::mem::swap(&mut layer.prompt, &mut layer.generation),
                Self::Both => layer.generation.clone_from(&layer.prompt),
            };
            profile.layers.iter_mut().for_each(move_layer);
            let tokens = &mut profile.tokens;
            match self {
                Self::Prompt => {}
                Self::Generation => std::mem::swap(&mut tokens.prompt, &mut tokens.generation),
                Self::Both => tokens.generation = tokens.prompt,
            }
        }
    }
}
