//! The page at `/` of llama-server: built with npm, else fetched, else left out with a line that says so.
//!
//! Upstream's build would do it while it compiles, but it waits for npm for ever, and stops where a page lacks a file.
//! So it happens before that: a page that upstream's own script accepts is put where that script looks first, in
//! `tools/ui/dist` of the tree. What goes wrong here costs the page and nothing else.

use super::files::{self, Tree};
use super::run::run_limited;
use anyhow::{Context, Result, bail, ensure};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long npm may take: some four minutes on two cores that others use too, and more where packages come slowly.
pub const NPM_LIMIT: Duration = Duration::from_secs(15 * 60);

/// How long upstream's script may take, which fetches a few MiB and compresses a page.
const SCRIPT_LIMIT: Duration = Duration::from_secs(5 * 60);

/// What a page is made of, in a tree, and where one lies that is ready.
const SOURCES: &str = "tools/ui";
const DIST: &str = "tools/ui/dist";
/// The script that makes a page a part of llama-server.
const SCRIPT: &str = "scripts/ui-assets.cmake";

/// The ways to a page that may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ways {
    /// Building it.
    pub npm: bool,
    /// Fetching the one that upstream built.
    pub prebuilt: bool,
}

/// The ways that the user's options leave us; none where one of them is on, which leaves the page to upstream's build.
pub fn ways(options: &[(String, String)]) -> Option<Ways> {
    let last = |names: [&str; 2]| {
        let is_it = |key: &str| names.contains(&key.split(':').next().unwrap_or(key));
        let value = options.iter().rev().find(|(key, _)| is_it(key));
        value.map(|(_, value)| is_on(value))
    };
    let npm = last(["LLAMA_BUILD_UI", "LLAMA_BUILD_WEBUI"]);
    let prebuilt = last(["LLAMA_USE_PREBUILT_UI", "LLAMA_USE_PREBUILT_WEBUI"]);
    let is_ours = npm != Some(true) && prebuilt != Some(true);
    is_ours.then_some(Ways {
        npm: npm.is_none(),
        prebuilt: prebuilt.is_none(),
    })
}

/// Whether cmake takes the value of an option for true.
pub fn is_on(value: &str) -> bool {
    let value = value.to_uppercase();
    let is_off = ["", "0", "OFF", "NO", "FALSE", "N", "IGNORE", "NOTFOUND"].contains(&&*value);
    !is_off && !value.ends_with("-NOTFOUND")
}

/// What there is to put into llama-server.
#[derive(Debug)]
pub struct Page {
    /// The folder of its files, if there is one.
    pub dist: Option<PathBuf>,
    /// Other bytes have another one.
    pub id: String,
    /// Why there is none though one was wanted, and what to do, in one line.
    pub missing: Option<String>,
}

/// Makes pages.
pub struct Maker<'a> {
    /// The tree as it came: a checkout may have a page of its own.
    pub pristine: &'a Path,
    /// The tree with the patches.
    pub src: &'a Path,
    /// The number of the build, which the page shows.
    pub number: &'a str,
    /// Where a page is kept from build to build, for all features.
    pub dir: &'a Path,
    /// `PATH` of what is run here.
    pub path: &'a OsStr,
    /// How long npm may take.
    pub npm_limit: Duration,
    /// Tells the user what is going on.
    pub say: fn(&str),
}

impl Maker<'_> {
    /// The page that the tree came with, if it has one, for upstream's build to look at first as ever.
    pub fn of_tree(&self) -> Page {
        let dist = self.pristine.join(DIST);
        let files = files::read_tree(&dist, &[""], &[]).unwrap_or_default();
        Page {
            id: format!("upstream's {}", files::tree_sha256(&files)),
            dist: has_index(&dist).then_some(dist),
            missing: None,
        }
    }

    /// The page, made now if it was not before. An attempt that failed is repeated when something changed since.
    pub fn page(&self, ways: Ways) -> Page {
        self.find(ways).unwrap_or_else(|error| Page {
            dist: None,
            id: "none".to_owned(),
            missing: (ways.npm || ways.prebuilt).then(|| self.missing(&error)),
        })
    }

    fn find(&self, ways: Ways) -> Result<Page> {
        let sources = self.sources()?;
        let id = files::tree_sha256(&sources);
        let attempt = format!("{ways:?} {:?}", self.npm());
        let state = self.dir.join("state");
        println!("cargo:rerun-if-changed={}", state.display());
        let text = fs::read_to_string(&state).unwrap_or_default();
        let [way, of, with, why] = {
            let mut lines = text.lines();
            [(); 4].map(|()| lines.next().unwrap_or_default())
        };
        let dist = self.dir.join("dist");
        let page = |way: &str| Page {
            dist: Some(dist.clone()),
            id: format!("{way} {id}"),
            missing: None,
        };
        let is_open =
            way == "tree" || way == "npm" && ways.npm || way == "prebuilt" && ways.prebuilt;
        if of == id && is_open && has_index(&dist) {
            return Ok(page(way));
        }
        if of == id && way == "none" && with == attempt {
            bail!("{why}");
        }
        fs::create_dir_all(self.dir).with_context(|| format!("creating {}", self.dir.display()))?;
        for name in ["state", "dist", "log"] {
            files::remove(&self.dir.join(name))?;
        }
        let made = self.make(ways, &sources);
        let text = match &made {
            Ok(way) => format!("{way}\n{id}\n"),
            Err(error) => format!("none\n{id}\n{attempt}\n{error:#}\n"),
        };
        files::write_stamp(&state, &text)?;
        made.map(page)
    }

    /// What decides the bytes of a page.
    fn sources(&self) -> Result<Tree> {
        let mut tree = files::read_tree(self.src, &[SOURCES, SCRIPT], files::BUILT)?;
        if has_index(&self.pristine.join(DIST)) {
            tree.extend(files::read_tree(self.pristine, &[DIST], &[])?);
        }
        tree.insert("number".into(), self.number.into());
        Ok(tree)
    }

    /// The node and npm that would be run, and what tells them from later ones in the same place.
    fn npm(&self) -> Option<[String; 2]> {
        let find = |name: &str| {
            let mut files = env::split_paths(self.path).map(|dir| dir.join(name));
            let file = files.find(|file| file.is_file())?;
            let about = file.metadata().and_then(|about| about.modified()).ok()?;
            Some(format!("{} {about:?}", file.display()))
        };
        Some([find("node")?, find("npm")?])
    }

    /// Tries one way after the other, and names the one that led to a page.
    fn make(&self, ways: Ways, sources: &Tree) -> Result<&'static str> {
        let has_own = has_index(&self.pristine.join(DIST));
        let mut reasons = Vec::new();
        for (way, is_open) in [
            ("tree", has_own),
            ("npm", ways.npm),
            ("prebuilt", ways.prebuilt),
        ] {
            let made = match way {
                _ if !is_open => continue,
                "tree" => self.take(&self.pristine.join(SOURCES), &[]),
                "npm" => self.build(sources),
                _ => self.fetch(),
            };
            match made {
                Ok(()) => return Ok(way),
                Err(error) => reasons.push(format!("{error:#}").replace('\n', " ")),
            }
        }
        bail!("{}", reasons.join("; "))
    }

    fn build(&self, sources: &Tree) -> Result<()> {
        ensure!(self.npm().is_some(), "there is no node with npm in PATH");
        (self.say)("building llama-server's page with npm, which takes some minutes");
        let work = self.dir.join("work");
        files::remove(&work)?;
        let below = |(path, bytes): (&PathBuf, &Vec<u8>)| {
            let path = path.strip_prefix(SOURCES).ok()?.to_owned();
            (!path.starts_with("dist")).then(|| (path, bytes.clone()))
        };
        files::write_tree(&work, &sources.iter().filter_map(below).collect())?;
        let made = self.run_npm(&work).and_then(|()| self.take(&work, &[]));
        // Hundreds of MiB of packages, which npm keeps a copy of. What is left over goes before the next attempt.
        let _ = files::remove(&work);
        made
    }

    fn run_npm(&self, work: &Path) -> Result<()> {
        let end = Instant::now() + self.npm_limit;
        let npm = |args: &[&str]| {
            let mut command = Command::new("npm");
            // Cargo's words for other things, and what would leave out the packages that build.
            for name in ["DEBUG", "HOST", "TARGET", "NODE_ENV"] {
                command.env_remove(name);
            }
            command
                .current_dir(work)
                .env("PATH", self.path)
                .envs([("CI", "1"), ("NO_COLOR", "1")])
                .env("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
                .env("LLAMA_UI_OUT_DIR", work.join("dist"))
                .env("LLAMA_UI_VERSION", format!("b{}", self.number))
                .env("LLAMA_BUILD_NUMBER", self.number)
                .args(args)
                .args(["--loglevel=error", "--fetch-retries=1"])
                .args(["--fetch-retry-mintimeout=1000", "--fetch-timeout=30000"]);
            let what = format!("npm {}", args.join(" "));
            run_limited(&what, &mut command, &self.dir.join("log"), end)
        };
        let install = ["ci", "--include=dev", "--no-audit", "--no-fund"];
        // Enough where an earlier build fetched the packages; where not, it says so in seconds.
        if npm(&[&install[..], &["--offline"]].concat()).is_err() {
            // Without a registry the installation gives up after minutes, this in a second.
            npm(&["view", "vite", "version"])?;
            npm(&[&install[..], &["--prefer-offline"]].concat())?;
        }
        npm(&["run", "build"])
    }

    /// Lets upstream's script fetch the page.
    fn fetch(&self) -> Result<()> {
        (self.say)("fetching llama-server's page");
        let path = self.src.join(SOURCES).join("CMakeLists.txt");
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let bucket = text.split("set(LLAMA_UI_HF_BUCKET \"").nth(1);
        let bucket = bucket.and_then(|rest| rest.split('"').next());
        let bucket = bucket.context("tools/ui/CMakeLists.txt does not say where a page is")?;
        let options = [
            "-DHF_ENABLED=ON".to_owned(),
            format!("-DHF_BUCKET={bucket}"),
            format!("-DHF_VERSION=b{}", self.number),
        ];
        let nothing = self.dir.join("nothing");
        self.take(&nothing, &options)
    }

    /// Keeps the page in `dist` of `sources`, or what the script fetches with `options`, if the script accepts it.
    fn take(&self, sources: &Path, options: &[String]) -> Result<()> {
        let out = self.dir.join("accepted");
        files::remove(&out)?;
        fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
        let define = |name: &str, path: &Path| format!("-D{name}={}", path.display());
        let mut command = Command::new("cmake");
        command
            .env("PATH", self.path)
            .arg(define("UI_SOURCE_DIR", sources))
            .arg(define("UI_BINARY_DIR", &out))
            .arg(define("LLAMA_SOURCE_DIR", self.src))
            .args(["-DBUILD_UI=OFF", "-DLLAMA_UI_GZIP=ON"])
            .args(options)
            .arg("-P")
            .arg(self.src.join(SCRIPT));
        let (what, log) = ("taking the page", self.dir.join("log"));
        run_limited(what, &mut command, &log, Instant::now() + SCRIPT_LIMIT)?;
        let header = fs::read_to_string(out.join("ui.h")).unwrap_or_default();
        ensure!(
            header.contains("#define LLAMA_UI_HAS_ASSETS 1"),
            "{} gave no page",
            if options.is_empty() {
                sources.join("dist").display().to_string()
            } else {
                "fetching upstream's".to_owned()
            }
        );
        let dist = if options.is_empty() { sources } else { &out }.join("dist");
        let files = files::read_tree(&dist, &[""], &[])?;
        let kept = self.dir.join("dist");
        files::remove(&kept)?;
        files::write_tree(&kept, &files)?;
        files::remove(&out)
    }

    fn missing(&self, error: &anyhow::Error) -> String {
        format!(
            "llama-server has no page at /: {error:#} (the output is in {}). The build makes one where node (20.19, 22.13, or 24 \
             and later), npm and its registry are there, and else fetches one: delete {} to let it try again, or go \
             without by CMAKE_ARGS=\"-DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF\"",
            self.dir.join("log").display(),
            self.dir.join("state").display(),
        )
    }
}

fn has_index(dist: &Path) -> bool {
    dist.join("index.html").is_file()
}

/// Puts a page into the tree that is built in `root`.
pub fn install(page: &Page, root: &Path) -> Result<()> {
    let place = root.join("src").join(DIST);
    files::remove(&place)?;
    // One that upstream's script got there itself is what it takes for want of another.
    files::remove(&root.join("build").join(DIST))?;
    let Some(dist) = &page.dist else {
        return Ok(());
    };
    files::write_tree(&place, &files::read_tree(dist, &[""], &[])?)
}
