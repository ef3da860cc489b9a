//! What can go wrong, in the words that callers of a runtime match on.

use std::io;

use proto::kind::ErrorKind;

use crate::interrupt::step_done;
use crate::sys::errno_text;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("container does not exist")]
    NotFound,
    #[error("container with given ID already exists")]
    AlreadyExists,
    #[error("container not running")]
    NotRunning,
    #[error("container not paused")]
    NotPaused,
    /// The request does not fit the container's state; the sentence says which.
    #[error("{0}")]
    WrongState(String),
    /// Refused before anything was changed.
    #[error("{0}")]
    Invalid(String),
    /// The program was there, and could not be executed.
    #[error("{0}")]
    NotExecuted(String),
    #[error("{0} is not supported by rung")]
    Unsupported(String),
    /// A step on the way, and what the kernel said.
    #[error("{step}: {}", errno_text(source))]
    Step { step: String, source: io::Error },
    /// A step on the way, and the error that ended it.
    #[error("{step}: {source}")]
    During { step: String, source: Box<Error> },
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Error::Invalid(text.into())
    }

    pub(crate) fn during(self, step: impl Into<String>) -> Self {
        Error::During { step: step.into(), source: Box::new(self) }
    }

    /// The kernel did not let us, for want of rights.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Error::Step { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
            }
            Error::During { source, .. } => source.is_refusal(),
            _ => false,
        }
    }

    /// The class that the layers above tell apart.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Error::NotFound => ErrorKind::NotFound,
            Error::AlreadyExists => ErrorKind::AlreadyExists,
            Error::NotRunning | Error::NotPaused | Error::WrongState(_) => ErrorKind::FailedPrecondition,
            Error::Invalid(_) | Error::NotExecuted(_) => ErrorKind::InvalidArgument,
            Error::Unsupported(_) => ErrorKind::Unimplemented,
            Error::Step { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::Internal,
            },
            Error::During { source, .. } => source.kind(),
        }
    }
}

/// Names the step that an IO result belongs to.
pub(crate) trait Step<T> {
    fn step(self, name: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, name: impl FnOnce() -> String) -> Result<T> {
        step_done();
        self.map_err(|source| Error::Step { step: name(), source })
    }
}

impl<T> Step<T> for rustix::io::Result<T> {
    fn step(self, name: impl FnOnce() -> String) -> Result<T> {
        step_done();
        self.map_err(|source| Error::Step { step: name(), source: source.into() })
    }
}

impl<T> Step<T> for Result<T> {
    fn step(self, name: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.during(name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_speaks_in_the_words_callers_match() {
        let error =
            io::Result::<()>::Err(io::Error::from_raw_os_error(libc::ENOENT)).step(|| "exec /x".into());
        let error = error.step(|| "unable to start container process".into()).expect_err("it is one");
        assert_eq!(
            error.to_string(),
            "unable to start container process: exec /x: no such file or directory"
        );
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
