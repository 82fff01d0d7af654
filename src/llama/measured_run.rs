//! One run of a benchmark, in this process: reading a prompt and generating tokens, with the time of each.

use super::hook;
use super::session::{Outputs, Session, Sizes};
use super::sys::{
    llama_logit_bias, llama_model_n_ctx_train, llama_sampler, llama_sampler_chain_add,
    llama_sampler_chain_default_params, llama_sampler_chain_init, llama_sampler_free,
    llama_sampler_init_dist, llama_sampler_init_logit_bias, llama_sampler_init_min_p,
    llama_sampler_init_temp, llama_sampler_init_top_k, llama_sampler_init_top_p,
    llama_sampler_sample, llama_vocab_is_eog, llama_vocab_n_tokens,
};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::measuring::disk::Reader;
use crate::measuring::{Phase, Run, Together};
use crate::proc::field;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

/// What a run does.
#[derive(Debug)]
pub struct Job<'a> {
    /// The model's first file.
    pub model: &'a Path,
    /// The texts of the prompts, one for each turn of a chat, at least one. What is measured is the last turn.
    pub turns: &'a [String],
    /// Tokens of each prompt, at least 1: the first ones of its text, or the next ones where an earlier turn
    /// had the same text.
    pub n_prompt: usize,
    /// Tokens to generate in each turn, at least 1.
    pub n_generate: usize,
    /// Seed of the sampler.
    pub seed: u32,
    /// The context.
    pub sizes: Sizes,
    /// Whether it shows what computing alone takes: the prompt is read once before it is measured, so that nothing is
    /// left to be loaded, and at the end the last turn is computed once more while the disk is read.
    pub is_reference: bool,
}

/// llama.cpp's defaults, but for the temperature.
const TOP_K: i32 = 40;
const TOP_P: f32 = 0.95;
const MIN_P: f32 = 0.05;
const TEMPERATURE: f32 = 0.9;

/// Computes with `config` what `job` says. Call it while no other model is loaded.
///
/// Fails if the model cannot be loaded, and if a text has fewer tokens than its prompts.
pub fn run(job: &Job, mut config: Config) -> Result<Run> {
    // Sessions repack nothing.
    config.packs = false;
    hook::install(config)?;
    let session = Session::load(job.model, job.sizes)?;
    let prompts = prompts(&session, job)?;
    if job.is_reference {
        read(&session, &prompts[0], 0, job.sizes.n_batch)?;
        session.begin();
    }
    let sampler = Sampler::new(&session, job.seed);
    let mut run = Run::default();
    let mut n_before = 0;
    let mut turns = Vec::new();
    for prompt in prompts {
        run = turn(&session, &sampler, &prompt, n_before, job)?;
        n_before += prompt.len() + job.n_generate;
        turns.push((prompt, run.tokens.clone()));
    }
    run.peak_rss_bytes = peak_rss_bytes();
    if job.is_reference {
        run.together = Some(together(&session, &sampler, &turns, job)?);
    }
    // SAFETY: the model lives.
    run.n_context_trained = unsafe { llama_model_n_ctx_train(session.model) } as u32;
    Ok(run)
}

/// The prompt of each turn.
fn prompts(session: &Session, job: &Job) -> Result<Vec<Vec<i32>>> {
    let mut prompts = Vec::new();
    for (turn, text) in job.turns.iter().enumerate() {
        let tokens = session.tokenize(text)?;
        let n_earlier = job.turns[..turn].iter().filter(|t| *t == text).count();
        let mut parts = tokens.chunks_exact(job.n_prompt).skip(n_earlier);
        let Some(prompt) = parts.next() else {
            let (n, n_turns) = (tokens.len(), n_earlier + 1);
            return Err(Error::setting(
                "--prompt-tokens",
                job.n_prompt.to_string(),
                format!(
                    "the text has {n} tokens for this model and is used for {n_turns} turns: {} at most",
                    n / n_turns
                ),
            ));
        };
        prompts.push(prompt.to_vec());
    }
    Ok(prompts)
}

/// Reads a prompt after `n_before` tokens and generates.
fn turn(
    session: &Session,
    sampler: &Sampler,
    prompt: &[i32],
    n_before: usize,
    job: &Job,
) -> Result<Run> {
    let mut run = Run {
        n_prompt: prompt.len(),
        before: counters(),
        ..Run::default()
    };
    let start = Start::now();
    read(session, prompt, n_before, job.sizes.n_batch)?;
    run.prefill = start.phase();

    let first = n_before + prompt.len();
    let start = Start::now();
    for n_before in first..first + job.n_generate {
        let begin = Instant::now();
        let token = sampler.sample(session);
        session.compute(&[token], n_before, Outputs::Last)?;
        run.token_ms.push(begin.elapsed().as_secs_f64() * 1e3);
        run.tokens.push(token);
    }
    run.decode = start.phase();
    Ok(run)
}

/// Computes the tokens of the last of `turns`, each a prompt and what was generated, once more, while the disk is read as
/// fast as it goes. What was sampled is known; it is sampled again because that takes time, too.
fn together(
    session: &Session,
    sampler: &Sampler,
    turns: &[(Vec<i32>, Vec<i32>)],
    job: &Job,
) -> Result<Together> {
    let reader = Reader::open(job.model)?;
    let n_batch = job.sizes.n_batch;
    session.begin();
    let mut n_before = 0;
    let (last, earlier) = turns.split_last().expect("there is one turn at least");
    for tokens in earlier
        .iter()
        .flat_map(|(prompt, tokens)| [prompt, tokens])
        .chain([&last.0])
    {
        read(session, tokens, n_before, n_batch)?;
        n_before += tokens.len();
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Ends the reading, also when computing fails.
        let over = Over(&is_over);
        let reading = scope.spawn(|| reader.measure(&|_| !is_over.load(Ordering::Relaxed)));
        let begin = Instant::now();
        for (at, &token) in (n_before..).zip(&last.1) {
            sampler.sample(session);
            session.compute(&[token], at, Outputs::Last)?;
        }
        let took = begin.elapsed();
        drop(over);
        Ok(Together {
            token_ms: took.as_secs_f64() * 1e3 / last.1.len() as f64,
            bytes_per_s: reading.join().expect("it does not panic")?.bytes_per_s,
        })
    })
}

/// Says that something is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads a prompt after `n_before` tokens; its last token has outputs.
fn read(session: &Session, prompt: &[i32], n_before: usize, n_batch: usize) -> Result<()> {
    for (number, batch) in prompt.chunks(n_batch).enumerate() {
        session.compute(batch, n_before + number * n_batch, Outputs::Last)?;
    }
    Ok(())
}

/// The counters of the model, if it streams. Of its path only the name is kept, because reports are passed on.
fn counters() -> Option<Value> {
    let mut stats = hook::counters().pop()?;
    let name = Path::new(&stats.model).file_name().unwrap_or_default();
    stats.model = name.to_string_lossy().into_owned();
    Some(serde_json::to_value(stats).expect("counters are plain data"))
}

/// The begin of a phase.
struct Start {
    at: Instant,
    major_faults: u64,
    read_bytes: u64,
}

impl Start {
    fn now() -> Self {
        Self {
            major_faults: major_faults(),
            read_bytes: read_bytes(),
            at: Instant::now(),
        }
    }

    /// The phase that ends now.
    fn phase(self) -> Phase {
        Phase {
            ms: self.at.elapsed().as_secs_f64() * 1e3,
            major_faults: major_faults() - self.major_faults,
            read_bytes: read_bytes() - self.read_bytes,
            stats: counters(),
        }
    }
}

/// Page faults of this process that had to wait for a disk; 0 where the system does not say.
fn major_faults() -> u64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is a name in brackets, which may hold blanks; this is the twelfth.
    let rest = text.rsplit(')').next().unwrap_or_default();
    let field = rest.split_whitespace().nth(9);
    field.map_or(0, |n| n.parse().unwrap_or(0))
}

/// Bytes that this process has had read from disks; 0 where the system does not say.
fn read_bytes() -> u64 {
    field("/proc/self/io".as_ref(), "read_bytes:").unwrap_or(0)
}

/// The most memory of this process so far; 0 where the system does not say.
fn peak_rss_bytes() -> u64 {
    1024 * field("/proc/self/status".as_ref(), "VmHWM:").unwrap_or(0)
}

/// A chain of samplers.
struct Sampler(*mut llama_sampler);

impl Sampler {
    /// Samples as llama.cpp's programs do, but never the end of the text: all runs are of one length.
    fn new(session: &Session, seed: u32) -> Self {
        let vocab = session.vocab();
        // SAFETY: the vocabulary lives as long as the session, the list of biases is copied, and the chain
        // owns what is added to it.
        unsafe {
            let n = llama_vocab_n_tokens(vocab);
            let ends = (0..n).filter(|&token| llama_vocab_is_eog(vocab, token));
            let never: Vec<_> = ends
                .map(|token| llama_logit_bias {
                    token,
                    bias: f32::NEG_INFINITY,
                })
                .collect();
            let chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
            for part in [
                llama_sampler_init_logit_bias(n, never.len() as i32, never.as_ptr()),
                llama_sampler_init_top_k(TOP_K),
                llama_sampler_init_top_p(TOP_P, 1),
                llama_sampler_init_min_p(MIN_P, 1),
                llama_sampler_init_temp(TEMPERATURE),
                llama_sampler_init_dist(seed),
            ] {
                llama_sampler_chain_add(chain, part);
            }
            Self(chain)
        }
    }

    /// The next token after what was computed last.
    fn sample(&self, session: &Session) -> i32 {
        // SAFETY: both live, and the last token that was computed has logits.
        unsafe { llama_sampler_sample(self.0, session.context, -1) }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and freed once.
        unsafe { llama_sampler_free(self.0) };
    }
}
