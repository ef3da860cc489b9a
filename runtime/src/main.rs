//! The executable `rung`: words in, exit code out.

#![no_main]

runtime::entry!(runtime::run);
