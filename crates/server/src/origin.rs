//! Which web pages may speak to the server (server.md 2.2, 18.2): the names it answers to, the origins it lets in, and the
//! headers that tell browsers so. Programs send neither header falsely: this is about browsers on the same machine.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, Method, header};

use crate::config::ServerConfig;
use crate::error::{ApiError, Result};

const METHODS: &str = "GET, POST, DELETE, OPTIONS";
/// The star does not cover `Authorization`.
const HEADERS: &str =
    "*, Authorization, Content-Type, X-Api-Key, Anthropic-Version, Anthropic-Beta, X-Session-Id, X-Request-Id";
const EXPOSED: &str = "x-request-id, request-id, retry-after";

/// What is allowed.
pub(crate) struct Origins {
    every: bool,
    listed: Vec<String>,
    names: Vec<String>,
}

impl Origins {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let names = config.hosts.iter().chain(&config.allowed_hosts).map(|name| host_of(name).to_ascii_lowercase());
        Self {
            every: config.cors || config.cors_origins.iter().any(|origin| origin == "*"),
            listed: config
                .cors_origins
                .iter()
                .map(|origin| origin.trim_end_matches('/').to_ascii_lowercase())
                .collect(),
            names: names.collect(),
        }
    }

    /// Refuses a `Host` that is not a name of ours: a page that had its own name resolved to this machine.
    pub(crate) fn check_host(&self, headers: &HeaderMap, local: IpAddr) -> Result<()> {
        let Some(value) = headers.get(header::HOST) else { return Ok(()) };
        let host = host_of(value.to_str().unwrap_or_default()).to_ascii_lowercase();
        let address = host.parse::<IpAddr>();
        let ours = match address {
            Ok(address) => address.is_loopback() || address == local,
            Err(_) => host == "localhost",
        };
        if ours || self.names.contains(&host) {
            return Ok(());
        }
        let message = format!("host {host:?} is not a name of this server: see --allowed-host");
        Err(ApiError::forbidden("forbidden_host", message))
    }

    /// Refuses changes asked for by pages from elsewhere.
    pub(crate) fn check_origin(&self, method: &Method, headers: &HeaderMap) -> Result<()> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        if !matches!(*method, Method::POST | Method::DELETE | Method::PUT | Method::PATCH) {
            return Ok(());
        }
        let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if self.allows(&origin) || same(&origin, &host.to_ascii_lowercase()) {
            return Ok(());
        }
        let message = format!("origin {origin:?} may not use this server: see --cors-origin");
        Err(ApiError::forbidden("forbidden_origin", message))
    }

    fn allows(&self, origin: &str) -> bool {
        self.every || self.listed.iter().any(|listed| listed == origin)
    }

    /// Tells the browser what its page may see; nothing unless asked for by flags.
    pub(crate) fn put_headers(&self, origin: Option<&HeaderValue>, preflight: bool, response: &mut HeaderMap) {
        if !self.every && self.listed.is_empty() {
            return;
        }
        if self.every {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        } else {
            response.append(header::VARY, HeaderValue::from_static("Origin"));
            let listed = |value: &&HeaderValue| value.to_str().is_ok_and(|o| self.allows(&o.to_ascii_lowercase()));
            let Some(origin) = origin.filter(listed) else { return };
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        if preflight {
            response.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
            response.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
            response.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
}

/// A host without its port and without the brackets of an IPv6 literal.
pub(crate) fn host_of(authority: &str) -> &str {
    let authority = authority.trim();
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    match authority.split_once(':') {
        // More than one colon: an IPv6 literal as it is.
        Some((host, port)) if !port.contains(':') => host,
        _ => authority,
    }
}

/// Whether a page of `origin` came from `host`; both in lower case.
fn same(origin: &str, host: &str) -> bool {
    let (rest, port) = match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
        (Some(rest), _) => (rest, ":80"),
        (_, Some(rest)) => (rest, ":443"),
        _ => return false,
    };
    !host.is_empty() && rest.strip_suffix(port).unwrap_or(rest) == host.strip_suffix(port).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name, value: &str| {
            if !value.is_empty() {
                headers.insert(name, HeaderValue::from_str(value).expect("a value"));
            }
        };
        put(header::HOST, host);
        put(header::ORIGIN, origin);
        headers
    }

    fn origins(cors: bool, listed: &[&str]) -> Origins {
        let text = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
        Origins::new(&ServerConfig {
            cors,
            cors_origins: text(listed),
            hosts: text(&["127.0.0.1", "gpu.lan"]),
            allowed_hosts: text(&["Chat.Example"]),
            ..ServerConfig::default()
        })
    }

    #[test]
    fn only_names_of_ours_are_hosts() {
        let origins = origins(false, &[]);
        let ok = |host: &str| origins.check_host(&headers(host, ""), IpAddr::from([10, 0, 0, 5])).is_ok();
        for ours in [
            "",
            "localhost",
            "LOCALHOST:8000",
            "127.0.0.1",
            "127.8.9.1:1",
            "[::1]:8000",
            "10.0.0.5:8000",
            "gpu.lan:8000",
            "chat.example",
        ] {
            assert!(ok(ours), "{ours}");
        }
        for other in ["evil.example", "10.0.0.6", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]", "0.0.0.0"] {
            assert!(!ok(other), "{other}");
        }
    }

    #[test]
    fn pages_from_elsewhere_change_nothing_unless_allowed() {
        let may = |origins: &Origins, method: &Method, origin: &str| {
            origins.check_origin(method, &headers("localhost:8000", origin)).is_ok()
        };
        let none = origins(false, &[]);
        for (origin, allowed) in [
            ("", true),
            ("http://localhost:8000", true),
            ("https://LOCALHOST:8000", true),
            ("http://localhost", false),
            ("http://localhost:8001", false),
            ("https://evil.example", false),
            ("null", false),
            ("file://", false),
        ] {
            assert_eq!(may(&none, &Method::POST, origin), allowed, "{origin}");
            assert_eq!(may(&none, &Method::DELETE, origin), allowed, "{origin}");
            assert!(may(&none, &Method::GET, origin), "reading is the browser's to forbid");
        }
        let listed = origins(false, &["https://App.example/"]);
        assert!(may(&listed, &Method::POST, "https://app.example"));
        assert!(!may(&listed, &Method::POST, "https://app.example.evil"));
        assert!(may(&origins(true, &[]), &Method::POST, "null"));
        assert!(same("http://localhost:80", "localhost") && same("https://a", "a:443") && !same("http://a", "a:443"));
    }

    #[test]
    fn cors_headers_appear_where_asked_for() {
        let put = |origins: &Origins, origin: &str, preflight| {
            let mut response = HeaderMap::new();
            let sent = headers("", origin);
            origins.put_headers(sent.get(header::ORIGIN), preflight, &mut response);
            response
        };
        assert!(put(&origins(false, &[]), "https://a", true).is_empty());
        let every = put(&origins(true, &[]), "https://a", true);
        assert_eq!(every["access-control-allow-origin"], "*");
        assert!(every["access-control-allow-headers"].to_str().expect("text").contains("Authorization"));
        assert_eq!(every["access-control-max-age"], "600");
        let listed = origins(false, &["https://a"]);
        let (mine, other) = (put(&listed, "https://a", false), put(&listed, "https://b", false));
        assert_eq!(
            (&mine["access-control-allow-origin"], &mine["vary"]),
            (&"https://a".parse().unwrap(), &"Origin".parse().unwrap())
        );
        assert!(other.get("access-control-allow-origin").is_none() && other["vary"] == "Origin");
    }
}
