//! The container's log, written here so that no daemon is on the data path.

pub(crate) mod json_file;
mod lines;
mod timestamp;

pub(crate) use json_file::JsonFile;
pub(crate) use lines::Lines;
