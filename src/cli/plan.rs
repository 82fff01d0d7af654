//! `hotset plan`: what each amount of memory would bring, and how much a speed needs.

use super::files::open_trace;
use super::number_args::{NUMBER_MAX, size, speed, throughput, whole};
use super::out::print;
use bytesize::ByteSize;
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use hotset::config::DEFAULT_POLICY;
use hotset::error::Error;
use hotset::expert::Shape;
use hotset::numbers::bytes;
use hotset::profile::{self, Blend, Fingerprint, Profile};
use hotset::replay::{
    measured,
    planner::{Measured, MemoryPlan, Row},
};
use hotset::trace::Trace;
use hotset::{gguf, policy};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What is assumed of a disk that nobody has measured: a solid-state drive of the cheaper kind.
const DISK_BYTES_PER_S: u64 = 2_000_000_000;

/// What is assumed of the link to a device that nobody has measured: a slot for graphics with half of its lanes.
const LINK_BYTES_PER_S: u64 = 12_000_000_000;

/// Say what each amount of memory for experts would bring to a recorded workload
#[derive(clap::Args)]
#[command(
    after_help = "Hit rates begin after 64 tokens or an eighth of the trace and leave prompts \
    out, unless nothing else is there. Tokens per second are those that reads allow: computing comes on top."
)]
pub struct Args {
    /// A trace, as HOTSET_TRACE records it, or a profile (.json, .json.gz), which tells less: what it
    /// would bring to keep its hottest experts for ever
    #[arg(value_name = "TRACE|PROFILE")]
    workload: PathBuf,
    /// The GGUF file of the model, the first of several; for profiles, traces that do not say how large
    /// experts are, and another quantisation
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// For a trace: a name that `hotset policies` lists, as in decay:16 [default: adaptive]
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// What the disk reads in a second, as in 2GB/s [default: 2GB/s is assumed]
    #[arg(long, value_name = "SIZE", value_parser = throughput)]
    disk: Option<u64>,
    /// For a trace: plan the cache of a device with this much room for experts, as in 8GiB, instead of memory
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "disk")]
    device: Option<u64>,
    /// What the link to the device takes in a second, as in 12GB/s [default: 12GB/s is assumed]
    #[arg(long, value_name = "SIZE", value_parser = throughput, requires = "device")]
    link: Option<u64>,
    /// Find the memory that this many tokens per second need
    #[arg(long, value_name = "TOKENS", value_parser = speed)]
    speed: Option<f64>,
    /// For a trace: replay the first N tokens
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1..=NUMBER_MAX))]
    limit: Option<u32>,
    /// Of a damaged trace, read what comes before the damage
    #[arg(long)]
    salvage: bool,
    /// What to print
    #[arg(long, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Everything there is to say.
#[derive(Serialize)]
struct Report<'a> {
    /// Null for a profile.
    trace: Option<String>,
    /// Null for a trace.
    profile: Option<String>,
    model: Option<String>,
    /// `static` for a profile.
    policy: &'a str,
    /// Tokens of the trace, or that the profile has seen generated (or read, if that is none).
    n_tokens: u64,
    n_layers: u32,
    n_experts: u32,
    top_k: u32,
    /// Bytes of the model besides its experts; null without the model.
    other_bytes: Option<u64>,
    /// Null for a device.
    disk_bytes_per_s: Option<u64>,
    /// Whether nobody said so.
    disk_is_assumed: bool,
    /// Null for memory, and so are those below.
    device: Option<DevicePlan>,
    #[serde(flatten)]
    plan: &'a MemoryPlan,
    /// What `--speed` asked for.
    wanted: Option<Wanted>,
}

/// What is said of a device besides.
#[derive(Serialize)]
struct DevicePlan {
    /// Its room for experts.
    bytes: u64,
    link_bytes_per_s: u64,
    /// Whether nobody said so.
    link_is_assumed: bool,
    /// The size to choose.
    moe_cache_mib: u64,
}

#[derive(Serialize)]
struct Wanted {
    tokens_per_s: f64,
    /// The least that is enough; null if none of the budgets is.
    budget_bytes: Option<u64>,
}

/// What is known of a workload and its model.
struct Workload {
    n_tokens: u64,
    n_layers: u32,
    n_experts: u32,
    top_k: u32,
    shape: Shape,
    /// Bytes of the model besides its experts, where they are known.
    other_bytes: Option<u64>,
    policy: String,
    measured: Vec<Measured>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let is_profile = profile::is_named_so(&args.workload);
    let workload = match is_profile {
        true => args.profile()?,
        false => args.trace()?,
    };
    let bytes_per_s = match args.device {
        None => args.disk.unwrap_or(DISK_BYTES_PER_S),
        Some(_) => args.link.unwrap_or(LINK_BYTES_PER_S),
    };
    let Workload {
        top_k,
        shape,
        measured,
        ..
    } = &workload;
    let plan = MemoryPlan::new(shape, *top_k, bytes_per_s as f64, measured);
    let device = args
        .device
        .zip(plan.rows.last())
        .map(|(bytes, last)| DevicePlan {
            bytes,
            link_bytes_per_s: bytes_per_s,
            link_is_assumed: args.link.is_none(),
            moe_cache_mib: plan.knee_bytes.unwrap_or(last.budget_bytes) >> 20,
        });
    // JSON has no other text than Unicode.
    let (name, model) = (args.workload.display().to_string(), args.model.as_ref());
    let report = Report {
        trace: (!is_profile).then(|| name.clone()),
        profile: is_profile.then(|| name.clone()),
        model: model.map(|path| path.display().to_string()),
        policy: &workload.policy,
        n_tokens: workload.n_tokens,
        n_layers: workload.n_layers,
        n_experts: workload.n_experts,
        top_k: *top_k,
        other_bytes: workload.other_bytes,
        disk_bytes_per_s: args.device.is_none().then_some(bytes_per_s),
        disk_is_assumed: args.device.is_none() && args.disk.is_none(),
        device,
        plan: &plan,
        wanted: args.speed.map(|tokens_per_s| Wanted {
            tokens_per_s,
            budget_bytes: plan.for_speed(tokens_per_s).map(|row| row.budget_bytes),
        }),
    };
    let text = match args.format {
        Format::Table => report.text(),
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
    };
    print(&text)
}

impl Args {
    fn trace(&self) -> Result<Workload, Error> {
        let policy = self.policy.as_deref().unwrap_or(DEFAULT_POLICY);
        policy::find(policy)?;
        let trace = open_trace(&self.workload, self.limit.unwrap_or(u32::MAX), self.salvage)?;
        let header = trace.header();
        if trace.events().all(|(_, event)| event.experts.is_empty()) {
            return Err(bad_file(&self.workload, "there are no events to replay"));
        }
        let (shape, other_bytes) = self.shape(&trace)?;
        let measured = match self.device {
            None => measured::measure(&trace, &shape, policy, &measured::budgets(&shape))?,
            Some(n_bytes) => caches(&trace, &shape, policy, n_bytes)?,
        };
        Ok(Workload {
            n_tokens: trace.n_tokens().into(),
            n_layers: header.n_layers,
            n_experts: header.n_experts,
            top_k: header.top_k,
            shape,
            other_bytes,
            policy: policy.to_string(),
            measured,
        })
    }

    /// The model with the sizes of its experts, and the bytes of the rest of it where they are known.
    fn shape(&self, trace: &Trace) -> Result<(Shape, Option<u64>), Error> {
        let header = trace.header();
        let Some(path) = &self.model else {
            return match header.expert_bytes.is_empty() {
                true => Err(bad_file(
                    &self.workload,
                    "it does not say how many bytes an expert has: name its model with -m",
                )),
                false => Ok((header.shape(), None)),
            };
        };
        let model = gguf::read(path)?;
        let shape = measured::matching(header, &model.shape)
            .map_err(|why| Error::file(path.clone(), why))?;
        Ok((shape, Some(model.other_bytes)))
    }

    fn profile(&self) -> Result<Workload, Error> {
        for (option, is_given) in [
            ("--policy", self.policy.is_some()),
            ("--limit", self.limit.is_some()),
            ("--device", self.device.is_some()),
        ] {
            if is_given {
                let why = format!("{option} is for traces: a profile does not say in which order");
                return Err(bad_file(&self.workload, &why));
            }
        }
        let profile = Profile::read(&self.workload)?;
        let path = self.model.as_ref().ok_or_else(|| {
            bad_file(
                &self.workload,
                "a profile does not say how many bytes an expert has: name its model with -m",
            )
        })?;
        let model = gguf::read(path)?;
        if let Some(why) = profile.model.difference(&Fingerprint::of(&model)) {
            return Err(bad_file(&self.workload, &why));
        }
        let blend = Blend::of(&[(&profile, 1.0)]);
        let measured = measured::expect(
            &blend.layers,
            &model.shape,
            &measured::budgets(&model.shape),
        );
        let tokens = profile.tokens;
        Ok(Workload {
            n_tokens: match tokens.generation {
                0 => tokens.prompt,
                n => n,
            },
            n_layers: profile.model.n_layers,
            n_experts: profile.model.n_experts,
            top_k: profile.model.top_k,
            shape: model.shape,
            other_bytes: Some(model.other_bytes),
            policy: "static".to_string(),
            measured,
        })
    }
}

/// What caches bring that a device with so much room for experts can have.
fn caches(
    trace: &Trace,
    shape: &Shape,
    policy: &str,
    n_bytes: u64,
) -> Result<Vec<Measured>, Error> {
    let sizes = measured::cache_sizes(shape, n_bytes);
    let mut measured = measured::measure_caches(trace, shape, policy, &sizes)?;
    measured.retain(|of_one| of_one.n_slots > 0);
    match measured.is_empty() {
        true => Err(Error::setting(
            "--device",
            bytes(n_bytes),
            "expected a size that the experts fit which a token uses of a layer, in whole MiB",
        )),
        false => Ok(measured),
    }
}

fn bad_file(path: &Path, why: &str) -> Error {
    Error::file(path, why)
}

impl Report<'_> {
    fn text(&self) -> String {
        let plan = self.plan;
        let mut text = format!(
            "{}, policy {}: {} tokens; {} layers of {} experts, {} in all, \
             a token uses {} of a layer\n\n{}\n\n",
            self.trace
                .as_ref()
                .or(self.profile.as_ref())
                .map_or("", String::as_str),
            self.policy,
            self.n_tokens,
            self.n_layers,
            self.n_experts,
            bytes(plan.expert_bytes),
            self.top_k,
            self.table(),
        );
        text += &format!(
            "token cycle   {}: what one token uses; with less, lru hits nothing\n",
            bytes(plan.cycle_bytes)
        );
        let step = bytes(plan.step_bytes);
        text += &match plan.knee_bytes {
            Some(knee) => format!(
                "knee          {}: beyond it, {step} more bring less than 1 point of hit rate\n",
                bytes(knee)
            ),
            None => format!(
                "knee          none: up to {}, {step} more bring a point or more\n",
                if self.device.is_some() {
                    "the last one"
                } else {
                    "all experts"
                }
            ),
        };
        if let Some(wanted) = &self.wanted {
            text += &self.wanted_line(wanted);
        }
        let assumed = |is_assumed, what| match is_assumed {
            true => format!(", which is assumed: measure the {what} and pass --{what}"),
            false => String::new(),
        };
        let per_s = |n: u64| ByteSize(n).display().si().to_string();
        if let Some(device) = &self.device {
            let link = assumed(device.link_is_assumed, "link");
            let per_s = per_s(device.link_bytes_per_s);
            text += &format!("tokens/s      what sending allows at {per_s}/s{link}\n");
            let mib = device.moe_cache_mib;
            return text
                + &format!(
                    "device        --moe-cache-mib {mib} of {}\n",
                    bytes(device.bytes)
                );
        }
        let disk = assumed(self.disk_is_assumed, "disk");
        let per_s = per_s(self.disk_bytes_per_s.unwrap_or_default());
        text += &format!("tokens/s      what reads allow at {per_s}/s{disk}\n");
        let others = self.other_bytes.map_or(String::new(), |n| {
            format!("; the rest of the model takes {} besides", bytes(n))
        });
        text + &format!("memory        is for experts (HOTSET_RAM){others}\n")
    }

    fn wanted_line(&self, wanted: &Wanted) -> String {
        let need = match wanted.budget_bytes {
            None => "no budget is enough".to_string(),
            Some(n) if n == self.plan.expert_bytes => {
                format!("{}: nothing less than all experts is enough", bytes(n))
            }
            Some(n) => format!("{} are enough", bytes(n)),
        };
        format!(
            "{:<13} {need}\n",
            format!("{} tokens/s", wanted.tokens_per_s)
        )
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        let gain = format!("+{}", bytes(self.plan.step_bytes));
        let [memory, read] = match self.device {
            None => ["MEMORY", "READ/TOKEN"],
            Some(_) => ["DEVICE", "SENT/TOKEN"],
        };
        table.set_header([memory, "OF ALL", "HIT RATE", &gain, read, "TOKENS/S"]);
        table.add_rows(self.plan.rows.iter().map(cells));
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn cells(row: &Row) -> [String; 6] {
    let points = |n: f64| format!("{n:+.1}");
    let per_second = |n: f64| match n < 100.0 {
        true => format!("{n:.1}"),
        false => format!("{n:.0}"),
    };
    [
        bytes(row.budget_bytes),
        format!("{:.0} %", row.percent),
        format!("{:.1} %", row.hit_percent),
        row.points_per_step.map_or("-".to_string(), points),
        bytes(row.bytes_per_token.round() as u64),
        row.tokens_per_s.map_or("-".to_string(), per_second),
    ]
}
