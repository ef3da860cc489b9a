//! Connections that stop being HTTP: `attach` and `exec start`.

use super::extract::read_body;
use super::stream::Framing;
use crate::error::Error;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{Request, StatusCode};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

/// A request about to be taken over.
pub(crate) struct Hijack {
    on_upgrade: OnUpgrade,
    upgrade: bool,
    pub(crate) body: Bytes,
}

/// The two directions of a taken-over connection.
pub(crate) type Connection = TokioIo<Upgraded>;

impl Hijack {
    /// Reads the request's body to its end first: what follows it on the wire is the stream.
    pub(crate) async fn new(mut request: Request<Body>) -> Result<Hijack, Error> {
        let on_upgrade = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let upgrade = parts.headers.get(UPGRADE).is_some_and(|value| value.as_bytes() == b"tcp");
        let body = read_body(body, super::extract::MAX_JSON_BODY).await?;
        Ok(Hijack { on_upgrade, upgrade, body })
    }

    /// True when the client asked to take the connection over; an old one reads a plain body instead.
    pub(crate) fn is_upgrade(&self) -> bool {
        self.upgrade
    }

    /// The answer `101 UPGRADED`, and the connection once it has been sent.
    pub(crate) fn accept(self, framing: Framing) -> (Response, impl Future<Output = Option<Connection>>) {
        let mut response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(CONTENT_TYPE, framing.content_type())
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "tcp")
            .body(Body::empty())
            .expect("constant headers");
        response.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
        let connection = async move {
            match self.on_upgrade.await {
                Ok(upgraded) => Some(TokioIo::new(upgraded)),
                Err(error) => {
                    tracing::debug!(%error, "client left before its connection was taken over");
                    None
                }
            }
        };
        (response, connection)
    }
}
