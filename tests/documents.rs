//! What the documents say is what the code has, and where they lead there is something.

use hotset::config::KNOBS;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// As much as somebody reads who has come to see what this is.
const README_LINES_MAX: usize = 200;

/// What is said of a page elsewhere: its text, the anchors of its headings, where its links and pictures lead.
struct Page {
    text: String,
    anchors: BTreeSet<String>,
    links: Vec<String>,
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The anchor that a heading gets where our pages are shown: letters, digits, `-` and `_` of it stay, blanks become `-`.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    });
    kept.collect::<String>().to_lowercase()
}

fn page(path: &Path) -> Page {
    let text = read(path);
    let mut page = Page {
        text: String::new(),
        anchors: BTreeSet::new(),
        links: Vec::new(),
    };
    let mut heading = None;
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let wanted = anchor(&heading.take().unwrap());
                // The second of the same words gets a number.
                let same = (1..).map(|number| format!("{wanted}-{number}"));
                let mut names = std::iter::once(wanted.clone()).chain(same);
                let free = names.find(|name| !page.anchors.contains(name));
                page.anchors.extend(free);
            }
            Event::Text(part) | Event::Code(part) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&part);
                }
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(dest_url.into_string());
            }
            _ => {}
        }
    }
    page.text = text;
    page
}

/// The pages that people read, by their path from the root of the package.
fn pages() -> BTreeMap<PathBuf, Page> {
    let fixed = ["README.md", "patches/README.md", "models/README.md"];
    let mut paths: Vec<PathBuf> = fixed.iter().map(PathBuf::from).collect();
    for entry in fs::read_dir("docs").expect("the tests run in the folder of the package") {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    for entry in fs::read_dir("docs/runs").unwrap() {
        let path = entry.unwrap().path().join("README.md");
        if path.exists() {
            paths.push(path);
        }
    }
    let read = paths.into_iter().map(|path| {
        let page = page(&path);
        (path, page)
    });
    read.collect()
}

/// `link`, seen from the page `from`, as a path from the root, and the anchor in it.
fn target(from: &Path, link: &str) -> (PathBuf, Option<String>) {
    let (path, anchor) = match link.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor.to_string())),
        None => (link, None),
    };
    if path.is_empty() {
        return (from.to_path_buf(), anchor);
    }
    let mut whole = from.parent().unwrap().to_path_buf();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => assert!(whole.pop(), "{}: {link}", from.display()),
            part => whole.push(part),
        }
    }
    (whole, anchor)
}

/// Links to other places than this repository.
fn is_elsewhere(link: &str) -> bool {
    ["https:", "http:", "mailto:"]
        .iter()
        .any(|scheme| link.starts_with(scheme))
}

/// The rows of the table of settings are those of the list that the program reads.
#[test]
fn the_table_of_settings_is_the_list_of_settings() {
    let settings = read(Path::new("docs/settings.md"));
    let rows = settings
        .lines()
        .filter(|line| line.starts_with("| `HOTSET"));
    let wanted = KNOBS.iter().map(|knob| {
        format!(
            "| `{}` | `{}` | {} | {} |",
            knob.name,
            knob.option(),
            knob.values,
            knob.default
        )
    });
    assert_eq!(rows.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut dead = Vec::new();
    for (from, page) in &pages {
        for link in page.links.iter().filter(|link| !is_elsewhere(link)) {
            let (path, anchor) = target(from, link);
            let is_there = match (&anchor, pages.get(&path)) {
                (Some(anchor), Some(page)) => page.anchors.contains(anchor),
                (Some(_), None) => false,
                (None, _) => path.exists(),
            };
            if !is_there {
                dead.push(format!("{}: {link}", from.display()));
            }
        }
    }
    assert_eq!(dead, [""; 0]);
}

/// Nobody looks for a page that no page names.
#[test]
fn every_page_is_found_from_readme() {
    let pages = pages();
    let readme = Path::new("README.md");
    let (mut found, mut next) = (BTreeSet::new(), vec![readme.to_path_buf()]);
    while let Some(path) = next.pop() {
        if let Some(page) = pages.get(&path).filter(|_| found.insert(path.clone())) {
            let links = page.links.iter().filter(|link| !is_elsewhere(link));
            next.extend(links.map(|link| target(&path, link).0));
        }
    }
    // Runs are cited for their numbers, if they are; they are listed by date.
    let is_run = |path: &&PathBuf| path.starts_with("docs/runs");
    let lost: Vec<_> = pages.keys().filter(|path| !is_run(path)).collect();
    let lost: Vec<_> = lost.iter().filter(|path| !found.contains(**path)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

/// Short enough to be read, and with the commands that a fresh machine is tried with.
#[test]
fn readme_is_short_and_has_the_two_commands() {
    let readme = &pages()[Path::new("README.md")].text;
    let n_lines = readme.lines().count();
    assert!(n_lines <= README_LINES_MAX, "{n_lines} lines");
    let commands = ["cargo run --release -- demo", "cargo test --release"];
    for command in commands {
        let lines = readme.lines().filter(|line| {
            let rest = line.strip_prefix(command);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        });
        assert_eq!(lines.count(), 1, "{command}");
    }
    let ci = read(Path::new(".ci/run"));
    assert!(ci.lines().any(|line| line == commands[1]), "{ci}");
}
