//! The engine as seen from here: HTTP/1.1 over a unix or TCP socket, one connection a request.

mod hijack;
mod transport;

use hijack::hijack;
pub(crate) use hijack::{Hijacked, copy_output};
pub(crate) use transport::Host;

use crate::exit::{Failure, Result};
use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use proto::docker::error::ErrorResponse;
use proto::docker::{ApiVersion, MAX_API_VERSION};
use serde::Serialize;
use serde::de::DeserializeOwned;
use transport::Body;

/// Largest answer that is read into memory.
const MAX_ANSWER: usize = 64 << 20;

/// A host and the API version both sides speak.
pub(crate) struct Client {
    host: Host,
    version: ApiVersion,
}

/// A query string, escaped.
#[derive(Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn add(mut self, name: &str, value: impl AsRef<str>) -> Query {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(&escape(value.as_ref()));
        self
    }

    pub(crate) fn add_if(self, condition: bool, name: &str, value: &str) -> Query {
        if condition { self.add(name, value) } else { self }
    }

    pub(crate) fn add_some(self, name: &str, value: Option<impl AsRef<str>>) -> Query {
        match value {
            Some(value) => self.add(name, value),
            None => self,
        }
    }
}

/// What a request carries.
pub(crate) enum Payload {
    None,
    Json(Vec<u8>),
    /// A file or standard input of unknown length.
    Stream(Box<dyn tokio::io::AsyncRead + Send + Unpin>),
}

impl Client {
    /// Finds the engine and agrees on a version.
    pub(crate) async fn connect(host: Host) -> Result<Client> {
        let mut client = Client { host, version: MAX_API_VERSION };
        let response = client.send(Method::HEAD, "/_ping", HeaderMap::new(), Payload::None).await?;
        let server =
            response.headers().get("api-version").and_then(|value| value.to_str().ok()?.parse().ok());
        client.version = server.map_or(MAX_API_VERSION, |server: ApiVersion| server.min(MAX_API_VERSION));
        if let Ok(pinned) = std::env::var("DOCKER_API_VERSION") {
            client.version = pinned.parse().map_err(|_| {
                Failure::new(1, format!("DOCKER_API_VERSION={pinned} is no API version: write it as 1.51"))
            })?;
        }
        Ok(client)
    }

    pub(crate) fn version(&self) -> ApiVersion {
        self.version
    }

    fn path(&self, path: &str, query: Query) -> String {
        format!("/v{}{path}{}", self.version, query.0)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        payload: Payload,
    ) -> Result<Response<Incoming>> {
        let body = match payload {
            Payload::None => Body::empty(),
            Payload::Json(bytes) => Body::json(bytes),
            Payload::Stream(reader) => Body::stream(reader),
        };
        transport::send(&self.host, method, path, headers, body).await
    }

    /// A request whose answer is good, or the engine's sentence.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        query: Query,
        headers: HeaderMap,
        payload: Payload,
    ) -> Result<Response<Incoming>> {
        let response = self.send(method, &self.path(path, query), headers, payload).await?;
        checked(response).await
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, query: Query) -> Result<T> {
        let response = self.request(Method::GET, path, query, HeaderMap::new(), Payload::None).await?;
        read_json(response).await
    }

    pub(crate) async fn post(&self, path: &str, query: Query) -> Result<Response<Incoming>> {
        self.request(Method::POST, path, query, HeaderMap::new(), Payload::None).await
    }

    pub(crate) async fn post_json<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        query: Query,
        body: &B,
    ) -> Result<T> {
        let payload = Payload::Json(serde_json::to_vec(body)?);
        let response = self.request(Method::POST, path, query, HeaderMap::new(), payload).await?;
        read_json(response).await
    }

    pub(crate) async fn delete(&self, path: &str, query: Query) -> Result<Response<Incoming>> {
        self.request(Method::DELETE, path, query, HeaderMap::new(), Payload::None).await
    }

    /// The status of an answer, whatever it is, with the document if it is good.
    pub(crate) async fn find(&self, path: &str, query: Query) -> Result<Option<serde_json::Value>> {
        let path = self.path(path, query);
        let response = self.send(Method::GET, &path, HeaderMap::new(), Payload::None).await?;
        // 501: an object of a kind that this engine does not have cannot be there.
        if matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED) {
            return Ok(None);
        }
        read_json(checked(response).await?).await.map(Some)
    }

    pub(crate) async fn hijack(&self, path: &str, query: Query, body: Vec<u8>) -> Result<Hijacked> {
        hijack(&self.host, &self.path(path, query), body).await
    }
}

/// The engine's error document as a failure.
async fn checked(response: Response<Incoming>) -> Result<Response<Incoming>> {
    let status = response.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS || status == StatusCode::NOT_MODIFIED
    {
        return Ok(response);
    }
    let body = read_body(response).await.unwrap_or_default();
    let message = match serde_json::from_slice::<ErrorResponse>(&body) {
        Ok(error) => error.message,
        Err(_) => format!("{status}: {}", String::from_utf8_lossy(&body).trim()),
    };
    Err(Failure::new(1, format!("Error response from daemon: {message}")))
}

pub(crate) async fn read_body(response: Response<Incoming>) -> Result<Bytes> {
    let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER);
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(Failure::new(1, format!("read the engine's answer: {error}"))),
    }
}

pub(crate) async fn read_json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T> {
    let body = read_body(response).await?;
    proto::docker::from_slice(&body)
        .map_err(|error| Failure::new(1, format!("the engine's answer is not understood: {error}")))
}

/// Calls `each` with every document of a stream of JSON documents, as they come.
pub(crate) async fn each_document(
    response: Response<Incoming>,
    mut each: impl FnMut(serde_json::Value) -> Result<()>,
) -> Result<()> {
    let mut body = response.into_body();
    let mut pending = bytes::BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        pending.extend_from_slice(&data);
        let mut documents = serde_json::Deserializer::from_slice(&pending).into_iter::<serde_json::Value>();
        let mut used = 0;
        while let Some(Ok(document)) = documents.next() {
            used = documents.byte_offset();
            each(document)?;
        }
        pending.advance(used);
        if pending.len() > MAX_ANSWER {
            return Err(Failure::new(1, "a document of the engine's answer is too long"));
        }
    }
    Ok(())
}

/// Query escaping of everything but the unreserved characters (RFC 3986).
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A name as part of a path: slashes and colons of image names stay.
pub(crate) fn escape_path(text: &str) -> String {
    escape(text).replace("%2F", "/").replace("%3A", ":").replace("%40", "@")
}
