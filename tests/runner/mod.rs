//! Runs a model in this process through llama.h, with or without hotset.

#![allow(dead_code, unsafe_code)]

use hotset::config::{Config, Ram, Repack, StatsTo};
use hotset::llama::{self, sys::*};
use hotset::stats::Stats;
use std::ffi::CString;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, Once};

/// The hook is one per process and must not change while a model is loaded.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How a run goes.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Compute threads.
    pub n_threads: i32,
    /// Tokens in a batch.
    pub n_batch: usize,
    /// Tokens that are computed at once.
    pub n_ubatch: usize,
    /// Tokens given to the model.
    pub n_tokens: usize,
    /// Tokens then generated greedily.
    pub n_generated: usize,
    /// Sequences that share each batch.
    pub n_seq: usize,
    /// Whether llama.cpp repacks what it can. Repacked weights are summed in another order.
    pub repacks: bool,
}

impl Options {
    /// What most runs are.
    pub const DEFAULT: Self = Self {
        n_threads: 2,
        n_batch: 8,
        n_ubatch: 512,
        n_tokens: 48,
        n_generated: 8,
        n_seq: 1,
        repacks: false,
    };
    /// The same with llama.cpp as it is by default.
    pub const REPACKED: Self = Self {
        repacks: true,
        ..Self::DEFAULT
    };

    /// Batches of 1, 8, 32 and 512 tokens.
    pub fn shapes(self) -> [Self; 4] {
        [(1, 24), (8, 48), (32, 96), (512, 512)].map(|(n_batch, n_tokens)| Self {
            n_batch,
            n_tokens,
            ..self
        })
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a run gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The bits of the logits of every token.
    pub logits: Vec<u32>,
    /// The tokens generated.
    pub tokens: Vec<i32>,
}

/// Takes the hook for this thread, with these settings or none.
pub fn take_hook(config: Option<&Config>) -> MutexGuard<'static, ()> {
    static INIT: Once = Once::new();
    // A test that failed with the lock held has said why.
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    INIT.call_once(|| {
        // SAFETY: called once, before anything else.
        unsafe {
            llama_log_set(Some(quiet), std::ptr::null_mut());
            llama_backend_init();
        }
    });
    match config {
        Some(config) => llama::install(config.clone()).unwrap(),
        None => llama::uninstall(),
    }
    guard
}

unsafe extern "C" fn quiet(
    level: ggml_log_level,
    text: *const std::ffi::c_char,
    _: *mut std::ffi::c_void,
) {
    if level == GGML_LOG_LEVEL_ERROR {
        // SAFETY: llama.cpp passes a C string.
        let text = unsafe { std::ffi::CStr::from_ptr(text) };
        eprint!("{}", text.to_string_lossy());
    }
}

/// A loaded model with one context. Take the hook first.
pub struct Runner {
    /// The model.
    pub model: *mut llama_model,
    /// Its context.
    pub context: *mut llama_context,
    options: Options,
    n_vocab: usize,
    /// By sequence.
    n_past: Vec<i32>,
}

impl Runner {
    /// Loads a model; `None` if llama.cpp refuses it.
    pub fn load(path: &Path, options: Options) -> Option<Self> {
        Self::load_with(path, options, |_| {}, |_| {})
    }

    /// The same with other parameters changed.
    pub fn load_with(
        path: &Path,
        options: Options,
        model_params: impl FnOnce(&mut llama_model_params),
        context_params: impl FnOnce(&mut llama_context_params),
    ) -> Option<Self> {
        let name = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: default parameters with plain values changed, and a C string.
        unsafe {
            let mut params = llama_model_default_params();
            params.n_gpu_layers = 0;
            params.use_extra_bufts = options.repacks;
            model_params(&mut params);
            let model = llama_model_load_from_file(name.as_ptr(), params);
            if model.is_null() {
                return None;
            }
            let mut params = llama_context_default_params();
            params.n_ctx = 1024;
            params.n_batch = options.n_batch.max(options.n_seq) as u32;
            params.n_ubatch = options.n_ubatch as u32;
            params.n_seq_max = options.n_seq as u32;
            params.kv_unified = true;
            params.n_threads = options.n_threads;
            params.n_threads_batch = options.n_threads;
            context_params(&mut params);
            let context = llama_init_from_model(model, params);
            assert!(!context.is_null());
            let n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model)) as usize;
            Some(Self {
                model,
                context,
                options,
                n_vocab,
                n_past: vec![0; options.n_seq],
            })
        }
    }

    /// Applies a LoRA adapter. The model frees it.
    pub fn adapt(&mut self, adapter: &Path) {
        let name = CString::new(adapter.to_str().unwrap()).unwrap();
        // SAFETY: model and context live.
        unsafe {
            let mut lora = llama_adapter_lora_init(self.model, name.as_ptr());
            assert!(!lora.is_null(), "{}", adapter.display());
            let mut scale = 1.0;
            let status = llama_set_adapters_lora(self.context, &mut lora, 1, &mut scale);
            assert_eq!(status, 0);
        }
    }

    /// Computes `tokens` in one batch, of which each sequence has every `n_seq`-th; appends the bits
    /// of all logits.
    pub fn decode(&mut self, tokens: &[i32], logits: &mut Vec<u32>) {
        self.compute(tokens, |_| true);
        for i in 0..tokens.len() {
            // SAFETY: the last batch asked for the logits of each of its tokens.
            let row = unsafe {
                let row = llama_get_logits_ith(self.context, i as i32);
                std::slice::from_raw_parts(row, self.n_vocab)
            };
            logits.extend(row.iter().map(|x| x.to_bits()));
        }
    }

    /// Computes `tokens` as `decode` does, for the logits of the last one only, as programs read
    /// prompts.
    pub fn read(&mut self, tokens: &[i32]) {
        self.compute(tokens, |i| i + 1 == tokens.len());
    }

    fn compute(&mut self, tokens: &[i32], is_output: impl Fn(usize) -> bool) {
        let n_seq = self.options.n_seq;
        // SAFETY: the batch is made for this many tokens and freed.
        unsafe {
            let mut batch = llama_batch_init(tokens.len() as i32, 0, 1);
            batch.n_tokens = tokens.len() as i32;
            for (i, &token) in tokens.iter().enumerate() {
                let n_past = &mut self.n_past[i % n_seq];
                *batch.token.add(i) = token;
                *batch.pos.add(i) = *n_past;
                *batch.n_seq_id.add(i) = 1;
                **batch.seq_id.add(i) = (i % n_seq) as i32;
                *batch.logits.add(i) = is_output(i).into();
                *n_past += 1;
            }
            assert_eq!(llama_decode(self.context, batch), 0);
            llama_batch_free(batch);
        }
    }

    /// Takes back the last `n` tokens of sequence 0.
    pub fn reject(&mut self, n: i32) {
        self.n_past[0] -= n;
        // SAFETY: the context lives.
        let is_removed = unsafe {
            let memory = llama_get_memory(self.context);
            llama_memory_seq_rm(memory, 0, self.n_past[0], -1)
        };
        assert!(is_removed);
    }

    /// The whole run: the given tokens, then greedy ones.
    pub fn run(&mut self) -> Output {
        let Options {
            n_batch,
            n_tokens,
            n_generated,
            n_seq,
            ..
        } = self.options;
        let mut output = Output {
            logits: Vec::new(),
            tokens: Vec::new(),
        };
        let given = tokens(n_tokens, self.n_vocab);
        for batch in given.chunks(n_batch) {
            self.decode(batch, &mut output.logits);
        }
        for _ in 0..n_generated {
            let next: Vec<i32> = (0..n_seq)
                .map(|s| {
                    let end = output.logits.len() - (n_seq - 1 - s) * self.n_vocab;
                    argmax(&output.logits[end - self.n_vocab..end])
                })
                .collect();
            self.decode(&next, &mut output.logits);
            output.tokens.extend(next);
        }
        output
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // SAFETY: both were made by `load` and are freed once.
        unsafe {
            llama_free(self.context);
            llama_model_free(self.model);
        }
    }
}

/// Runs a model once with these settings. The counters are those of its engine, if it had one.
pub fn run(path: &Path, config: Option<&Config>, options: Options) -> (Output, Option<Stats>) {
    let _hook = take_hook(config);
    let mut runner = Runner::load(path, options).expect("the model loads");
    let output = runner.run();
    (output, llama::stats().pop())
}

/// With this share of the experts in memory.
pub fn streaming(percent: f64, repack: Repack) -> Config {
    Config {
        ram: Some(Ram::Percent(percent)),
        stats: StatsTo::Off,
        repack,
        ..Config::default()
    }
}

/// Runs with `config` and compares with `stock`.
pub fn same(path: &Path, config: &Config, options: Options, stock: &Output) -> Stats {
    let (output, stats) = run(path, Some(config), options);
    let what = format!("{} {config:?} {options:?}", path.display());
    assert_eq!(output.tokens, stock.tokens, "tokens: {what}");
    let differ = output
        .logits
        .iter()
        .zip(&stock.logits)
        .position(|(a, b)| a != b);
    assert_eq!(differ, None, "first logit that differs: {what}");
    assert_eq!(output.logits.len(), stock.logits.len(), "{what}");
    stats.expect("experts were streamed")
}

/// `n` token ids that look random and are always the same.
pub fn tokens(n: usize, n_vocab: usize) -> Vec<i32> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        // The last token ends the text.
        (x % (n_vocab as u64 - 1)) as i32
    };
    (0..n).map(|_| next()).collect()
}

fn argmax(bits: &[u32]) -> i32 {
    let value = |i: usize| f32::from_bits(bits[i]);
    (0..bits.len())
        .reduce(|best, i| if value(i) > value(best) { i } else { best })
        .expect("a vocabulary") as i32
}
