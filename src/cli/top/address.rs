//! Where a server is: the URL that a user types, checked.

use hotset::error::{Error, Result};
use ureq::http::Uri;

const ALLOWED: &str = "expected the address of a llama-server, as in http://127.0.0.1:8080 or http://host:8080/prefix";

/// The URL without a slash at its end, and without the page's `/hotset`, with which it is easily copied.
pub fn base(text: &str) -> Result<String> {
    let refused = |why: &str| Error::setting("URL", text, why);
    let uri: Uri = text.parse().map_err(|_| refused(ALLOWED))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(refused(
                "https is not spoken here: take a http:// URL, of an SSH tunnel (ssh -L) for example",
            ));
        }
        _ => return Err(refused(ALLOWED)),
    }
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    // `host:` and `host:99999` have a port that is none.
    let is_plain = !authority.contains('@') && authority.len() == authority_len(&uri);
    if !has_host || !is_plain || uri.query().is_some() || text.contains('#') {
        return Err(refused(ALLOWED));
    }
    let path = uri.path().trim_end_matches('/');
    let prefix = path.strip_suffix("/hotset").unwrap_or(path);
    Ok(format!("http://{authority}{prefix}"))
}

fn authority_len(uri: &Uri) -> usize {
    let port = uri.port().map_or(0, |port| 1 + port.as_str().len());
    uri.host().map_or(0, str::len) + port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_may_have_a_prefix_and_that_of_the_page() {
        for (text, wanted) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("http://box/llm/", "http://box/llm"),
            ("http://[::1]:8080/hotset", "http://[::1]:8080"),
            ("http://box/llm/hotset/", "http://box/llm"),
        ] {
            assert_eq!(base(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_with_what_is_one() {
        for text in [
            "",
            "box",
            "box:8080",
            "127.0.0.1:8080",
            "ftp://box",
            "http://",
            "http://:8080",
            "http://box:",
            "http://box:99999",
            "http://box:x",
            "http://key@box",
            "http://box/?model=a",
            "http://box/#a",
            "http://a b",
        ] {
            let error = base(text).expect_err(text).to_string();
            assert!(error.starts_with(&format!("URL={text}: ")), "{error}");
            assert!(error.contains("http://host:8080/prefix"), "{error}");
        }
        let error = base("https://box").unwrap_err().to_string();
        assert!(error.contains("https is not spoken"), "{error}");
    }
}
