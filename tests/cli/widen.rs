//! `hotset widen`: the same model, heavier; and never half a file.

use super::{error_of, hotset, limited, model, run, text};
use hotset::gguf::{Head, Listing, Tensor, Value, Values, list, types};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The files in a folder, for finding what was left behind.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn widen(input: &str, factor: &str, output: &Path) -> Command {
    hotset(&[
        "widen",
        input,
        "--factor",
        factor,
        "-o",
        output.to_str().unwrap(),
    ])
}

/// A file that is no model this command takes: what the error says, and nothing is written.
#[track_caller]
fn refuses(input: &Path, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.gguf");
    let error = error_of(&mut widen(input.to_str().unwrap(), "2", &output), 2);
    assert!(error.contains(input.to_str().unwrap()), "{error}");
    assert!(error.contains(expected), "{error}");
    assert_eq!(names_in(folder.path()), [""; 0]);
}

#[test]
fn files_that_are_no_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let good = std::fs::read(model()).unwrap();
    refuses(&folder.path().join("missing.gguf"), "No such file");
    refuses(folder.path(), "not a regular file");
    refuses(&file("empty.gguf", b""), "not a valid GGUF file");
    refuses(&file("text.gguf", b"once upon a time"), "invalid magic");
    refuses(&file("head.gguf", &good[..1000]), "not a valid GGUF file");
    refuses(
        &file("cut.gguf", &good[..good.len() / 2]),
        "cut off: tensor '",
    );
}

/// Writes a file of these tensors, all zeros. Its architecture is `test`.
fn sparse(lengths: &[(&str, Value)], tensors: &[(&str, u32, [u64; 4])], path: &Path) {
    let mut values = Values::default();
    values.set("general.architecture", Value::text("test"));
    for (key, value) in lengths {
        values.set(key, value.clone());
    }
    let mut head = Head::new(values);
    for (name, ty, shape) in tensors {
        head.add(name, *ty, *shape).unwrap();
    }
    let bytes = head.to_bytes();
    std::fs::write(path, &bytes).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(bytes.len() as u64 + head.n_data_bytes())
        .unwrap();
}

const DOWN: (&str, u32, [u64; 4]) = ("blk.0.ffn_down_exps.weight", types::F32, [32, 4, 2, 1]);
const LENGTH: &str = "test.expert_feed_forward_length";

#[test]
fn models_that_would_compute_something_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let refused = |tensor: &str, ty, shape, expected: &str| {
        let length = [(LENGTH, Value::u32(32))];
        sparse(&length, &[DOWN, (tensor, ty, shape)], &path);
        refuses(&path, expected);
    };
    let shape = [256, 4, 2, 1];
    for (tensor, ty, expected) in [
        ("ffn_gate_up_exps.weight", 0, "ffn_gate_up_exps.weight"),
        ("ffn_up_exps.bias", 0, "ffn_up_exps.bias"),
        ("ffn_down_shexp.weight", 0, "shared experts"),
        ("ffn_up_exps.weight", 12, "is q4_K, only q8_0, f16 and f32"),
    ] {
        refused(&format!("blk.0.{tensor}"), ty, shape, expected);
    }
    let up = "blk.0.ffn_up_exps.weight";
    refused(
        up,
        0,
        [32, 4, 2, 3],
        "[32, 4, 2, 3] numbers: experts are matrices",
    );
    // 8 GiB that nobody should hold in memory.
    let expected = "has experts of 4294967424 bytes, above 4294967296";
    refused(up, 0, [32, (1 << 25) + 1, 2, 1], expected);

    let dense = ("blk.0.ffn_down.weight", 0, [32, 4, 1, 1]);
    sparse(&[], &[dense], &path);
    refuses(&path, "has no experts");
    sparse(&[], &[DOWN, dense], &path);
    refuses(&path, "as long as the dense 'blk.0.ffn_down.weight'");
    for (key, value, expected) in [
        (LENGTH, Value::u32(1 << 31), "is too large with factor 2"),
        (LENGTH, Value::text("8"), "is \"8\", not one number"),
        ("split.count", Value::u32(2), "one file of several"),
        ("split.count", Value::text("1"), "one file of several"),
    ] {
        sparse(&[(key, value)], &[DOWN], &path);
        refuses(&path, expected);
    }
}

/// They are copied, and that takes their sizes.
#[test]
fn tensors_of_unknown_types_and_sizes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    sparse(&[], &[DOWN, ("output.weight", 0, [32, 1, 1, 1])], &path);
    let good = std::fs::read(&path).unwrap();
    let name = b"output.weight";
    let at = good.windows(name.len()).position(|w| w == name).unwrap() + name.len();
    let patched = |offset: usize, byte: u8, expected: &str| {
        let mut bytes = good.clone();
        bytes[at + offset] = byte;
        std::fs::write(&path, bytes).unwrap();
        refuses(&path, expected);
    };
    // After the number of dimensions, one of which is listed: the row, and the type.
    patched(12, 77, "'output.weight' is of type 77");
    patched(
        4,
        33,
        "cut off: tensor 'output.weight' is of 132 bytes, there are 128",
    );
}

/// What is copied is copied in pieces.
#[test]
fn a_large_tensor_takes_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let [path, output] = ["in.gguf", "out.gguf"].map(|name| folder.path().join(name));
    let large = ("output.weight", types::F32, [1 << 20, 80, 1, 1]);
    sparse(&[], &[DOWN, large], &path);
    let command = widen(path.to_str().unwrap(), "2", &output);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v 300000; exec \"$@\"", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    let done = run(&mut shell);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let n_bytes = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert_eq!(n_bytes(&output), n_bytes(&path) + 32 * 4 * 2 * 4);
}

#[test]
fn the_input_is_never_the_output() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.gguf");
    std::fs::copy(model(), &input).unwrap();
    let link = folder.path().join("link.gguf");
    std::os::unix::fs::symlink(&input, &link).unwrap();
    let copy = folder.path().join("copy.gguf");
    std::fs::hard_link(&input, &copy).unwrap();
    for output in [&input, &link, &copy] {
        let error = error_of(&mut widen(input.to_str().unwrap(), "2", output), 2);
        let said = format!(
            "--output={}: the input {} names the same file",
            output.display(),
            input.display()
        );
        assert!(error.contains(&said), "{error}");
    }
    assert_eq!(
        names_in(folder.path()),
        ["copy.gguf", "in.gguf", "link.gguf"]
    );
    assert!(std::fs::read(&input).unwrap() == std::fs::read(model()).unwrap());
}

#[test]
fn what_cannot_be_written_is_not_written_in_part() {
    let folder = tempfile::tempdir().unwrap();
    let no_folder = folder.path().join("no/such/out.gguf");
    let error = error_of(&mut widen(&model(), "2", &no_folder), 2);
    assert!(error.contains("no/such/out.gguf"), "{error}");

    let output = folder.path().join("out.gguf");
    std::fs::write(&output, "precious").unwrap();
    let error = error_of(&mut limited(&widen(&model(), "4", &output), 20_000), 1);
    assert!(error.contains("File too large"), "{error}");
    assert_eq!(names_in(folder.path()), ["out.gguf"]);
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "precious");
}

/// It would have to be written in place, and half of it would stay if that failed.
#[test]
fn an_output_with_several_names_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [output, other] = ["out.gguf", "other.gguf"].map(|name| folder.path().join(name));
    std::fs::write(&output, "precious").unwrap();
    std::fs::hard_link(&output, &other).unwrap();
    let error = error_of(&mut widen(&model(), "2", &output), 2);
    let said = format!("--output={}: ", output.display());
    assert!(
        error.contains(&said) && error.contains("has 2 names"),
        "{error}"
    );
    assert_eq!(names_in(folder.path()), ["other.gguf", "out.gguf"]);
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "precious");
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    use std::os::unix::process::ExitStatusExt;
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.gguf");
    let mut child = widen(&model(), "64", &output).spawn().unwrap();
    while names_in(folder.path()).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(15), "{status}");
    assert_eq!(names_in(folder.path()), [""; 0]);
}

fn bytes(path: &Path, tensor: &Tensor) -> Vec<u8> {
    let mut bytes = vec![0; tensor.bare_bytes().unwrap() as usize];
    let file = std::fs::File::open(path).unwrap();
    file.read_exact_at(&mut bytes, tensor.offset).unwrap();
    bytes
}

#[test]
fn a_widened_model_has_wider_experts_and_all_else_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.gguf");
    let input = PathBuf::from(model());
    let done = run(&mut widen(&model(), "4", &output));
    assert!(done.status.success(), "{}", text(&done.stderr));
    let (before, after) = (list(&input).unwrap(), list(&output).unwrap());
    let number =
        |gguf: &Listing, key: &str| gguf.values.get(key).and_then(Value::as_u32).expect(key);
    for key in [
        "qwen3moe.expert_feed_forward_length",
        "qwen3moe.feed_forward_length",
    ] {
        assert_eq!(number(&after, key), 4 * number(&before, key));
    }
    assert_eq!(number(&after, "qwen3moe.expert_count"), 64);
    let name = after.values.text("general.name").expect("a name");
    assert!(name.ends_with("-x4"), "{name}");

    for (old, new) in before.tensors.iter().zip(&after.tensors) {
        let (a, b) = (bytes(&input, old), bytes(&output, new));
        assert_eq!(old.name, new.name);
        if !old.name.contains("_exps.weight") {
            assert!(a == b, "{} changed", old.name);
            continue;
        }
        assert_eq!(b.len(), 4 * a.len());
        let expert = a.len() / 64;
        if old.name.contains("gate") {
            for (a, b) in a.chunks(expert).zip(b.chunks(4 * expert)) {
                assert!(b == a.repeat(4), "{}", old.name);
            }
        }
    }
    assert_eq!(std::fs::metadata(&output).unwrap().len() % 32, 0);
    #[cfg(feature = "llama")]
    assert_eq!(greedy(output.to_str().unwrap()), greedy(&model()));
}

/// What llama.cpp knows of types.
#[cfg(feature = "llama")]
#[test]
fn types_are_those_of_ggml() {
    use hotset::llama::sys;
    for ty in 0..sys::GGML_TYPE_COUNT {
        // SAFETY: a type, and a name that is static.
        let (name, n_block, n_bytes) = unsafe {
            let name = std::ffi::CStr::from_ptr(sys::ggml_type_name(ty));
            let n_block = sys::ggml_blck_size(ty);
            (name.to_str().unwrap(), n_block, sys::ggml_type_size(ty))
        };
        let expected = (n_block > 0).then_some((name, n_block as u64, n_bytes as u64));
        assert_eq!(types::find(ty), expected, "{ty}");
    }
}

/// The most likely text that a model writes.
#[cfg(feature = "llama")]
fn greedy(model: &str) -> String {
    let run_completion = ["run", "--off", "--tool", "completion", "--"];
    let args = [
        "-m",
        model,
        "-p",
        "Die Datei",
        "-n",
        "12",
        "--temp",
        "0",
        "-no-cnv",
    ];
    let output = run(&mut hotset(&[&run_completion[..], &args].concat()));
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}
