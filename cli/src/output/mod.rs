//! What is printed: tables by template, units, progress.

pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod units;
