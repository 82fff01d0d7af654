//! A server that runs shows its experts and takes changes, on its own port.

#![cfg(all(feature = "llama", feature = "cli"))]
#![allow(unsafe_code)]

#[path = "../child/mod.rs"]
mod child;
#[path = "../serving/mod.rs"]
mod serving;

mod answers;
mod metrics;
mod page;
mod steering;

use child::polyglot;
use serde_json::Value;
use serving::LlamaServer;

/// A server of the bundled model with so much memory.
fn server(ram: &str, vars: &[(&str, &str)], args: &[&str]) -> LlamaServer {
    let vars = [&[("HOTSET_RAM", ram)], vars].concat();
    let args = [&["-c", "1024", "-np", "1", "--metrics"], args].concat();
    LlamaServer::start(&polyglot(), &vars, &args)
}

/// The only model of an answer.
fn only(answer: &Value) -> &Value {
    let models = answer.as_array().unwrap();
    assert_eq!(models.len(), 1, "{answer:#}");
    &models[0]
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}
