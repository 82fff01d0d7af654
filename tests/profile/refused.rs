//! Files that are no profile: each is refused in one line that names the field, its value and what is allowed.

use super::random;
use flate2::Compression;
use flate2::write::GzEncoder;
use hotset::error::Error;
use hotset::profile::Profile;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;

/// What is wrong with `bytes` in a file of this name, after the path.
fn error_of(name: &str, bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let error = Profile::read(&path).unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    let error = error.to_string();
    let why = error.strip_prefix(&format!("{}: ", path.display()));
    let why = why.unwrap_or_else(|| panic!("{error} names the file"));
    assert!(!why.contains('\n'), "{why}");
    why.to_string()
}

/// A profile of 2 layers of 3 experts, where the value at `field`, a JSON pointer, is another one.
fn with(field: &str, value: Value) -> Vec<u8> {
    let mut profile = serde_json::to_value(random(&[3, 3], 1)).unwrap();
    *profile.pointer_mut(field).unwrap() = value;
    serde_json::to_vec(&profile).unwrap()
}

#[track_caller]
fn refused(field: &str, value: Value, why: &str) {
    let error = error_of("some.json", &with(field, value));
    assert!(error.starts_with(why), "{error}");
}

#[test]
fn values_that_are_not_allowed() {
    refused("/version", json!(2), "version: 2 is not 1");
    refused("/version", json!(0), "version: 0 is not 1");
    refused("/name", json!(""), "name: 0 bytes are not in 1..=200");
    refused("/name", json!("x".repeat(201)), "name: 201 bytes");
    refused(
        "/name",
        json!("a\u{1b}[0m"),
        "name: \"a\\u{1b}[0m\" has a control",
    );
    for date in [
        "",
        "2026-11-22",
        "2026-13-22T20:15:00Z",
        "2026-11-22T20:15:00.5Z",
        "2026-11-22 20:15:00Z",
    ] {
        refused(
            "/created",
            json!(date),
            &format!("created: {date:?} is not like"),
        );
        refused(
            "/updated",
            json!(date),
            &format!("updated: {date:?} is not like"),
        );
    }
    let large = 1u64 << 60;
    refused(
        "/tokens/prompt",
        json!(large),
        "tokens.prompt: 1152921504606846976 is above",
    );
    refused(
        "/tokens/generation",
        json!(large),
        "tokens.generation: 1152921504606846976",
    );
    refused(
        "/model/n_layers",
        json!(3),
        "model.n_layers: 3 is not the number of layers, 2",
    );
    refused(
        "/layers",
        json!([]),
        "model.n_layers: 2 is not the number of layers, 0",
    );
    refused("/model/top_k", json!(0), "model.top_k: 0 is not in 1..=3");
    refused("/model/top_k", json!(4), "model.top_k: 4 is not in 1..=3");
    refused(
        "/model/n_experts",
        json!(2),
        "layers[0].prompt.weight: 3 experts are not in 1..=2",
    );
}

#[test]
fn numbers_of_experts_that_are_not_allowed() {
    refused(
        "/layers/1/prompt/weight",
        json!([]),
        "layers[1].prompt.weight: 0 experts",
    );
    for (field, name) in [
        ("/layers/1/prompt/count", "layers[1].prompt.count"),
        ("/layers/0/generation/weight", "layers[0].generation.weight"),
        ("/layers/1/generation/count", "layers[1].generation.count"),
    ] {
        refused(field, json!([1, 2]), &format!("{name}: 2 numbers"));
        refused(field, json!([1, 2, 3, 4]), &format!("{name}: 4 numbers"));
    }
    for (value, text) in [(-1.5, "-1.5"), (1e16, "10000000000000000"), (1e308, "1000")] {
        let field = "/layers/1/generation/weight/2";
        refused(
            field,
            json!(value),
            &format!("layers[1].generation.weight[2]: {text}"),
        );
    }
    let field = "/layers/0/prompt/count/1";
    refused(
        field,
        json!(1u64 << 54),
        "layers[0].prompt.count[1]: 18014398509481984 is above",
    );
}

/// More than [`hotset::trace::Header::N_TOTAL_MAX`] of all layers together.
#[test]
fn too_many_experts() {
    let mut profile = serde_json::to_value(random(&[3], 1)).unwrap();
    let heat = json!({ "weight": vec![0; 1 << 16], "count": vec![0; 1 << 16] });
    let layer = json!({ "prompt": heat, "generation": heat });
    profile["layers"] = json!(vec![layer; 17]);
    profile["model"]["n_layers"] = json!(17);
    profile["model"]["n_experts"] = json!(1 << 16);
    let error = error_of("some.json", &serde_json::to_vec(&profile).unwrap());
    assert_eq!(error, "layers: 1114112 experts are more than 1048576");
}

#[test]
fn fields_of_another_type() {
    for (field, value, why) in [
        (
            "/layers/1/prompt/weight/2",
            json!("x"),
            "layers[1].prompt.weight[2]: invalid type: string \"x\"",
        ),
        (
            "/layers/1/prompt/weight/0",
            json!(null),
            "layers[1].prompt.weight[0]: invalid type: null",
        ),
        (
            "/layers/0/generation/count/1",
            json!(-1),
            "layers[0].generation.count[1]: invalid value",
        ),
        (
            "/layers/0/generation/count/1",
            json!(1.5),
            "layers[0].generation.count[1]: invalid type",
        ),
        (
            "/model/top_k",
            json!(4_294_967_296u64),
            "model.top_k: invalid value",
        ),
        ("/version", json!("1"), "version: invalid type"),
        ("/tokens", json!(5), "tokens: invalid type"),
    ] {
        refused(field, value, why);
    }
}

#[test]
fn fields_that_are_missing_or_unknown() {
    let profile = serde_json::to_value(random(&[3, 3], 1)).unwrap();
    let objects = ["", "/model", "/tokens", "/layers/1", "/layers/1/prompt"];
    for object in objects {
        let fields: Vec<String> = profile
            .pointer(object)
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        for field in fields {
            let mut cut = profile.clone();
            cut.pointer_mut(object)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove(&field);
            let error = error_of("some.json", &serde_json::to_vec(&cut).unwrap());
            assert!(
                error.contains(&format!("missing field `{field}`")),
                "{error}"
            );
        }
        let mut more = profile.clone();
        more.pointer_mut(object).unwrap()["more"] = json!(1);
        let error = error_of("some.json", &serde_json::to_vec(&more).unwrap());
        assert!(error.contains("unknown field `more`"), "{error}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn data_that_is_cut_off_or_goes_on() {
    let whole = serde_json::to_vec(&random(&[3, 1], 1)).unwrap();
    for n in 0..whole.len() {
        let error = error_of("some.json", &whole[..n]);
        let expected = ["EOF while parsing", "not a JSON object"];
        assert!(expected.iter().any(|text| error.contains(text)), "{error}");
    }
    for more in ["x", "{}", ",", "\0"] {
        let error = error_of("some.json", &[&whole, more.as_bytes()].concat());
        assert!(
            error.contains("after the profile: trailing characters"),
            "{error}"
        );
    }
    let whole = gzip(&whole);
    for n in 0..whole.len() {
        let error = error_of("some.json.gz", &whole[..n]);
        assert!(error.contains("ends early"), "{n}: {error}");
    }
    let error = error_of("some.json.gz", &[&whole, &b"junk"[..]].concat());
    assert!(error.contains("gzip"), "{error}");
    // The name says what it is.
    assert!(error_of("some.json", &whole).contains("not a JSON object"));
    assert!(error_of("some.json.gz", b"{}").contains("gzip"));
    assert!(error_of("some.json", b"[1]").contains("not a JSON object"));
}

/// A file of a few hundred kilobytes that would fill the memory.
#[test]
fn data_that_grows_without_end() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![b' '; 1 << 20];
    for _ in 0..256 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert_eq!(
        error_of("some.json.gz", &bomb),
        "it holds more than 67108864 bytes"
    );
    let mut text = vec![b' '; 64 << 20];
    assert_eq!(error_of("some.json", &text), "it is not a JSON object");
    text.push(b' ');
    assert_eq!(
        error_of("some.json", &text),
        "it holds more than 67108864 bytes"
    );
}

#[test]
fn files_that_are_not_there() {
    let error = Profile::read(Path::new("no/such.json")).unwrap_err();
    assert!(
        error.to_string().starts_with("no/such.json: No such file"),
        "{error}"
    );
    let error = Profile::read(Path::new(".")).unwrap_err();
    assert_eq!(error.to_string(), ".: not a regular file");
}
