//! What kind of failure crosses a process boundary, and its three code tables. The errors themselves are each
//! crate's own.

use std::fmt;

/// A failure's class, the part of an error that a caller may branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    Unknown,
    InvalidArgument,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Conflict,
    NotModified,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
    DeadlineExceeded,
    Cancelled,
}

use ErrorKind::*;

/// kind, gRPC and ttrpc code, HTTP status, containerd's class text.
const TABLE: [(ErrorKind, i32, u16, &str); 18] = [
    (Unknown, 2, 500, "unknown"),
    (InvalidArgument, 3, 400, "invalid argument"),
    (NotFound, 5, 404, "not found"),
    (AlreadyExists, 6, 409, "already exists"),
    (PermissionDenied, 7, 403, "permission denied"),
    (ResourceExhausted, 8, 500, "resource exhausted"),
    (FailedPrecondition, 9, 400, "failed precondition"),
    (Conflict, 9, 409, "conflict"),
    (NotModified, 9, 304, "not modified"),
    (Aborted, 10, 500, "aborted"),
    (OutOfRange, 11, 400, "out of range"),
    (Unimplemented, 12, 501, "not implemented"),
    (Internal, 13, 500, "internal"),
    (Unavailable, 14, 503, "unavailable"),
    (DataLoss, 15, 500, "data loss"),
    (Unauthenticated, 16, 401, "unauthenticated"),
    (DeadlineExceeded, 4, 500, "context deadline exceeded"),
    (Cancelled, 1, 500, "context canceled"),
];

impl ErrorKind {
    fn row(self) -> &'static (ErrorKind, i32, u16, &'static str) {
        TABLE.iter().find(|row| row.0 == self).expect("the table has every kind, see the test")
    }

    /// The code of a gRPC or ttrpc status.
    pub fn grpc_code(self) -> i32 {
        self.row().1
    }

    /// The HTTP status of the Engine API.
    pub fn http_status(self) -> u16 {
        self.row().2
    }

    /// The kind of a gRPC or ttrpc status. Code 9 carries three kinds, told apart by how the message ends.
    pub fn from_grpc(code: i32, message: &str) -> ErrorKind {
        if code == FailedPrecondition.grpc_code() {
            for kind in [Conflict, NotModified] {
                let text = kind.row().3;
                if message == text || message.ends_with(&format!(": {text}")) {
                    return kind;
                }
            }
        }
        TABLE.iter().find(|row| row.1 == code).map_or(Unknown, |row| row.0)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for (kind, code, _, text) in TABLE {
            assert_eq!(ErrorKind::from_grpc(code, &format!("task web1: {text}")), kind);
            assert_eq!(kind.to_string(), text);
        }
    }

    #[test]
    fn an_unheard_of_code_is_unknown() {
        assert_eq!(ErrorKind::from_grpc(99, ""), Unknown);
        assert_eq!(ErrorKind::from_grpc(9, "cgroup is gone"), FailedPrecondition);
    }
}
