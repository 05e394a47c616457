//! A plain HTTPS client that trusts what pip and curl on this machine trust.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use super::pip::PipConfig;

/// A body and what the server said about its form.
pub(crate) struct Page {
    pub body: Vec<u8>,
    pub content_type: String,
}

/// An HTTPS client.
pub(crate) struct Client {
    agent: ureq::Agent,
}

impl Client {
    /// A client with pip's proxy and certificates, where pip has any of its own.
    pub fn new(pip: &PipConfig) -> Client {
        let mut config = ureq::Agent::config_builder()
            .timeout_resolve(Some(Duration::from_secs(5)))
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(30)))
            .user_agent(concat!("ebbinghaus/", env!("CARGO_PKG_VERSION")))
            .tls_config(
                TlsConfig::builder()
                    .root_certs(root_certificates(pip))
                    .build(),
            );
        if let Some(proxy) = pip
            .proxy
            .as_deref()
            .and_then(|url| ureq::Proxy::new(url).ok())
        {
            config = config.proxy(Some(proxy));
        }
        Client {
            agent: config.build().into(),
        }
    }

    /// The whole body at `url`, at most `limit` bytes; `progress` gets (bytes so far, total).
    ///
    /// # Errors
    /// A line for the user, without credentials.
    pub fn get(
        &self,
        url: &str,
        accept: &str,
        limit: u64,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Page, String> {
        let line = |why: String| format!("{}: {}", redact(url), redact(&why));
        let (plain, credentials) = split_credentials(url);
        let mut request = self.agent.get(&plain).header("accept", accept);
        if let Some(credentials) = credentials {
            request = request.header("authorization", format!("Basic {}", base64(&credentials)));
        }
        let mut response = request.call().map_err(|e| line(e.to_string()))?;
        let content_type = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_lowercase();
        let total = response.body().content_length();
        if total.is_some_and(|total| total > limit) {
            return Err(line(format!(
                "larger than the expected {limit} bytes at most"
            )));
        }
        let mut reader = response.body_mut().with_config().limit(limit).reader();
        let mut body = Vec::with_capacity(total.unwrap_or(0) as usize);
        loop {
            let read = reader.by_ref().take(1 << 18).read_to_end(&mut body);
            if read.map_err(|e| line(e.to_string()))? == 0 {
                break;
            }
            progress(body.len() as u64, total);
        }
        match total {
            Some(total) if total != body.len() as u64 => Err(line(format!(
                "the connection ended after {} of {total} bytes",
                body.len()
            ))),
            _ => Ok(Page { body, content_type }),
        }
    }
}

/// The first bundle that is named by pip's settings, by the usual environment variables or by
/// the operating system's convention; Mozilla's roots, built in, where there is none.
fn root_certificates(pip: &PipConfig) -> RootCerts {
    let named = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
    let conventional = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let bundles = (pip.cert.iter().cloned())
        .chain(
            named
                .iter()
                .filter_map(|name| std::env::var_os(name).map(PathBuf::from)),
        )
        .chain(conventional.iter().map(PathBuf::from));
    for bundle in bundles {
        let Ok(pem) = std::fs::read(&bundle) else {
            continue;
        };
        let certificates: Vec<_> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if !certificates.is_empty() {
            return RootCerts::from(certificates);
        }
    }
    RootCerts::WebPki
}

/// Where the authority of an absolute URL begins and ends.
fn authority(url: &str) -> Option<(usize, usize)> {
    let start = url.find("://")? + 3;
    let len = url[start..]
        .find(['/', '?', '#'])
        .unwrap_or(url.len() - start);
    Some((start, start + len))
}

/// A URL without `user:password@`, and the decoded `user:password`.
fn split_credentials(url: &str) -> (String, Option<Vec<u8>>) {
    let split = || {
        let (start, end) = authority(url)?;
        let at = url[start..end].rfind('@')?;
        Some((
            format!("{}{}", &url[..start], &url[start + at + 1..]),
            percent_decode(&url[start..start + at]),
        ))
    };
    match split() {
        Some((plain, credentials)) => (plain, Some(credentials)),
        None => (url.to_string(), None),
    }
}

/// A text in which no URL shows its user and password.
pub(crate) fn redact(text: &str) -> String {
    text.split_inclusive(char::is_whitespace)
        .map(|word| split_credentials(word).0)
        .collect()
}

/// The absolute URL that `href` means on the page `base`; it keeps the credentials of `base`
/// when it stays on the same host.
pub(crate) fn join(base: &str, href: &str) -> String {
    let Some((start, end)) = authority(base) else {
        return href.to_string();
    };
    if authority(href).is_some() {
        let (plain, credentials) = split_credentials(base);
        let same_host = host(&plain) == host(href);
        return match (credentials, same_host, authority(href)) {
            (Some(_), true, Some((at, _))) if !href[at..].contains('@') => {
                let user = &base[start..start + base[start..end].rfind('@').unwrap_or(0)];
                format!("{}{user}@{}", &href[..at], &href[at..])
            }
            _ => href.to_string(),
        };
    }
    if let Some(rest) = href.strip_prefix("//") {
        return format!("{}//{rest}", &base[..start - 2]);
    }
    let path = base[end..].split(['?', '#']).next().unwrap_or_default();
    let mut segments: Vec<&str> = if href.starts_with('/') {
        vec![]
    } else {
        path.trim_start_matches('/').split('/').collect()
    };
    segments.pop(); // the page itself
    for segment in href.trim_start_matches('/').split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("{}/{}", &base[..end], segments.join("/"))
}

fn host(url: &str) -> Option<&str> {
    authority(url).map(|(start, end)| &url[start..end])
}

fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let code = (bytes[i] == b'%')
            .then(|| {
                text.get(i + 1..i + 3)
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            })
            .flatten();
        out.push(code.unwrap_or(bytes[i]));
        i += if code.is_some() { 3 } else { 1 };
    }
    out
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let symbol = ALPHABET[(word >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= chunk.len() {
                symbol as char
            } else {
                '='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_leave_the_url_and_never_reach_a_message() {
        let (plain, credentials) = split_credentials("https://me%40x:p%3Aw@host.example/simple/");
        assert_eq!(plain, "https://host.example/simple/");
        assert_eq!(credentials.as_deref(), Some(&b"me@x:p:w"[..]));
        assert_eq!(split_credentials("https://host/a@b").1, None);
        let text = redact("could not reach https://u:secret@h/x of http://h/y");
        assert_eq!(text, "could not reach https://h/x of http://h/y");
    }

    #[test]
    fn base64_of_the_standard() {
        // RFC 4648, section 10.
        for (plain, code) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), code);
        }
    }

    #[test]
    fn references_are_resolved_as_a_browser_does() {
        let page = "https://u:p@h.example:8080/root/simple/pkg/";
        for (href, url) in [
            (
                "https://files.example/x.whl#sha256=1",
                "https://files.example/x.whl#sha256=1",
            ),
            (
                "https://h.example:8080/x.whl",
                "https://u:p@h.example:8080/x.whl",
            ),
            ("//files.example/x.whl", "https://files.example/x.whl"),
            (
                "/packages/x.whl",
                "https://u:p@h.example:8080/packages/x.whl",
            ),
            ("x.whl", "https://u:p@h.example:8080/root/simple/pkg/x.whl"),
            (
                "../../files/./x.whl",
                "https://u:p@h.example:8080/root/files/x.whl",
            ),
        ] {
            assert_eq!(join(page, href), url);
        }
    }
}
