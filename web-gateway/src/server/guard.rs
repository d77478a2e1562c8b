//! Who may ask: Host (against DNS rebinding), Origin (against foreign pages), token, size, in this order and before any
//! byte of the body is read. It follows the OWASP REST security cheat sheet.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};

use super::limits::BODY_BYTES_MAX;
use super::sessions::{Session, Sessions};
use super::{Local, ServerConfig};
use crate::refusal::Refusal;
use crate::routes::{self, pages};

pub(super) struct Guard {
    token: blake3::Hash,
    /// The beginning of the node's id.
    node: String,
    sessions: Arc<Sessions>,
    allowed_hosts: Vec<String>,
}

/// By what a request was let in.
#[derive(Debug)]
pub(super) enum Opened {
    /// The API's token.
    Token,
    /// A person's session.
    Session(Session),
    /// It asks for what everybody may see: the pages themselves, which hold nothing of the mesh.
    Public,
}

impl Guard {
    pub(super) fn new(config: ServerConfig, sessions: Arc<Sessions>) -> Self {
        let allowed_hosts = config.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self { token: blake3::hash(config.token.as_bytes()), node: config.node, sessions, allowed_hosts }
    }

    /// Checks a request's head. `local` is the address that the client connected to.
    pub(super) fn check(&self, local: Local, parts: &Parts) -> Result<Opened, Refusal> {
        let asks_to_join = parts.method == Method::GET && parts.uri.path() == "/v1/join";
        if !local.is_open && !asks_to_join {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "tls_required",
                format!("from another machine this is served by TLS only: use https://{}", local.address),
            ));
        }
        self.check_host(local.address, parts)?;
        self.check_origin(local.address, &parts.headers)?;
        let opened = if is_public(parts) { Opened::Public } else { self.check_right(local, parts)? };
        check_size(parts)?;
        Ok(opened)
    }

    /// The token, else the cookie of a session.
    fn check_right(&self, local: Local, parts: &Parts) -> Result<Opened, Refusal> {
        if !parts.headers.contains_key(header::AUTHORIZATION)
            && let Some(session) = self.session(local, &parts.headers)
        {
            self.check_own_page(local.address, parts)?;
            return Ok(Opened::Session(session));
        }
        self.check_token(&parts.headers).map(|()| Opened::Token)
    }

    /// The live session of a cookie; of several cookies of one name, of any.
    fn session(&self, local: Local, headers: &HeaderMap) -> Option<Session> {
        let (now, wanted) = (Instant::now(), routes::cookie_name(&self.node, local.is_tls));
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.filter(|(name, _)| *name == wanted).find_map(|(_, value)| self.sessions.find(value, now))
    }

    /// What changes something by a cookie must come from a page of this node: another port of the same host is the same site,
    /// so that `SameSite` stops nothing there.
    fn check_own_page(&self, local: SocketAddr, parts: &Parts) -> Result<(), Refusal> {
        if matches!(parts.method, Method::GET | Method::HEAD) {
            return Ok(());
        }
        let has_own_origin =
            parts.headers.contains_key(header::ORIGIN) && self.check_origin(local, &parts.headers).is_ok();
        let from = parts.headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
        let is_own = has_own_origin
            || (!parts.headers.contains_key(header::ORIGIN) && matches!(from, Some("same-origin" | "none")));
        if is_own {
            return Ok(());
        }
        Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            "a session changes something only from a page of this node: open the node's own address",
        ))
    }

    fn check_host(&self, local: SocketAddr, parts: &Parts) -> Result<(), Refusal> {
        let mut hosts = parts.headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(Refusal::bad_request("send exactly one Host header"));
        };
        let in_target = parts.uri.authority().map(|authority| authority.as_str());
        let host = host.to_str().unwrap_or("");
        for named in std::iter::once(host).chain(in_target) {
            if !self.is_ours(local, named) {
                return Err(Refusal::new(
                    StatusCode::MISDIRECTED_REQUEST,
                    "wrong_host",
                    format!("this server is not {named:?}: use the address that the node printed when it started"),
                ));
            }
        }
        Ok(())
    }

    fn check_origin(&self, local: SocketAddr, headers: &HeaderMap) -> Result<(), Refusal> {
        for origin in headers.get_all(header::ORIGIN) {
            let own = origin
                .to_str()
                .ok()
                .and_then(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")))
                .is_some_and(|host| self.is_ours(local, host));
            if !own {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "foreign_origin",
                    "pages of another origin may not use this API: open the node's own address",
                ));
            }
        }
        Ok(())
    }

    /// The comparison takes the same time wherever the tokens differ: hashes are compared, and those in constant time.
    fn check_token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let refusal = |message| Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", message);
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(refusal(
                "send the header `Authorization: Bearer TOKEN`; the token is in the file api.token of the node's data directory",
            ));
        };
        let token = value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        match token {
            Some(token) if blake3::hash(token.as_bytes()) == self.token => Ok(()),
            _ => Err(refusal("this token is not the node's: read the file api.token of its data directory again")),
        }
    }

    fn is_ours(&self, local: SocketAddr, named: &str) -> bool {
        let named = named.to_ascii_lowercase();
        if self.allowed_hosts.contains(&named) {
            return true;
        }
        let Some((host, port)) = split_host(&named) else { return false };
        if port != local.port() {
            return false;
        }
        match host.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || ip == local.ip().to_canonical(),
            Err(_) => host == "localhost",
        }
    }
}

/// Splits `host:port`; without a port it is 80, as HTTP has it.
fn split_host(named: &str) -> Option<(&str, u16)> {
    if let Some(rest) = named.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok()?)),
            None => rest.is_empty().then_some((host, 80)),
        };
    }
    match named.split_once(':') {
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((named, 80)),
    }
}

fn check_size(parts: &Parts) -> Result<(), Refusal> {
    if is_upload(&parts.method, parts.uri.path()) {
        return Ok(());
    }
    let announced =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match announced {
        Some(bytes) if bytes > BODY_BYTES_MAX as u64 => Err(too_large(bytes)),
        _ => Ok(()),
    }
}

fn too_large(bytes: u64) -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
        format!(
            "{bytes} bytes are more than the {BODY_BYTES_MAX} of a request: send data as a blob (PUT /v1/blobs/HASH)"
        ),
    )
}

/// Pages and what they are made of; a sign-in link, which is its own right; where the mesh is reached.
fn is_public(parts: &Parts) -> bool {
    let path = parts.uri.path();
    matches!(parts.method, Method::GET | Method::HEAD)
        && (path == "/v1/join"
            || path.starts_with("/open/")
            || pages::is_file(path)
            || pages::is_page(path, &parts.headers))
}

fn is_upload(method: &Method, path: &str) -> bool {
    matches!(*method, Method::PUT | Method::POST)
        && (path == "/v1/blobs" || path == "/v1/trees" || path == "/v1/blobs/batch" || is_blob(path))
}

fn is_blob(path: &str) -> bool {
    path.strip_prefix("/v1/blobs/").is_some_and(|hash| hash.len() == 64)
}

/// Headers that every answer carries; one that a route has set is left alone.
pub(super) fn harden(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_the_own_address_with_the_own_port_are_ours() {
        let config = ServerConfig {
            token: "t".into(),
            allowed_hosts: vec!["Mesh.Example:443".into()],
            ..ServerConfig::default()
        };
        let guard = Guard::new(config, Arc::default());
        let local: SocketAddr = "192.168.1.5:8000".parse().expect("an address");
        for ours in
            ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "192.168.1.5:8000", "LOCALHOST:8000", "mesh.example:443"]
        {
            assert!(guard.is_ours(local, ours), "{ours}");
        }
        for foreign in [
            "localhost",
            "localhost:80",
            "evil.example:8000",
            "192.168.1.6:8000",
            "",
            "[::1",
            "localhost:8000:1",
            "localhost.evil:8000",
        ] {
            assert!(!guard.is_ours(local, foreign), "{foreign}");
        }
    }
}
