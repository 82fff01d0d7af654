//! All runs, one after the other, and the disk between them.

use super::child::{Job, Starter};
use super::variants::{Comparison, Variant, Workload};
use hotset::error::Error;
use hotset::measuring::disk::{self, Speed};
use hotset::measuring::host::{Machine, READ_AHEAD_KB, ReadAhead};
use hotset::measuring::limited::Limiter;
use hotset::measuring::run::Counters;
use hotset::measuring::{Amount, COMPUTE, Record, Run, Spread};
use hotset::memory;
use hotset::memory::auto_size;
use hotset::numbers::bytes;
use hotset::report::say;
use hotset::store::{Arena, Dropped, drop_cached};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// How long the disk is measured each time.
const DISK_FOR: Duration = Duration::from_millis(500);
/// What is added to the memory that a process was seen to take: the kernel counts its own part and files as well, and
/// reclaiming at the limit stops the process, once for a second with 16 MiB.
const REST_MORE: u64 = 64 << 20;
/// The run that shows how much that is: a small share of experts, and a few tokens.
const PROBE_RAM: &str = "10%";
const PROBE_TOKENS: u32 = 16;

/// What was measured.
pub struct Measured {
    pub machine: Machine,
    pub records: Vec<Record>,
    pub disk: Vec<Speed>,
    /// What the process takes besides experts.
    pub rest_bytes: u64,
    pub dropped: Dropped,
    pub is_limited: bool,
    pub warnings: Vec<String>,
    /// What ended the benchmark before its last run.
    pub failure: Option<anyhow::Error>,
}

impl Measured {
    /// The disk's speed in bytes per second.
    pub fn disk_speed(&self) -> Spread {
        let speeds = self.disk.iter().map(|speed| speed.bytes_per_s);
        Spread::of(speeds).expect("it was measured")
    }
}

/// Runs everything. Fails if not even one run could be made.
pub fn measure(plan: &Comparison) -> anyhow::Result<Measured> {
    let limiter = match plan.args.no_limit {
        true => None,
        false => Some(Limiter::new().map_err(or_no_limit)?),
    };
    let mut machine = Machine::of(&plan.args.model);
    let _read_ahead = match plan.args.read_ahead_kb {
        Some(kb) => Some(ReadAhead::set(machine.disk.as_ref(), kb)?),
        None => None,
    };
    if let (Some(kb), Some(disk)) = (plan.args.read_ahead_kb, &mut machine.disk) {
        disk.read_ahead_kb = Some(kb);
    }
    let skips_compute = skips_compute(plan);
    let mut session = Session {
        starter: Starter::new(plan)?,
        plan,
        limiter,
        bar: bar(plan, skips_compute.is_none()),
        measured: Measured {
            machine,
            records: Vec::new(),
            disk: Vec::new(),
            rest_bytes: 0,
            dropped: Dropped::All,
            is_limited: !plan.args.no_limit,
            warnings: Vec::new(),
            failure: None,
        },
    };
    session.measured.rest_bytes = match plan.args.rest {
        Some(rest) => rest,
        None => session.probe()?,
    };
    for limit in &plan.limits {
        plan.cap_and_budget(limit, session.measured.rest_bytes)?;
    }
    let result = session.all(skips_compute.is_none());
    session.bar.finish_and_clear();
    let mut measured = session.measured;
    if let Err(error) = result {
        // What took hours is not thrown away, if there is something.
        if measured.records.is_empty() {
            return Err(error);
        }
        measured.failure = Some(error);
    }
    measured.warnings = warnings(&measured, plan, skips_compute);
    Ok(measured)
}

/// The way out that only this program has.
fn or_no_limit(error: Error) -> Error {
    match error {
        Error::File { path, why } => Error::file(
            path,
            format!("{why}; or measure without limits: --no-limit"),
        ),
        other => other,
    }
}

/// Why not all experts can be in memory at once, if they cannot.
fn skips_compute(plan: &Comparison) -> Option<String> {
    let needed = plan.model.n_bytes;
    let available = memory::available();
    (needed > available.bytes).then(|| {
        format!(
            "the speed with every expert in memory was not measured, so bounds are of the disk alone: \
             the model is {}, and {} are available ({})",
            bytes(needed),
            bytes(available.bytes),
            available.why
        )
    })
}

/// An order of the first `n` numbers for each of `turn`: that of the numbers at first, later others with other neighbours as
/// far as there are any.
fn order(n: usize, turn: usize) -> impl Iterator<Item = usize> {
    let is_prime_to = |step: &usize| (2..=*step).all(|d| step % d != 0 || n % d != 0);
    let steps: Vec<_> = (1..n.max(2)).filter(is_prime_to).collect();
    let step = steps[turn % steps.len()];
    (0..n).map(move |i| (turn + i * step) % n)
}

fn bar(plan: &Comparison, has_compute: bool) -> ProgressBar {
    let n_rows = plan.limits.len() * plan.variants.len() + usize::from(has_compute);
    let n_runs = plan.args.repeat as usize * plan.workloads.len() * n_rows;
    let style = "hotset: {bar:30} run {human_pos} of {human_len}, {eta} left: {msg}";
    let style = ProgressStyle::with_template(style).expect("the template is right");
    ProgressBar::new(n_runs as u64).with_style(style)
}

struct Session<'a> {
    plan: &'a Comparison<'a>,
    starter: Starter<'a>,
    limiter: Option<Limiter>,
    bar: ProgressBar,
    measured: Measured,
}

impl<'a> Session<'a> {
    /// All runs, interleaved: what changes on the machine meanwhile changes all rows alike. Each repetition has another
    /// order: a processor whose owner rations it is faster after a run that has waited for the disk.
    fn all(&mut self, has_compute: bool) -> anyhow::Result<()> {
        let plan = self.plan;
        for repetition in 1..=plan.args.repeat {
            self.measure_disk()?;
            for workload in &plan.workloads {
                let both = |limit| {
                    plan.variants
                        .iter()
                        .map(move |variant| Some((limit, variant)))
                };
                let compute = has_compute.then_some(None).into_iter();
                let rows: Vec<_> = compute.chain(plan.limits.iter().flat_map(both)).collect();
                for at in order(rows.len(), repetition as usize - 1) {
                    match rows[at] {
                        None => self.compute(workload, repetition)?,
                        Some((limit, variant)) => self.row(workload, limit, variant, repetition)?,
                    }
                }
            }
            self.measure_disk()?;
        }
        Ok(())
    }

    /// What the process takes besides its experts.
    fn probe(&mut self) -> anyhow::Result<u64> {
        let plan = self.plan;
        let run = self.run(&Job {
            title: "measuring what the process takes besides its experts".to_string(),
            workload: &plan.workloads[0],
            variant: plan.hotset(),
            ram: Some(PROBE_RAM.to_string()),
            group: None,
            n_generate: plan.args.n.min(PROBE_TOKENS),
            is_reference: false,
        })?;
        let stats = run.decode.stats.as_ref();
        let counters = stats.map_or(Ok(Counters::default()), Counters::read)?;
        // Memory counts when it is written for the first time.
        let filled = counters.n_resident as f64 / counters.n_slots.max(1) as f64;
        let experts = (counters.arena_bytes as f64 * filled) as u64;
        Ok(run.peak_rss_bytes.saturating_sub(experts) + REST_MORE)
    }

    /// A run with every expert in memory and no limit.
    fn compute(&mut self, workload: &'a Workload, repetition: u32) -> anyhow::Result<()> {
        let record = Record {
            workload: workload.name.clone(),
            limit: String::new(),
            variant: COMPUTE.to_string(),
            repetition,
            cap_bytes: None,
            budget_bytes: Some(self.plan.model.expert_bytes()),
            peak_bytes: None,
            run: Run::default(),
        };
        let variant = self.plan.hotset();
        self.record(record, workload, variant, Some("100%".to_string()))
    }

    /// A run of a row.
    fn row(
        &mut self,
        workload: &'a Workload,
        limit: &Amount,
        variant: &Variant,
        repetition: u32,
    ) -> anyhow::Result<()> {
        let (cap, budget) = self.plan.cap_and_budget(limit, self.measured.rest_bytes)?;
        let budget = variant.is_hotset().then_some(budget);
        let record = Record {
            workload: workload.name.clone(),
            limit: limit.text.clone(),
            variant: variant.name.clone(),
            repetition,
            cap_bytes: self.limiter.as_ref().map(|_| cap),
            budget_bytes: budget,
            peak_bytes: None,
            run: Run::default(),
        };
        self.record(record, workload, variant, budget.map(|n| format!("{n}B")))
    }

    /// Makes the run that `record` describes and keeps it.
    fn record(
        &mut self,
        mut record: Record,
        workload: &'a Workload,
        variant: &Variant,
        ram: Option<String>,
    ) -> anyhow::Result<()> {
        self.bar.set_message(record.title());
        let group = match (&self.limiter, record.cap_bytes) {
            (Some(limiter), Some(cap)) => Some(limiter.group(cap)?),
            _ => None,
        };
        record.run = self.run(&Job {
            title: record.title(),
            workload,
            variant,
            ram,
            group: group.as_ref(),
            n_generate: self.plan.args.n,
            is_reference: record.variant == COMPUTE,
        })?;
        record.peak_bytes = group.as_ref().and_then(|group| group.peak_bytes());
        self.bar.inc(1);
        let line = format!(
            "hotset: {}: {:.1} tokens/s, prompt {:.1}",
            record.title(),
            record.run.decode_tokens_per_s(),
            record.run.prefill_tokens_per_s()
        );
        match self.bar.is_hidden() {
            true => say(&line),
            false => self.bar.println(line),
        }
        self.measured.records.push(record);
        Ok(())
    }

    /// Makes a run, with nothing of the model in the page cache.
    fn run(&mut self, job: &Job) -> anyhow::Result<Run> {
        self.measured.dropped = drop_cached(&self.plan.model.files)?;
        touch(self.plan.model.n_bytes)?;
        self.starter.run(job)
    }

    fn measure_disk(&mut self) -> anyhow::Result<()> {
        let speed = disk::measure(&self.plan.args.model, DISK_FOR)?;
        self.measured.disk.push(speed);
        Ok(())
    }
}

/// Uses as much memory as a model takes, as far as there is so much, and gives it back: the host of a virtual
/// machine provides memory at its first use, slower than a disk reads, and which run pays for that is chance.
fn touch(n_bytes: u64) -> Result<(), Error> {
    let n_bytes = touched(n_bytes, memory::available().bytes) as usize;
    Arena::map(n_bytes.max(1))?.commit(0..n_bytes);
    Ok(())
}

/// What is used of `available` for a model of `n_bytes`: others keep what the experts of a model leave them, too.
fn touched(n_bytes: u64, available: u64) -> u64 {
    n_bytes.min(auto_size::at_start(available, 0))
}

/// What a reader must know before the numbers.
fn warnings(measured: &Measured, plan: &Comparison, skips_compute: Option<String>) -> Vec<String> {
    let mut warnings: Vec<String> = skips_compute.into_iter().collect();
    let kb = measured
        .machine
        .disk
        .as_ref()
        .and_then(|disk| disk.read_ahead_kb);
    match kb {
        Some(READ_AHEAD_KB) => {}
        Some(kb) => warnings.push(format!(
            "the disk's read_ahead_kb is {kb}, not {READ_AHEAD_KB}: stock llama.cpp reads other amounts with it \
             (--read-ahead-kb {READ_AHEAD_KB})"
        )),
        None => warnings.push("the read-ahead of the model's disk is not known".to_string()),
    }
    if measured.failure.is_some() {
        warnings.push("the benchmark ended before its last run".to_string());
    }
    if !measured.is_limited {
        warnings.push(
            "no limits were set (--no-limit): stock llama.cpp had all memory of the machine"
                .to_string(),
        );
    }
    if measured.dropped == Dropped::Nothing {
        warnings.push("the page cache could not be dropped between runs".to_string());
    }
    if measured.disk.iter().any(|speed| !speed.is_direct) {
        warnings.push(
            "reads cannot bypass the page cache here, so the disk's speed may be the cache's"
                .to_string(),
        );
    }
    let trained = measured.records.first().map(|r| r.run.n_context_trained);
    if let Some(n) = trained.filter(|n| plan.n_context > *n) {
        warnings.push(format!(
            "the context of {} tokens is longer than the {n} that the model was trained with",
            plan.n_context
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_not_used_to_the_last_byte() {
        const GIB: u64 = 1 << 30;
        assert_eq!(touched(3 * GIB, 16 * GIB), 3 * GIB);
        assert_eq!(touched(100 * GIB, 16 * GIB), 15 * GIB);
        assert_eq!(touched(100 * GIB, 0), 0);
    }

    #[test]
    fn each_repetition_runs_every_row_once_in_its_own_order() {
        for n in 1..20 {
            assert!(order(n, 0).eq(0..n));
            let mut seen = Vec::new();
            for turn in 0..n {
                let mut rows: Vec<_> = order(n, turn).collect();
                assert!(!seen.contains(&rows), "{n} {turn}");
                seen.push(rows.clone());
                rows.sort_unstable();
                assert!(rows.into_iter().eq(0..n));
            }
        }
    }
}
