//! ttrpc without IO: [`frame`] turns bytes into frames and back, [`call`] turns frames into requests and answers.

pub mod call;
pub mod frame;

pub use crate::generated::google::rpc::Status;
pub use crate::generated::ttrpc::{KeyValue, Request, Response};
