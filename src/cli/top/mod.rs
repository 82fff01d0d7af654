//! `hotset top`: what a running server does, in a terminal.

use super::out::print;
use client::{Client, Failure};
use hotset::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

mod address;
mod answers;
mod app;
mod client;
mod heat;
mod history;
mod picture;
#[cfg(test)]
mod sample;
mod screen;
mod snapshot;
mod terminal;
mod threads;
mod words;

/// Show what a running llama-server with hotset does
#[derive(clap::Args)]
#[command(
    after_help = "Keys: q quit; p or space pause; h heat or what memory would bring; b another budget; \
    o another policy; s save the profile; r reset the counters; Tab another model. With NO_COLOR letters \
    are shown instead of colours."
)]
pub struct Args {
    /// Where the server is; a prefix is part of it, and `/hotset` at its end may be
    #[arg(default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The server's API key [default: that of LLAMA_API_KEY]
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// The model to show, of a server that routes between models
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Print what there is to see as text, once; so it is too where the output is no terminal
    #[arg(long)]
    once: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let base = address::base(&args.url)?;
    let client = Client::new(base, args.key()?, args.model.clone());
    let is_once = args.once || !io::stdout().is_terminal();
    let failed = |failure| args.explained(failure, &client);
    match threads::look(&client) {
        Ok((stats, heat)) if is_once => {
            let plans = client.plans().map_err(failed)?;
            print(&snapshot::text(client.base(), &stats, &heat, &plans))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(_) => terminal::watch(client),
        // It loads its model.
        Err(Failure::Refused(503, _)) if !is_once => terminal::watch(client),
        Err(failure) => Err(failed(failure)),
    }
}

impl Args {
    /// The key, from where llama-server has it too: the first, if there are several.
    fn key(&self) -> Result<Option<String>, Error> {
        let variable = || std::env::var("LLAMA_API_KEY").ok();
        let keys = self.api_key.clone().or_else(variable).unwrap_or_default();
        let key = keys.split(',').next().unwrap_or_default().trim();
        match key.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(Some(key.to_string()).filter(|key| !key.is_empty())),
            // The key itself is nobody's business who sees the screen.
            false => Err(Error::setting(
                "--api-key",
                "...",
                "expected letters, digits and signs of ASCII without spaces",
            )),
        }
    }

    /// The error that ends the command, with what this server needs to be told.
    fn explained(&self, failure: Failure, client: &Client) -> anyhow::Error {
        let is_refused = matches!(failure, Failure::Refused(400..500, _));
        match is_refused.then(|| client.routed()).flatten() {
            Some(names) if self.model.is_none() => {
                let why = format!(
                    "this server routes between models: name one with --model, of {}",
                    names.join(", ")
                );
                Error::file(client.base(), why).into()
            }
            _ => failure.error(client.base()),
        }
    }
}
