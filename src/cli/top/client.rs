//! Requests to a server, and what can come of them.

use super::answers::{Budgets, Chosen, Heat, Plan, Saved, Stats};
use hotset::error::Error;
use hotset::numbers::bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;
use ureq::http::Response;
use ureq::{Agent, Body};

/// How long a server may take for what it has at hand.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take where it has to compute, move experts or write a file.
const WORK: Duration = Duration::from_secs(120);
/// No answer is larger.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Something that a user wants changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    Budget(String),
    Policy(String),
    SaveProfile,
    Reset,
}

/// Why there is no answer that can be shown.
#[derive(Debug)]
pub enum Failure {
    /// The server wants a key, or another one.
    Unauthorized,
    /// It answers with this status and these words.
    Refused(u16, String),
    /// What it answers is something else.
    Strange(String),
    /// It does not answer.
    Unreachable(io::Error),
}

pub struct Client {
    agent: Agent,
    base: String,
    key: Option<String>,
    model: Option<String>,
}

impl Client {
    /// Of the server at `base`. `model` is for servers that route between models.
    pub fn new(base: String, key: Option<String>, model: Option<String>) -> Self {
        // The server is named: nothing is asked of a proxy, and the key goes nowhere else.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None);
        Self {
            agent: config.build().new_agent(),
            base,
            key,
            model,
        }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn stats(&self) -> Result<Vec<Stats>, Failure> {
        self.get("/hotset/stats", ANSWER)
    }

    pub fn heat(&self) -> Result<Vec<Heat>, Failure> {
        self.get("/hotset/heat", ANSWER)
    }

    pub fn plans(&self) -> Result<Vec<Plan>, Failure> {
        self.get("/hotset/plan", WORK)
    }

    /// The names of the models between which the server routes; `None` if it has one itself.
    pub fn routed(&self) -> Option<Vec<String>> {
        let props: Value = self.get("/props", ANSWER).ok()?;
        if props["role"] != "router" {
            return None;
        }
        let models: Value = self.get("/models", ANSWER).ok()?;
        let models = models["data"].as_array()?.iter();
        let names = models.filter_map(|model| model["id"].as_str());
        Some(names.map(printable).collect())
    }

    /// Has something changed, and says in a sentence what is so now.
    pub fn order(&self, order: &Order) -> Result<String, Failure> {
        Ok(match order {
            Order::Budget(ram) => {
                let answer: Budgets = self.post("/hotset/budget", json!({"ram": ram}))?;
                let said = answer.models.iter().map(|model| {
                    let (memory, n_slots) = (bytes(model.budget_bytes), model.n_slots);
                    format!("{}: experts have {memory}, {n_slots} slots", model.ram)
                });
                format!("budget {}", said.collect::<Vec<_>>().join("; "))
            }
            Order::Policy(name) => {
                let answer: Chosen = self.post("/hotset/policy", json!({"name": name}))?;
                format!("the policy is {} now", answer.policy)
            }
            Order::SaveProfile => {
                let answer: Saved = self.post("/hotset/profile", json!({"save": true}))?;
                format!("saved {}", answer.saved.join(", "))
            }
            Order::Reset => {
                let _: Value = self.post("/hotset/reset", json!({}))?;
                "the counters begin again".to_string()
            }
        })
    }

    fn get<T: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<T, Failure> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(model) = &self.model {
            request = request.query("model", model);
        }
        if let Some(key) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let request = request.config().timeout_global(Some(limit)).build();
        answer(request.call().map_err(Failure::of)?)
    }

    fn post<T: DeserializeOwned>(&self, path: &str, mut body: Value) -> Result<T, Failure> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        if let Some(model) = &self.model {
            body["model"] = json!(model);
        }
        if let Some(key) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let request = request.config().timeout_global(Some(WORK)).build();
        answer(request.send_json(&body).map_err(Failure::of)?)
    }
}

/// What `response` holds.
fn answer<T: DeserializeOwned>(mut response: Response<Body>) -> Result<T, Failure> {
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
    let body = body.read_to_vec().map_err(Failure::of)?;
    match status {
        200 => {
            let json = &mut serde_json::Deserializer::from_slice(&body);
            serde_path_to_error::deserialize(json).map_err(|error| {
                let why = match error.path().iter().count() {
                    0 => error.inner().to_string(),
                    _ => error.to_string(),
                };
                Failure::Strange(printable(&why))
            })
        }
        401 => Err(Failure::Unauthorized),
        status => {
            let json: Value = serde_json::from_slice(&body).unwrap_or_default();
            let said = json["error"]["message"].as_str().unwrap_or_default();
            Err(Failure::Refused(status, printable(said)))
        }
    }
}

impl Failure {
    fn of(error: ureq::Error) -> Self {
        match error {
            ureq::Error::Io(cause) => Self::Unreachable(cause),
            ureq::Error::Timeout(_) => Self::Unreachable(io::Error::new(
                io::ErrorKind::TimedOut,
                "it took too long to answer",
            )),
            ureq::Error::HostNotFound => {
                Self::Unreachable(io::Error::other("there is no host of this name"))
            }
            ureq::Error::Protocol(why) => Self::Strange(format!("this is no HTTP: {why}")),
            other => Self::Strange(other.to_string()),
        }
    }

    /// Why, for the line in which a screen says it.
    pub fn reason(&self) -> String {
        match self {
            Self::Unauthorized => "the server wants an API key: --api-key".to_string(),
            Self::Refused(404, said) if is_plain_404(said) => {
                "this server answers 404: it is one without hotset, or HOTSET_HTTP is off"
                    .to_string()
            }
            Self::Refused(status, said) if said.is_empty() => {
                format!("the server answers with status {status}")
            }
            Self::Refused(_, said) => said.clone(),
            Self::Strange(why) => format!("the answer is none of hotset: {why}"),
            Self::Unreachable(cause) => cause.to_string(),
        }
    }

    /// The error that ends the command.
    pub fn error(self, base: &str) -> anyhow::Error {
        let why = self.reason();
        match self {
            Self::Unreachable(cause) => Error::system(base, cause).into(),
            Self::Refused(500.., _) => anyhow::anyhow!("{base}: {why}"),
            _ => Error::file(base, why).into(),
        }
    }
}

/// Whether a 404 is what any llama-server says of a path that it does not have.
fn is_plain_404(said: &str) -> bool {
    matches!(said, "" | "File Not Found" | "Not Found")
}

/// `text` of somebody else, without what a terminal would take for a command.
pub fn printable(text: &str) -> String {
    let seen = |c: char| match c.is_control() {
        true => '?',
        false => c,
    };
    text.chars().map(seen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_body(status: u16, body: &str) -> Result<Vec<Stats>, Failure> {
        let body = Body::builder().data(body.to_string());
        answer(Response::builder().status(status).body(body).unwrap())
    }

    #[test]
    fn an_answer_that_is_none_says_where() {
        let reason = |status, body: &str| of_body(status, body).unwrap_err().reason();
        assert!(of_body(200, "[]").unwrap().is_empty());
        let text = reason(200, "<html>");
        assert!(
            text.contains("none of hotset: expected value at line 1"),
            "{text}"
        );
        let text = reason(200, r#"[{"model":"a","policy":7}]"#);
        assert!(text.contains("[0].policy: invalid type"), "{text}");
        assert!(reason(404, "").contains("HOTSET_HTTP"));
        let said = r#"{"error":{"code":404,"message":"File Not Found"}}"#;
        assert!(reason(404, said).contains("HOTSET_HTTP"));
        let said = r#"{"error":{"code":400,"message":"no such \u001b[31mmodel"}}"#;
        assert_eq!(reason(400, said), "no such ?[31mmodel");
        assert_eq!(reason(302, ""), "the server answers with status 302");
        assert!(reason(401, "").contains("--api-key"));
    }
}
