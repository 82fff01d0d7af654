//! What the file of a model is called that is kept by itself.

use super::format::Fingerprint;
use crate::output::names::plain;
use sha2::{Digest, Sha256};

/// Letters of a model's name: enough to know it by, and short enough for any file system.
const CHARS_MAX: usize = 60;

/// `polyglot-moe-0123456789abcdef.json`: what a person knows the model by, and what tells it from all others. Models
/// whose profiles fit each other have one file, however their names are written.
pub fn own_name(model: &Fingerprint) -> String {
    let name = match model.plain_name().is_empty() {
        true => &model.architecture,
        false => &model.name,
    };
    let words = plain(&name.to_lowercase());
    let words: Vec<&str> = words.split('-').filter(|word| !word.is_empty()).collect();
    let words: String = words.join("-").chars().take(CHARS_MAX).collect();
    let words = if words.is_empty() { "model" } else { &words };
    let Fingerprint {
        architecture,
        n_layers,
        n_experts,
        top_k,
        ..
    } = model;
    let all = format!(
        "{architecture}\n{}\n{n_layers} {n_experts} {top_k}",
        model.plain_name()
    );
    let hash = Sha256::digest(all.as_bytes());
    let hash: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{words}-{hash}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> Fingerprint {
        Fingerprint {
            architecture: "qwen3moe".to_string(),
            name: name.to_string(),
            n_layers: 48,
            n_experts: 128,
            top_k: 8,
        }
    }

    /// It must not change: nobody would find what he has.
    #[test]
    fn a_person_knows_the_model_by_it() {
        let name = own_name(&model("Qwen3 30B-A3B"));
        assert_eq!(name, "qwen3-30b-a3b-22d220d9608d9d72.json");
        assert_eq!(name, own_name(&model("qwen3-30b a3b")));
        assert!(own_name(&model("")).starts_with("qwen3moe-"));
    }

    #[test]
    fn it_is_a_name_in_any_folder() {
        for name in [
            "../../etc/passwd",
            "\u{1}\n/",
            "..",
            &"x".repeat(999),
            "\u{540d}\u{524d}",
        ] {
            let name = own_name(&model(name));
            assert!(name.len() <= CHARS_MAX + 22, "{name}");
            let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_+.".contains(c);
            assert!(name.chars().all(is_safe) && !name.contains(".."), "{name}");
            assert!(!name.starts_with(['-', '.']), "{name}");
        }
    }

    #[test]
    fn models_that_differ_have_files_of_their_own() {
        let one = model("a");
        let others = [
            model("b"),
            Fingerprint {
                architecture: "other".to_string(),
                ..model("a")
            },
            Fingerprint {
                n_layers: 47,
                ..model("a")
            },
            Fingerprint {
                n_experts: 127,
                ..model("a")
            },
            Fingerprint {
                top_k: 7,
                ..model("a")
            },
        ];
        for other in &others {
            assert_ne!(own_name(&one), own_name(other));
        }
    }
}
