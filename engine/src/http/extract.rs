//! What handlers take from a request: query parameters by docker's rules and JSON bodies of bounded size.

use crate::clock::Timestamp;
use crate::error::Error;
use crate::http::document::{self, Document};
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Query};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use proto::docker::filter::Filters;

/// Largest JSON body: far above any real configuration, far below what hurts.
pub(crate) const MAX_JSON_BODY: usize = 4 << 20;

/// The query string: names to values, a name possibly several times.
#[derive(Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// The first value of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value, empty when not given.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    /// Every value of `name`.
    #[allow(dead_code, reason = "for images, which are being written")]
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// docker's booleans: everything but a few words is true.
    pub(crate) fn boolean(&self, name: &str) -> bool {
        self.boolean_or(name, false)
    }

    pub(crate) fn boolean_or(&self, name: &str, default: bool) -> bool {
        match self.get(name) {
            None => default,
            Some(value) => {
                !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
            }
        }
    }

    /// A number; Go's sentence for anything else.
    pub(crate) fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, Error> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                // docker's own status, though the client is at fault.
                Error::internal(format!("strconv.Atoi: parsing {text:?}: {}", not_a_number(text)))
            }),
        }
    }

    /// The `filters` parameter with none but the `known` keys.
    pub(crate) fn filters(&self, known: &[&str]) -> Result<Filters, Error> {
        Ok(Filters::parse(self.text("filters"))?.only(known)?)
    }

    /// Unix seconds with an optional fraction; absent, empty and 0 are none.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, Error> {
        match self.get(name) {
            None | Some("" | "0") => Ok(None),
            Some(text) => Timestamp::parse_query(text).map(Some).ok_or_else(|| {
                let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
                let wrong = if seconds.parse::<i64>().is_ok() { fraction } else { seconds };
                Error::internal(format!("strconv.ParseInt: parsing {wrong:?}: {}", not_a_number(wrong)))
            }),
        }
    }
}

/// Why Go's strconv does not take a text as a number of the wanted size.
pub(crate) fn not_a_number(text: &str) -> &'static str {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        "value out of range"
    } else {
        "invalid syntax"
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Params, Error> {
        check_query(parts.uri.query().unwrap_or(""))?;
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|error| Error::invalid(error.to_string()))?;
        Ok(Params(pairs))
    }
}

/// Go refuses what the reader of pairs would take as plain text.
fn check_query(query: &str) -> Result<(), Error> {
    if query.contains(';') {
        return Err(Error::invalid("invalid semicolon separator in query"));
    }
    for (at, _) in query.match_indices('%') {
        let escape = query.get(at..at + 3).unwrap_or(&query[at..]);
        if escape.len() != 3 || !escape.bytes().skip(1).all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::invalid(format!("invalid URL escape {escape:?}")));
        }
    }
    Ok(())
}

/// A JSON body; `None` when there was none.
pub(crate) struct JsonBody<T>(pub(crate) Option<T>);

impl<S: Send + Sync, T: Document> FromRequest<S> for JsonBody<T> {
    type Rejection = Error;

    async fn from_request(request: Request<Body>, _: &S) -> Result<JsonBody<T>, Error> {
        let (parts, body) = request.into_parts();
        let bytes = read_json_body(&parts.headers, body).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(JsonBody(None));
        }
        document::read(&bytes).map(|document| JsonBody(Some(document)))
    }
}

impl<T> JsonBody<T> {
    /// For requests that make no sense without a body.
    pub(crate) fn required(self) -> Result<T, Error> {
        self.0.ok_or_else(|| Error::invalid("invalid JSON: got EOF while reading request body"))
    }
}

async fn read_json_body(headers: &HeaderMap, body: Body) -> Result<Bytes, Error> {
    check_content_type(headers)?;
    read_body(body, MAX_JSON_BODY).await
}

/// The whole body, refused when longer than `limit`.
pub(crate) async fn read_body(body: Body, limit: usize) -> Result<Bytes, Error> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Error::invalid("invalid JSON: http: request body too large"))
        }
        Err(error) => Err(Error::invalid(format!("invalid JSON: {error}"))),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Error> {
    let given = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("").to_owned());
    let empty_body = headers.get(CONTENT_LENGTH).is_none_or(|length| length.as_bytes() == b"0");
    match given.as_deref() {
        None | Some("") if empty_body => Ok(()),
        given => {
            let given = given.unwrap_or("");
            let kind = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
            if kind == "application/json" {
                Ok(())
            } else if kind.is_empty() {
                Err(Error::invalid("malformed Content-Type header (): mime: no media type"))
            } else if kind.ends_with('/') {
                Err(Error::invalid(format!(
                    "malformed Content-Type header ({given}): mime: expected token after slash"
                )))
            } else {
                Err(Error::invalid(format!(
                    "unsupported Content-Type header ({given}): must be 'application/json'"
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::docker::container::CreateRequest;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params(pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn booleans_and_numbers_are_dockers() {
        let given = params(&[("a", "1"), ("b", "False"), ("c", ""), ("d", "yes"), ("n", "x"), ("m", "7")]);
        assert!(given.boolean("a") && given.boolean("d"));
        assert!(!given.boolean("b") && !given.boolean("c") && !given.boolean("absent"));
        assert_eq!(given.number::<i64>("m").unwrap(), Some(7));
        assert!(given.number::<i64>("n").is_err());
    }

    async fn read(content_type: &str, body: impl Into<Body>) -> Result<Option<CreateRequest>, Error> {
        let request = Request::builder().header(CONTENT_TYPE, content_type).body(body.into()).unwrap();
        JsonBody::from_request(request, &()).await.map(|JsonBody(document)| document)
    }

    #[tokio::test]
    async fn bodies_are_json_of_bounded_size() {
        let sentence = |result: Result<_, Error>| result.unwrap_err().to_string();
        assert_eq!(
            read("application/json; charset=utf-8", "{}").await.unwrap(),
            Some(CreateRequest::default())
        );
        assert_eq!(read("application/json", "").await.unwrap(), None);
        assert!(
            sentence(read("text/plain", "{}").await)
                .starts_with("unsupported Content-Type header (text/plain)")
        );
        assert_eq!(sentence(read("application/json", "{} {}").await), "unexpected content after JSON");
        assert!(sentence(read("application/json", "{").await).starts_with("invalid JSON"));
        let huge = vec![b' '; MAX_JSON_BODY + 1];
        assert!(sentence(read("application/json", huge).await).contains("too large"));
    }
}
