//! The IO around `proto::ttrpc`: a client connection with any number of calls in flight, and the server that
//! takes events from shims.

use crate::error::{Context, Error, Result};
use crate::events::Exchange;
use prost::Message;
use proto::kind::ErrorKind;
use proto::task::forward::ForwardRequest;
use proto::task::{EVENTS_SERVICE, NAMESPACE_KEY};
use proto::ttrpc::call::{self, Incoming};
use proto::ttrpc::{Request, Status};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};

const READ_SIZE: usize = 16 << 10;

type Answer = Result<Vec<u8>, Status>;

/// A connection to a shim. Dropping it ends its tasks.
pub(super) struct Client {
    calls: Arc<Mutex<Calls>>,
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    closed: watch::Receiver<bool>,
}

#[derive(Default)]
struct Calls {
    codec: call::Client,
    waiting: HashMap<u32, oneshot::Sender<Answer>>,
    closed: bool,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    Status(Status),
    /// The connection ended before the answer.
    Closed,
    Timeout,
    /// The answer is no such message.
    Garbled(String),
}

fn lock(calls: &Mutex<Calls>) -> std::sync::MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    pub(super) async fn connect(path: &Path) -> Result<Client> {
        let stream =
            UnixStream::connect(path).await.step(|| format!("connect to shim at {}", path.display()))?;
        let (read, write) = stream.into_split();
        let (outgoing, queue) = mpsc::unbounded_channel();
        let (close, closed) = watch::channel(false);
        let calls = Arc::new(Mutex::new(Calls::default()));
        tokio::spawn(write_loop(write, queue));
        tokio::spawn(read_loop(read, calls.clone(), close));
        Ok(Client { calls, outgoing, closed })
    }

    /// One call, answered within `deadline`; without one it may take for ever (Wait).
    pub(super) async fn call<Q: Message, A: Message + Default>(
        &self,
        namespace: &str,
        service: &str,
        method: &str,
        request: &Q,
        deadline: Option<Duration>,
    ) -> Result<A, Failure> {
        let nanos = deadline.map_or(0, |deadline| deadline.as_nanos() as i64);
        let (id, answer) = self.send(namespace, service, method, request, nanos)?;
        let _forget = Forget { calls: &self.calls, id };
        let answer = match deadline {
            Some(deadline) => tokio::time::timeout(deadline, answer).await.map_err(|_| Failure::Timeout)?,
            None => answer.await,
        };
        let payload = answer.map_err(|_| Failure::Closed)?.map_err(Failure::Status)?;
        A::decode(payload.as_slice()).map_err(|error| Failure::Garbled(error.to_string()))
    }

    /// Ids rise on the wire because they are taken and queued under one lock.
    fn send<Q: Message>(
        &self,
        namespace: &str,
        service: &str,
        method: &str,
        request: &Q,
        timeout_nano: i64,
    ) -> Result<(u32, oneshot::Receiver<Answer>), Failure> {
        let (waiter, answer) = oneshot::channel();
        let mut calls = lock(&self.calls);
        if calls.closed {
            return Err(Failure::Closed);
        }
        let mut bytes = Vec::new();
        let metadata = [(NAMESPACE_KEY, namespace)];
        let id = calls.codec.request(service, method, request, &metadata, timeout_nano, &mut bytes);
        calls.waiting.insert(id, waiter);
        self.outgoing.send(bytes).map_err(|_| Failure::Closed)?;
        Ok((id, answer))
    }

    /// Returns when the other side is gone.
    pub(super) async fn closed(&self) {
        let mut closed = self.closed.clone();
        // An error means that the reader has ended without saying so.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow() || self.closed.has_changed().is_err()
    }
}

/// A call nobody waits for any more leaves the table.
struct Forget<'a> {
    calls: &'a Mutex<Calls>,
    id: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.calls).waiting.remove(&self.id);
    }
}

async fn write_loop(mut write: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        // The reader notices a broken connection too, and tells everybody.
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn read_loop(mut read: OwnedReadHalf, calls: Arc<Mutex<Calls>>, close: watch::Sender<bool>) {
    let mut codec = call::Client::default();
    let mut buffer = vec![0; READ_SIZE];
    while let Ok(length @ 1..) = read.read(&mut buffer).await {
        codec.push(&buffer[..length]);
        while let Some((id, answer)) = codec.next_response() {
            if let Some(waiter) = lock(&calls).waiting.remove(&id) {
                let _ = waiter.send(answer);
            }
        }
    }
    let waiting = {
        let mut calls = lock(&calls);
        calls.closed = true;
        std::mem::take(&mut calls.waiting)
    };
    drop(waiting);
    let _ = close.send(true);
}

/// Takes events from shims until the daemon stops.
pub(crate) async fn serve_events(listener: UnixListener, events: Arc<Exchange>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve_connection(stream, events.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: a moment later there may be some.
                tracing::warn!(%error, "accept a shim's event connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Requests are served one after the other, so a shim's events keep their order.
async fn serve_connection(mut stream: UnixStream, events: Arc<Exchange>) {
    let mut codec = call::Server::default();
    let mut buffer = vec![0; READ_SIZE];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        codec.push(&buffer[..length]);
        let mut answers = Vec::new();
        while let Some(incoming) = codec.next_request() {
            match incoming {
                Incoming::Refused(bytes) => answers.extend_from_slice(&bytes),
                Incoming::Request { stream_id, request } => {
                    let result =
                        forward(&events, &request).map_err(|error| (error.kind(), error.to_string()));
                    call::respond(stream_id, result.map(|()| Vec::new()), &mut answers);
                }
            }
        }
        if stream.write_all(&answers).await.is_err() {
            return;
        }
    }
}

fn forward(events: &Exchange, request: &Request) -> Result<()> {
    if (request.service.as_str(), request.method.as_str()) != (EVENTS_SERVICE, "Forward") {
        return Err(Error::new(
            ErrorKind::Unimplemented,
            format_args!("service {} method {}", request.service, request.method),
        ));
    }
    let request = ForwardRequest::decode(request.payload.as_slice())
        .map_err(|error| Error::invalid(format_args!("unmarshal event: {error}")))?;
    events.forward(request.envelope)
}
