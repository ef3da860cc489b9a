//! gantryd from outside, by the real docker command: from the flag to the kernel and back.

mod daemon;
mod exec;
mod images;
mod lifecycle;
mod logs;
mod network;
mod streams;

use integration::engine::{Engine, IMAGE};
