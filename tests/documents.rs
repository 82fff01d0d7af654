//! What the documents say is what the code has.

use hotset::config::KNOBS;
use std::fs;

/// The rows of README's table of settings are those of the list that the program reads.
#[test]
fn the_table_of_settings_is_the_list_of_settings() {
    let readme =
        fs::read_to_string("README.md").expect("the tests run in the folder of the package");
    let rows = readme.lines().filter(|line| line.starts_with("| `HOTSET"));
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
