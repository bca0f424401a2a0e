//! Paths as the routes know them: decoded, without a slash at the end, with the `/v1` that users forget.

use axum::http::uri::{PathAndQuery, Uri};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What stands after `/v1/`, where the path may also be without.
const VERSIONED: &[&str] = &["chat", "completions", "embeddings", "messages", "models", "requests", "responses"];
/// What cannot stand in a path as it is.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`');

/// The same address with such a path.
pub(crate) fn normal(uri: &Uri) -> Option<Uri> {
    let path = normal_path(uri.path())?;
    let path = utf8_percent_encode(&path, ENCODED).to_string();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let whole = PathAndQuery::try_from(path + &query).ok()?;
    Some(Uri::from(whole))
}

fn normal_path(path: &str) -> Option<String> {
    let decoded = percent_decode_str(path).decode_utf8().ok()?;
    let path = decoded.strip_suffix('/').unwrap_or(&decoded);
    let first = path.strip_prefix('/').unwrap_or(path).split('/').next().unwrap_or_default();
    Some(match path {
        "" => "/".to_owned(),
        "/v1/health" => "/health".to_owned(),
        _ if VERSIONED.contains(&first) => format!("/v1{path}"),
        _ => path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_path_become_one() {
        for (given, expected) in [
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/chat/completions/", "/v1/chat/completions"),
            ("/v1/messages?beta=true", "/v1/messages?beta=true"),
            ("/%76%31/models", "/v1/models"),
            ("/models/a%2Fb", "/v1/models/a/b"),
            ("/v1/models/a%20b", "/v1/models/a%20b"),
            ("/v1/models/%25", "/v1/models/%25"),
            ("/v1/health/", "/health"),
            ("/health", "/health"),
            ("/", "/"),
            ("/modelsx", "/modelsx"),
            ("/v1/tokenize", "/v1/tokenize"),
        ] {
            let uri: Uri = given.parse().expect("an address");
            assert_eq!(normal(&uri).expect("a path").to_string(), expected, "{given}");
        }
        assert!(normal(&"/%ff".parse().expect("an address")).is_none());
    }
}
