//! One model with streamed experts: its engine, made when the budget is known.

use super::foresight::LayerRouters;
use super::lives::{self, Life};
use super::neighbours;
use super::processor;
use super::repack::Repacker;
use super::room::{self, Beside, Budget};
use super::speaker;
use super::target::Target;
use super::trials;
use super::workload::Workload;
use crate::config::{Config, StatsTo};
use crate::engine::layout::{Tensor, expert_bytes};
use crate::engine::predict::Predictor;
use crate::engine::{Batch, Engine, When};
use crate::error::{Error, Result};
use crate::profile::Lesson;
use crate::recent_events;
use crate::report::{self, Progress};
use crate::stats::Stats;
use crate::store::{ModelFile, QueueDepth, QueueOptions, Way, Why};
use crate::timeline::Pen;
use crate::trace::PoolSpec;
use arc_swap::ArcSwap;
use once_cell::sync::OnceCell;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

/// Batches of generation before anything is read ahead: guesses are bad at first.
const WARM_UP: u32 = 16;
/// Experts of fewer bytes than this are read with the default depth of the queue.
const MEASURED_BYTES_MIN: u64 = 256 << 20;

const NOBODY_PANICS: &str = "no thread panics with it";

/// What the engine is made of.
pub struct Parts {
    /// The tensors, sorted by block and part.
    pub tensors: Vec<Tensor>,
    /// Their files.
    pub files: Vec<ModelFile>,
    /// What draws the timeline of its run.
    pub pen: Option<Pen>,
    /// What guesses the experts of a layer; `None` if nothing is read ahead.
    pub foresight: Option<LayerRouters>,
    /// What rewrites experts as they suit the processor.
    pub repacker: Option<Repacker>,
    /// Where the routing is recorded.
    pub target: Option<Target>,
    /// What is known and learnt of the workload.
    pub workload: Option<Workload>,
}

/// A loaded model whose experts are on disk.
pub struct Model {
    engine: OnceCell<Engine>,
    /// Why there is none.
    failure: OnceCell<Error>,
    parts: Mutex<Option<Parts>>,
    policy: ArcSwap<String>,
    /// Whether somebody will ask what other policies would have done.
    is_compared: bool,
    options: QueueOptions,
    top_k: u32,
    /// The blocks of its layers.
    pub blocks: Vec<u32>,
    /// Its first file.
    pub file: PathBuf,
    /// Bytes of all its experts.
    pub expert_bytes: u64,
    /// Which of the models of this process it is.
    pub life: Life,
    workload: Option<Workload>,
    /// The pools of the devices of its first context.
    devices: OnceCell<Vec<PoolSpec>>,
    /// What may be had of the budget, in time.
    budget: Mutex<Budget>,
    /// Whether a thread sees to it that it is not more than what is available.
    pub(super) is_watched: AtomicBool,
    /// What its disk delivers at most, in bytes per second.
    disk: OnceCell<f64>,
    /// Where models of `auto` tell each other what they have.
    pub(super) ledgers: Vec<PathBuf>,
}

impl Model {
    /// A model of which a token uses `top_k` experts of a layer, with a budget.
    ///
    /// An arena of what is available is sized at the first routing event, when everything else has been allocated,
    /// and its size follows the memory there is (`pressure.rs`): that of `HOTSET_RAM=auto`, and that of a model
    /// which was loaded before. Any other is mapped now, so that a budget that cannot hold fails early.
    pub fn new(mut parts: Parts, config: &Config, budget: Budget, top_k: u32) -> Result<Self> {
        let mut blocks: Vec<u32> = parts.tensors.iter().map(|t| t.block).collect();
        blocks.dedup();
        let model = Self {
            file: parts
                .files
                .first()
                .map_or_else(PathBuf::new, |file| file.path().to_path_buf()),
            expert_bytes: expert_bytes(&parts.tensors),
            life: lives::next(),
            engine: OnceCell::new(),
            failure: OnceCell::new(),
            blocks,
            policy: ArcSwap::from_pointee(config.policy.clone()),
            is_compared: config.stats != StatsTo::Off,
            options: QueueOptions {
                kind: config.io,
                queue_depth: QueueDepth::default(),
                faults: config.faults,
            },
            top_k,
            workload: parts.workload.take(),
            parts: Mutex::new(Some(parts)),
            devices: OnceCell::new(),
            budget: Mutex::new(budget),
            is_watched: AtomicBool::new(false),
            disk: OnceCell::new(),
            ledgers: config.ledgers.clone(),
        };
        if !model.is_elastic() {
            model.engine()?;
        }
        Ok(model)
    }

    /// Whether the budget is a part of what other processes have, too.
    pub fn is_shared(&self) -> bool {
        matches!(self.budget(), Budget::Shared { .. })
    }

    /// Whether the budget is what is available.
    pub fn is_elastic(&self) -> bool {
        matches!(self.budget(), Budget::UpTo(_))
    }

    /// What may be had, in time.
    pub fn budget(&self) -> Budget {
        *self.budget.lock().expect(NOBODY_PANICS)
    }

    /// The same, which nobody else changes meanwhile. Who changes it sees to it that the engine follows, if it is made.
    pub(super) fn hold_budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().expect(NOBODY_PANICS)
    }

    /// The name of its policy.
    pub fn policy(&self) -> String {
        self.policy.load().to_string()
    }

    /// Another policy ranks its experts from now on. Fails if there is none of this name, and changes nothing then.
    pub fn rank_with(&self, policy: &str) -> Result<()> {
        if let Some(engine) = self.engine.get() {
            engine.rank_with(policy)?;
        }
        self.policy.store(Arc::new(policy.to_string()));
        Ok(())
    }

    /// What its disk has delivered at most when that was tried, in bytes per second.
    pub fn disk_bytes_per_second(&self) -> Option<f64> {
        self.disk.get().copied()
    }

    /// What its recent events will take in memory.
    fn recent_bytes(&self) -> u64 {
        match self.is_compared {
            true => recent_events::MODEL_BYTES as u64,
            false => 0,
        }
    }

    /// The engine, if it is made.
    pub fn made_engine(&self) -> Option<&Engine> {
        self.engine.get()
    }

    /// Bytes that other models cannot have of the budget.
    pub fn arena_bytes(&self) -> u64 {
        let most = match (self.budget(), self.engine.get()) {
            (Budget::UpTo(u64::MAX), None) => 0,
            (Budget::UpTo(n) | Budget::Fixed(n), _) => n,
            (Budget::Shared { most, .. }, _) => most,
        };
        let arena = self.engine.get().map(|engine| engine.layout().arena_bytes);
        arena.map_or(most, |arena| most.min(arena as u64))
    }

    /// Experts that a token uses of a layer.
    pub fn top_k(&self) -> u32 {
        self.top_k
    }

    /// The counters with the comparison, if anything was computed.
    pub fn stats(&self) -> Option<Stats> {
        Stats::of(self.engine.get()?, &self.policy())
    }

    /// The counters alone, if anything was computed.
    pub fn counters(&self) -> Option<Stats> {
        Stats::counters(self.engine.get()?, &self.policy())
    }

    /// The counters with the comparison over the latest routing, if anything was computed.
    pub fn recent(&self) -> Option<Stats> {
        Stats::recent(self.engine.get()?, &self.policy())
    }

    /// Tokens are dropped from the memory of a context, see [`Engine::drop_tokens`].
    pub fn drop_tokens(&self, memory: usize, seq: i32, begin: i32, end: i32) {
        if let Some(engine) = self.engine.get() {
            engine.drop_tokens(memory, seq, begin, end);
        }
    }

    /// The calling thread is about to compute `batch` of some context.
    pub fn begin_batch(&self, batch: &Batch) {
        if let Some(engine) = self.engine.get() {
            engine.begin_batch(batch);
        }
    }

    /// No tokens will be dropped any more.
    pub fn settle(&self) {
        if let Some(engine) = self.engine.get() {
            engine.settle_all();
        }
    }

    /// Devices hold experts of it: what is recorded goes through their pools first.
    pub fn note_devices(&self, pools: Vec<PoolSpec>) {
        let pools = self.devices.get_or_init(|| pools);
        if let Some(recording) = self.engine.get().and_then(Engine::recording) {
            recording.note_devices(pools);
        }
    }

    /// What is known and learnt of its workload.
    pub fn workload(&self) -> Option<&Workload> {
        self.workload.as_ref()
    }

    /// Saves what was learnt so far, if a profile is saved. Does nothing if an event is being planned
    /// and does not end.
    pub fn save_profile(&self) {
        let workload = self.workload.as_ref().filter(|w| w.learns());
        if let Some(workload) = workload
            && let Some(lesson) = self.lesson()
        {
            workload.learn(&lesson);
        }
    }

    /// All that was picked, by layer of the engine. `None` as there, or if nothing was computed.
    pub fn lesson(&self) -> Option<Lesson> {
        self.engine.get().and_then(Engine::lesson)
    }

    /// Tells the engine what is known of the workload, and reads what fits of that.
    fn warm(&self, engine: &Engine, workload: &Workload) -> Result<()> {
        if let Some(recognizer) = workload.recognizer() {
            engine.recognize_with(recognizer);
        }
        let Some(known) = workload.known() else {
            return Ok(());
        };
        engine.prime(&known);
        if engine.holds_all() || workload.prewarm.is_zero() {
            return Ok(());
        }
        let bar = Progress::of_bytes(engine.layout().expert_bytes_start());
        let warmed = engine.warm(&known, workload.prewarm, |n| bar.set(n))?;
        bar.finish();
        report::say(&report::warm_line(&known.name, &warmed));
        Ok(())
    }

    /// How experts are best read, and the file that says so. The best depth of a small model is not worth the
    /// time to find it out.
    fn way(&self, tensors: &[Tensor], files: &[ModelFile]) -> (Way, PathBuf) {
        let largest = tensors.iter().max_by_key(|t| t.n_bytes);
        let largest = largest.expect("a model that streams has experts");
        let file = &files[largest.file as usize];
        let is_worth_it = expert_bytes(tensors) >= MEASURED_BYTES_MIN;
        let way = Way::find(file, self.options, largest.n_bytes, is_worth_it);
        (way, file.path().to_path_buf())
    }

    /// The engine; made at the first call. Whoever asks for one that could not be made is told why again.
    pub fn engine(&self) -> Result<&Engine> {
        self.engine.get_or_try_init(|| {
            if let Some(failure) = self.failure.get() {
                return Err(failure.again());
            }
            let parts = self.parts.lock().expect(NOBODY_PANICS).take();
            let made = self.make_engine(parts.expect("it is made once"));
            made.inspect_err(|failure| {
                let _ = self.failure.set(failure.again());
            })
        })
    }

    fn make_engine(&self, parts: Parts) -> Result<Engine> {
        let Parts {
            tensors,
            files,
            pen,
            foresight,
            repacker,
            target,
            workload: _,
        } = parts;
        // First, because its threads take addresses and keep them.
        let (way, measured) = self.way(&tensors, &files);
        if let Some(speed) = way.bytes_per_second {
            let _ = self.disk.set(speed);
        }
        let beside = Beside {
            own: self.recent_bytes(),
            others: neighbours::need(&self.ledgers),
        };
        let mut layout = room::layout(&tensors, &files, self.budget(), beside)?;
        // It is said, with `--numa`, before a model is loaded.
        layout.is_interleaved = processor::is_numa();
        let options = QueueOptions {
            // What was refused is told of by the queue itself.
            kind: match way.queue_depth.why {
                Why::Usual => self.options.kind,
                Why::RingIsSerial => way.kind,
            },
            queue_depth: way.queue_depth,
            ..self.options
        };
        let policy = self.policy();
        let mut engine = Engine::new(layout, files, &policy, options)?;
        if let Some(pen) = pen {
            engine.draw_with(pen);
        }
        if let Some(repacker) = repacker {
            engine.rewrite_with(Box::new(repacker));
        }
        speaker::follow(engine.notices());
        if !self.is_compared {
            engine.keep_nothing_recent();
        }
        report::say(&report::start_line(&engine, &policy));
        for line in report::disk_lines(&engine, &measured, &way) {
            report::say(&line);
        }
        if let Some(foresight) = foresight {
            let layers = engine.layout().layers.iter();
            let n_experts: Vec<usize> = layers.map(|layer| layer.n_experts as usize).collect();
            let predictor = Predictor::new(Box::new(foresight), &n_experts);
            let turn = trials::turn();
            engine.look_ahead_with(
                Box::new(predictor),
                When::WhileItPays {
                    warm_up: WARM_UP,
                    turn,
                },
            );
        }
        if let Some(workload) = &self.workload {
            self.warm(&engine, workload)?;
        }
        if engine.holds_all() {
            let bar = Progress::of_bytes(engine.layout().expert_bytes);
            engine.warm_all(|n| bar.set(n))?;
            bar.finish();
        }
        if let Some(target) = target {
            let recording = target.record_pools(engine.layout(), engine.holds_all());
            if let Some(pools) = self.devices.get() {
                recording.note_devices(pools);
            }
            engine.record_to(recording);
        }
        if let Some(line) = report::cycle_line(&engine, self.top_k) {
            report::say(&line);
        }
        Ok(engine)
    }
}

/// The layer and part of each of `tensors`, which are sorted by block and part, as [`Layout::new`]
/// numbers them.
pub fn places(tensors: &[Tensor]) -> Vec<(usize, usize)> {
    let layers = tensors.chunk_by(|a, b| a.block == b.block).enumerate();
    layers
        .flat_map(|(layer, parts)| (0..parts.len()).map(move |part| (layer, part)))
        .collect()
}
