//! What the build script reads of the environment, and how it comes to the page of llama-server; its files have no
//! tests of their own, since cargo runs none there.

#[path = "../build/arguments.rs"]
mod arguments;
#[allow(dead_code)]
#[path = "../build/files.rs"]
mod files;
#[allow(dead_code)]
#[path = "../build/registry.rs"]
mod registry;
#[allow(dead_code)]
#[path = "../build/run.rs"]
mod run;
#[allow(dead_code)]
#[path = "../build/settings.rs"]
mod settings;
#[allow(dead_code)]
#[path = "../build/tls.rs"]
mod tls;
#[allow(dead_code)]
#[path = "../build/toolkits.rs"]
mod toolkits;
#[allow(dead_code)]
#[path = "../build/ui.rs"]
mod ui;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

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

#[test]
fn programs_are_for_other_machines_where_that_is_asked_for() {
    for (text, wanted) in [("", false), ("0", false), ("1", true)] {
        assert_eq!(arguments::portable(text).unwrap(), wanted, "{text}");
    }
    for text in ["yes", "ON", "2", " 1"] {
        let error = format!("{:#}", arguments::portable(text).unwrap_err());
        let names_it = error.starts_with(&format!("HOTSET_PORTABLE={text}: it is 1 "));
        assert!(names_it && error.contains("or 0 "), "{error}");
    }
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

#[test]
fn options_about_the_page_leave_ways_out_or_leave_all_to_upstream() {
    let ways = |text: &str| ui::ways(&parse(text).unwrap());
    let ours = |npm, prebuilt| Some(ui::Ways { npm, prebuilt });
    for (text, wanted) in [
        ("", ours(true, true)),
        ("-DGGML_LTO=ON", ours(true, true)),
        ("-DLLAMA_BUILD_UI=OFF", ours(false, true)),
        ("-DLLAMA_USE_PREBUILT_UI:BOOL=no", ours(true, false)),
        (
            "-DLLAMA_BUILD_UI=0 -DLLAMA_USE_PREBUILT_UI=0",
            ours(false, false),
        ),
        ("-DLLAMA_BUILD_UI=ON", None),
        ("-DLLAMA_USE_PREBUILT_UI=1", None),
        ("-DLLAMA_BUILD_WEBUI=ON", None),
        ("-DLLAMA_BUILD_UI=OFF -DLLAMA_BUILD_UI=ON", None),
        (
            "-DLLAMA_BUILD_UI=ON -DLLAMA_BUILD_UI=OFF",
            ours(false, true),
        ),
    ] {
        assert_eq!(ways(text), wanted, "{text}");
    }
}

#[test]
fn options_about_openssl_leave_https_to_upstream() {
    let dir = tempfile::tempdir().unwrap();
    let missing = |text: &str, cache: &str| {
        fs::write(dir.path().join("CMakeCache.txt"), cache).unwrap();
        tls::missing(&parse(text).unwrap(), dir.path()).unwrap()
    };
    // Whose it is, and whether it takes an OpenSSL that cmake finds.
    for (text, is_ours, needs_openssl) in [
        ("", true, false),
        ("-DGGML_LTO=ON -DOPENSSL_NO_ASM=ON", true, false),
        ("-DLLAMA_OPENSSL=ON", false, true),
        ("-DLLAMA_OPENSSL:BOOL=OFF", false, false),
        ("-DOPENSSL_ROOT_DIR=/opt/openssl", false, true),
        ("-DLLAMA_BUILD_BORINGSSL=OFF", false, true),
        ("-DLLAMA_BUILD_BORINGSSL=ON", false, false),
        (
            "-DLLAMA_BUILD_LIBRESSL=1 -DLLAMA_BUILD_LIBRESSL=0",
            false,
            true,
        ),
    ] {
        assert_eq!(tls::is_ours(&parse(text).unwrap()), is_ours, "{text}");
        let line = missing(
            text,
            "LLAMA_OPENSSL:BOOL=ON\nOPENSSL_VERSION_SUPPORTED:INTERNAL=\n",
        );
        assert_eq!(line.is_some(), needs_openssl, "{text}: {line:?}");
        assert_eq!(
            missing(text, "OPENSSL_VERSION_SUPPORTED:INTERNAL=1\n"),
            None,
            "{text}"
        );
    }
}

/// The version of BoringSSL is in two files, and cargo refuses a lock that is not of the other.
#[test]
fn the_sources_of_boringssl_are_pinned() {
    let pinned = |text: &str, before: &str| {
        let at = text.find(before).unwrap() + before.len();
        text[at..].split('"').next().unwrap().to_owned()
    };
    let toml = fs::read_to_string("vendor/boringssl.toml").unwrap();
    let lock = fs::read_to_string("vendor/boringssl.lock").unwrap();
    let version = pinned(&toml, "boring-sys = \"=");
    let package = format!("name = \"boring-sys\"\nversion = \"{version}\"\n");
    let hash = pinned(
        &lock[lock.find(&package).expect("the lock is of that version")..],
        "checksum = \"",
    );
    assert_eq!(hash.len(), 64);
}

/// Held while programs are written and run: one that another thread's child still has open does not start.
static PROGRAMS: Mutex<()> = Mutex::new(());

/// A tree, and a `PATH` that has only what a test puts there.
struct Workshop(TempDir);

impl Workshop {
    /// With a cmake that takes any page, and fetches one if the file `online` is there.
    fn new() -> Self {
        let shop = Self(tempfile::tempdir().unwrap());
        for (name, text) in [
            ("src/scripts/ui-assets.cmake", ""),
            ("src/tools/ui/package.json", "{}"),
            (
                "src/tools/ui/CMakeLists.txt",
                "set(LLAMA_UI_HF_BUCKET \"some/bucket\" CACHE STRING)",
            ),
        ] {
            shop.write(name, text);
        }
        shop.program(
            "cmake",
            "echo cmake >> @/calls
             for a; do case $a in
                 -DUI_SOURCE_DIR=*) s=${a#*=} ;;
                 -DUI_BINARY_DIR=*) o=${a#*=} ;;
                 -DHF_BUCKET=some/bucket) [ -e @/online ] && mkdir $o/dist && echo theirs > $o/dist/index.html && s=$o ;;
             esac; done
             [ -e $s/dist/index.html ] && echo '#define LLAMA_UI_HAS_ASSETS 1' > $o/ui.h
             echo and that is all",
        );
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Puts a shell script into `PATH`, in which `@` is the workshop.
    fn program(&self, name: &str, text: &str) {
        let text = text.replace('@', &self.0.path().display().to_string());
        let name = format!("bin/{name}");
        self.write(&name, &format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{text}\n"));
        fs::set_permissions(self.path(&name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn node_with_npm(&self, npm: &str) {
        self.program("node", "");
        self.program("npm", &format!("echo npm $1 >> @/calls\n{npm}"));
    }

    fn page(&self, npm: bool, prebuilt: bool) -> ui::Page {
        let bin = self.path("bin");
        let maker = ui::Maker {
            pristine: &self.path("pristine"),
            src: &self.path("src"),
            number: "123",
            dir: &self.path("ui"),
            path: bin.as_os_str(),
            npm_limit: Duration::from_secs(2),
            say: |_| (),
        };
        maker.page(ui::Ways { npm, prebuilt })
    }

    /// What was run since this was asked last.
    fn calls(&self) -> String {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("calls"));
        calls.replace('\n', ",")
    }
}

/// The first line of a page.
fn index(page: &ui::Page) -> Option<String> {
    let dist = page.dist.as_ref()?;
    let text = fs::read_to_string(dist.join("index.html")).unwrap();
    Some(text.trim_end().to_owned())
}

const BUILDS: &str =
    "[ $1 = run ] && mkdir dist && echo ours $LLAMA_BUILD_NUMBER > dist/index.html; exit 0";

#[test]
fn a_page_is_built_once() {
    let _one = PROGRAMS.lock();
    let shop = Workshop::new();
    shop.node_with_npm(BUILDS);
    let first = shop.page(true, true);
    assert_eq!(index(&first).as_deref(), Some("ours 123"), "{first:?}");
    assert_eq!(shop.calls(), "npm ci,npm run,cmake,");
    assert!(first.missing.is_none() && !shop.path("ui/work").exists());

    // Neither does what it was built with matter any more, nor the page that is in the tree by now.
    fs::remove_file(shop.path("bin/npm")).unwrap();
    let root = shop.0.path();
    shop.write("build/tools/ui/dist/index.html", "stale");
    ui::install(&first, root).unwrap();
    assert_eq!(shop.page(true, true).id, first.id);
    assert_eq!(shop.calls(), "");
    let installed = shop.path("src/tools/ui/dist");
    assert!(installed.join("index.html").exists() && !shop.path("build/tools/ui/dist").exists());

    // Sources that changed do, and a page that is gone, and a way that is closed.
    shop.node_with_npm(BUILDS);
    shop.write("src/tools/ui/package.json", "{ }");
    assert_ne!(shop.page(true, true).id, first.id);
    assert_eq!(shop.calls(), "npm ci,npm run,cmake,");
    fs::remove_dir_all(shop.path("ui/dist")).unwrap();
    assert!(shop.page(true, true).dist.is_some());
    assert_eq!(shop.calls(), "npm ci,npm run,cmake,");
    let none = shop.page(false, false);
    assert!(none.dist.is_none() && none.missing.is_none(), "{none:?}");
    ui::install(&none, root).unwrap();
    assert!(!installed.exists());
}

#[test]
fn without_npm_a_page_is_fetched_and_without_a_network_a_line_says_so() {
    let _one = PROGRAMS.lock();
    let shop = Workshop::new();
    let why = |page: ui::Page| {
        let line = page.missing.filter(|_| page.dist.is_none()).unwrap();
        assert!(!line.contains('\n') && line.contains("ui/state"), "{line}");
        line
    };
    let line = why(shop.page(true, true));
    assert!(
        line.contains("no node with npm in PATH; fetching"),
        "{line}"
    );
    assert_eq!(shop.calls(), "cmake,");
    // It is said again, and not tried again: not before node is there, or other sources, or all is to be forgotten.
    assert_eq!(why(shop.page(true, true)), line);
    assert_eq!(shop.calls(), "");

    shop.node_with_npm(
        "echo npm ERR! code E; echo npm ERR! no registry that anybody knows of; exit 3",
    );
    let line = why(shop.page(true, true));
    assert!(
        line.contains("exit status: 3): npm ERR! no registry that"),
        "{line}"
    );
    assert_eq!(shop.calls(), "npm ci,npm view,cmake,");
    why(shop.page(true, true));
    assert_eq!(shop.calls(), "");

    shop.write("online", "");
    fs::remove_file(shop.path("ui/state")).unwrap();
    let page = shop.page(true, true);
    assert_eq!(index(&page).as_deref(), Some("theirs"), "{page:?}");
    assert!(why(shop.page(true, false)).contains("npm view"));
    assert_eq!(index(&shop.page(false, true)).as_deref(), Some("theirs"));

    // An npm that ends well without a page.
    shop.node_with_npm("exit 0");
    let line = why(shop.page(true, false));
    assert!(line.contains("work/dist gave no page"), "{line}");
}

#[test]
fn an_npm_that_never_ends_is_ended_with_all_it_started() {
    let _one = PROGRAMS.lock();
    let shop = Workshop::new();
    shop.write("online", "");
    shop.node_with_npm("sleep 600 & echo $! > @/pid; wait");
    let began = Instant::now();
    let page = shop.page(true, true);
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(index(&page).as_deref(), Some("theirs"), "{page:?}");
    let pid = fs::read_to_string(shop.path("pid")).unwrap();
    let is_there = || {
        let mut sh = Command::new("sh");
        let status = sh.args(["-c", "kill -0 $0 2>&-", pid.trim()]).status();
        // In a container nobody may collect it.
        let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        status.unwrap().success() && !state.contains(") Z")
    };
    while is_there() {
        assert!(began.elapsed() < Duration::from_secs(60), "{pid} goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_page_of_a_checkout_comes_first() {
    let _one = PROGRAMS.lock();
    let shop = Workshop::new();
    shop.node_with_npm(BUILDS);
    shop.write("pristine/tools/ui/dist/index.html", "its own");
    assert_eq!(index(&shop.page(true, true)).as_deref(), Some("its own"));
    assert_eq!(index(&shop.page(false, false)).as_deref(), Some("its own"));
    assert_eq!(shop.calls(), "cmake,");
}

/// Upstream's script says what a page needs; it would end the build where something of that is missing.
#[cfg(feature = "llama")]
#[test]
fn upstreams_script_tells_pages_from_others() {
    let _one = PROGRAMS.lock();
    let shop = Workshop::new();
    let dist = "pristine/tools/ui/dist";
    for name in [
        "index.html",
        "manifest.webmanifest",
        "sw.js",
        "build.json",
        "_app/version.json",
        "_app/bundle.1.js",
        "_app/bundle.1.css",
        "workbox-1.js",
    ] {
        shop.write(&format!("{dist}/{name}"), "text");
    }
    let tools = env!("BUILD_TOOLS_PATH");
    let path = format!("{tools}:{}", std::env::var("PATH").unwrap());
    let path = OsString::from(path.trim_start_matches(':'));
    let page = |name: &str| {
        let maker = ui::Maker {
            pristine: &shop.path("pristine"),
            src: Path::new(env!("BUILD_LLAMA_SRC")),
            number: "123",
            dir: &shop.path(name),
            path: &path,
            npm_limit: Duration::ZERO,
            say: |_| (),
        };
        let (npm, prebuilt) = (true, false);
        maker.page(ui::Ways { npm, prebuilt })
    };
    let whole = page("whole");
    assert_eq!(index(&whole).as_deref(), Some("text"), "{whole:?}");
    fs::remove_file(shop.path(dist).join("sw.js")).unwrap();
    let part = page("part");
    assert!(part.dist.is_none() && part.missing.is_some(), "{part:?}");
}
