//! `hotset demo`: the bundled model writes Italian while most of its experts are on disk.

use super::number_args::{NUMBER_MAX, whole};
use clap::builder::NonEmptyStringValueParser;
use hotset::config::Config;
use hotset::error::Error;
use std::ffi::OsString;

/// Show the bundled model writing Italian with 30% of its experts in memory
#[derive(clap::Args)]
pub struct Args {
    /// Memory for experts [env: HOTSET_RAM] [default: 30%]
    #[arg(long, value_name = "VALUE")]
    ram: Option<OsString>,
    /// Which experts stay in memory [env: HOTSET_POLICY]
    #[arg(long, value_name = "VALUE")]
    policy: Option<OsString>,
    /// Tokens to write
    #[arg(short, value_name = "N", default_value_t = 200, value_parser = whole::<u32>(1..=480))]
    n: u32,
    /// Seed of the sampler
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = whole::<u32>(0..=NUMBER_MAX))]
    seed: u32,
    /// What the text begins with
    #[arg(long, default_value = "Il file di configurazione", value_parser = NonEmptyStringValueParser::new())]
    prompt: String,
}

impl Args {
    /// The settings of the environment, changed by the options, with the demo's own default.
    fn config(&self) -> Result<Config, Error> {
        let mut config = Config::from_env()?;
        for (name, value) in [("HOTSET_RAM", &self.ram), ("HOTSET_POLICY", &self.policy)] {
            if let Some(value) = value {
                config.set(name, value)?;
            }
        }
        if config.ram.is_none() {
            config.set("HOTSET_RAM", "30%")?;
        }
        if !config.enabled {
            return Err(Error::setting(
                "HOTSET",
                "off",
                "there is nothing to demonstrate",
            ));
        }
        Ok(config)
    }
}

/// Checks the settings and says what is missing.
#[cfg(not(feature = "llama"))]
pub fn run(args: &Args) -> anyhow::Result<std::process::ExitCode> {
    args.config()?;
    let _ = (args.n, args.seed, &args.prompt);
    crate::cli::no_llama::no_llama("demo")
}

#[cfg(feature = "llama")]
pub use show::run;

#[cfg(feature = "llama")]
mod show {
    use super::Args;
    use anyhow::Context;
    use hotset::config::Ram;
    use hotset::llama::tools::{Tool, main_with};
    use hotset::report;
    use std::ffi::OsString;
    use std::fs;
    use std::io::{self, Write};
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;

    /// The bundled model, so that the demo works wherever the program is.
    const MODEL: &[u8] = include_bytes!("../../models/polyglot-moe.gguf");

    /// Runs llama-completion on the bundled model.
    pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
        let config = args.config()?;
        let model = unpack()?;
        let share = match config.ram {
            Some(Ram::Percent(percent)) => format!("{percent} % of its experts' bytes"),
            Some(Ram::Bytes(n)) => format!("{} for its experts", hotset::numbers::bytes(n)),
            Some(Ram::Auto | Ram::IfNeeded) | None => "the memory that is free".to_string(),
        };
        report::say(&format!(
            "demo: polyglot-moe (6 layers of 64 experts) writes {} tokens with {share} in memory, policy {}",
            args.n, config.policy
        ));
        let code = main_with(Tool::Completion, &arguments(args, &model), config)?;
        if code == ExitCode::SUCCESS {
            report::say("\nWith a model of yours: hotset run -m model.gguf");
        }
        Ok(code)
    }

    fn arguments(args: &Args, model: &Path) -> Vec<OsString> {
        let n = args.n.to_string();
        let seed = args.seed.to_string();
        let mut argv: Vec<OsString> = vec!["llama-completion".into(), "-m".into(), model.into()];
        // Without sampling so small a model soon repeats itself, which would flatter any cache.
        let rest = [
            "-p",
            &args.prompt,
            "-n",
            &n,
            "--seed",
            &seed,
            "--temp",
            "0.9",
            "--ignore-eos",
            "-no-cnv",
            "-c",
            "512",
            "--log-verbosity",
            "1",
        ];
        argv.extend(rest.map(OsString::from));
        argv
    }

    /// Puts the model into a file that later runs find again: upstream's programs may end without
    /// returning, so nobody could remove one that is for this run only.
    fn unpack() -> anyhow::Result<PathBuf> {
        let of_user = dirs::cache_dir().map(|dir| dir.join("hotset"));
        let folder = of_user
            .filter(|dir| fs::create_dir_all(dir).is_ok())
            .unwrap_or_else(std::env::temp_dir);
        let path = folder.join("polyglot-moe.gguf");
        // Compared, because another version of hotset or somebody else may have left it there.
        if fs::read(&path).is_ok_and(|bytes| bytes == MODEL) {
            return Ok(path);
        }
        write(&folder, &path).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    fn write(folder: &Path, path: &Path) -> io::Result<()> {
        let mut draft = tempfile::NamedTempFile::new_in(folder)?;
        draft.write_all(MODEL)?;
        draft.persist(path)?;
        Ok(())
    }
}
