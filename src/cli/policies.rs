//! `hotset policies`: what the registry holds.

use super::out::print;
use comfy_table::{Table, presets};
use hotset::policy::{Param, REGISTRY, Spec};
use serde_json::{Value, json};

/// List the policies
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let text = match args.json {
        true => serde_json::to_string_pretty(&REGISTRY.iter().map(value).collect::<Vec<_>>())?,
        false => table(),
    };
    print(&format!("{text}\n"))
}

fn value(spec: &Spec) -> Value {
    json!({
        "name": spec.name,
        "about": spec.about,
        "when": spec.when,
        "source": spec.source,
        "param": spec.param.map(|Param { name, default, min, max }| {
            json!({ "name": name, "default": default, "min": min, "max": max })
        }),
    })
}

fn table() -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["NAME", "WHAT IT EVICTS", "WHEN TO USE IT", "SOURCE"]);
    for spec in REGISTRY {
        let (name, about) = match spec.param {
            None => (spec.name.to_string(), spec.about.to_string()),
            Some(Param {
                name,
                default,
                min,
                max,
            }) => (
                format!("{}[:N]", spec.name),
                format!(
                    "{}; N = {name}, {min} to {max}, default {default}",
                    spec.about
                ),
            ),
        };
        table.add_row([&name, &about, spec.when, spec.source]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}
