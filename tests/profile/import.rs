//! Profiles from importance matrices, and what models say of themselves.

use hotset::gguf;
use hotset::profile::{Fingerprint, Profile, import};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

const F32: u32 = 0;

/// An importance matrix, before it is written.
#[derive(Clone)]
struct Matrix {
    texts: Vec<(&'static str, &'static str)>,
    /// Unsigned 32-bit numbers.
    numbers: Vec<(&'static str, u32)>,
    /// Names, types, counts.
    tensors: Vec<(String, u32, Vec<f32>)>,
}

fn tensor(block: u32, part: &str, counts: &[f32]) -> (String, u32, Vec<f32>) {
    let name = format!("blk.{block}.ffn_{part}_exps.weight.counts");
    (name, F32, counts.to_vec())
}

/// 200 tokens that pick 2 of 4 experts; the middle one of the layers computed a quarter of them.
fn matrix() -> Matrix {
    let mut tensors = vec![
        tensor(10, "gate_up", &[400.0, 0.0, 0.0, 0.0]),
        tensor(2, "up", &[100.0, 150.0, 50.0, 100.0]),
        tensor(2, "down", &[100.0, 149.0, 50.0, 100.0]),
        tensor(3, "gate", &[25.0, 25.0, 50.0, 0.0]),
    ];
    for (name, counts) in [
        ("blk.2.ffn_up_exps.weight.in_sum2", vec![0.5; 12]),
        ("blk.0.ffn_up.weight.counts", vec![200.0]),
        ("output.weight.counts", vec![200.0]),
    ] {
        tensors.push((name.to_string(), F32, counts));
    }
    let numbers = vec![("imatrix.chunk_count", 4), ("imatrix.chunk_size", 50)];
    Matrix {
        texts: vec![("general.type", "imatrix")],
        numbers,
        tensors,
    }
}

fn model() -> Fingerprint {
    Fingerprint {
        architecture: "qwen3moe".to_string(),
        name: "Small".to_string(),
        n_layers: 3,
        n_experts: 4,
        top_k: 2,
    }
}

fn bytes_of(matrix: &Matrix) -> Vec<u8> {
    fn text(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((matrix.tensors.len() as u64).to_le_bytes());
    let n_values = 1 + matrix.texts.len() + matrix.numbers.len();
    bytes.extend((n_values as u64).to_le_bytes());
    for (key, value) in &matrix.texts {
        text(&mut bytes, key);
        bytes.extend(8u32.to_le_bytes());
        text(&mut bytes, value);
    }
    text(&mut bytes, "imatrix.datasets");
    bytes.extend([9u32, 8].map(u32::to_le_bytes).concat());
    bytes.extend(1u64.to_le_bytes());
    text(&mut bytes, "texts.txt");
    for (key, number) in &matrix.numbers {
        text(&mut bytes, key);
        bytes.extend([4, *number].map(u32::to_le_bytes).concat());
    }
    let mut data = Vec::new();
    for (name, ty, counts) in &matrix.tensors {
        text(&mut bytes, name);
        bytes.extend(2u32.to_le_bytes());
        bytes.extend([1, counts.len() as u64].map(u64::to_le_bytes).concat());
        bytes.extend(ty.to_le_bytes());
        bytes.extend((data.len() as u64).to_le_bytes());
        data.extend(counts.iter().flat_map(|n| n.to_le_bytes()));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes.extend(data);
    bytes
}

fn written(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.imatrix");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn imported(matrix: &Matrix, model: Option<&Fingerprint>) -> Profile {
    let (_folder, path) = written(&bytes_of(matrix));
    import(&path, "texts", model).unwrap()
}

#[track_caller]
fn refused(bytes: &[u8], model: Option<&Fingerprint>, why: &str) {
    let (_folder, path) = written(bytes);
    let error = import(&path, "texts", model).unwrap_err().to_string();
    assert!(error.starts_with(path.to_str().unwrap()), "{error}");
    assert!(error.contains(why), "{error}");
}

#[test]
fn counts_become_what_prompts_pick() {
    let profile = imported(&matrix(), None);
    let unnamed = Fingerprint {
        architecture: String::new(),
        name: String::new(),
        ..model()
    };
    assert_eq!(profile.model, unnamed);
    assert_eq!(profile.name, "texts");
    assert_eq!((profile.tokens.prompt, profile.tokens.generation), (200, 0));
    let counts: Vec<&[u64]> = profile.layers.iter().map(|l| &*l.prompt.count).collect();
    // Blocks in the order of their numbers; of two parts, the one that was used more.
    assert_eq!(
        counts,
        [&[100, 150, 50, 100], &[25, 25, 50, 0], &[400, 0, 0, 0]]
    );
    assert_eq!(profile.layers[0].prompt.weight, [100.0, 150.0, 50.0, 100.0]);
    assert!(profile.layers.iter().all(|l| l.generation.total() == 0.0));
    let (folder, _) = written(b"");
    let path = folder.path().join("texts.json");
    profile.write(&path).unwrap();
    assert_eq!(Profile::read(&path).unwrap(), profile);
}

#[test]
fn a_model_is_taken_at_its_word() {
    let mut three = model();
    three.top_k = 3;
    assert_eq!(imported(&matrix(), Some(&three)).model, three);
    assert_eq!(model().difference(&imported(&matrix(), None).model), None);
    let mut unsaid = matrix();
    unsaid.numbers.clear();
    let profile = imported(&unsaid, Some(&model()));
    assert_eq!(profile.tokens.prompt, 200);
    refused(&bytes_of(&unsaid), None, "name its model with -m");
}

#[test]
fn other_models_are_refused() {
    let bytes = bytes_of(&matrix());
    let mut other = model();
    other.n_layers = 2;
    refused(
        &bytes,
        Some(&other),
        "3 layers with experts, the model has 2",
    );
    other = model();
    other.n_experts = 8;
    refused(
        &bytes,
        Some(&other),
        "4 experts in a layer, the model has 8",
    );
}

#[test]
fn files_that_say_too_little() {
    // 2.5, none, and more experts than there are.
    for chunk_size in [40, 0, 10] {
        let mut unclear = matrix();
        unclear.numbers[1].1 = chunk_size;
        let why = format!("imatrix.chunk_count 4 times imatrix.chunk_size {chunk_size}");
        refused(&bytes_of(&unclear), None, &why);
    }
    let mut rounded = matrix();
    rounded.numbers = vec![("imatrix.chunk_count", 1), ("imatrix.chunk_size", 201)];
    assert_eq!(imported(&rounded, None).model.top_k, 2);
}

#[test]
fn files_of_another_kind() {
    refused(b"\x03\0\0\0\x05\0\0\0blk.0", None, "llama-imatrix -m MODEL");
    refused(b"", None, "not a GGUF file");
    let mut model = matrix();
    model.texts[0].1 = "model";
    refused(&bytes_of(&model), None, "general.type is \"model\"");
    let mut dense = matrix();
    dense.tensors.drain(..4);
    refused(&bytes_of(&dense), None, "no routed experts");
    let error = import("no/such.gguf".as_ref(), "x", None).unwrap_err();
    assert!(
        error.to_string().contains("no/such.gguf: No such file"),
        "{error}"
    );
}

#[test]
fn damaged_counts() {
    let with = |tensor| {
        let mut damaged = matrix();
        damaged.tensors.push(tensor);
        bytes_of(&damaged)
    };
    for count in [-1.0, f32::NAN, f32::INFINITY, 1e30] {
        refused(&with(tensor(5, "up", &[1.0, count])), None, "a count of");
    }
    let uneven = with(tensor(2, "gate", &[1.0; 5]));
    refused(
        &uneven,
        None,
        "'blk.2.ffn_gate_exps.weight.counts' is of 5 experts, others of 4",
    );
    refused(
        &with(tensor(5, "up", &[800.0])),
        None,
        "converted from the old format",
    );
    let (name, _, counts) = tensor(5, "up", &[1.0; 4]);
    refused(&with((name, 1, counts)), None, "it is of type 1");
    let many = vec![1.0; (1 << 20) - 11];
    refused(
        &with(tensor(5, "up", &many)),
        None,
        "1048577 experts are more than 1048576",
    );
}

#[test]
fn a_model_says_what_it_is() {
    let weights = |block: u32, n_experts: usize| {
        let name = format!("blk.{block}.ffn_up_exps.weight");
        (name, F32, vec![0.0; n_experts])
    };
    let mut file = Matrix {
        texts: vec![
            ("general.architecture", "qwen3moe"),
            ("general.name", "Small"),
        ],
        numbers: vec![
            ("other.expert_used_count", 9),
            ("qwen3moe.expert_used_count", 2),
        ],
        tensors: vec![weights(0, 2), weights(1, 4), weights(5, 3)],
    };
    let read = |file: &Matrix| {
        let (_folder, path) = written(&bytes_of(file));
        Fingerprint::of(&gguf::read(&path).unwrap())
    };
    assert_eq!(read(&file), model());
    file.texts.clear();
    file.numbers.clear();
    let unsaid = Fingerprint {
        architecture: String::new(),
        name: String::new(),
        top_k: 0,
        ..model()
    };
    assert_eq!(read(&file), unsaid);
}

#[test]
fn a_model_of_too_many_files() {
    let mut file = matrix();
    file.numbers.push(("split.count", 4_000_000_000));
    let (_folder, path) = written(&bytes_of(&file));
    let error = gguf::read(&path).unwrap_err().to_string();
    assert!(
        error.contains("split.count 4000000000 is above 65535"),
        "{error}"
    );
}

/// Cut off or changed anywhere, a file is refused or has the shape that it says.
#[test]
fn damaged_files() {
    let whole = bytes_of(&matrix());
    let (_folder, path) = written(&whole);
    for n in 0..whole.len() {
        fs::write(&path, &whole[..n]).unwrap();
        // The last tensors are no experts'.
        assert!(
            import(&path, "x", None).is_err() || n + 96 > whole.len(),
            "{n}"
        );
    }
    for bit in 0..8 * whole.len() {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &damaged).unwrap();
        if let Ok(profile) = import(&path, "x", None) {
            assert_eq!(profile.layers.len(), profile.model.n_layers as usize);
            profile.write(&path).unwrap();
            Profile::read(&path).unwrap();
        }
    }
}
