//! Models that are elsewhere: in upstream's download cache, or on the hub, where the heads of their files are read by ranges.

use super::heads::{ModelFile, head};
use super::names::{best, splits};
use hotset::error::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read};
use std::time::Duration;
use ureq::Agent;

const DEFAULT: &str = "https://huggingface.co/";
/// How long a server may take for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the rest of it may take: a range over a slow link.
const BODY: Duration = Duration::from_secs(300);
/// No list of files is larger.
const LIST_BYTES_MAX: u64 = 32 << 20;
/// What is asked for at first, of a head; then twice as much each time, up to the last.
const RANGE_BYTES: u64 = 1 << 20;
const RANGE_BYTES_MAX: u64 = 16 << 20;

/// A hub.
pub struct Hub {
    agent: Agent,
    /// With a slash at its end.
    endpoint: String,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Refs {
    branches: Vec<Branch>,
}

#[derive(Deserialize)]
struct Branch {
    name: String,
    #[serde(rename = "targetCommit")]
    commit: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
}

impl Hub {
    /// The one that the environment names as llama.cpp reads it; `variable` looks there.
    pub fn from_env(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let named = ["MODEL_ENDPOINT", "HF_ENDPOINT"]
            .into_iter()
            .find_map(variable);
        let mut endpoint = named.unwrap_or_else(|| DEFAULT.to_string());
        if !endpoint.ends_with('/') {
            endpoint.push('/');
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(ANSWER))
            .timeout_recv_response(Some(ANSWER))
            .timeout_recv_body(Some(BODY));
        Self {
            agent: config.build().new_agent(),
            endpoint,
            token: variable("HF_TOKEN"),
        }
    }

    /// The heads of the model that `quant` names in `repo`, and its missing files.
    ///
    /// Fails if the hub cannot be reached, and if it has no such model.
    pub fn open(&self, repo: &str, quant: &str) -> Result<(Vec<ModelFile>, Vec<String>)> {
        let refs: Refs = self.json(&format!("api/models/{repo}/refs"), repo)?;
        let main = refs.branches.iter().find(|branch| branch.name == "main");
        let Some(branch) = main.or(refs.branches.first()) else {
            return Err(Error::setting(
                "--hf",
                repo,
                "the hub lists no branch of it",
            ));
        };
        let commit = &branch.commit;
        let entries: Vec<Entry> = self.json(
            &format!("api/models/{repo}/tree/{commit}?recursive=true"),
            repo,
        )?;
        let files = entries.into_iter().filter(|entry| entry.kind == "file");
        let paths: Vec<String> = files.map(|entry| entry.path).collect();
        let Some(first) = best(&paths, quant) else {
            return Err(none(repo, quant, &paths));
        };
        let (there, missing) = splits(&paths, first);
        let of = |path: &&String| self.head(repo, commit, path);
        Ok((there.iter().map(of).collect::<Result<_>>()?, missing))
    }

    fn json<T: DeserializeOwned>(&self, path: &str, repo: &str) -> Result<T> {
        let url = format!("{}{path}", self.endpoint);
        let mut response = self.get(&url, None)?;
        match response.status().as_u16() {
            200 => {}
            status @ (401 | 403 | 404) => {
                let why = format!(
                    "{url} answers with status {status}: there is no such repository, or it needs HF_TOKEN"
                );
                return Err(Error::setting("--hf", repo, why));
            }
            status => return Err(strange(&url, format!("status {status}"))),
        }
        let body = response.body_mut().with_config().limit(LIST_BYTES_MAX);
        body.read_json().map_err(|e| strange(&url, e.to_string()))
    }

    /// Asks for `range` of what is at `url`, or for all of it.
    fn get(
        &self,
        url: &str,
        range: Option<(u64, u64)>,
    ) -> Result<ureq::http::Response<ureq::Body>> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some((first, last)) = range {
            request = request.header("Range", format!("bytes={first}-{last}"));
        }
        request.call().map_err(|cause| {
            let why = format!("the hub cannot be reached: {cause}");
            Error::system(url, io::Error::other(why))
        })
    }

    fn head(&self, repo: &str, commit: &str, path: &str) -> Result<ModelFile> {
        let url = format!("{}{repo}/resolve/{commit}/{path}", self.endpoint);
        let mut ranges = Ranges {
            hub: self,
            url: &url,
            at: 0,
            n_bytes: None,
            next: RANGE_BYTES,
            buffer: Vec::new().into_iter(),
        };
        let listing =
            head(&mut ranges).map_err(|e| strange(&url, format!("not a valid GGUF file: {e}")))?;
        Ok(ModelFile {
            name: path.to_string(),
            path: None,
            listing,
            n_bytes: ranges.n_bytes.unwrap_or(0),
        })
    }
}

fn strange(url: &str, why: String) -> Error {
    Error::system(url, io::Error::other(why))
}

/// There is no file that is meant.
pub fn none(repo: &str, quant: &str, paths: &[String]) -> Error {
    let there_are: Vec<&str> = paths
        .iter()
        .map(String::as_str)
        .filter(|path| path.ends_with(".gguf"))
        .collect();
    let allowed = match there_are.as_slice() {
        [] => "it has no GGUF files".to_string(),
        list => format!("no file of it is meant; it has {}", list.join(", ")),
    };
    let value = match quant {
        "" => repo.to_string(),
        quant => format!("{repo}:{quant}"),
    };
    Error::setting("--hf", value, allowed)
}

/// A file on a server, read from its begin in pieces.
struct Ranges<'a> {
    hub: &'a Hub,
    url: &'a str,
    /// Where the next piece begins.
    at: u64,
    /// Of the file, when the server has said so.
    n_bytes: Option<u64>,
    next: u64,
    buffer: std::vec::IntoIter<u8>,
}

impl Ranges<'_> {
    fn fetch(&mut self) -> io::Result<()> {
        let last = self.at + self.next - 1;
        let mut response = self
            .hub
            .get(self.url, Some((self.at, last)))
            .map_err(io::Error::other)?;
        match response.status().as_u16() {
            206 => {}
            // There is nothing after the end.
            416 => return Ok(()),
            200 => return Err(io::Error::other("the server does not give parts of files")),
            status => {
                return Err(io::Error::other(format!(
                    "the server answers with status {status}"
                )));
            }
        }
        let range = response
            .headers()
            .get("content-range")
            .and_then(|value| value.to_str().ok());
        let total = range.and_then(|range| range.rsplit_once('/')?.1.parse().ok());
        self.n_bytes = self.n_bytes.or(total);
        let body = response.body_mut().with_config().limit(self.next + 1);
        let bytes = body.read_to_vec().map_err(io::Error::other)?;
        self.at += bytes.len() as u64;
        self.next = (2 * self.next).min(RANGE_BYTES_MAX);
        self.buffer = bytes.into_iter();
        Ok(())
    }
}

impl Read for Ranges<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let is_over = self.n_bytes.is_some_and(|n| self.at >= n);
        if self.buffer.as_slice().is_empty() && !is_over {
            self.fetch()?;
        }
        let mut rest = self.buffer.as_slice();
        let n = rest.read(buffer)?;
        if n > 0 {
            self.buffer.nth(n - 1);
        }
        Ok(n)
    }
}
