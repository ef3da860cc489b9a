//! The client's side of a registry: OCI distribution-spec over HTTP/1.1, TLS but for loopback and the registries the
//! configuration names as insecure.
//!
//! Everything a registry sends is untrusted: documents are bounded, redirects are counted, credentials go to no other
//! host, and a blob is nothing until its digest matched, which the content store checks.

mod auth;
mod transport;

use crate::error::{Error, ErrorKind};
use auth::Authorization;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION, RANGE, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use proto::digest::Digest;
use proto::docker::image::AuthConfig;
use proto::reference::Reference;
use sha2::{Digest as _, Sha256};

/// Largest manifest or index, in bytes: distribution-spec asks for 4 MiB at least.
const MAX_MANIFEST: usize = 4 << 20;
/// Largest error or token document.
const MAX_ANSWER: usize = 1 << 20;
const MAX_REDIRECTS: usize = 5;

const MANIFEST_TYPES: &str = "application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json";

/// Where the Hub answers.
const HUB: &str = "registry-1.docker.io";

/// Asks the registry whether it knows these credentials, in docker's words where it does not.
pub(crate) async fn log_in(credentials: AuthConfig, insecure: &[String]) -> Result<(), Error> {
    let server = credentials.serveraddress.trim_start_matches("https://").trim_start_matches("http://");
    let host = match server.split('/').next().unwrap_or_default() {
        "" | "docker.io" | "index.docker.io" => HUB,
        host => host,
    };
    let registry = Repository {
        base: base(host, insecure),
        path: String::new(),
        authorization: Authorization::new(Some(credentials.clone()), ""),
    };
    let url = format!("{}/v2/", registry.base);
    let response = registry.get(&url, &[]).await?;
    if response.status().is_success() {
        return Ok(());
    }
    let text = format!("login attempt to {url} failed with status: {}", response.status());
    Err(Error::internal(text))
}

/// The scheme and host of a registry: TLS but for loopback and what the configuration names.
fn base(host: &str, insecure: &[String]) -> String {
    let plain = is_loopback(host) || insecure.iter().any(|name| name == host);
    format!("{}://{host}", if plain { "http" } else { "https" })
}

/// One repository of one registry, with what opens it.
pub(crate) struct Repository {
    base: String,
    path: String,
    authorization: Authorization,
}

/// A manifest as it was sent; its bytes are what its digest names.
pub(crate) struct Document {
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
}

impl Repository {
    /// `insecure` are the hosts that are spoken to without TLS; loopback always is.
    pub(crate) fn new(
        reference: &Reference,
        credentials: Option<AuthConfig>,
        insecure: &[String],
    ) -> Repository {
        let host = match reference.domain() {
            proto::reference::DEFAULT_DOMAIN => HUB,
            host => host,
        };
        Repository {
            base: base(host, insecure),
            path: reference.path().to_owned(),
            authorization: Authorization::new(credentials, reference.path()),
        }
    }

    /// The manifest or index under a tag or digest.
    pub(crate) async fn manifest(&self, name: &str) -> Result<Document, Error> {
        let url = format!("{}/v2/{}/manifests/{name}", self.base, self.path);
        let response = self.get(&url, &[(ACCEPT.as_str(), MANIFEST_TYPES)]).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response, name).await);
        }
        let media_type =
            header(&response, CONTENT_TYPE.as_str()).split(';').next().unwrap_or("").trim().to_owned();
        let bytes = read(response, MAX_MANIFEST).await?;
        let digest = Digest::from_sha256(&Sha256::digest(&bytes).into());
        if name.starts_with("sha256:") && name != digest.as_str() {
            let text = format!("manifest verification failed for digest {name}: the registry sent {digest}");
            return Err(Error::new(ErrorKind::DataLoss, text));
        }
        Ok(Document { bytes, media_type, digest })
    }

    /// A blob from `offset` on, as a body to be read. The registry may send it whole all the same; the returned offset
    /// says from where.
    pub(crate) async fn blob(&self, digest: &Digest, offset: u64) -> Result<(u64, Incoming), Error> {
        let url = format!("{}/v2/{}/blobs/{digest}", self.base, self.path);
        let range = format!("bytes={offset}-");
        let headers: &[(&str, &str)] = if offset > 0 { &[(RANGE.as_str(), &range)] } else { &[] };
        let response = self.get(&url, headers).await?;
        match response.status() {
            StatusCode::OK => Ok((0, response.into_body())),
            StatusCode::PARTIAL_CONTENT => Ok((offset, response.into_body())),
            _ => Err(self.refusal(response, digest.as_str()).await),
        }
    }

    /// GET with authorization, asking for a token once where one is wanted, and redirects followed.
    async fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Response<Incoming>, Error> {
        let mut response = self.follow(url, headers, self.authorization.header().await).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenges: Vec<String> = response
                .headers()
                .get_all(WWW_AUTHENTICATE)
                .iter()
                .filter_map(|value| value.to_str().ok().map(str::to_owned))
                .collect();
            let authorization = self.authorization.answer(&challenges).await.map_err(|error| {
                let text = format!("Get \"{url}\": {error}");
                error.reworded(text)
            })?;
            response = self.follow(url, headers, Some(authorization)).await?;
        }
        Ok(response)
    }

    async fn follow(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        authorization: Option<String>,
    ) -> Result<Response<Incoming>, Error> {
        let mut uri: Uri = url.parse().map_err(|e| Error::invalid(format!("registry address {url}: {e}")))?;
        let first = uri.authority().cloned();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::builder().method(Method::GET).uri(&uri);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            // Credentials are for the registry, not for the storage it may send us to.
            if uri.authority() == first.as_ref()
                && let Some(value) = &authorization
            {
                request = request.header(http::header::AUTHORIZATION, value);
            }
            let request = request.body(Bytes::new()).map_err(|e| Error::internal(e.to_string()))?;
            let response = transport::send(&uri, request)
                .await
                .map_err(|e| Error::internal(format!("Get \"{uri}\": {e}")))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            uri = redirect(&uri, &header(&response, LOCATION.as_str()))?;
        }
        Err(Error::internal(format!("Get \"{url}\": stopped after {MAX_REDIRECTS} redirects")))
    }

    /// What a refusal says, in docker's words.
    async fn refusal(&self, response: Response<Incoming>, name: &str) -> Error {
        #[derive(serde::Deserialize)]
        struct Answer {
            errors: Vec<One>,
        }
        #[derive(serde::Deserialize)]
        struct One {
            code: String,
            #[serde(default)]
            message: String,
        }
        let status = response.status();
        let body = read(response, MAX_ANSWER).await.unwrap_or_default();
        let host = self.base.split("//").nth(1).unwrap_or_default();
        let repository = format!("{host}/{}", self.path);
        let first =
            serde_json::from_slice::<Answer>(&body).ok().and_then(|answer| answer.errors.into_iter().next());
        let code = first.as_ref().map_or("", |one| one.code.as_str());
        match (status, code) {
            (_, "UNAUTHORIZED" | "DENIED" | "NAME_UNKNOWN")
            | (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                let repository =
                    repository.strip_prefix("registry-1.docker.io/library/").unwrap_or(&repository);
                let text = format!(
                    "pull access denied for {repository}, repository does not exist or may require 'docker login'"
                );
                Error::not_found(text)
            }
            (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN" | "") => {
                let separator = if name.starts_with("sha256:") { '@' } else { ':' };
                Error::not_found(format!(
                    "manifest for {repository}{separator}{name} not found: manifest unknown"
                ))
            }
            (StatusCode::TOO_MANY_REQUESTS, _) => {
                Error::new(ErrorKind::Unavailable, "toomanyrequests: try again later")
            }
            _ => {
                let text =
                    first.map_or_else(|| status.to_string(), |one| format!("{}: {}", one.code, one.message));
                Error::internal(format!("registry {host} answered {text}"))
            }
        }
    }
}

fn header(response: &Response<Incoming>, name: &str) -> String {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// The whole body, refused when longer than `limit`.
async fn read(response: Response<Incoming>, limit: usize) -> Result<Vec<u8>, Error> {
    let body = http_body_util::Limited::new(response.into_body(), limit);
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) => Err(Error::internal(format!("read the registry's answer: {error}"))),
    }
}

/// A redirect's target: absolute, or a path on the same host. TLS is not given up for it.
fn redirect(from: &Uri, location: &str) -> Result<Uri, Error> {
    let refused =
        |why: &str| Error::internal(format!("registry redirects from {from} to {location:?}: {why}"));
    let target: Uri = if location.starts_with('/') {
        let authority = from.authority().map_or("", |authority| authority.as_str());
        format!("{}://{authority}{location}", from.scheme_str().unwrap_or("https")).parse()
    } else {
        location.parse()
    }
    .map_err(|_| refused("not an address"))?;
    match (from.scheme_str(), target.scheme_str()) {
        (Some("https"), Some("https")) | (Some("http"), Some("http" | "https")) => Ok(target),
        (Some("https"), Some("http")) => Err(refused("it leaves TLS")),
        _ => Err(refused("not http or https")),
    }
}

/// 127.0.0.0/8, ::1 and localhost, with or without a port.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_plain_by_itself() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "10.0.0.1", "[::2]", "registry:5000", "127.0.0.1.example.com"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn redirects_do_not_leave_tls() {
        let from: Uri = "https://r.example/v2/a".parse().unwrap();
        assert_eq!(redirect(&from, "/other?x=1").unwrap().to_string(), "https://r.example/other?x=1");
        assert!(redirect(&from, "https://cdn.example/b").is_ok());
        assert!(redirect(&from, "http://cdn.example/b").is_err());
        assert!(redirect(&from, "file:///etc/passwd").is_err());
    }
}
