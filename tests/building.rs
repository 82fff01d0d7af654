//! What the build script reads of the environment; its files have no tests of their own, since cargo runs none there.

#[path = "../build/arguments.rs"]
mod arguments;
#[allow(dead_code)]
#[path = "../build/toolkits.rs"]
mod toolkits;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

const OURS: &[&str] = &["GGML_CUDA", "LLAMA_BUILD_TESTS"];

fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    arguments::parse(text, OURS).map_err(|error| format!("{error:#}"))
}

#[test]
fn options_are_split_as_a_shell_splits_them() {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let text = " -DGGML_CUDA_FA=OFF  -DCMAKE_CUDA_ARCHITECTURES='80-real;86-real' -DA:BOOL=ON \"-DFLAGS=-a -b=c\" -DEMPTY= ";
    let wanted = [
        pair("GGML_CUDA_FA", "OFF"),
        pair("CMAKE_CUDA_ARCHITECTURES", "80-real;86-real"),
        pair("A:BOOL", "ON"),
        pair("FLAGS", "-a -b=c"),
        pair("EMPTY", ""),
    ];
    assert_eq!(parse(text), Ok(wanted.to_vec()));
    assert_eq!(parse(""), Ok(vec![]));
}

#[test]
fn what_cannot_be_passed_on_is_an_error_that_names_it() {
    for word in ["-G", "-DNAME", "-D=ON", "NAME=ON", "-S/elsewhere=x"] {
        let error = parse(&format!("-DA=1 {word} -DB=2")).unwrap_err();
        assert!(error.contains(&format!(": {word}: not")), "{error}");
    }
    for word in ["-DGGML_CUDA=ON", "-DLLAMA_BUILD_TESTS:BOOL=ON"] {
        let error = parse(word).unwrap_err();
        assert!(error.contains(word) && error.contains("sets"), "{error}");
    }
    let error = parse("-DA='b").unwrap_err();
    assert!(error.contains("-DA='b: an open quote"), "{error}");
}

/// A folder with `bin/nvcc` in it.
fn toolkit(dir: &Path) -> PathBuf {
    let nvcc = dir.join("bin/nvcc");
    fs::create_dir_all(dir.join("bin")).unwrap();
    fs::write(&nvcc, "").unwrap();
    nvcc
}

fn nvcc(vars: &[(&str, &Path)]) -> Result<PathBuf, String> {
    let var = |name: &str| -> Option<OsString> {
        let found = vars.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.as_os_str().to_owned())
    };
    let found = toolkits::nvcc(var).map(PathBuf::from);
    found.map_err(|error| format!("{error:#}"))
}

#[test]
fn the_cuda_compiler_is_looked_for_where_users_say_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let roots = ["named", "root", "path", "in-path"].map(|name| dir.path().join(name));
    let found = roots.each_ref().map(|root| toolkit(root));
    let search = roots[3].join("bin");
    let all = [
        ("CUDACXX", found[0].as_path()),
        ("CUDAToolkit_ROOT", &roots[1]),
        ("CUDA_PATH", &roots[2]),
        ("PATH", &search),
    ];
    for i in 0..4 {
        assert_eq!(nvcc(&all[i..]).as_ref(), Ok(&found[i]));
    }
    // An empty variable is none, and so is a root without a compiler.
    let empty = [("CUDACXX", Path::new("")), ("CUDAToolkit_ROOT", dir.path())];
    assert_eq!(nvcc(&[&empty, &all[2..]].concat()), nvcc(&all[2..]));

    // cmake takes arguments in it, and a name that is in PATH.
    let with_argument = PathBuf::from(format!("{} -v", all[0].1.display()));
    assert_eq!(
        nvcc(&[("CUDACXX", &with_argument)]),
        Ok(with_argument.clone())
    );
    let name = Path::new("nvcc");
    assert_eq!(nvcc(&[("CUDACXX", name), all[3]]), Ok(name.to_owned()));
}

#[test]
fn without_the_cuda_compiler_one_line_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("nvcc");
    for value in [&missing, Path::new("nvcc")] {
        let error = nvcc(&[("CUDACXX", value), ("PATH", dir.path())]).unwrap_err();
        assert!(
            error.starts_with(&format!("CUDACXX={}: no such file", value.display())),
            "{error}"
        );
    }
    if !Path::new("/usr/local/cuda/bin/nvcc").exists() {
        let error = nvcc(&[("PATH", dir.path())]).unwrap_err();
        assert!(
            error.contains("install NVIDIA's CUDA toolkit") && error.contains("CUDACXX="),
            "{error}"
        );
        assert!(!error.contains('\n'), "{error}");
    }
}
