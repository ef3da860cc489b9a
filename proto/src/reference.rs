//! Image references: `[host[:port]/]path[:tag][@digest]`, with docker's familiar short forms
//! (distribution/reference grammar).

use crate::digest::Digest;
use std::fmt;

/// The registry a name without a host belongs to.
pub const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL: &str = "library/";
/// Longest repository name, host included, in characters.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A checked reference with its host filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference; the texts are docker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    Format,
    /// The path with its upper-case letters.
    Uppercase(String),
    Tag,
    TooLong,
    /// 64 hex digits are an image id, never a name.
    LooksLikeId(String),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::Format => f.write_str("invalid reference format"),
            ParseError::Uppercase(name) => {
                write!(f, "invalid reference format: repository name ({name}) must be lowercase")
            }
            ParseError::Tag => f.write_str("invalid tag format"),
            ParseError::TooLong => write!(f, "repository name must not be more than {MAX_NAME} characters"),
            ParseError::LooksLikeId(name) => {
                write!(f, "invalid repository name ({name}), cannot specify 64-byte hexadecimal strings")
            }
        }
    }
}

impl std::error::Error for ParseError {}

impl Reference {
    /// Parses what a user types; `redis` becomes `docker.io/library/redis` without a tag.
    pub fn parse_familiar(text: &str) -> Result<Reference, ParseError> {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(ParseError::LooksLikeId(text.to_owned()));
        }
        let (name_and_tag, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(|_| ParseError::Format)?)),
            None => (text, None),
        };
        let (domain, remainder) = split_domain(name_and_tag);
        let (path, tag) = match remainder.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (remainder, None),
        };
        if let Some(tag) = tag
            && !valid_tag(tag)
        {
            return Err(ParseError::Format);
        }
        let official = domain == DEFAULT_DOMAIN && !path.contains('/');
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            let prefix = if official { OFFICIAL } else { "" };
            return Err(ParseError::Uppercase(format!("{prefix}{path}")));
        }
        if !valid_path(path) || !valid_domain(domain) {
            return Err(ParseError::Format);
        }
        let path = if official { format!("{OFFICIAL}{path}") } else { path.to_owned() };
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(ParseError::TooLong);
        }
        Ok(Reference { domain: domain.to_owned(), path, tag: tag.map(str::to_owned), digest })
    }

    /// `host[:port]`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/redis`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// With `latest` where neither a tag nor a digest was given.
    pub fn with_default_tag(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The same repository under another tag, which must be valid.
    pub fn with_tag(&self, tag: &str) -> Result<Reference, ParseError> {
        if !valid_tag(tag) {
            return Err(ParseError::Tag);
        }
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository by digest alone.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The repository as docker shows it: `redis`, `me/app`, `localhost:5000/app`.
    pub fn familiar_name(&self) -> String {
        if self.domain == DEFAULT_DOMAIN {
            self.path.strip_prefix(OFFICIAL).unwrap_or(&self.path).to_owned()
        } else {
            format!("{}/{}", self.domain, self.path)
        }
    }

    /// As docker shows it, tag and digest included.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    /// The canonical repository: `docker.io/library/redis`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    fn suffixed(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

/// The canonical form, as containerd names images.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.name()))
    }
}

/// The part before the first slash is a host only if it looks like one.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((host, rest))
            if host == "localhost"
                || host.contains(['.', ':'])
                || host.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            if host == "index.docker.io" {
                (DEFAULT_DOMAIN, rest)
            } else {
                (host, rest)
            }
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

fn valid_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                return rest.is_empty() || rest.strip_prefix(':').is_some_and(valid_port);
            }
            _ => return false,
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(valid_port)
}

fn valid_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

/// Components of lower-case letters and digits, joined by `.`, `_`, `__` or dashes.
fn valid_path(path: &str) -> bool {
    path.split('/').all(|component| {
        let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = component.as_bytes();
        let separators_ok = component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-'));
        bytes.first().is_some_and(alnum) && bytes.last().is_some_and(alnum) && separators_ok
    })
}

fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !tag.is_empty()
        && tag.len() <= MAX_TAG
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, canonical: &str, familiar: &str) {
        let reference = Reference::parse_familiar(text).unwrap();
        assert_eq!(reference.to_string(), canonical);
        assert_eq!(reference.familiar(), familiar);
    }

    #[test]
    fn short_forms_get_a_host() {
        check("redis", "docker.io/library/redis", "redis");
        check("redis:7", "docker.io/library/redis:7", "redis:7");
        check("me/app", "docker.io/me/app", "me/app");
        check("localhost/app", "localhost/app", "localhost/app");
        check("127.0.0.1:5000/a/b__c:v1.0", "127.0.0.1:5000/a/b__c:v1.0", "127.0.0.1:5000/a/b__c:v1.0");
        check("index.docker.io/library/redis", "docker.io/library/redis", "redis");
        let digest = format!("sha256:{}", "ab".repeat(32));
        check(&format!("r:1@{digest}"), &format!("docker.io/library/r:1@{digest}"), &format!("r:1@{digest}"));
    }

    #[test]
    fn wrong_forms_are_refused() {
        for bad in
            ["", ":", "a:", "a//b", "-a", "a-", "a..b", "a___b", "a:b c", "a@sha256:0", "/a", "x.y:z/a"]
        {
            assert!(Reference::parse_familiar(bad).is_err(), "{bad}");
        }
        let upper = ParseError::Uppercase("library/Redis".into());
        assert_eq!(Reference::parse_familiar("Redis"), Err(upper));
        assert!(matches!(Reference::parse_familiar(&"a".repeat(64)), Err(ParseError::LooksLikeId(_))));
        assert_eq!(Reference::parse_familiar(&"a".repeat(300)), Err(ParseError::TooLong));
    }
}
