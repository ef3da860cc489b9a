//! A client at a process's streams: output in frames or raw, input until its end or the detach keys.

use super::stdio::{Output, Streams};
use crate::containerd::Containerd;
use crate::http::hijack::Connection;
use crate::http::stream::Framing;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// ctrl-p, ctrl-q
const DEFAULT_DETACH_KEYS: &[u8] = &[16, 17];
const INPUT_CHUNK: usize = 32 << 10;

/// Where a client's input goes.
pub(crate) struct Input {
    pub(crate) streams: Arc<Streams>,
    pub(crate) containerd: Containerd,
    pub(crate) container: String,
    /// Empty for a container's first process.
    pub(crate) exec: String,
    /// The process sees the end of its input when this client ends it.
    pub(crate) close: bool,
    /// Keys that detach, on a terminal only.
    pub(crate) detach_keys: Option<Vec<u8>>,
}

/// The writing half, still open: its closing tells the client that everything has been done.
pub(crate) type Writer = tokio::io::WriteHalf<Connection>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The output is over.
    Output,
    Detached,
    /// The client is gone.
    Client,
}

/// Serves the connection until the output ends, the client leaves or detaches.
pub(crate) async fn serve(
    connection: Connection,
    output: Option<Output>,
    framing: Framing,
    input: Option<Input>,
) -> (End, Option<Writer>) {
    let (mut reader, mut writer) = tokio::io::split(connection);
    let take_input = async {
        match input {
            Some(input) => take_input(&mut reader, input).await,
            // Its half-close says nothing: output goes on.
            None => std::future::pending().await,
        }
    };
    let mut give_output = Box::pin(async move {
        let end = match output {
            Some(output) => give_output(&mut writer, output, framing).await,
            None => std::future::pending().await,
        };
        (end, writer)
    });
    let (end, writer) = tokio::select! {
        ended = &mut give_output => ended,
        end = take_input => match end {
            // Its input is over, not its interest.
            End::Client => give_output.await,
            // Dropping both halves closes the connection.
            end => return (end, None),
        },
    };
    (end, Some(writer))
}

/// The client's end of stream.
pub(crate) async fn close(writer: Option<Writer>) {
    if let Some(mut writer) = writer {
        let _ = writer.shutdown().await;
    }
}

async fn give_output(writer: &mut (impl AsyncWrite + Unpin), mut output: Output, framing: Framing) -> End {
    while let Some((stream, chunk)) = output.recv().await {
        if writer.write_all(&framing.frame(stream, &chunk)).await.is_err() {
            return End::Client;
        }
        if output.is_empty() && writer.flush().await.is_err() {
            return End::Client;
        }
    }
    End::Output
}

async fn take_input(reader: &mut (impl AsyncRead + Unpin), input: Input) -> End {
    let Some(mut stdin) = input.streams.open_stdin().await else {
        return std::future::pending().await;
    };
    let mut detach = input.detach_keys.map(Detach::new);
    let mut buffer = vec![0; INPUT_CHUNK];
    loop {
        let count = match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let (bytes, detached) = match &mut detach {
            Some(detach) => detach.filter(&buffer[..count]),
            None => (buffer[..count].to_vec(), false),
        };
        if stdin.write_all(&bytes).await.is_err() {
            // The process has closed its input; what the client still sends goes nowhere.
            return drain(reader).await;
        }
        if detached {
            return End::Detached;
        }
    }
    drop(stdin);
    if input.close
        && let Err(error) = input.containerd.close_stdin(&input.container, &input.exec).await
    {
        tracing::debug!(%error, container = input.container, "input of an ended process not closed");
    }
    End::Client
}

async fn drain(reader: &mut (impl AsyncRead + Unpin)) -> End {
    let mut buffer = vec![0; INPUT_CHUNK];
    while matches!(reader.read(&mut buffer).await, Ok(count) if count > 0) {}
    End::Client
}

/// Finds the detach keys in a stream of input; they are not passed on.
struct Detach {
    keys: Vec<u8>,
    matched: usize,
}

impl Detach {
    fn new(keys: Vec<u8>) -> Detach {
        Detach { keys, matched: 0 }
    }

    /// The bytes to pass on, and whether the keys were complete.
    fn filter(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (passed, true);
                }
            } else {
                // What looked like the keys was input after all.
                passed.extend_from_slice(&self.keys[..self.matched]);
                self.matched = usize::from(*byte == self.keys[0]);
                if self.matched == 0 {
                    passed.push(*byte);
                }
            }
        }
        (passed, false)
    }
}

/// `ctrl-p,ctrl-q`, `a,ctrl-b`; empty is the default.
pub(crate) fn parse_detach_keys(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() {
        return Some(DEFAULT_DETACH_KEYS.to_vec());
    }
    text.split(',')
        .map(|key| match key.strip_prefix("ctrl-") {
            Some(rest) => match rest.as_bytes() {
                [byte @ b'a'..=b'z'] => Some(byte - b'a' + 1),
                [b'@'] => Some(0),
                [byte @ (b'[' | b'\\' | b']' | b'^' | b'_')] => Some(byte - b'@'),
                _ => None,
            },
            None => match key.as_bytes() {
                [byte] if byte.is_ascii() => Some(*byte),
                _ => None,
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_across_reads() {
        let mut detach = Detach::new(parse_detach_keys("").unwrap());
        assert_eq!(detach.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(detach.filter(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(detach.filter(b"\x10\x10\x11d"), (b"\x10".to_vec(), true));
        assert_eq!(parse_detach_keys("ctrl-a,x").unwrap(), [1, b'x']);
        assert!(parse_detach_keys("ctrl-").is_none() && parse_detach_keys("ab").is_none());
    }
}
