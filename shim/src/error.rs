//! What a request may be answered with: a kind and a text that a caller matches on.

use proto::kind::ErrorKind;

/// A refused or failed request. The text is what the client sees, in containerd's words where it has some.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into() }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::NotFound, message)
    }

    pub(crate) fn precondition(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::FailedPrecondition, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// The step that failed, and the system's word for why.
    pub(crate) fn step(step: impl std::fmt::Display, cause: impl std::fmt::Display) -> Error {
        let cause = proto::errno::in_gos_words(&cause.to_string());
        Error::new(ErrorKind::Unknown, format!("{step}: {cause}"))
    }
}

/// A line in the bundle's log. Its reader may be gone or behind, and a word that is lost must not end the shim, as it
/// would with `eprintln!`.
#[macro_export]
macro_rules! complain {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}
