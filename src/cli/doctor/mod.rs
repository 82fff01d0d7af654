//! `hotset doctor`: what this machine and a model can do together, before anything is downloaded or run.

mod advice;
mod cached;
mod compute;
mod curves;
mod disk;
mod expect;
mod gpus;
mod heads;
mod hub;
mod machine;
mod model;
mod names;
mod output;
mod plan;
mod report;
mod whole;

use super::number_args::throughput;
use super::out::print;
use advice::Facts;
use compute::Compute;
use disk::Disk;
use expect::{Expectation, Known};
use heads::ModelFile;
use hotset::config::Ram;
use hotset::error::{Error, Result};
use hub::Hub;
use machine::Machine;
use model::Model;
use plan::Plan;
use report::{Report, Source};
use std::path::PathBuf;

/// What is assumed of a disk that nobody has measured, as in `hotset plan`.
const DISK_BYTES_PER_S: f64 = 2e9;

/// Say what this machine is, and whether hotset helps with a model: what to run and what to expect
#[derive(clap::Args)]
#[command(
    after_help = "Reads the heads of the model's files, and parts of experts for about a second. Tokens per second are a \
    range for short texts on the processor alone; `hotset bench` measures them."
)]
pub struct Args {
    /// The model's GGUF file, the first of several
    #[arg(short, long, value_name = "MODEL", conflicts_with = "hf")]
    model: Option<PathBuf>,
    /// A model of the hub, as in user/model:Q4_K_M; also -hf. It is taken from llama.cpp's cache, else the heads of its files are read there
    #[arg(long, value_name = "USER/MODEL[:QUANT]")]
    hf: Option<String>,
    /// Memory for experts: a size as 6GiB, a share of their bytes as 40%, or what the machine can spare
    #[arg(long, value_name = "SIZE", default_value = "auto")]
    ram: String,
    /// What the disk reads in a second, as in 2GB/s [default: measured; 2GB/s for a model that is not on this machine]
    #[arg(long, value_name = "SIZE", value_parser = throughput)]
    disk: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A model that was found.
struct Found {
    source: Source,
    files: Vec<ModelFile>,
    missing: Vec<String>,
    /// What llama.cpp is told: `-m model.gguf`.
    arguments: String,
    /// What a benchmark is told.
    to_measure: String,
}

/// What was measured of a machine and its disk for a model.
struct Measured {
    compute: Compute,
    disk: Option<Disk>,
}

/// Looks, measures, prints.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let ram = Ram::parse("--ram", &args.ram)?;
    let found = args.find()?;
    let machine = Machine::look();
    let uring = disk::uring_here();
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        machine,
        compute: None,
        disk: None,
        io_uring: uring.is_ok(),
        no_io_uring_because: uring.err(),
        source: None,
        model: None,
        run: None,
        expect: None,
        verdict: None,
        advice: Vec::new(),
        measure: "hotset bench -m MODEL".to_string(),
    };
    if let Some(found) = found {
        args.examine(&mut report, found, ram)?;
    }
    let text = match args.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => output::text(&report),
    };
    print(&text)
}

impl Args {
    /// The model that is named, if there is one.
    fn find(&self) -> Result<Option<Found>> {
        if let Some(path) = &self.model {
            return Ok(Some(on_disk(
                path.clone(),
                path.display().to_string(),
                None,
            )?));
        }
        let Some(named) = &self.hf else {
            return Ok(None);
        };
        let Some((repo, quant)) = names::repo_and_quant(named) else {
            return Err(Error::setting(
                "--hf",
                named,
                "expected user/model or user/model:quant, as in me/model-GGUF:Q4_K_M",
            ));
        };
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let arguments = format!("-hf {named}");
        if let Some(path) = cached::find(repo, quant, &variable) {
            return Ok(Some(on_disk(path, named.clone(), Some(arguments))?));
        }
        let (files, missing) = Hub::from_env(&variable).open(repo, quant)?;
        Ok(Some(Found {
            source: Source {
                named: named.clone(),
                path: None,
            },
            files,
            missing,
            arguments,
            to_measure: "MODEL".to_string(),
        }))
    }

    /// Adds what there is to say of a model.
    fn examine(&self, report: &mut Report, found: Found, ram: Ram) -> Result<()> {
        let model = Model::of(&found.files, found.missing);
        let available = report.machine.available_bytes;
        let plan = plan::plan(&model, &found.arguments, (ram, &self.ram), available);
        let Measured { compute, disk } = measure(&model, &found.files, &report.machine)?;
        let expected = self.expect(&model, &plan, &compute, disk.as_ref());
        let (verdict, advice) = advice::advise(&Facts {
            machine: &report.machine,
            model: &model,
            disk: disk.as_ref(),
            plan: &plan,
            expected: expected.as_ref(),
        });
        report.measure = format!("hotset bench -m {}", found.to_measure);
        report.run = model.damage.is_empty().then_some(plan);
        report.compute = Some(compute);
        report.disk = disk;
        report.source = Some(found.source);
        report.model = Some(model);
        report.expect = expected;
        report.verdict = Some(verdict);
        report.advice = advice;
        Ok(())
    }

    /// What to expect of a model with experts, of which all files are known.
    fn expect(
        &self,
        model: &Model,
        plan: &Plan,
        compute: &Compute,
        disk: Option<&Disk>,
    ) -> Option<Expectation> {
        let is_known = !model
            .damage
            .iter()
            .any(|damage| matches!(damage, whole::Damage::Missing { .. }));
        if !model.is_moe() || !is_known {
            return None;
        }
        let measured = disk.and_then(|disk| Some(disk.speed.as_ref()?.bytes_per_s));
        let said = self.disk.map(|n| n as f64).or(measured);
        let n_bytes = model.token_expert_bytes + model.token_dense_bytes;
        Some(expect::expect(&Known {
            expert_bytes: model.expert_bytes as f64,
            cycle_bytes: model.token_expert_bytes as f64,
            used_share: model.used_share(),
            budget_bytes: plan.budget_bytes as f64,
            compute_s: compute.token_s(n_bytes, model.token_weights, model.n_layers),
            disk_bytes_per_s: said.unwrap_or(DISK_BYTES_PER_S),
            disk_is_measured: said.is_some(),
        }))
    }
}

/// The model whose first file is at `path`. llama.cpp is told `arguments`, if not the path.
fn on_disk(path: PathBuf, named: String, arguments: Option<String>) -> Result<Found> {
    let (files, missing) = heads::open(&path)?;
    let path = path.display().to_string();
    // A name with a NUL byte is none that could be opened.
    let quoted = shlex::try_quote(&path).map_or(path.clone(), |text| text.into_owned());
    Ok(Found {
        source: Source {
            named,
            path: Some(path),
        },
        files,
        missing,
        arguments: arguments.unwrap_or_else(|| format!("-m {quoted}")),
        to_measure: quoted,
    })
}

/// The processor, and the disk with the largest file of the model, if that is on this machine.
fn measure(model: &Model, files: &[ModelFile], machine: &Machine) -> Result<Measured> {
    let is_whole = model.damage.is_empty();
    let largest = files.iter().max_by_key(|file| file.n_bytes);
    let disk = match largest.and_then(|file| file.path.as_deref()) {
        Some(path) => Some(disk::look(path, model.bytes_of_part, is_whole)?),
        None => None,
    };
    Ok(Measured {
        compute: compute::measure(machine.usable_cores, machine.available_bytes),
        disk,
    })
}
