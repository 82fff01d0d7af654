//! What is asked of a server.

use crate::error::{Error, Result};
use serde::Deserialize;
use std::ffi::OsString;

/// The page: one file, which asks for all else.
pub const PAGE: &str = include_str!("page.html");

/// A request below `/hotset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The page.
    Page,
    /// The counters of each model.
    Stats,
    /// By layer and expert, how hot it is and where.
    Heat,
    /// What the last second has brought.
    Events,
    /// What each amount of memory would bring.
    Plan,
    /// What the experts of a sequence have cost since this was asked for last. No request of HTTP.
    Sequence(i32),
    /// Another budget, in the words of `HOTSET_RAM`.
    Budget(String),
    /// Another policy.
    Policy(String),
    /// Something about profiles.
    Profile(ProfileWish),
    /// Counters that begin anew.
    Reset,
}

impl Request {
    /// Whether it changes anything.
    pub fn changes(&self) -> bool {
        match self {
            Self::Page | Self::Stats | Self::Heat | Self::Events | Self::Plan | Self::Sequence(_) => false,
            Self::Budget(_) | Self::Policy(_) | Self::Profile(_) | Self::Reset => true,
        }
    }
}

/// What is to be done about profiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfileWish {
    /// To save what was learnt.
    Save,
    /// To go by this one from now on, in the words of `HOTSET_PROFILE`.
    Use(OsString),
    /// To choose one of this folder.
    Folder(OsString),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    ram: String,
    /// A router has gone by it.
    #[serde(default, rename = "model")]
    _model: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    name: String,
    #[serde(default, rename = "model")]
    _model: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    save: Option<bool>,
    r#use: Option<String>,
    folder: Option<String>,
    #[serde(default, rename = "model")]
    _model: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    #[serde(default, rename = "model")]
    _model: Option<String>,
}

/// The request of `method` at `path`, which may begin with a prefix, with this body. `None` if there is no such thing; an
/// error says what is wrong with the body.
pub fn parse(method: &str, path: &str, query: &str, body: &[u8]) -> Option<Result<Request>> {
    if path == "/request" {
        let seq = query.strip_prefix("seq=")?.parse().ok()?;
        return Some(Ok(Request::Sequence(seq)));
    }
    let (_, what) = path.rsplit_once("/hotset")?;
    Some(match (method, what) {
        ("GET", "") => Ok(Request::Page),
        ("GET", "/stats") => Ok(Request::Stats),
        ("GET", "/heat") => Ok(Request::Heat),
        ("GET", "/events") => Ok(Request::Events),
        ("GET", "/plan") => Ok(Request::Plan),
        ("POST", "/budget") => of_json(body, r#"{"ram": "6GiB"}"#).map(|b: Budget| Request::Budget(b.ram)),
        ("POST", "/policy") => of_json(body, r#"{"name": "lru"}"#).map(|p: Policy| Request::Policy(p.name)),
        ("POST", "/profile") => of_json(body, PROFILE).and_then(wish).map(Request::Profile),
        ("POST", "/reset") => of_json(body, "{}").map(|_: Reset| Request::Reset),
        _ => return None,
    })
}

const PROFILE: &str = r#"{"save": true}, {"use": "name[:weight]"} or {"folder": "path"}"#;

/// The body as a value; one that is empty is an object without fields.
fn of_json<'a, T: Deserialize<'a>>(body: &'a [u8], allowed: &str) -> Result<T> {
    let body = match body.trim_ascii() {
        b"" => b"{}",
        body => body,
    };
    // A list of its fields would do for a struct.
    match body.starts_with(b"{") {
        true => serde_json::from_slice(body).map_err(|why| refused(body, &why.to_string(), allowed)),
        false => Err(refused(body, "it is no JSON object", allowed)),
    }
}

fn refused(body: &[u8], why: &str, allowed: &str) -> Error {
    const SHOWN_MAX: usize = 200;
    let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN_MAX)]);
    Error::setting("body", shown, format!("{why}; expected {allowed}"))
}

fn wish(asked: Profile) -> Result<ProfileWish> {
    match (asked.save, asked.r#use, asked.folder) {
        (Some(true), None, None) => Ok(ProfileWish::Save),
        (None, Some(text), None) => Ok(ProfileWish::Use(text.into())),
        (None, None, Some(text)) => Ok(ProfileWish::Folder(text.into())),
        _ => Err(refused(b"", "one of the three is to be done", PROFILE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(method: &str, path: &str, body: &str) -> Option<Request> {
        parse(method, path, "", body.as_bytes()).map(|request| request.unwrap())
    }

    #[test]
    fn a_path_may_have_a_prefix() {
        for prefix in ["", "/llm", "/hotset"] {
            let path = |what: &str| format!("{prefix}/hotset{what}");
            assert_eq!(ok("GET", &path(""), ""), Some(Request::Page));
            assert_eq!(ok("GET", &path("/stats"), ""), Some(Request::Stats));
            assert_eq!(ok("POST", &path("/stats"), ""), None);
            assert_eq!(ok("GET", &path("/nothing"), ""), None);
            assert_eq!(ok("POST", &path("/reset"), ""), Some(Request::Reset));
        }
        let sequence = parse("GET", "/request", "seq=3", b"").unwrap().unwrap();
        assert_eq!(sequence, Request::Sequence(3));
    }

    #[test]
    fn bodies_are_checked() {
        let budget = ok("POST", "/hotset/budget", r#"{"model":"a","ram":"6GiB"}"#);
        assert_eq!(budget, Some(Request::Budget("6GiB".to_string())));
        let used = ok("POST", "/hotset/profile", r#"{"use":"chat.json:2"}"#);
        let wish = ProfileWish::Use("chat.json:2".into());
        assert_eq!(used, Some(Request::Profile(wish)));
        for (path, body, part) in [
            ("budget", "", "missing field `ram`"),
            ("budget", "{", "EOF"),
            ("budget", r#"{"ram":6}"#, "invalid type"),
            ("policy", r#"{"name":"lru","then":1}"#, "unknown field `then`"),
            ("profile", "{}", "one of the three"),
            ("profile", r#"{"save":false}"#, "one of the three"),
            ("profile", r#"{"save":true,"use":"a"}"#, "one of the three"),
            ("reset", "[]", "no JSON object"),
        ] {
            let path = format!("/hotset/{path}");
            let error = parse("POST", &path, "", body.as_bytes()).unwrap().unwrap_err();
            let error = error.to_string();
            assert!(error.contains(part) && error.contains("expected"), "{path} {body}: {error}");
        }
    }
}
