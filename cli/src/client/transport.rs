//! Connections and single requests.

use crate::exit::{Failure, Result};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Unix(PathBuf),
    Tcp(String),
}

impl Host {
    /// `unix:///PATH`, `tcp://HOST:PORT`, `http://HOST:PORT`.
    pub(crate) fn parse(text: &str) -> Result<Host> {
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Host::Unix(PathBuf::from(path))),
            Some(("tcp" | "http", address)) if !address.is_empty() => {
                let address = address.trim_end_matches('/');
                let with_port =
                    if address.contains(':') { address.to_owned() } else { format!("{address}:2375") };
                Ok(Host::Tcp(with_port))
            }
            Some(("ssh" | "https" | "npipe" | "fd", _)) => Err(Failure::new(
                1,
                format!("host {text}: this transport is not built; use unix:// or tcp://"),
            )),
            _ => Err(Failure::new(
                1,
                format!(
                    "host {text:?} is not understood: write unix:///run/gantry/gantry.sock or tcp://127.0.0.1:2375"
                ),
            )),
        }
    }

    pub(crate) async fn stream(&self) -> Result<Box<dyn Stream>> {
        let connected: std::io::Result<Box<dyn Stream>> = match self {
            Host::Unix(path) => UnixStream::connect(path).await.map(|s| Box::new(s) as Box<dyn Stream>),
            Host::Tcp(address) => TcpStream::connect(address).await.map(|s| Box::new(s) as Box<dyn Stream>),
        };
        connected.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &std::io::Error) -> Failure {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            let text = format!("permission denied while trying to connect to the engine at {self}");
            return Failure::new(1, text)
                .hint("Run this as root, or as a member of the group that owns the socket.");
        }
        Failure::new(1, format!("Cannot connect to the engine at {self}. Is gantryd running? ({error})")).hint(
            "Start it as root with 'gantryd', or let this command bring its own: 'gantry --standalone COMMAND'.",
        )
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Host::Unix(path) => write!(f, "unix://{}", path.display()),
            Host::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One request on a connection of its own.
pub(super) async fn send(
    host: &Host,
    method: Method,
    path: &str,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Incoming>> {
    let stream = host.stream().await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Lives as long as the answer is read.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let mut request = Request::builder().method(method).uri(path).body(body)?;
    *request.headers_mut() = headers;
    let kind = request.body().content_type();
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("api.gantry.localhost"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("gantry/", env!("CARGO_PKG_VERSION"))));
    if let Some(kind) = kind {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    } else {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Ok(sender.send_request(request).await?)
}

/// A request's body: nothing, a document, or a stream that is sent in chunks as it is read.
pub(super) struct Body {
    kind: Option<&'static str>,
    bytes: Option<Bytes>,
    reader: Option<Box<dyn AsyncRead + Send + Unpin>>,
}

impl Body {
    pub(super) fn empty() -> Body {
        Body { kind: None, bytes: None, reader: None }
    }

    pub(super) fn json(bytes: Vec<u8>) -> Body {
        Body { kind: Some("application/json"), bytes: Some(bytes.into()), reader: None }
    }

    pub(super) fn stream(reader: Box<dyn AsyncRead + Send + Unpin>) -> Body {
        Body { kind: Some("application/x-tar"), bytes: None, reader: Some(reader) }
    }

    fn content_type(&self) -> Option<&'static str> {
        self.kind
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        const CHUNK: usize = 256 << 10;
        let this = self.get_mut();
        if let Some(bytes) = this.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let Some(reader) = &mut this.reader else { return Poll::Ready(None) };
        let mut chunk = vec![0; CHUNK];
        let mut buffer = ReadBuf::new(&mut chunk);
        match Pin::new(reader).poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Ready(Ok(())) => {
                let length = buffer.filled().len();
                if length == 0 {
                    this.reader = None;
                    return Poll::Ready(None);
                }
                chunk.truncate(length);
                Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && self.reader.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.bytes, &self.reader) {
            (Some(bytes), _) => SizeHint::with_exact(bytes.len() as u64),
            (None, None) => SizeHint::with_exact(0),
            (None, Some(_)) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_docker_s() {
        assert_eq!(Host::parse("unix:///run/x.sock").unwrap(), Host::Unix("/run/x.sock".into()));
        assert_eq!(Host::parse("tcp://127.0.0.1:2375").unwrap(), Host::Tcp("127.0.0.1:2375".into()));
        assert_eq!(Host::parse("tcp://localhost").unwrap(), Host::Tcp("localhost:2375".into()));
        for bad in ["", "unix://relative", "ssh://x", "127.0.0.1:2375"] {
            assert!(Host::parse(bad).is_err(), "{bad}");
        }
    }
}
