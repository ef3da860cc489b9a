//! The one error of this layer: a kind that a caller may branch on, and a text that ends in the class text as
//! containerd's do.

use proto::kind::ErrorKind;
use std::fmt::Display;

#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    kind: ErrorKind,
    message: String,
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// `text: class text`.
    pub(crate) fn new(kind: ErrorKind, text: impl Display) -> Error {
        Error { kind, message: format!("{text}: {kind}") }
    }

    pub(crate) fn not_found(text: impl Display) -> Error {
        Error::new(ErrorKind::NotFound, text)
    }

    pub(crate) fn already_exists(text: impl Display) -> Error {
        Error::new(ErrorKind::AlreadyExists, text)
    }

    pub(crate) fn invalid(text: impl Display) -> Error {
        Error::new(ErrorKind::InvalidArgument, text)
    }

    pub(crate) fn precondition(text: impl Display) -> Error {
        Error::new(ErrorKind::FailedPrecondition, text)
    }

    pub(crate) fn out_of_range(text: impl Display) -> Error {
        Error::new(ErrorKind::OutOfRange, text)
    }

    pub(crate) fn unavailable(text: impl Display) -> Error {
        Error::new(ErrorKind::Unavailable, text)
    }

    pub(crate) fn unimplemented(text: impl Display) -> Error {
        Error::new(ErrorKind::Unimplemented, text)
    }

    /// The world failed: `step: cause`, of no class a client could act on.
    pub(crate) fn step(step: impl Display, cause: impl Display) -> Error {
        let message = format!("{step}: {}", proto::errno::in_gos_words(&cause.to_string()));
        Error { kind: ErrorKind::Unknown, message }
    }

    /// A status another process answered with; its text is given the class text if it lacks it.
    pub(crate) fn remote(code: i32, message: &str) -> Error {
        let kind = ErrorKind::from_grpc(code, message);
        let class = kind.to_string();
        if message == class || message.ends_with(&format!(": {class}")) {
            Error { kind, message: message.to_owned() }
        } else {
            Error::new(kind, message)
        }
    }

    /// The same failure, seen one step further out.
    pub(crate) fn context(self, step: impl Display) -> Error {
        Error { kind: self.kind, message: format!("{step}: {}", self.message) }
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}

/// Names the step of a failed system call or store access.
pub(crate) trait Context<T> {
    fn step<S: Display>(self, step: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Display> Context<T> for std::result::Result<T, E> {
    fn step<S: Display>(self, step: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|cause| Error::step(step(), cause))
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> tonic::Status {
        tonic::Status::new(tonic::Code::from(error.kind.grpc_code()), error.message)
    }
}

macro_rules! from_store {
    ($($error:ty),*) => {$(
        impl From<$error> for Error {
            fn from(cause: $error) -> Error {
                Error::step("metadata store", cause)
            }
        }
    )*};
}

from_store!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::SetDurabilityError
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_text_ends_in_its_class_text_once() {
        for (code, text, want) in [
            (5, "process does not exist: not found", "process does not exist: not found"),
            (5, "not found", "not found"),
            (5, "container not created", "container not created: not found"),
            (2, "OCI runtime create failed", "OCI runtime create failed: unknown"),
        ] {
            assert_eq!(Error::remote(code, text).to_string(), want);
        }
    }
}
