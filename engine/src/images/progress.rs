//! What a long operation on images says while it goes on: docker's progress documents, one a line.

use crate::error::Error;
use bytes::Bytes;
use proto::docker::image::{ErrorDetail, Progress, ProgressDetail};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Between two byte counts of the same layer.
const INTERVAL: Duration = Duration::from_millis(100);

/// The client's end of a progress stream. A client that is gone or slow holds nothing up: counts are dropped, sentences
/// wait.
#[derive(Clone)]
pub(crate) struct Reporter {
    sender: mpsc::Sender<Bytes>,
}

impl Reporter {
    pub(crate) fn new(sender: mpsc::Sender<Bytes>) -> Reporter {
        Reporter { sender }
    }

    pub(crate) async fn send(&self, progress: Progress) {
        let _ = self.sender.send(line(&progress)).await;
    }

    /// A sentence about the whole.
    pub(crate) async fn status(&self, status: impl Into<String>) {
        self.send(Progress { status: status.into(), ..Progress::default() }).await;
    }

    /// A word about one layer.
    pub(crate) async fn layer(&self, id: &str, status: &str) {
        let detail = Some(ProgressDetail::default());
        let (status, id) = (status.to_owned(), id.to_owned());
        self.send(Progress { status, id, progress_detail: detail, ..Progress::default() }).await;
    }

    /// Text for the user, as load prints it.
    pub(crate) async fn stream(&self, text: impl Into<String>) {
        self.send(Progress { stream: text.into(), ..Progress::default() }).await;
    }

    /// The headers have gone out with 200: a failure is the stream's last document.
    pub(crate) async fn failed(&self, error: &Error) {
        let message = error.to_string();
        let error_detail = Some(ErrorDetail { code: 0, message: message.clone() });
        self.send(Progress { error: message, error_detail, ..Progress::default() }).await;
    }

    /// A counter of one layer's bytes.
    pub(crate) fn counter(&self, id: &str, status: &'static str, total: i64) -> Counter {
        Counter { reporter: self.clone(), id: id.to_owned(), status, total, last: Mutex::new(None) }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Counts bytes of one layer, a few times a second.
pub(crate) struct Counter {
    reporter: Reporter,
    id: String,
    status: &'static str,
    total: i64,
    last: Mutex<Option<Instant>>,
}

impl Counter {
    pub(crate) fn set(&self, current: u64) {
        let now = Instant::now();
        let mut last = self.last.lock().expect("no holder of this lock panics");
        if last.is_some_and(|last| now - last < INTERVAL) && (current as i64) < self.total {
            return;
        }
        *last = Some(now);
        let progress = Progress {
            status: self.status.to_owned(),
            id: self.id.clone(),
            progress_detail: Some(ProgressDetail {
                current: current as i64,
                total: self.total,
                ..ProgressDetail::default()
            }),
            ..Progress::default()
        };
        let _ = self.reporter.sender.try_send(line(&progress));
    }
}

fn line(progress: &Progress) -> Bytes {
    let mut line = serde_json::to_vec(progress).expect("a progress document is JSON");
    line.extend_from_slice(b"\r\n");
    line.into()
}

/// docker's short form of a digest: twelve digits.
pub(crate) fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}
