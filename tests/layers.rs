//! Which file may name which: arrows only go down, and two files never name each other.
//!
//! The layers are those that docs/design.md lists. What a file names is what its paths lead to, also through `pub use`
//! of a folder's `mod.rs`, which by itself names nobody: it is the face of the folder. Calls of methods are no paths. What
//! could hide a path, a glob or a macro that has one, is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

/// A path in the crate, from its root.
type Names = Vec<String>;

/// What one file says.
#[derive(Default)]
struct Source {
    file: String,
    /// Its module.
    module: Names,
    /// Where it stands: modules within the file come after its own.
    inside: Names,
    /// Names that it brings into scope, or hands on, and what they are.
    known: BTreeMap<String, Names>,
    handed_on: BTreeMap<String, Names>,
    /// Paths as they are written, from the root where that is known.
    paths: Vec<Names>,
    /// Files that only tests are made of.
    for_tests: Vec<Names>,
    /// Whether it takes all that another one has.
    has_glob: bool,
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let tokens = match &attribute.meta {
            syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string(),
            _ => return false,
        };
        tokens == "test" || tokens.starts_with("all (test ,")
    })
}

impl Source {
    /// From the root: a path that says where it begins, or with a name that is known here.
    fn absolute(&self, path: &[String]) -> Option<Names> {
        let here: Names = [self.module.clone(), self.inside.clone()].concat();
        let n_up = path.iter().take_while(|name| *name == "super").count();
        Some(match path.first()?.as_str() {
            "crate" => path[1..].to_vec(),
            "self" => [&here, &path[1..]].concat(),
            "super" => [here.get(..here.len().checked_sub(n_up)?)?, &path[n_up..]].concat(),
            name => [self.known.get(name)?, &path[1..]].concat(),
        })
    }

    /// The module of the file that a `mod` declares, as its name tells it.
    fn file_of(&self, item: &ItemMod) -> Names {
        let named = item
            .attrs
            .iter()
            .find_map(|attribute| match &attribute.meta {
                syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
                    syn::Expr::Lit(literal) => match &literal.lit {
                        syn::Lit::Str(name) => Some(name.value()),
                        _ => None,
                    },
                    _ => None,
                },
                _ => None,
            });
        match named {
            None => [&self.module[..], &[item.ident.to_string()]].concat(),
            Some(name) => {
                let folder = &self.module[..self.module.len() - 1];
                [folder, &[name.trim_end_matches(".rs").to_string()]].concat()
            }
        }
    }

    fn add_use(&mut self, tree: &UseTree, before: &[String], is_face: bool) {
        let with = |name: &dyn ToString| [before, &[name.to_string()]].concat();
        let (path, name) = match tree {
            UseTree::Path(path) => return self.add_use(&path.tree, &with(&path.ident), is_face),
            UseTree::Group(group) => {
                let items = &group.items;
                return items
                    .iter()
                    .for_each(|tree| self.add_use(tree, before, is_face));
            }
            UseTree::Name(name) if name.ident == "self" => (
                before.to_vec(),
                before.last().expect("self of something").clone(),
            ),
            UseTree::Name(name) => (with(&name.ident), name.ident.to_string()),
            UseTree::Rename(name) => (with(&name.ident), name.rename.to_string()),
            UseTree::Glob(_) => {
                // A module within the file may take all that the file has.
                let is_other = |path| path != self.module;
                let is_ours = !is_face && self.absolute(before).is_some_and(is_other);
                self.has_glob |= is_ours;
                (before.to_vec(), "*".to_string())
            }
        };
        // A name of this module's own comes before a crate's.
        let Some(path) = self.absolute(&path) else {
            return;
        };
        self.known.insert(name.clone(), path.clone());
        if is_face {
            self.handed_on.insert(name, path);
        } else {
            self.paths.push(path);
        }
    }
}

impl<'ast> Visit<'ast> for Source {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) if item.content.is_some() => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.content.is_none() {
            if is_for_tests(&item.attrs) {
                self.for_tests.push(self.file_of(item));
                return;
            }
            let path = [&self.module[..], &[item.ident.to_string()]].concat();
            self.known.insert(item.ident.to_string(), path);
            return;
        }
        let known = self.known.clone();
        self.inside.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.inside.pop();
        self.known = known;
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let hands_on = !matches!(item.vis, Visibility::Inherited);
        let is_face = hands_on && self.file.ends_with("mod.rs");
        self.add_use(&item.tree, &[], is_face);
    }

    fn visit_macro(&mut self, macro_: &'ast syn::Macro) {
        let text = macro_.tokens.to_string();
        let has_path = ["crate ::", "super ::"]
            .iter()
            .any(|way| text.contains(way));
        assert!(!has_path, "{}: a path in a macro: {text}", self.file);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Names = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if names.len() > 1 {
            self.paths.extend(self.absolute(&names));
        }
        visit::visit_path(self, path);
    }
}

/// All files of `src` but the programs', by their modules.
fn sources() -> BTreeMap<Names, Source> {
    fn walk(folder: &Path, sources: &mut BTreeMap<Names, Source>) {
        for entry in fs::read_dir(folder).expect("the tests run in the folder of the package") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() && !path.ends_with("bin") {
                walk(&path, sources);
            }
            if path.extension().is_none_or(|end| end != "rs") || path.ends_with("lib.rs") {
                continue;
            }
            let within = path.strip_prefix("src").expect("it is in there");
            let mut module: Names = within
                .with_extension("")
                .iter()
                .map(|name| name.to_string_lossy().into_owned())
                .collect();
            module.retain(|name| name != "mod");
            let text = fs::read_to_string(&path).expect("it can be read");
            let mut source = Source {
                file: within.display().to_string(),
                module: module.clone(),
                ..Source::default()
            };
            let file = syn::parse_file(&text).expect("it is Rust");
            // Modules of a folder are known before they are named.
            let (mods, rest): (Vec<_>, Vec<_>) = file
                .items
                .iter()
                .partition(|i| matches!(i, Item::Mod(item) if item.content.is_none()));
            mods.into_iter()
                .chain(rest)
                .for_each(|item| source.visit_item(item));
            sources.insert(module, source);
        }
    }
    let mut sources = BTreeMap::new();
    walk(Path::new("src"), &mut sources);
    let for_tests: Vec<Names> = sources
        .values()
        .flat_map(|source| source.for_tests.clone())
        .collect();
    for module in for_tests {
        assert!(sources.remove(&module).is_some(), "{module:?} is there");
    }
    sources
}

/// The module of what a path leads to; `None` if that is a module itself: what is meant of it is named where it is used.
fn resolve(sources: &BTreeMap<Names, Source>, path: &[String]) -> Option<Names> {
    let n = (0..=path.len())
        .rev()
        .find(|n| sources.contains_key(&path[..*n]))?;
    let name = path.get(n)?;
    match sources[&path[..n]].handed_on.get(name) {
        Some(to) if to != path => resolve(sources, &[to, &path[n + 1..]].concat()),
        _ => Some(path[..n].to_vec()),
    }
}

/// By file: the files that it names.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources();
    assert!(sources.len() > 100, "they were found");
    let mut arrows = BTreeMap::new();
    for source in sources.values() {
        assert!(!source.has_glob, "{} has a glob", source.file);
        let named = source.paths.iter().filter_map(|path| {
            let module = resolve(&sources, path)?;
            Some(sources[&module].file.clone())
        });
        let named = named.filter(|file| *file != source.file).collect();
        arrows.insert(source.file.clone(), named);
    }
    arrows
}

#[test]
fn no_files_name_each_other_in_a_ring() {
    let mut left = arrows();
    // Whoever names nobody that is left, or is named by nobody, is in no ring.
    loop {
        let files: BTreeSet<String> = left.keys().cloned().collect();
        left.values_mut()
            .for_each(|named| named.retain(|file| files.contains(file)));
        let named: BTreeSet<String> = left.values().flatten().cloned().collect();
        left.retain(|file, names| !names.is_empty() && named.contains(file));
        if left.len() == files.len() {
            break;
        }
    }
    assert!(left.is_empty(), "{left:#?}");
}

/// The part of the house a file is in: a folder or a file of `src`.
fn part(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// By part: its layer, counted from the top, as docs/design.md lists them.
fn layers() -> BTreeMap<String, usize> {
    let design = fs::read_to_string("docs/design.md").expect("it is there");
    let (_, list) = design
        .split_once("\nLayers, from the top:\n\n")
        .expect("there is a list");
    let lines = list.lines().take_while(|line| line.starts_with("- "));
    let mut layers = BTreeMap::new();
    for (number, line) in lines.enumerate() {
        let names = line.split(": ").next().expect("there is a first part");
        for name in names.split('`').skip(1).step_by(2) {
            let before = layers.insert(name.to_string(), number);
            assert_eq!(before, None, "{name} is listed twice");
        }
    }
    layers
}

#[test]
fn arrows_only_go_down() {
    let layers = layers();
    let arrows = arrows();
    let parts: BTreeSet<&str> = arrows.keys().map(|file| part(file)).collect();
    let listed: BTreeSet<&str> = layers.keys().map(String::as_str).collect();
    assert_eq!(parts, listed, "docs/design.md lists the parts of src");
    for (file, named) in &arrows {
        for other in named.iter().filter(|other| part(other) != part(file)) {
            let is_down = layers[part(other)] > layers[part(file)];
            assert!(is_down, "{file} names {other}, which is not below it");
        }
    }
}

/// Somebody else's build of the library pulls nothing that only the program needs.
#[test]
fn the_library_has_no_crate_of_a_command_line() {
    let manifest = fs::read_to_string("Cargo.toml").expect("it is there");
    let crates = [
        "clap",
        "comfy-table",
        "csv",
        "half",
        "indicatif",
        "plotters",
        "ratatui",
        "rayon",
        "signal-hook",
        "ureq",
    ];
    let is_known = |name: &&str| manifest.contains(&format!("\"dep:{name}\""));
    assert!(
        crates.iter().all(is_known),
        "they are those of the feature `cli`"
    );
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "tree",
        "--locked",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--no-default-features",
    ]);
    let tree = cargo
        .args(["--features", "hooks"])
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    assert!(tree.starts_with("hotset "), "{tree}");
    for name in crates {
        let is_it = |line: &str| line.split(' ').next() == Some(name);
        assert!(
            !tree.lines().any(is_it),
            "{name} is a dependency of the library"
        );
    }
}
