//! The commands that write files.

use super::{Shelf, output_of, refused, small, value_of};
use hotset::profile::Profile;
use serde_json::json;
use std::path::Path;

#[test]
fn merge_weighs_profiles_and_overwrites_nothing() {
    let shelf = Shelf::empty();
    let a = shelf.write("a.json", &small("a", [8, 0, 0, 0]));
    let b = shelf.write("b.json", &small("b", [0, 2, 0, 0]));
    let out = shelf.file("both.json.gz");
    let (b, heavy) = (format!("{b}:1"), format!("{a}:3"));
    let said = value_of(&["merge", "-o", &out, &heavy, &b]);
    assert_eq!(
        (&said["name"], &said["output"]),
        (&json!("both"), &json!(out))
    );
    let merged = Profile::read(&shelf.path("both.json.gz")).unwrap();
    assert_eq!(merged.layers[0].generation.weight, [7.5, 2.5, 0.0, 0.0]);
    assert_eq!(merged.layers[0].generation.count, [8, 2, 0, 0]);
    assert_eq!(merged.tokens.generation, 5);

    refused(&["merge", "-o", &out, &a], &["both.json.gz", "--force"]);
    assert_eq!(Profile::read(&shelf.path("both.json.gz")).unwrap(), merged);
    let line = output_of(&["merge", "-o", &out, &a, "--force", "--name", "mine"]);
    assert!(
        line.contains("mine (qwen3moe Some Model), 4 tokens"),
        "{line}"
    );
    assert_eq!(
        Profile::read(&shelf.path("both.json.gz")).unwrap().name,
        "mine"
    );

    refused(
        &["merge", "-o", &shelf.file("x.txt"), &a],
        &["x.txt", ".json or .json.gz"],
    );
    refused(
        &["merge", "-o", &shelf.file("no/x.json"), &a],
        &["no/x.json", "folder"],
    );
    refused(
        &["merge", "-o", &shelf.file("x.json"), &format!("{a}:0")],
        &["the weight 0", "at most 1000"],
    );
    refused(
        &["merge", "-o", &shelf.file("x.json"), &a, "--name", ""],
        &["--name="],
    );
    assert!(!shelf.path("x.json").exists());
}

#[test]
fn plot_draws_each_layer_and_expert_of_both_profiles() {
    let shelf = Shelf::new();
    let out = shelf.file("map.svg");
    let rects = |out: &str| {
        let svg = std::fs::read_to_string(out).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts: Vec<String> = document
            .descendants()
            .filter_map(|node| Some(node.text()?.trim().to_string()))
            .collect();
        (
            document
                .descendants()
                .filter(|node| node.has_tag_name("rect"))
                .count(),
            texts,
        )
    };
    let said = value_of(&["plot", &shelf.file("it.json"), "-o", &out]);
    assert_eq!(
        (&said["output"], &said["phase"]),
        (&json!(out), &json!("generation"))
    );
    assert!(said["highest"].as_f64().unwrap() > 2.0);
    let (n_of_one, texts) = rects(&out);
    for label in ["it, generation", "layer", "expert"] {
        assert!(texts.iter().any(|text| text == label), "{label}: {texts:?}");
    }
    // A second map adds its cells, nothing else: there is one legend and one background.
    let mut named = Profile::read(&shelf.path("de.json")).unwrap();
    named.name = "de & <it>".to_string();
    let other = shelf.write("named.json", &named);
    let line = output_of(&["plot", &shelf.file("it.json"), &other, "-o", &out]);
    assert!(line.contains("map.svg: generation, up to "), "{line}");
    let (n_of_two, texts) = rects(&out);
    assert_eq!(n_of_two - n_of_one, 6 * 64);
    assert!(
        texts.iter().any(|text| text == "de & <it>, generation"),
        "{texts:?}"
    );

    // Nothing is picked: nothing is divided by 0.
    let file = shelf.write("none.json", &small("none", [0; 4]));
    output_of(&["plot", &file, "-o", &out]);
    let it = shelf.file("it.json");
    refused(&["plot", &it, &it, &it, "-o", &out], &["FILE"]);
    refused(
        &["plot", &it, "-o", &shelf.file("no/map.svg")],
        &["no/map.svg", "folder"],
    );
}

/// But for merging, which takes a profile in that it replaces.
#[test]
fn no_output_is_an_input() {
    let shelf = Shelf::empty();
    let a = shelf.write("a.json", &small("a", [8, 0, 0, 0]));
    let b = shelf.write("b.json", &small("b", [0, 2, 0, 0]));
    let link = shelf.file("link.json");
    std::fs::hard_link(&b, &link).unwrap();
    let before = [&a, &b].map(|path| std::fs::read(path).unwrap());
    for (out, input) in [(&a, &a), (&link, &b)] {
        let words = [
            &format!("--output={out}: ")[..],
            &format!("the input {input} names the same file"),
        ];
        refused(&["plot", &a, &b, "-o", out], &words);
        let import = ["import", input, "--name", "x", "-o", out, "--force"];
        refused(&import, &words);
    }
    assert_eq!([&a, &b].map(|path| std::fs::read(path).unwrap()), before);
    output_of(&["merge", &a, &b, "-o", &a, "--force"]);
    let merged = Profile::read(Path::new(&a)).unwrap();
    assert_eq!(merged.layers[0].generation.count, [8, 2, 0, 0]);
}

/// As the umask says, which is that of whoever runs this.
#[test]
fn what_is_written_has_the_mode_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let shelf = Shelf::empty();
    let a = shelf.write("a.json", &small("a", [8, 0, 0, 0]));
    let [svg, merged, like] = ["map.svg", "m.json", "like"].map(|name| shelf.file(name));
    output_of(&["plot", &a, "-o", &svg]);
    output_of(&["merge", &a, "-o", &merged]);
    std::fs::write(&like, "").unwrap();
    let mode = |path: &String| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!([&svg, &merged].map(mode), [mode(&like); 2]);
}

/// An importance matrix of one layer: 4 tokens that pick 2 of 4 experts.
fn matrix() -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let number = |key: &str, n: u32| [text(key), [4, n].map(u32::to_le_bytes).concat()].concat();
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend([1u64, 3].map(u64::to_le_bytes).concat());
    bytes.extend(
        [
            text("general.type"),
            8u32.to_le_bytes().to_vec(),
            text("imatrix"),
        ]
        .concat(),
    );
    bytes.extend(number("imatrix.chunk_count", 1));
    bytes.extend(number("imatrix.chunk_size", 4));
    bytes.extend(text("blk.0.ffn_up_exps.weight.counts"));
    bytes.extend(2u32.to_le_bytes());
    bytes.extend([1u64, 4].map(u64::to_le_bytes).concat());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes.extend([4.0f32, 1.0, 0.0, 3.0].map(f32::to_le_bytes).concat());
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes
}

#[test]
fn import_makes_a_profile_and_checks_the_model() {
    let shelf = Shelf::empty();
    std::fs::write(shelf.path("some.imatrix"), matrix()).unwrap();
    let (file, out) = (shelf.file("some.imatrix"), shelf.file("new.json"));
    let said = value_of(&["import", &file, "--name", "texts", "-o", &out]);
    assert_eq!(
        (&said["name"], &said["model"]["top_k"]),
        (&json!("texts"), &json!(2))
    );
    assert_eq!(said["tokens"], json!({ "prompt": 4, "generation": 0 }));
    let profile = Profile::read(&shelf.path("new.json")).unwrap();
    assert_eq!(profile.layers[0].prompt.count, [4, 1, 0, 3]);
    let line = output_of(&["import", &file, "--name", "more", "-o", &out, "--force"]);
    assert!(
        line.contains("new.json: more (any model of this shape), 0 tokens"),
        "{line}"
    );

    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/polyglot-moe.gguf");
    let model = model.to_str().unwrap();
    let other = shelf.file("other.json");
    let args = ["import", &file, "-m", model, "--name", "x", "-o", &other];
    refused(&args, &["some.imatrix", "1 layers", "6"]);
    assert!(!shelf.path("other.json").exists());
}
