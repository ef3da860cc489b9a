//! Entries of docker's local log, which the shim writes and the engine reads.

/// Longest message of a local log, in bytes: a piece of a line, and what stands around it.
pub const MAX_LOCAL_ENTRY: usize = (16 << 10) + 1024;

/// One entry of a local log: this message between two lengths, four bytes each, big-endian.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LocalEntry {
    /// `stdout` or `stderr`.
    #[prost(string, tag = "1")]
    pub source: String,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "2")]
    pub time: i64,
    /// Without the newline.
    #[prost(bytes = "vec", tag = "3")]
    pub line: Vec<u8>,
    #[prost(bool, tag = "4")]
    pub partial: bool,
    #[prost(message, optional, tag = "5")]
    pub part: Option<LocalPart>,
}

/// Which piece of a line this is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LocalPart {
    /// A newline follows.
    #[prost(bool, tag = "1")]
    pub last: bool,
    /// The same for all pieces of a line.
    #[prost(string, tag = "2")]
    pub id: String,
    /// From 1 on.
    #[prost(int32, tag = "3")]
    pub ordinal: i32,
}
