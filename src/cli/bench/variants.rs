//! What is to be measured, checked before anything runs.

use super::args::Args;
use crate::cli::files::check_outputs;
use anyhow::Context;
use hotset::config::Config;
use hotset::error::Error;
use hotset::gguf::{self, Experts};
use hotset::llama::session::available_threads;
use hotset::measuring::{Amount, STOCK};
use hotset::policy;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What is in the folder of a report: all numbers, the chart, and what there is to say.
pub const REPORT_FILES: [&str; 3] = ["raw.json", "chart.svg", "README.md"];

/// The workloads of a benchmark that names none: one text for each class of the bundled model.
const PROMPTS: [(&str, &str); 5] = [
    ("it", include_str!("../../../benches/prompts/it.txt")),
    ("en", include_str!("../../../benches/prompts/en.txt")),
    ("de", include_str!("../../../benches/prompts/de.txt")),
    ("fr", include_str!("../../../benches/prompts/fr.txt")),
    ("code", include_str!("../../../benches/prompts/code.txt")),
];
const CAPS: &str = "70%,40%,20%";

/// A benchmark.
pub struct Comparison<'a> {
    pub args: &'a Args,
    pub model: Model,
    pub workloads: Vec<Workload>,
    pub limits: Vec<Amount>,
    /// Whether the limits are of the process; else they are budgets for experts.
    pub limits_are_caps: bool,
    pub variants: Vec<Variant>,
    pub n_threads: u32,
    pub n_context: u32,
    /// Holds the texts that are part of the program.
    _texts: Option<TempDir>,
}

/// The model, as its files say.
pub struct Model {
    pub files: Vec<PathBuf>,
    /// Of all files.
    pub n_bytes: u64,
    pub experts: Experts,
}

impl Model {
    /// Bytes of all experts.
    pub fn expert_bytes(&self) -> u64 {
        let shape = &self.experts.shape;
        let layers = 0..shape.n_layers();
        layers
            .map(|layer| u64::from(shape.n_experts(layer)) * shape.expert_bytes(layer))
            .sum()
    }
}

/// What is read and continued.
pub struct Workload {
    pub name: String,
    /// The text of each turn of a chat; one if it is none.
    pub turns: Vec<PathBuf>,
}

impl Workload {
    /// Of one text, or of several with `+` between them. Fails if one cannot be read or is empty.
    fn read(path: &Path) -> Result<Self, Error> {
        let text = path.to_str().filter(|_| !path.exists());
        let turns: Vec<PathBuf> = match text {
            Some(text) => text.split('+').map(PathBuf::from).collect(),
            None => vec![path.to_path_buf()],
        };
        let mut names = Vec::new();
        for path in &turns {
            let text = fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
            if text.trim().is_empty() {
                return Err(Error::file(path, "it is empty"));
            }
            let stem = path.file_stem().unwrap_or_default();
            names.push(stem.to_string_lossy().into_owned());
        }
        let name = names.join("+");
        Ok(Self { name, turns })
    }
}

/// What runs under a limit.
#[derive(Debug, Clone)]
pub struct Variant {
    pub name: String,
    /// The settings, but for the budget.
    pub settings: Vec<(&'static str, String)>,
}

impl Variant {
    /// Whether it needs a budget.
    pub fn is_hotset(&self) -> bool {
        self.name != STOCK
    }
}

impl<'a> Comparison<'a> {
    /// Checks all input. Makes nothing but the folder of the report, last.
    pub fn new(args: &'a Args) -> anyhow::Result<Self> {
        // A setting that is wrong would be found by the first run only.
        Config::from_env()?;
        let variants = args.variants()?;
        let (option, list) = match &args.ram {
            Some(list) => ("--ram", list.as_str()),
            None => ("--cap", args.cap.as_deref().unwrap_or(CAPS)),
        };
        let limits = Amount::parse_list(option, list)?;
        let files = gguf::files(&args.model)?;
        let mut n_bytes = 0;
        for file in &files {
            n_bytes += fs::metadata(file).map_err(|e| Error::file(file, e))?.len();
        }
        let model = Model {
            experts: gguf::read(&args.model)?,
            n_bytes,
            files,
        };
        let (workloads, texts) = args.workloads()?;
        let n_turns = workloads.iter().map(|workload| workload.turns.len()).max();
        let n_context = args.n_context(n_turns.unwrap_or(1) as u32)?;
        args.check_outputs(&model, &workloads)?;
        if let Some(folder) = &args.out {
            make_folder(folder)?;
        }
        Ok(Self {
            args,
            model,
            workloads,
            limits,
            limits_are_caps: args.ram.is_none(),
            variants,
            n_threads: args.threads.unwrap_or(available_threads() as u32),
            n_context,
            _texts: texts,
        })
    }

    /// The first variant of hotset, for runs that are about none of them.
    pub fn hotset(&self) -> &Variant {
        let mut variants = self.variants.iter();
        variants.find(|v| v.is_hotset()).expect("there is a policy")
    }

    /// The limit of the process and the budget for experts that an amount means, when the process takes
    /// `rest` bytes besides.
    pub fn cap_and_budget(&self, limit: &Amount, rest: u64) -> Result<(u64, u64), Error> {
        if !self.limits_are_caps {
            let budget = limit.of(self.model.expert_bytes());
            return Ok((budget + rest, budget));
        }
        let cap = limit.of(self.model.n_bytes);
        match cap.checked_sub(rest) {
            Some(budget) if budget > 0 => Ok((cap, budget)),
            _ => Err(Error::setting(
                "--cap",
                &limit.text,
                &format!(
                    "that is {}, and the process takes {} besides its experts (--rest): it must be more",
                    hotset::numbers::bytes(cap),
                    hotset::numbers::bytes(rest)
                ),
            )),
        }
    }
}

impl Args {
    /// Whether the files can be written and are nothing else that counts, before hours are spent.
    fn check_outputs(&self, model: &Model, workloads: &[Workload]) -> Result<(), Error> {
        // In a folder that is to be made nothing can be meant by other names.
        let folder = self.out.as_ref().filter(|folder| folder.is_dir());
        let in_folder = |folder: &PathBuf| REPORT_FILES.map(|name| folder.join(name));
        let in_folder: Vec<PathBuf> = folder.into_iter().flat_map(in_folder).collect();
        let named = [("--json", &self.json), ("--svg", &self.svg)];
        let named = named.into_iter();
        let named = named.filter_map(|(name, path)| Some((name, path.as_deref()?)));
        let in_folder = in_folder.iter().map(|path| ("--out", path.as_path()));
        let written: Vec<(&str, &Path)> = named.chain(in_folder).collect();
        let texts = workloads.iter().flat_map(|workload| &workload.turns);
        check_outputs(&written, model.files.iter().chain(texts))
    }

    fn n_context(&self, n_turns: u32) -> Result<u32, Error> {
        let of_turn = self.prompt_tokens.saturating_add(self.n);
        let needed = of_turn.saturating_mul(n_turns);
        match self.ctx_size {
            Some(n) if n < needed => Err(Error::setting(
                "--ctx-size",
                &n.to_string(),
                &format!("the prompt and what is generated are {needed} tokens"),
            )),
            Some(n) => Ok(n),
            None => Ok(needed),
        }
    }

    /// Stock llama.cpp first.
    fn variants(&self) -> Result<Vec<Variant>, Error> {
        let mut prefetch = Vec::new();
        for text in self.prefetch.split(',') {
            match text {
                "off" | "auto" if !prefetch.contains(&text) => prefetch.push(text),
                _ => {
                    return Err(Error::setting(
                        "--prefetch",
                        &self.prefetch,
                        "expected off, auto, or off,auto",
                    ));
                }
            }
        }
        let mut variants = vec![Variant {
            name: STOCK.to_string(),
            settings: vec![("HOTSET", "off".to_string())],
        }];
        for policy in self.policies.split(',') {
            policy::find(policy).map_err(|_| {
                let allowed = format!("must be of {}", policy::choices());
                Error::setting("--policies", policy, &allowed)
            })?;
            for prefetch in &prefetch {
                let name = match *prefetch {
                    "off" => policy.to_string(),
                    _ => format!("{policy}+ahead"),
                };
                if variants.iter().any(|variant| variant.name == name) {
                    return Err(Error::setting("--policies", policy, "it is there twice"));
                }
                variants.push(Variant {
                    name,
                    settings: vec![
                        ("HOTSET_POLICY", policy.to_string()),
                        ("HOTSET_PREFETCH", prefetch.to_string()),
                    ],
                });
            }
        }
        Ok(variants)
    }

    fn workloads(&self) -> anyhow::Result<(Vec<Workload>, Option<TempDir>)> {
        let mut workloads: Vec<Workload> = Vec::new();
        if self.prompts.is_empty() {
            let folder = tempfile::tempdir().context("a folder for the texts")?;
            for (name, text) in PROMPTS {
                let path = folder.path().join(format!("{name}.txt"));
                fs::write(&path, text).with_context(|| path.display().to_string())?;
                workloads.push(Workload {
                    name: name.to_string(),
                    turns: vec![path],
                });
            }
            return Ok((workloads, Some(folder)));
        }
        for path in &self.prompts {
            let workload = Workload::read(path)?;
            if workloads.iter().any(|other| other.name == workload.name) {
                let why = format!("another workload is called '{}' too", workload.name);
                return Err(Error::file(path, why).into());
            }
            workloads.push(workload);
        }
        Ok((workloads, None))
    }
}

/// Makes the folder of the report, which must not exist or be empty.
fn make_folder(path: &Path) -> Result<(), Error> {
    if path.exists() {
        let mut entries = fs::read_dir(path).map_err(|e| Error::file(path, e))?;
        if entries.next().is_some() {
            return Err(Error::file(path, "it is not empty"));
        }
    }
    fs::create_dir_all(path).map_err(|e| Error::file(path, e))?;
    tempfile::tempfile_in(path).map_err(|e| Error::file(path, e))?;
    Ok(())
}
