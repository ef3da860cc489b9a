#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runtime::fuzz::sync(bytes));
