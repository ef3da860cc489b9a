//! Bodies that are written while they come into being.

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use proto::docker::log::{FRAME_HEADER, Stream, frame_header};
use proto::docker::{ApiVersion, MULTIPLEXED_STREAM, RAW_STREAM};
use std::convert::Infallible;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// Chunks that wait for a slow client before the writer waits too.
const WINDOW: usize = 32;

/// How output bytes stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// A terminal's bytes as they are.
    Raw,
    /// A header before each chunk.
    Multiplexed {
        /// Clients before API 1.42 are told `raw-stream` all the same.
        announced: bool,
    },
}

impl Framing {
    pub(crate) fn new(tty: bool, version: ApiVersion) -> Framing {
        if tty { Framing::Raw } else { Framing::Multiplexed { announced: version >= ApiVersion::new(1, 42) } }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Framing::Multiplexed { announced: true } => MULTIPLEXED_STREAM,
            _ => RAW_STREAM,
        }
    }

    /// The bytes on the wire for one chunk.
    pub(crate) fn frame(self, stream: Stream, chunk: &Bytes) -> Bytes {
        match self {
            Framing::Raw => chunk.clone(),
            Framing::Multiplexed { .. } => {
                let mut framed = Vec::with_capacity(FRAME_HEADER + chunk.len());
                framed.extend_from_slice(&frame_header(stream, chunk.len() as u32));
                framed.extend_from_slice(chunk);
                framed.into()
            }
        }
    }
}

/// The writing end of a streamed body.
pub(crate) type BodySender = mpsc::Sender<Bytes>;

/// A body fed through a bounded channel, and its feeding end; the headers go out at once.
pub(crate) fn channel(status: StatusCode, content_type: Option<&'static str>) -> (BodySender, Response) {
    let (sender, receiver) = mpsc::channel(WINDOW);
    let stream = ReceiverStream::new(receiver).map(Ok::<_, Infallible>);
    let mut response = Response::builder().status(status);
    if let Some(content_type) = content_type {
        response = response.header(CONTENT_TYPE, content_type);
    }
    (sender, response.body(Body::from_stream(stream)).expect("constant headers"))
}

/// One JSON document and a newline.
pub(crate) fn json_line<T: serde::Serialize>(document: &T) -> Bytes {
    let mut line = serde_json::to_vec(document).expect("the engine's documents are JSON");
    line.push(b'\n');
    line.into()
}
