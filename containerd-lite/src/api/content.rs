use super::{Api, done, lease, mask, namespace};
use crate::content::ingest::{self, Writer};
use crate::content::parse_digest;
use crate::error::{Error, Result as Answer};
use crate::events::now;
use futures::StreamExt;
use proto::containerd::content::{content_server::Content, *};
use proto::digest::Digest;
use proto::task::events as payload;
use std::fs::File;
use std::os::unix::fs::FileExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Bytes per message of a read.
const READ_SIZE: usize = 1 << 20;
/// Records per message of a list.
const LIST_SIZE: usize = 100;
/// Writes up to this size are done at once; longer ones let the worker's other tasks move on first.
const SMALL: usize = 64 << 10;

#[tonic::async_trait]
impl Content for Api {
    type ListStream = futures::stream::BoxStream<'static, Result<ListContentResponse, Status>>;
    type ReadStream = ReceiverStream<Result<ReadContentResponse, Status>>;
    type WriteStream = ReceiverStream<Result<WriteContentResponse, Status>>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let namespace = namespace(&request)?;
        let digest = parse_digest(&request.into_inner().digest)?;
        done(InfoResponse { info: Some(self.0.content.info(&namespace, &digest)?) })
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        let info = request.info.ok_or_else(|| Error::invalid("info is missing"))?;
        let info = self.0.content.update(&namespace, info, mask(request.update_mask)).await?;
        self.0.collector.schedule();
        done(UpdateResponse { info: Some(info) })
    }

    async fn list(&self, request: Request<ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        let namespace = namespace(&request)?;
        let all = self.0.content.list(&namespace, &request.into_inner().filters)?;
        let parts: Vec<_> = all.chunks(LIST_SIZE).map(<[Info]>::to_vec).collect();
        done(futures::stream::iter(parts).map(|info| Ok(ListContentResponse { info })).boxed())
    }

    async fn delete(&self, request: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let digest = parse_digest(&request.into_inner().digest)?;
        self.0.content.delete(&namespace, digest.clone()).await?;
        let event = payload::ContentDelete { digest: digest.to_string() };
        self.0.events.publish(&namespace, "/content/delete", &event);
        let content = self.0.content.clone();
        let swept = tokio::task::spawn_blocking(move || content.sweep([digest])).await;
        swept.map_err(|error| Error::step("remove content", error))??;
        self.0.collector.schedule();
        done(())
    }

    async fn read(&self, request: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        let digest = parse_digest(&request.digest)?;
        let (file, size) = self.0.content.read(&namespace, &digest)?;
        let start = u64::try_from(request.offset).ok().filter(|offset| *offset <= size).ok_or_else(|| {
            Error::out_of_range(format_args!("read past object length {size} bytes, at {}", request.offset))
        })?;
        let end = match u64::try_from(request.size) {
            Err(_) | Ok(0) => size,
            Ok(length) => start
                .checked_add(length)
                .filter(|end| *end <= size)
                .ok_or_else(|| Error::out_of_range(format_args!("read past object length {size} bytes")))?,
        };
        let (sender, parts) = mpsc::channel(2);
        tokio::spawn(send_parts(file, start, end, sender));
        done(ReceiverStream::new(parts))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let namespace = namespace(&request)?;
        let status = self.0.content.ingest_status(&namespace, &request.into_inner().r#ref)?;
        done(StatusResponse { status: Some(status) })
    }

    async fn list_statuses(
        &self,
        request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        let namespace = namespace(&request)?;
        let statuses = self.0.content.ingest_statuses(&namespace, &request.into_inner().filters)?;
        done(ListStatusesResponse { statuses })
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let (namespace, lease) = (namespace(&request)?, lease(&request));
        let (sender, answers) = mpsc::channel(4);
        let mut session =
            Session { api: self.clone(), namespace, lease, writer: None, total: 0, expected: None };
        let mut messages = request.into_inner();
        tokio::spawn(async move {
            loop {
                let message = match messages.next().await {
                    None => return,
                    // The client is gone; what it wrote stays for it to resume.
                    Some(Err(_)) => return,
                    Some(Ok(message)) => message,
                };
                let last = message.action() == WriteAction::Commit;
                let answer = session.message(message).await;
                let failed = answer.is_err();
                if failed || last {
                    // Unlocked before the answer: the client may come again at once.
                    session.writer = None;
                }
                if sender.send(answer.map_err(Status::from)).await.is_err() || failed || last {
                    return;
                }
            }
        });
        done(ReceiverStream::new(answers))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        self.0.content.abort(&namespace, &request.into_inner().r#ref)?;
        done(())
    }
}

async fn send_parts(
    file: File,
    start: u64,
    end: u64,
    sender: mpsc::Sender<Result<ReadContentResponse, Status>>,
) {
    let mut offset = start;
    while offset < end {
        let length = READ_SIZE.min((end - offset) as usize);
        let read = tokio::task::block_in_place(|| {
            let mut data = vec![0; length];
            file.read_exact_at(&mut data, offset).map(|()| data)
        });
        let part = read
            .map(|data| ReadContentResponse { offset: offset as i64, data })
            .map_err(|error| Error::step("read content", error).into());
        let failed = part.is_err();
        if sender.send(part).await.is_err() || failed {
            return;
        }
        offset += length as u64;
    }
}

/// One Write call: a ref, its writer, and what the client said it expects.
struct Session {
    api: Api,
    namespace: String,
    lease: Option<String>,
    writer: Option<Writer>,
    total: i64,
    expected: Option<Digest>,
}

impl Session {
    async fn message(&mut self, message: WriteContentRequest) -> Answer<WriteContentResponse> {
        if message.data.len() <= SMALL && message.action() != WriteAction::Commit && self.writer.is_some() {
            return self.step(message);
        }
        tokio::task::block_in_place(|| self.step(message))
    }

    fn step(&mut self, message: WriteContentRequest) -> Answer<WriteContentResponse> {
        let expected = (!message.expected.is_empty()).then(|| parse_digest(&message.expected)).transpose()?;
        if self.writer.is_none() {
            self.open(&message, expected.clone())?;
        }
        self.expect(&message, expected)?;
        let Some(writer) = &mut self.writer else { return Err(Error::precondition("writer is closed")) };
        let action = message.action();
        let mut answer = WriteContentResponse { action: action.into(), ..Default::default() };
        if action == WriteAction::Stat {
            answer.started_at = Some(writer.started_at().into());
            answer.updated_at = Some(writer.updated_at().into());
            answer.total = writer.total();
        } else {
            let offset = u64::try_from(message.offset)
                .map_err(|_| Error::out_of_range(format_args!("write @{}", message.offset)))?;
            if offset > 0 && offset != writer.offset() {
                return Err(Error::out_of_range(format_args!(
                    "write @{offset} must occur at current offset {}",
                    writer.offset()
                )));
            }
            if offset == 0 && writer.offset() > 0 {
                writer.truncate()?;
            }
            if !message.data.is_empty() {
                writer.write(&message.data)?;
            }
        }
        answer.offset = writer.offset() as i64;
        answer.digest = writer.digest().to_string();
        if action == WriteAction::Commit {
            writer.commit(self.total, self.expected.as_ref(), message.labels)?;
            answer.updated_at = Some(now());
            let event = payload::ContentCreate {
                digest: answer.digest.clone(),
                size: answer.offset,
                media_type: String::new(),
            };
            self.api.0.events.publish(&self.namespace, "/content/create", &event);
        }
        Ok(answer)
    }

    fn open(&mut self, message: &WriteContentRequest, expected: Option<Digest>) -> Answer<()> {
        let request = ingest::Request {
            namespace: self.namespace.clone(),
            reference: message.r#ref.clone(),
            total: message.total,
            expected: expected.clone(),
            lease: self.lease.clone(),
        };
        self.writer = Some(self.api.0.content.writer(request)?);
        (self.total, self.expected) = (message.total, expected);
        Ok(())
    }

    /// What a later message says of size and digest must agree with what was said before.
    fn expect(&mut self, message: &WriteContentRequest, expected: Option<Digest>) -> Answer<()> {
        if let Some(expected) = expected {
            if let Some(before) = self.expected.as_ref().filter(|before| **before != expected) {
                return Err(Error::precondition(format_args!(
                    "commit digest differs from writer digest: {before} != {expected}"
                )));
            }
            if self.api.0.content.contains(&self.namespace, &expected)? {
                if let Some(mut writer) = self.writer.take() {
                    writer.remove();
                }
                return Err(Error::already_exists(format_args!(
                    "blob with expected digest {expected} exists"
                )));
            }
            self.expected = Some(expected);
        }
        if message.total > 0 {
            if self.total > 0 && message.total != self.total {
                return Err(Error::precondition(format_args!(
                    "commit size differs from writer size: {} != {}",
                    message.total, self.total
                )));
            }
            self.total = message.total;
        }
        Ok(())
    }
}
