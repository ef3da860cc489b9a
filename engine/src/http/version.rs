//! `/vX.Y/...`: the version a client asks for, checked and taken off the path before routing.

use crate::error::Error;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode, Uri, uri::PathAndQuery};
use proto::docker::{ApiVersion, MAX_API_VERSION, MIN_API_VERSION};

/// Why the path's version is refused.
pub(crate) enum Refusal {
    /// Clients older than the oldest version do not expect JSON.
    TooOld(String),
    /// As Go's server answers what is no URL.
    BadRequest,
    Other(Error),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::TooOld(message) => (StatusCode::BAD_REQUEST, message + "\n").into_response(),
            Refusal::BadRequest => (StatusCode::BAD_REQUEST, "400 Bad Request").into_response(),
            Refusal::Other(error) => error.into_response(),
        }
    }
}

/// Takes `/vX.Y` off the path and leaves the [`ApiVersion`] in the request's extensions; without one it is the
/// newest.
pub(crate) fn strip(request: &mut Request<Body>) -> Result<(), Refusal> {
    let uri = request.uri();
    let mut version = MAX_API_VERSION;
    let mut path = uri.path();
    if let Some((text, rest)) = split(path) {
        version = check(text)?;
        path = rest;
    }
    // `/containers//name/json`: the name as `docker inspect` prints it.
    let path = path.replacen("/containers//", "/containers/", 1);
    let path = readable(path).ok_or(Refusal::BadRequest)?;
    if path != uri.path() {
        let target = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = PathAndQuery::try_from(target).ok();
        *request.uri_mut() =
            Uri::from_parts(parts).map_err(|_| Refusal::Other(Error::not_found("page not found")))?;
    }
    request.extensions_mut().insert(version);
    Ok(())
}

/// The path with its escapes all whole and all UTF-8: bytes that are none become U+FFFD, as in Go's JSON.
fn readable(path: String) -> Option<String> {
    if !path.contains('%') {
        return Some(path);
    }
    let mut bytes = Vec::with_capacity(path.len());
    for (n, part) in path.split('%').enumerate() {
        let escaped = if n == 0 { 0 } else { 2 };
        if n > 0 {
            let digits = part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        }
        bytes.extend_from_slice(&part.as_bytes()[escaped..]);
    }
    if std::str::from_utf8(&bytes).is_ok() {
        return Some(path);
    }
    let escape = |b: u8| match b {
        b'/' => "/".to_owned(),
        b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    Some(String::from_utf8_lossy(&bytes).bytes().map(escape).collect())
}

/// `("1.45", "/info")` of `/v1.45/info`.
fn split(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/v")?;
    let end = rest.find('/')?;
    let text = &rest[..end];
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')).then(|| (text, &rest[end..]))
}

fn check(text: &str) -> Result<ApiVersion, Refusal> {
    // A third number and all after it says nothing.
    let two = text.match_indices('.').nth(1).map_or(text, |(at, _)| &text[..at]);
    let version: ApiVersion = two.parse().map_err(|_| Refusal::Other(Error::not_found("page not found")))?;
    if version < MIN_API_VERSION {
        return Err(Refusal::TooOld(format!(
            "client version {text} is too old. Minimum supported API version is {MIN_API_VERSION}, please upgrade your client to a newer version"
        )));
    }
    if version > MAX_API_VERSION {
        return Err(Refusal::Other(Error::invalid(format!(
            "client version {text} is too new. Maximum supported API version is {MAX_API_VERSION}"
        ))));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn stripped(path: &str) -> (String, ApiVersion) {
        let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
        assert!(strip(&mut request).is_ok());
        (request.uri().to_string(), *request.extensions().get::<ApiVersion>().unwrap())
    }

    #[test]
    fn a_version_is_taken_off_the_path() {
        assert_eq!(stripped("/v1.40/info?x=1"), ("/info?x=1".into(), ApiVersion::new(1, 40)));
        assert_eq!(stripped("/info"), ("/info".into(), MAX_API_VERSION));
        assert_eq!(stripped("/version"), ("/version".into(), MAX_API_VERSION));
        assert_eq!(stripped("/volumes/v1"), ("/volumes/v1".into(), MAX_API_VERSION));
        assert_eq!(stripped("/v1.50/containers//web/json").0, "/containers/web/json");
    }

    #[test]
    fn versions_out_of_range_are_refused() {
        for path in ["/v1.23/info", "/v1.52/info", "/v2.0/info", "/v1.2.3/info"] {
            let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
            assert!(strip(&mut request).is_err(), "{path}");
        }
    }
}
