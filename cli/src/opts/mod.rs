//! The grammar of one flag's value each: pure, with its table of what is accepted and what is refused.

pub(crate) mod device;
pub(crate) mod duration;
pub(crate) mod env;
pub(crate) mod filter;
pub(crate) mod mount;
pub(crate) mod port;
pub(crate) mod restart;
pub(crate) mod size;
pub(crate) mod ulimit;
