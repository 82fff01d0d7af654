//! What is written is what is read, and what is damaged is refused or harmless.

use super::*;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/polyglot-moe.gguf")
}

/// A head with all that is in `listing`, if it can be written.
fn again(listing: &Listing) -> Result<Head, String> {
    let mut head = Head::new(listing.values.clone());
    for tensor in &listing.tensors {
        let n_bytes = tensor.bare_bytes()?;
        let size = head.add(&tensor.name, tensor.ty, tensor.shape)?;
        assert_eq!(size, n_bytes, "{tensor:?}");
    }
    Ok(head)
}

#[test]
fn a_head_is_written_as_it_was_read() {
    let listing = list(&model()).unwrap();
    let head = again(&listing).unwrap();
    let bytes = head.to_bytes();
    let file = fs::read(model()).unwrap();
    assert!(file.starts_with(&bytes), "{} bytes", bytes.len());
    assert_eq!(bytes.len() as u64 + head.n_data_bytes(), file.len() as u64);
    // So many that no key can be missing.
    assert!(listing.values.0.len() > 20 && bytes.len() > 100_000);
    assert_eq!(listing.values.number("qwen3moe.expert_count"), Some(64));
}

/// Values of each kind, and tensors whose lengths are no multiples of the alignment.
fn small() -> Vec<u8> {
    let mut values = Values::default();
    values.set("general.architecture", Value::text("test"));
    values.set("test.length", Value::u32(7));
    values.0.push((
        b"general.alignment".to_vec(),
        Value {
            ty: 4,
            bytes: 64u32.to_le_bytes().to_vec(),
        },
    ));
    let list = |ty: u32, n: u64, rest: &[u8]| Value {
        ty: 9,
        bytes: [&ty.to_le_bytes()[..], &n.to_le_bytes(), rest].concat(),
    };
    let texts = [&3u64.to_le_bytes()[..], b"a\xffc", &0u64.to_le_bytes()].concat();
    values.0.push((b"texts".to_vec(), list(8, 2, &texts)));
    values
        .0
        .push((b"numbers".to_vec(), list(3, 3, &[1, 0, 2, 0, 3, 0])));
    // Any byte but 0 is true, and stays.
    let truth = Value {
        ty: 7,
        bytes: vec![5],
    };
    values.0.push((b"truth".to_vec(), truth));
    let mut head = Head::new(values);
    for (name, ty, shape) in [
        ("blk.0.ffn_up_exps.weight", types::F32, [3, 1, 2, 1]),
        ("blk.0.ffn_down_exps.weight", types::Q8_0, [32, 1, 2, 1]),
        ("output.weight", types::F16, [5, 1, 1, 1]),
    ] {
        head.add(name, ty, shape).unwrap();
    }
    let mut bytes = head.to_bytes();
    bytes.resize(bytes.len() + head.n_data_bytes() as usize, 9);
    bytes
}

#[test]
fn values_of_each_kind_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.gguf");
    fs::write(&path, small()).unwrap();
    let listing = list(&path).unwrap();
    assert!(small().starts_with(&again(&listing).unwrap().to_bytes()));
    let shown = |key| listing.values.get(key).map(Value::to_string);
    let keys = ["general.architecture", "test.length", "texts", "truth", "x"];
    let expected = [
        Some("\"test\""),
        Some("7"),
        Some("a list"),
        Some("of type 7"),
        None,
    ];
    assert_eq!(keys.map(shown), expected.map(|s| s.map(str::to_string)));
    // Its offsets are those of another alignment.
    assert_eq!(shown("general.alignment"), None);
    let sizes: Vec<_> = listing.tensors.iter().map(|t| t.bare_bytes()).collect();
    assert_eq!(sizes, [Ok(24), Ok(68), Ok(10)]);
    // The last one is as long as the file is.
    assert_eq!(
        listing.tensors.iter().map(|t| t.n_bytes).sum::<u64>(),
        32 + 96 + 32
    );
}

#[test]
fn what_is_set_is_the_last_value() {
    let mut values = Values::default();
    values.set("a", Value::u32(1));
    values.set("b", Value::text("x"));
    values.set("a", Value::u32(2));
    assert_eq!(values.0.len(), 2);
    assert_eq!(values.0[1], (b"a".to_vec(), Value::u32(2)));
    assert_eq!((values.number("b"), values.text("a")), (None, None));
}

/// Cut off or changed anywhere, a file is refused, or what would be written of it can be read and is no larger.
#[test]
fn damaged_files_are_refused_or_harmless() {
    let whole = small();
    let folder = tempfile::tempdir().unwrap();
    let [path, copy] = ["damaged.gguf", "copy.gguf"].map(|name| folder.path().join(name));
    let n_head = whole.len() - 32 - 96 - 32;
    let mut n_written = 0;
    let mut check = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let Ok(listing) = list(&path) else { return };
        let Ok(head) = again(&listing) else { return };
        let mut written = head.to_bytes();
        // Padded once more, at most.
        assert!(written.len() + head.n_data_bytes() as usize <= bytes.len() + 4 * 32);
        written.resize(written.len() + head.n_data_bytes() as usize, 0);
        fs::write(&copy, &written).unwrap();
        let found = list(&copy).unwrap();
        assert_eq!(found.values, without_alignment(&listing));
        let names = |listing: &Listing| -> Vec<String> {
            listing.tensors.iter().map(|t| t.name.clone()).collect()
        };
        assert_eq!(names(&found), names(&listing));
        n_written += 1;
    };
    for n in 0..whole.len() {
        check(&whole[..n]);
    }
    for bit in 0..8 * n_head {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        check(&damaged);
    }
    // Names and values.
    assert!(n_written > 500, "{n_written}");
}

fn without_alignment(listing: &Listing) -> Values {
    let mut values = listing.values.clone();
    values.remove("general.alignment");
    values
}

#[test]
fn what_says_more_than_it_has_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.gguf");
    let head = |n_tensors: u64, n_values: u64| {
        let counts = [n_tensors, n_values].map(u64::to_le_bytes).concat();
        [&b"GGUF\x03\0\0\0"[..], &counts].concat()
    };
    let refused = |bytes: &[u8], expected: &str| {
        fs::write(&path, bytes).unwrap();
        let error = list(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&head(u64::MAX, 0), "a length of 18446744073709551615, above 1048576");
    refused(&head(0, 1 << 21), "a length of 2097152, above 1048576");
    refused(&head(1 << 20, 1 << 20), "not a valid GGUF file: ");
    // Lists of zeros, of which a file with holes has any number.
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&head(0, 4)).unwrap();
    let n = 1u64 << 24;
    for key in 0..4u8 {
        let key = [&1u64.to_le_bytes()[..], &[key]].concat();
        let list = [9u32, 10].map(u32::to_le_bytes).concat();
        file.write_all(&[key, list, n.to_le_bytes().to_vec()].concat())
            .unwrap();
        file.seek(SeekFrom::Current(8 * n as i64)).unwrap();
    }
    let end = file.stream_position().unwrap();
    file.set_len(end).unwrap();
    let error = list(&path).unwrap_err().to_string();
    assert!(error.contains("more than 268435456 bytes"), "{error}");
}

#[test]
fn keys_and_tensors_are_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("twice.gguf");
    let refused = |values: Values, names: &[&str], expected: &str| {
        let mut head = Head::new(values);
        for name in names {
            head.add(name, types::F32, [8, 1, 1, 1]).unwrap();
        }
        let mut bytes = head.to_bytes();
        bytes.resize(bytes.len() + head.n_data_bytes() as usize, 0);
        fs::write(&path, bytes).unwrap();
        let error = list(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let one = || (b"a.b".to_vec(), Value::u32(1));
    let twice = Values(vec![one(), one()]);
    refused(twice, &["x"], "the key 'a.b' is there twice");
    refused(
        Values(vec![one()]),
        &["x", "y", "x"],
        "the tensor 'x' is there twice",
    );
}

#[test]
fn sizes_of_tensors() {
    for (ty, shape, expected) in [
        (types::F32, [3, 5, 1, 1], Ok(60)),
        (types::Q8_0, [64, 3, 2, 1], Ok(2 * 34 * 6)),
        (14, [512, 2, 1, 1], Ok(2 * 210 * 2)),
        (
            types::F16,
            [4, 0, u64::MAX, u64::MAX],
            Err("numbers, which are none"),
        ),
        (types::Q8_0, [48, 1, 1, 1], Err("has rows of 48 numbers, q8_0 has blocks of 32")),
        (4, [32, 1, 1, 1], Err("is of type 4: only types whose sizes are known can be copied")),
        (999, [32, 1, 1, 1], Err("is of type 999: ")),
        (types::F32, [1 << 40, 1 << 30, 1, 1], Err("more than any file holds")),
    ] {
        match (types::size(ty, shape), expected) {
            (found, Ok(n)) => assert_eq!(found, Ok(n)),
            (found, Err(why)) => assert!(found.as_ref().is_err_and(|e| e.contains(why)), "{found:?}"),
        }
    }
    let mut head = Head::default();
    assert!(head.add("x", types::F32, [1 << 53, 1, 1, 1]).is_ok());
    assert!(head.add("y", types::F32, [1 << 53, 1, 1, 1]).is_err());
    assert!(head.add("z", types::F32, [1 << 61, 1, 1, 1]).is_err());
    assert_eq!(head.n_data_bytes(), 1 << 55);
}
