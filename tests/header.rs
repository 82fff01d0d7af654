//! `include/hotset.h` is C99 and C++17, may be included twice, needs no other header before it, and declares the
//! functions that there are. Structs and numbers: `src/ffi/layout.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

fn compiles(compiler: &str, default: &str, file: &str, standard: &str) {
    let compiler = std::env::var(compiler).unwrap_or(default.to_owned());
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join(file);
    // The function keeps -pedantic from objecting to an empty translation unit.
    let text = "#include <hotset.h>\n#include <hotset.h>\nint main(void) { return 0; }\n";
    fs::write(&source, text).unwrap();
    let output = Command::new(&compiler)
        .args([
            standard,
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-fsyntax-only",
        ])
        .arg(concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include"))
        .arg(&source)
        .output()
        .unwrap_or_else(|e| panic!("{compiler}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} {standard}:\n{errors}");
}

#[test]
fn header_is_c99() {
    compiles("CC", "cc", "twice.c", "-std=c99");
}

#[test]
fn header_is_cpp17() {
    compiles("CXX", "c++", "twice.cpp", "-std=c++17");
}

/// What a function returns, and the name and type of each parameter: types as C has them, without typedefs.
type Signature = (String, Vec<(String, String)>);

fn without_comments(text: &str) -> String {
    let code = text.lines().map(|line| line.split("//").next().unwrap());
    code.collect::<Vec<_>>().join(" ")
}

/// A C type and a name, as tokens.
fn c_parameter(text: &str) -> (String, String) {
    let spaced = text.replace('*', " * ");
    let mut tokens: Vec<_> = spaced.split_whitespace().collect();
    let name = tokens.pop().unwrap();
    let plain = |token| match token {
        "hotset_phase" | "hotset_span" => "uint32_t",
        "hotset_status" => "int32_t",
        other => other,
    };
    let ty = tokens.into_iter().map(plain).collect::<Vec<_>>().join(" ");
    (name.to_string(), ty)
}

fn declared() -> BTreeMap<String, Signature> {
    let header = include_str!("../include/hotset.h");
    let header = without_comments(header);
    let declarations = header.split("HOTSET_API ").skip(1);
    declarations
        .filter_map(|text| {
            let (head, rest) = text.split_once('(')?;
            let (parameters, _) = rest.split_once(");")?;
            let (name, returned) = c_parameter(head);
            let parameters = parameters.split(',').map(str::trim);
            let parameters = parameters.filter(|p| *p != "void").map(c_parameter);
            name.starts_with("hotset_")
                .then(|| (name, (returned, parameters.collect())))
        })
        .collect()
}

/// The C type of a type of a function of `src/ffi`.
fn c_type(rust: &str) -> String {
    let pointer = |to: &str, is_const| {
        let to = c_type(to);
        match (is_const, to.ends_with('*')) {
            (false, _) => format!("{to} *"),
            (true, false) => format!("const {to} *"),
            (true, true) => format!("{to} const *"),
        }
    };
    let inner = |prefix: &str, suffix: &str| rust.strip_prefix(prefix)?.strip_suffix(suffix);
    if let Some(to) = inner("*const ", "") {
        return pointer(to, true);
    }
    let owned = inner("Option<Box<", ">>").or(inner("Option<&mut ", ">"));
    if let Some(to) = inner("*mut ", "").or(owned) {
        return pointer(to, false);
    }
    if let Some(to) = inner("Option<&", ">") {
        return pointer(to, true);
    }
    match rust {
        "u32" => "uint32_t".to_string(),
        "i32" | "Status" => "int32_t".to_string(),
        "usize" => "size_t".to_string(),
        "f32" => "float".to_string(),
        "f64" => "double".to_string(),
        "c_char" => "char".to_string(),
        "" => "void".to_string(),
        name => {
            assert!(name.starts_with("Hotset"), "a type of C called {name}");
            let lower = name.chars().map(|c| match c.is_uppercase() {
                true => format!("_{}", c.to_lowercase()),
                false => c.to_string(),
            });
            format!("struct {}", &lower.collect::<String>()[1..])
        }
    }
}

/// The functions that Rust code in `folder` exports.
fn exported(folder: &str) -> BTreeMap<String, Signature> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = without_comments(&fs::read_to_string(path).unwrap());
        for function in text.split("extern \"C\" fn ").skip(1) {
            let (name, rest) = function.split_once('(').unwrap();
            let (parameters, rest) = rest.split_once(')').unwrap();
            let returned = rest.split('{').next().unwrap().trim();
            let returned = c_type(returned.trim_start_matches("->").trim());
            let parameters = parameters.split(',').map(str::trim);
            let parameters = parameters.filter(|p| !p.is_empty()).map(|parameter| {
                let (name, ty) = parameter.split_once(": ").unwrap();
                (name.to_string(), c_type(ty))
            });
            found.insert(name.to_string(), (returned, parameters.collect()));
        }
    }
    found
}

#[test]
fn header_declares_the_functions_that_there_are() {
    let (declared, exported) = (declared(), exported("src/ffi"));
    assert!(declared.len() > 30);
    let names = |of: &BTreeMap<String, Signature>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&declared), names(&exported));
    for (name, signature) in &declared {
        assert_eq!(signature, &exported[name], "{name}");
    }
}
