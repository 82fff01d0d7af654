//! What to tell somebody who has a machine and a model: first of all, when hotset will not help.

use super::disk::Disk;
use super::expect::Expectation;
use super::machine::Machine;
use super::model::Model;
use super::plan::Plan;
use hotset::device::Gpu;
use hotset::measuring::host::READ_AHEAD_KB;
use hotset::numbers::bytes;
use serde::Serialize;

/// Whether streaming experts is worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is faster than what llama.cpp does by itself.
    Helps,
    /// It works, and something else is better.
    Little,
    /// There is nothing to gain, or it is too slow to use.
    No,
    /// The files are not whole.
    Unknown,
}

/// A fact that somebody should act on.
#[derive(Debug, Clone, Serialize)]
pub struct Advice {
    pub code: &'static str,
    pub text: String,
}

/// Reading for a token that takes longer is not what anybody waits for, in milliseconds.
const SLOW_MS: f64 = 2000.0;
/// With so many experts of a layer at most, and such a part of them used, a few tokens use nearly all of them.
const FEW_EXPERTS: u32 = 16;
const FEW_USED: f64 = 0.2;
/// No disk that turns reads more at random places.
const TURNING_BYTES_PER_S: f64 = 3e8;
/// What a GPU needs besides the weights.
const GPU_REST_BYTES: u64 = 512 << 20;
/// A cache on a GPU pays from so many times what a token uses.
const GPU_CYCLES: u64 = 2;

/// All that is known.
pub struct Facts<'a> {
    pub machine: &'a Machine,
    pub model: &'a Model,
    pub disk: Option<&'a Disk>,
    pub plan: &'a Plan,
    pub expected: Option<&'a Expectation>,
}

/// What follows for this model, the verdict's reason first.
pub fn advise(facts: &Facts) -> (Verdict, Vec<Advice>) {
    let mut said = Vec::new();
    let verdict = facts.verdict(&mut said);
    facts.disk_notes(&mut said);
    facts.gpu_notes(&mut said);
    (verdict, said)
}

impl Facts<'_> {
    fn verdict(&self, said: &mut Vec<Advice>) -> Verdict {
        let mut say = |code, text: String| said.push(Advice { code, text });
        let Self { model, plan, .. } = self;
        if !model.damage.is_empty() {
            let list: Vec<_> = model.damage.iter().map(|damage| damage.text()).collect();
            say(
                "damaged",
                format!("the model cannot be loaded as it is: {}", list.join("; ")),
            );
        }
        if !model.is_moe() {
            let text =
                "it has no routed experts: a token uses all its weights, so hotset will not help";
            say("dense", text.to_string());
            return Verdict::No;
        }
        if !model.damage.is_empty() {
            return Verdict::Unknown;
        }
        if plan.fits {
            let text = format!(
                "all experts fit in memory ({} of {}): hotset will not help, llama.cpp alone is as fast",
                bytes(model.expert_bytes),
                bytes(plan.budget_bytes)
            );
            say("fits", text);
            return Verdict::No;
        }
        let mut verdict = Verdict::Helps;
        if let Some(expected) = self.expected.filter(|e| e.read_ms_per_token > SLOW_MS) {
            let text = format!(
                "the disk is too slow: a token would wait for about {:.1} s, so hotset will not help enough; \
                 a smaller quantisation, or a faster disk, does",
                expected.read_ms_per_token / 1e3
            );
            say("slow_disk", text);
            verdict = Verdict::No;
        }
        if model.n_experts <= FEW_EXPERTS && model.used_share() >= FEW_USED {
            let text = format!(
                "it has few large experts: a token uses {} of {} in each layer, a few tokens nearly all of them, \
                 so there is little that hotset can keep; a quantisation that fits in memory helps more",
                model.top_k, model.n_experts
            );
            say("few_large_experts", text);
            verdict = least(verdict, Verdict::Little);
        }
        if plan.budget_bytes < model.token_expert_bytes {
            let text = format!(
                "memory for experts is less than one token uses ({} of {}): nearly all is read for each token",
                bytes(plan.budget_bytes),
                bytes(model.token_expert_bytes)
            );
            say("below_cycle", text);
            verdict = least(verdict, Verdict::Little);
        }
        verdict
    }

    fn disk_notes(&self, said: &mut Vec<Advice>) {
        let mut say = |code, text: String| said.push(Advice { code, text });
        let Some(disk) = self.disk.filter(|_| self.model.is_moe() && !self.plan.fits) else {
            return;
        };
        if disk.is_remote {
            let text = format!(
                "the model is on {}, a network or user-space file system: each miss waits for it, and hotset will \
                 not help as it would with a copy on a disk of this machine",
                disk.file_system
            );
            say("network", text);
        }
        // Virtual disks say so, too.
        let is_fast = disk
            .speed
            .as_ref()
            .is_some_and(|speed| speed.bytes_per_s > TURNING_BYTES_PER_S);
        if disk.is_rotational == Some(true) && !disk.is_remote && !is_fast {
            let text = "the disk turns: reads at random places are slow there, a copy on a solid-state disk is what helps";
            say("rotational", text.to_string());
        }
        if !disk.is_direct {
            let why = disk
                .not_direct_because
                .as_deref()
                .unwrap_or("the file system refuses it");
            let text = format!(
                "reads go through the page cache ({why}): what was measured may be the speed of the cache"
            );
            say("not_direct", text);
        }
        if let Some(kb) = disk.read_ahead_kb.filter(|kb| *kb != READ_AHEAD_KB) {
            let text = format!(
                "the disk's read-ahead is {kb} KiB, not {READ_AHEAD_KB}: stock llama.cpp reads other amounts with it, so \
                 what to expect of it is less certain"
            );
            say("read_ahead", text);
        }
        if let Some(why) = disk
            .no_uring_because
            .as_ref()
            .filter(|_| disk.reads_with == "pread")
        {
            say(
                "no_io_uring",
                format!("reads are done by threads, not io_uring: {why}"),
            );
        }
    }

    fn gpu_notes(&self, said: &mut Vec<Advice>) {
        let own = self
            .machine
            .gpus
            .iter()
            .flatten()
            .filter(|gpu| !gpu.is_integrated);
        if let Some(gpu) = own
            .max_by_key(|gpu| gpu.free_bytes)
            .filter(|gpu| gpu.free_bytes > 0)
        {
            said.extend(self.gpu_note(gpu));
        }
    }

    /// What is best on the largest GPU.
    fn gpu_note(&self, gpu: &Gpu) -> Option<Advice> {
        let Self { model, plan, .. } = self;
        let beside = plan.kv_bytes + GPU_REST_BYTES;
        let advice = |code, text: String| Some(Advice { code, text });
        if model.n_bytes.saturating_add(beside) <= gpu.free_bytes {
            let text = format!(
                "the whole model fits on {}: run it with -ngl 99, hotset will not help",
                gpu.name
            );
            return advice("fits_gpu", text);
        }
        let left = gpu.free_bytes.saturating_sub(model.dense_bytes + beside);
        if !model.is_moe() || !model.damage.is_empty() {
            return None;
        }
        if !plan.fits {
            let text = format!(
                "what to expect is of the processor alone; with {} (-ngl 99) its dense part computes there",
                gpu.name
            );
            return advice("gpu_not_counted", text);
        }
        let of_layer = (model.expert_bytes / u64::from(model.n_expert_layers.max(1))).max(1);
        let n_there = (left / of_layer).min(model.n_expert_layers.into());
        let n_cpu = u64::from(model.n_layers.max(model.n_expert_layers)) - n_there;
        let way = format!("-ngl 99 -ncmoe {n_cpu}");
        let small = left < GPU_CYCLES.saturating_mul(model.token_expert_bytes);
        match small {
            true => advice(
                "static_gpu",
                format!(
                    "{} has {} for experts, little for a cache of what {} a token uses: fixed layers ({way}) are faster",
                    gpu.name,
                    bytes(left),
                    bytes(model.token_expert_bytes)
                ),
            ),
            false => advice(
                "gpu_cache",
                format!(
                    "{} has {} for experts: compare a cache there (-ngl 99 --moe-cache-mib {}) with fixed layers ({way})",
                    gpu.name,
                    bytes(left),
                    left >> 20
                ),
            ),
        }
    }
}

/// The worse of two.
fn least(a: Verdict, b: Verdict) -> Verdict {
    match (a, b) {
        (Verdict::Helps, other) => other,
        (other, _) => other,
    }
}
