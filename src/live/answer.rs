//! An answer, before it is sent.

use serde::Serialize;
use serde_json::json;

/// What a request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// Its content type.
    pub kind: &'static str,
    /// The text.
    pub body: String,
}

/// What is asked for each second is of this type; the server asks again until nobody listens.
const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json; charset=utf-8";

impl Answer {
    /// A value as JSON.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_string(value) {
            Ok(body) => Self {
                status: 200,
                kind: JSON,
                body,
            },
            Err(why) => Self::error(500, &why.to_string()),
        }
    }

    /// Why there is nothing else to answer, in the form that llama-server has for it.
    pub fn error(status: u16, message: &str) -> Self {
        Self {
            status,
            kind: JSON,
            body: error_json(status, message),
        }
    }

    /// A page.
    pub fn page(html: &str) -> Self {
        Self {
            status: 200,
            kind: "text/html; charset=utf-8",
            body: html.to_string(),
        }
    }

    /// Some events of a stream.
    pub fn events(text: String) -> Self {
        Self {
            status: 200,
            kind: EVENTS,
            body: text,
        }
    }
}

/// What is wrong, in the form that llama-server has for it.
pub fn error_json(status: u16, message: &str) -> String {
    let kind = match status {
        404 => "not_found_error",
        503 => "unavailable_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    json!({"error": {"code": status, "message": message, "type": kind}}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_form_of_the_server() {
        let answer = Answer::error(404, "no \"such\" file");
        let text = r#"{"error":{"code":404,"message":"no \"such\" file","type":"not_found_error"}}"#;
        assert_eq!((answer.status, answer.body.as_str()), (404, text));
        assert_eq!(Answer::json(&[1, 2]).body, "[1,2]");
    }
}
