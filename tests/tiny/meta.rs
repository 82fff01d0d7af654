//! The metadata of each architecture, and a tokenizer of bytes.

use super::Spec;
use super::arch::{Arch, HEAD, HEAD_WINDOW, N_FF, RANK, ROPE};
use super::gguf::Value::{self, Array, Bool, F32, I32, Str, U32};

/// Tokens: the 256 bytes, each with its value as id, then one for each of [`MERGES`] and the end of
/// the text.
pub const N_VOCAB: usize = 256 + MERGES.len() + 1;

/// Pairs the tokenizer joins, in its spelling of bytes: U+0120 is the space.
const MERGES: [&str; 7] = [
    "\u{120} t",
    "h e",
    "i n",
    "e r",
    "\u{120}t he",
    "o n",
    "\u{120} a",
];

/// Tokens in a sliding window: fewer than any prompt of the tests, so that it does slide.
const WINDOW: usize = 16;

/// Whether attention in `layer` sees only the last [`WINDOW`] tokens.
pub fn has_window(spec: &Spec, layer: usize) -> bool {
    match spec.arch {
        Arch::GptOss => layer.is_multiple_of(2),
        Arch::Gemma4 => layer + 1 < spec.n_layer,
        _ => false,
    }
}

/// Collects the metadata of one model.
struct Meta {
    arch: Arch,
    pairs: Vec<(String, Value)>,
}

/// All metadata of `spec`, in file order.
pub fn of(spec: &Spec) -> Vec<(String, Value)> {
    let mut meta = Meta {
        arch: spec.arch,
        pairs: Vec::new(),
    };
    meta.set("general.architecture", Str(spec.arch.name().into()));
    meta.set("general.quantization_version", U32(2));
    meta.size("context_length", 2048);
    meta.size("embedding_length", spec.n_embd);
    meta.size("block_count", spec.n_layer);
    meta.key("attention.layer_norm_rms_epsilon", F32(1e-6));
    meta.size("attention.head_count", spec.n_head());
    meta.size("attention.head_count_kv", spec.n_head_kv());
    if spec.n_expert > 0 {
        meta.size("expert_count", spec.n_expert);
        meta.size("expert_used_count", spec.top_k);
        meta.size("expert_feed_forward_length", spec.n_ff);
    }
    // These two have no other feed-forward network; their expert size is this key.
    let n_ff = match spec.arch {
        Arch::Llama | Arch::Olmoe if spec.n_expert > 0 => spec.n_ff,
        _ => N_FF,
    };
    meta.size("feed_forward_length", n_ff);
    meta.arch(spec);
    meta.tokenizer();
    meta.pairs
}

impl Meta {
    fn set(&mut self, key: &str, value: Value) {
        self.pairs.push((key.into(), value));
    }

    /// A key that starts with the name of the architecture.
    fn key(&mut self, key: &str, value: Value) {
        self.set(&format!("{}.{key}", self.arch.name()), value);
    }

    fn size(&mut self, key: &str, n: usize) {
        self.key(key, U32(n as u32));
    }

    /// What only some architectures have.
    fn arch(&mut self, spec: &Spec) {
        match spec.arch {
            Arch::Qwen2Moe => self.size("expert_shared_feed_forward_length", N_FF),
            Arch::GptOss => self.window(spec),
            Arch::Gemma4 => {
                self.window(spec);
                self.size("embedding_length_per_layer_input", 0);
                self.size("attention.key_length", HEAD);
                self.size("attention.value_length", HEAD);
                self.size("attention.key_length_swa", HEAD_WINDOW);
                self.size("attention.value_length_swa", HEAD_WINDOW);
                self.size("rope.dimension_count_swa", HEAD_WINDOW);
                self.key("final_logit_softcapping", F32(30.0));
            }
            Arch::Deepseek2 => {
                self.size("leading_dense_block_count", self.arch.n_layer_dense());
                self.size("attention.q_lora_rank", RANK);
                self.size("attention.kv_lora_rank", RANK);
                self.size("attention.key_length", RANK + ROPE);
                self.size("attention.value_length", RANK);
                self.size("attention.key_length_mla", HEAD);
                self.size("attention.value_length_mla", HEAD);
                self.size("rope.dimension_count", ROPE);
                self.size("expert_shared_count", 1);
                self.size("expert_gating_func", 2); // sigmoid
                self.key("expert_weights_norm", Bool(true));
                self.key("expert_weights_scale", F32(2.5));
            }
            Arch::Qwen3Moe | Arch::Olmoe | Arch::Llama => {}
        }
    }

    fn window(&mut self, spec: &Spec) {
        self.size("attention.sliding_window", WINDOW);
        let layers = (0..spec.n_layer).map(|l| Bool(has_window(spec, l)));
        let pattern = Array(layers.collect());
        self.key("attention.sliding_window_pattern", pattern);
    }

    /// Byte-level BPE in GPT-2's spelling.
    fn tokenizer(&mut self) {
        let mut tokens: Vec<String> = (0..=255).map(|b| spelling(b).into()).collect();
        tokens.extend(MERGES.map(|pair| pair.replace(' ', "")));
        tokens.push("<|endoftext|>".into());
        assert_eq!(tokens.len(), N_VOCAB);
        let mut kinds = vec![I32(1); N_VOCAB]; // normal
        kinds[N_VOCAB - 1] = I32(3); // control
        let strings = |s: Vec<String>| Array(s.into_iter().map(Str).collect());
        self.set("tokenizer.ggml.model", Str("gpt2".into()));
        self.set("tokenizer.ggml.pre", Str("gpt-2".into()));
        self.set("tokenizer.ggml.tokens", strings(tokens));
        self.set("tokenizer.ggml.token_type", Array(kinds));
        let merges = MERGES.map(String::from).to_vec();
        self.set("tokenizer.ggml.merges", strings(merges));
        let end = U32(N_VOCAB as u32 - 1);
        self.set("tokenizer.ggml.bos_token_id", end.clone());
        self.set("tokenizer.ggml.eos_token_id", end);
        self.set("tokenizer.ggml.add_bos_token", Bool(false));
    }
}

/// How GPT-2 spells a byte: as its Latin-1 character where that is visible, else the next free
/// character from U+0100 on.
fn spelling(byte: u8) -> char {
    let visible = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if visible(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !visible(b)).count();
    char::from_u32(0x100 + before as u32).unwrap()
}
