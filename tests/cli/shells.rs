//! What shells complete, and manual pages.

use super::{error_of, hotset, run, text};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let help = text(&run(&mut hotset(&["--help"])).stdout);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty());
    let name = |line: &str| line.split_whitespace().next().map(str::to_string);
    names
        .filter_map(name)
        .filter(|name| name != "help")
        .collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("hotset.bash");
    let printed = run(&mut hotset(&["completions", "bash"])).stdout;
    fs::write(&script, printed).unwrap();
    let complete = |line: &str| -> BTreeSet<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let ask = format!(
            "source {}; COMP_WORDS=({line} ''); COMP_CWORD={}; COMP_WORDS[{}]='{last}'; \
             _hotset hotset '{last}' '{before}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display(),
            words.len() - 1,
            words.len() - 1,
        );
        let answer = run(Command::new("bash").args(["-c", &ask]));
        assert!(answer.status.success(), "{}", text(&answer.stderr));
        text(&answer.stdout).lines().map(str::to_string).collect()
    };
    let all = complete("hotset ");
    for command in commands() {
        assert!(all.contains(&command), "{command}: {all:?}");
    }
    assert!(!all.contains("bench-row"), "{all:?}");
    let found = complete("hotset server --ra");
    assert!(found.contains("--ram"), "{found:?}");
    let found = complete("hotset run --tool ");
    assert!(found.contains("perplexity"), "{found:?}");
}

#[test]
fn other_shells_know_every_command() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let output = run(&mut hotset(&["completions", shell]));
        let script = text(&output.stdout);
        assert!(output.status.success() && output.stderr.is_empty());
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let page = text(&run(&mut hotset(&["man"])).stdout);
    let settings = hotset::config::KNOBS
        .iter()
        .map(|knob| knob.name.to_string());
    for name in settings.chain(commands()) {
        // As roff has it.
        let name = name.replace('-', "\\-");
        assert!(page.contains(&name), "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("share/man/man1");
    let output = run(hotset(&["man"]).arg(&dir));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let pages = commands()
        .into_iter()
        .map(|name| format!("hotset-{name}.1"));
    for name in pages.chain(["hotset.1".to_string(), "hotset-profile-show.1".to_string()]) {
        let page = fs::read_to_string(dir.join(&name)).expect(&name);
        assert!(
            page.contains(".TH ") && page.contains(".SH SYNOPSIS"),
            "{name}"
        );
    }
    assert!(!dir.join("hotset-bench-row.1").exists());
    let error = error_of(hotset(&["man"]).arg(dir.join("hotset.1")), 2);
    assert!(error.contains("hotset.1"), "{error}");
}
