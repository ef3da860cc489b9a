//! Calls: the server's and the client's side of one connection, on top of [`super::frame`].
//!
//! ```text
//! client                         server
//!   request  (odd, rising id) ->
//!                             <- response (same id), in any order
//! ```
//! Only unary calls are used by the task and event services; data frames are refused.

use super::frame::{self, Decoded, Decoder, MAX_DATA_LEN, TYPE_REQUEST, TYPE_RESPONSE};
use super::{KeyValue, Request, Response, Status};
use crate::kind::ErrorKind;
use prost::Message;
use serde::{Deserialize, Serialize};

/// The server's side: bytes in, requests out; answers in, bytes out. It can be handed to another process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Server {
    decoder: Decoder,
    last_stream_id: u32,
}

/// One step of what a client sent.
#[derive(Debug)]
pub enum Incoming {
    Request {
        stream_id: u32,
        request: Request,
    },
    /// The request is wrong in itself; these bytes are the answer to send.
    Refused(Vec<u8>),
}

impl Server {
    pub fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    /// The next request, if one is whole.
    pub fn next_request(&mut self) -> Option<Incoming> {
        let refuse = |stream_id, kind: ErrorKind, message: &str| {
            let mut out = Vec::new();
            respond(stream_id, Err((kind, message.to_owned())), &mut out);
            Some(Incoming::Refused(out))
        };
        match self.decoder.next_frame()? {
            Decoded::TooLong { stream_id, length, .. } => {
                let text = format!("message length {length} exceed maximum message size of {MAX_DATA_LEN}");
                refuse(stream_id, ErrorKind::ResourceExhausted, &text)
            }
            Decoded::Frame(frame) if frame.kind != TYPE_REQUEST => {
                refuse(frame.stream_id, ErrorKind::InvalidArgument, "only unary requests are served")
            }
            Decoded::Frame(frame) => {
                if frame.stream_id.is_multiple_of(2) || frame.stream_id <= self.last_stream_id {
                    return refuse(
                        frame.stream_id,
                        ErrorKind::InvalidArgument,
                        "StreamID is not odd or was used",
                    );
                }
                self.last_stream_id = frame.stream_id;
                match Request::decode(frame.data.as_slice()) {
                    Ok(request) => Some(Incoming::Request { stream_id: frame.stream_id, request }),
                    Err(error) => refuse(
                        frame.stream_id,
                        ErrorKind::InvalidArgument,
                        &format!("unmarshal request: {error}"),
                    ),
                }
            }
        }
    }
}

/// Appends the answer to a request: the encoded response message, or a kind and a text.
pub fn respond(stream_id: u32, result: Result<Vec<u8>, (ErrorKind, String)>, out: &mut Vec<u8>) {
    let response = match result {
        Ok(payload) if payload.len() <= MAX_DATA_LEN - 64 => Response { status: None, payload },
        Ok(payload) => {
            let text = format!("response of {} bytes exceeds the frame size", payload.len());
            status_response(ErrorKind::ResourceExhausted, text)
        }
        Err((kind, message)) => status_response(kind, message),
    };
    frame::encode(stream_id, TYPE_RESPONSE, 0, &response.encode_to_vec(), out);
}

fn status_response(kind: ErrorKind, message: String) -> Response {
    Response { status: Some(Status { code: kind.grpc_code(), message, details: vec![] }), payload: vec![] }
}

/// The client's side.
#[derive(Debug)]
pub struct Client {
    decoder: Decoder,
    next_stream_id: u32,
}

impl Default for Client {
    fn default() -> Client {
        Client { decoder: Decoder::default(), next_stream_id: 1 }
    }
}

impl Client {
    /// Appends a call to `out` and returns its stream id.
    pub fn request<M: Message>(
        &mut self,
        service: &str,
        method: &str,
        message: &M,
        metadata: &[(&str, &str)],
        timeout_nano: i64,
        out: &mut Vec<u8>,
    ) -> u32 {
        let stream_id = self.next_stream_id;
        self.next_stream_id += 2;
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: message.encode_to_vec(),
            timeout_nano,
            metadata: metadata
                .iter()
                .map(|(key, value)| KeyValue { key: (*key).to_owned(), value: (*value).to_owned() })
                .collect(),
        };
        frame::encode(stream_id, TYPE_REQUEST, 0, &request.encode_to_vec(), out);
        stream_id
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    /// The next answer, if one is whole: its stream id, and the payload or the status.
    pub fn next_response(&mut self) -> Option<(u32, Result<Vec<u8>, Status>)> {
        let internal =
            |message: String| Status { code: ErrorKind::Internal.grpc_code(), message, details: vec![] };
        match self.decoder.next_frame()? {
            Decoded::TooLong { stream_id, length, .. } => {
                Some((stream_id, Err(internal(format!("response of {length} bytes is too long")))))
            }
            Decoded::Frame(frame) => {
                let result = match Response::decode(frame.data.as_slice()) {
                    Ok(Response { status: Some(status), .. }) if status.code != 0 => Err(status),
                    Ok(response) => Ok(response.payload),
                    Err(error) => Err(internal(format!("unmarshal response: {error}"))),
                };
                Some((frame.stream_id, result))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_and_its_two_kinds_of_answer() {
        let (mut client, mut server) = (Client::default(), Server::default());
        let mut wire = Vec::new();
        let message = Status { code: 7, ..Default::default() };
        client.request("s.S", "M", &message, &[("k", "v")], 5, &mut wire);
        client.request("s.S", "N", &message, &[], 0, &mut wire);
        server.push(&wire);
        let mut back = Vec::new();
        for answer in [Ok(b"yes".to_vec()), Err((ErrorKind::NotFound, "no".to_owned()))] {
            let Some(Incoming::Request { stream_id, request }) = server.next_request() else { panic!() };
            assert_eq!(Status::decode(request.payload.as_slice()).unwrap(), message);
            respond(stream_id, answer, &mut back);
        }
        client.push(&back);
        assert_eq!(client.next_response(), Some((1, Ok(b"yes".to_vec()))));
        let (stream_id, error) = client.next_response().unwrap();
        assert_eq!((stream_id, error.unwrap_err().code), (3, 5));
    }

    #[test]
    fn a_used_or_even_stream_id_is_refused() {
        for ids in [[1, 1], [3, 1], [1, 2]] {
            let mut server = Server::default();
            let mut wire = Vec::new();
            for id in ids {
                frame::encode(id, TYPE_REQUEST, 0, &[], &mut wire);
            }
            server.push(&wire);
            assert!(matches!(server.next_request(), Some(Incoming::Request { .. })));
            assert!(matches!(server.next_request(), Some(Incoming::Refused(_))));
        }
    }
}
