//! What a request answers when it fails: a kind, which is the HTTP status, and docker's sentence.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use proto::docker::error::ErrorResponse;
pub(crate) use proto::kind::ErrorKind;

#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::NotFound, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Conflict, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Internal, message)
    }

    /// Names what was asked for; 501.
    pub(crate) fn unimplemented(what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Unimplemented, format!("{what} is not implemented by this engine"))
    }

    pub(crate) fn not_modified() -> Error {
        Error::new(ErrorKind::NotModified, "not modified")
    }

    /// An IO failure with the step that met it.
    pub(crate) fn io(step: impl std::fmt::Display, source: &std::io::Error) -> Error {
        Error::internal(format!("{step}: {}", words(source)))
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same kind under another sentence.
    pub(crate) fn reworded(self, message: impl Into<String>) -> Error {
        Error { message: message.into(), ..self }
    }

    /// The same failure, seen from the step around it.
    pub(crate) fn context(self, step: impl std::fmt::Display) -> Error {
        Error { kind: self.kind, message: format!("{step}: {}", self.message) }
    }
}

/// An errno in the words of Go's programs: the docker command takes its exit code from them.
pub(crate) fn words(error: &std::io::Error) -> String {
    proto::errno::in_gos_words(&error.to_string())
}

impl From<crate::containerd::Error> for Error {
    fn from(error: crate::containerd::Error) -> Error {
        Error::new(error.kind(), error.to_string())
    }
}

impl From<proto::docker::filter::FilterError> for Error {
    fn from(error: proto::docker::filter::FilterError) -> Error {
        Error::invalid(error.to_string())
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status == StatusCode::NOT_MODIFIED {
            return status.into_response();
        }
        if status.is_server_error() {
            tracing::warn!(%status, message = %self.message, "request failed");
        } else {
            tracing::debug!(%status, message = %self.message, "request refused");
        }
        crate::http::json(status, &ErrorResponse { message: self.message })
    }
}
